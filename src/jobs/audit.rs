//! What the audit log tells of one job: who asked, what was run, under which toggles, how it ended.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use super::handlers::signal_name;
use super::journal::Record;
use crate::backend::Completion;
use crate::model::{Job, JobStatus};
use crate::observe::audit::local_user;
use crate::observe::{Audit, Redactor};
use crate::process::{Ended, Exit};

/// Columns of a job's row that tell who asked for it.
const WHO: [&str; 3] = ["requested_via", "requested_by_user_id", "requested_by_agent_id"];
/// Texts of a payload that name what a job is about.
const ABOUT: [&str; 5] = ["resource_id", "subagent_id", "run_id", "provider", "model"];
/// Characters kept of a text from a row.
const LONGEST_NAME: usize = 200;
/// Bytes kept of a command line.
const LONGEST_COMMAND: usize = 16 * 1024;

/// The two lines of one job. Its handler fills in what it knows as it goes.
#[derive(Debug)]
pub(super) struct JobAudit {
    audit: Audit,
    redactor: Redactor,
    /// Who and what, in every line.
    about: Map<String, Value>,
    found: Mutex<Found>,
}

/// What came to be known.
#[derive(Debug, Default)]
struct Found {
    /// The line of the start is written.
    started: bool,
    /// Command line, work dir, user, toggles.
    run: Map<String, Value>,
    /// How the command ended.
    exit: Map<String, Value>,
}

impl JobAudit {
    /// Of a job as it was claimed. `row` may have columns that a [`Job`] has not.
    pub(super) fn of(audit: &Audit, redactor: &Redactor, job: &Job, row: &Value) -> Self {
        let mut about = identity(job.id.as_str(), &job.job_type);
        let texts = |from: &dyn Fn(&str) -> Option<String>, names: &[&str]| {
            let found = names.iter().filter_map(|name| Some(((*name).to_owned(), from(name)?)));
            found.map(|(name, text)| (name, Value::from(text))).collect::<Vec<_>>()
        };
        about.extend(texts(&|name| name_in(row.get(name)), &WHO));
        about.extend(texts(&|name| name_in(job.payload.get(name)), &ABOUT));
        let mut run = Map::new();
        if let Some(command) = job.payload.get("command").and_then(Value::as_str) {
            // The caller's own text: known even when it is refused.
            run.extend(command_fields(redactor.own_secrets(command)));
        }
        let found = Mutex::new(Found { run, ..Found::default() });
        Self { audit: audit.clone(), redactor: redactor.clone(), about, found }
    }

    /// The command that is to be run, redacted already, and where.
    pub(super) fn command(&self, command: &str, cwd: &str) {
        self.found().run.extend(command_fields(command.to_owned()));
        self.place(cwd);
    }

    /// Where a command is to be run; it runs as the gateway's own user.
    pub(super) fn place(&self, cwd: &str) {
        let mut found = self.found();
        found.run.insert("cwd".to_owned(), Value::from(cwd));
        found.run.insert("user".to_owned(), Value::from(local_user()));
    }

    /// A toggle of machine control as it was found.
    pub(super) fn toggle(&self, name: &str, on: bool) {
        let mut found = self.found();
        let toggles = found.run.entry("toggles").or_insert_with(|| json!({}));
        toggles[name] = Value::from(on);
    }

    /// The checks are passed; called before anything is run. Written once.
    pub(super) async fn starts(&self) {
        let fields = {
            let mut found = self.found();
            if std::mem::replace(&mut found.started, true) {
                return;
            }
            let mut fields = self.about.clone();
            fields.extend(found.run.clone());
            fields
        };
        self.audit.record("job_started", fields).await;
    }

    /// How what was run ended.
    pub(super) fn exit(&self, exit: Exit, ended: Ended) {
        let by = match ended {
            Ended::ByItself => "itself",
            Ended::TimeLimit => "time limit",
            Ended::Cancelled => "cancel",
        };
        let how = match exit {
            Exit::Code(code) => ("exit_code".to_owned(), Value::from(code)),
            Exit::Signal(signal) => ("signal".to_owned(), Value::from(signal_name(signal))),
        };
        self.found().exit = Map::from_iter([how, ("ended_by".to_owned(), Value::from(by))]);
    }

    /// The job is over, or was refused before anything was run. `claimed_at`: wire time.
    pub(super) async fn ends(&self, claimed_at: &str, completion: &Completion) {
        let (event, fields) = {
            let found = self.found();
            let refused = !found.started && completion.status == JobStatus::Failed;
            let mut fields = self.about.clone();
            fields.extend(found.run.clone());
            fields.extend(end(claimed_at, completion, &self.redactor));
            fields.extend(found.exit.clone());
            (if refused { "job_refused" } else { "job_ended" }, fields)
        };
        self.audit.record(event, fields).await;
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a job whose gateway died over it.
pub(super) async fn ended_by_successor(audit: &Audit, redactor: &Redactor, record: &Record) {
    let Some(completion) = &record.completion else { return };
    let mut fields = identity(record.id.as_str(), &record.job_type);
    fields.extend(end(&record.started_at, completion, redactor));
    audit.record("job_ended", fields).await;
}

fn identity(id: &str, job_type: &str) -> Map<String, Value> {
    let name = |text: &str| name_in(Some(&Value::from(text))).map_or(Value::Null, Value::from);
    Map::from_iter([("job_id".to_owned(), name(id)), ("job_type".to_owned(), name(job_type))])
}

fn end(claimed_at: &str, completion: &Completion, redactor: &Redactor) -> Map<String, Value> {
    let mut fields = Map::from_iter([
        ("status".to_owned(), Value::from(completion.status.as_str())),
        ("started_at".to_owned(), Value::from(claimed_at)),
        ("ended_at".to_owned(), Value::from(completion.completed_at.as_str())),
    ]);
    if let Some(reason) = &completion.error {
        let reason = cut(&redactor.text(reason), LONGEST_COMMAND).to_owned();
        fields.insert("reason".to_owned(), Value::from(reason));
    }
    fields
}

/// With its length, when it is cut.
fn command_fields(command: String) -> Vec<(String, Value)> {
    let mut fields = Vec::new();
    if command.len() > LONGEST_COMMAND {
        fields.push(("command_bytes".to_owned(), Value::from(command.len())));
    }
    let mut command = command;
    command.truncate(cut(&command, LONGEST_COMMAND).len());
    fields.push(("command".to_owned(), Value::from(command)));
    fields
}

/// A text that a row holds, bounded; `None` for what is no text.
fn name_in(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str().filter(|text| !text.is_empty())?;
    Some(text.chars().take(LONGEST_NAME).collect())
}

/// At most so many bytes, whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(payload: &Value) -> (Job, Value) {
        let row = json!({
            "id": "j", "team_id": "t", "gateway_id": "g", "job_type": "shell_exec",
            "status": "running", "created_at": "c", "payload": payload,
            "requested_via": "chat", "requested_by_user_id": "u", "requested_by_agent_id": null,
        });
        (Job::decode(&row).unwrap(), row)
    }

    fn completion(status: JobStatus, error: Option<&str>) -> Completion {
        Completion {
            status,
            result: Value::Null,
            error: error.map(str::to_owned),
            completed_at: "2026-01-01T00:00:02.000Z".to_owned(),
        }
    }

    /// What is written of one job, without the times of writing.
    async fn lines(payload: Value, act: impl AsyncFnOnce(&JobAudit)) -> Vec<Value> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let redactor = Redactor::default();
        redactor.add_secret("correct-horse-battery");
        let audit = Audit::new(&path, redactor.clone());
        let (job, row) = job(&payload);
        act(&JobAudit::of(&audit, &redactor, &job, &row)).await;
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &mut lines {
            line.as_object_mut().unwrap().remove("timestamp");
        }
        lines
    }

    #[tokio::test]
    async fn a_command_is_told_before_it_runs_and_when_it_ended() {
        let command = "echo correct-horse-battery password=theirs";
        let lines = lines(json!({"command": command, "resource_id": "r"}), async |audit| {
            audit.toggle("host", true);
            audit.toggle("team", true);
            audit.place("/");
            audit.starts().await;
            audit.starts().await;
            audit.exit(Exit::Code(3), Ended::ByItself);
            let end = completion(JobStatus::Completed, None);
            audit.ends("2026-01-01T00:00:00.000Z", &end).await;
        })
        .await;
        let user = local_user();
        let mut start = json!({
            "event": "job_started", "job_id": "j", "job_type": "shell_exec",
            "requested_via": "chat", "requested_by_user_id": "u", "resource_id": "r",
            "command": "echo [REDACTED] password=theirs",
            "toggles": {"host": true, "team": true}, "cwd": "/", "user": user,
        });
        assert_eq!(lines[0], start);
        start["event"] = json!("job_ended");
        start["status"] = json!("completed");
        start["started_at"] = json!("2026-01-01T00:00:00.000Z");
        start["ended_at"] = json!("2026-01-01T00:00:02.000Z");
        start["exit_code"] = json!(3);
        start["ended_by"] = json!("itself");
        assert_eq!(lines[1], start);
        assert_eq!(lines.len(), 2);
    }

    #[tokio::test]
    async fn a_refusal_has_its_reason_and_the_command_that_was_asked_for() {
        let lines = lines(json!({"command": "rm -rf /"}), async |audit| {
            audit.toggle("host", false);
            let end = completion(JobStatus::Failed, Some("off; token=abcdef123456"));
            audit.ends("2026-01-01T00:00:00.000Z", &end).await;
        })
        .await;
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!((&line["event"], &line["command"]), (&json!("job_refused"), &json!("rm -rf /")));
        assert_eq!(line["reason"], "off; token=[REDACTED]");
        assert_eq!(line["toggles"], json!({"host": false}));
    }

    #[tokio::test]
    async fn what_a_row_holds_is_bounded() {
        let payload = json!({"command": "ä".repeat(1 << 20), "model": "m".repeat(1 << 20)});
        let lines = lines(payload, async |audit| audit.starts().await).await;
        assert_eq!(lines[0]["command"].as_str().unwrap().len(), LONGEST_COMMAND);
        assert_eq!(lines[0]["command_bytes"], 2 << 20);
        assert_eq!(lines[0]["model"].as_str().unwrap().len(), LONGEST_NAME);
    }
}
