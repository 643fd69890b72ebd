//! Follows a subagent's run to its end: its events as they come, and its job.
//!
//! The job ends after the run's last event, but for a gateway that fails half-way: it tells of the
//! end afterwards, so that is waited for a little longer.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::args::Common;
use super::outcome::{self, LONG_POLL, text};
use super::serve::StopSignals;
use super::{INTERRUPTED, conversation, submit};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::table;
use crate::model::JobStatus;
use crate::sandbox::{AdminClient, AdminClientError};

/// How much later than its job a run may end.
const GRACE: Duration = Duration::from_secs(5);

/// The ids that a `subagent_run` job is about.
pub(super) fn run_of(job: &Value) -> Option<(&str, &str)> {
    let payload = &job["payload"];
    let is_run = job["job_type"] == "subagent_run";
    is_run.then_some(())?;
    Some((payload["subagent_id"].as_str()?, payload["run_id"].as_str()?))
}

/// Shows the run of a `subagent_run` job as it happens, and exits as it ended: 0 completed, 1
/// failed, 130 cancelled. Ctrl-C ends no more than this.
pub(super) async fn conversation(
    context: &Context,
    client: &AdminClient,
    job: Value,
    run_id: &str,
    common: &Common,
) -> Outcome {
    let mut stop = StopSignals::listen()?;
    let job_words = words(&job, common);
    let mut screen = Screen { context, json: common.json, after: -1, last: None };
    let followed = tokio::select! {
        followed = follow(client, &mut screen, job, run_id) => followed?,
        // Cancel safe.
        () = stop.recv() => {
            context.ui.note(&format!(
                "\nThe run goes on. To call it off:\n  panorama-gateway sandbox cancel {job_words}\n\
                 To see it again:\n  panorama-gateway sandbox job {job_words} --follow"
            ));
            return Ok(Exit::OfCommand(INTERRUPTED));
        }
    };
    screen.ended(&followed)
}

/// A job's id as words of a command, with the sandbox where one was named.
fn words(job: &Value, common: &Common) -> String {
    let id = text(job, "id");
    match &common.data_dir {
        Some(dir) => format!("{id} --data-dir {}", submit::quoted(&dir.display().to_string())),
        None => id.to_owned(),
    }
}

/// What was shown.
struct Screen<'a> {
    context: &'a Context,
    json: bool,
    /// The highest sequence shown.
    after: i64,
    /// The type of the run's last event.
    last: Option<String>,
}

impl Screen<'_> {
    fn show(&mut self, events: &[Value]) -> Result<(), Failure> {
        let ui = &self.context.ui;
        for event in events {
            self.after = event["sequence"].as_i64().unwrap_or(self.after).max(self.after);
            if conversation::is_last(event) {
                self.last = Some(text(event, "event_type").to_owned());
            }
            if self.json {
                ui.out(&table::json_line(event))?;
            } else {
                ui.out_raw(&conversation::render(event, ui.colour_on_stdout()))?;
            }
        }
        Ok(())
    }

    /// How a run whose job has ended ended itself.
    fn ended(&self, job: &Value) -> Outcome {
        let exit = exit(job, self.last.as_deref());
        if exit == Exit::Done || self.last.is_some() {
            return Ok(exit);
        }
        // Nothing has told why yet.
        Err(no_answer(job, exit))
    }
}

/// That a run did not complete, and why.
pub(super) fn no_answer(job: &Value, exit: Exit) -> Failure {
    let completed = job["status"] == JobStatus::Completed.as_str();
    let failure = if completed && exit == Exit::OfCommand(INTERRUPTED) {
        Failure::new("the run was cancelled").hint("`--continue` gives the subagent another prompt")
    } else {
        outcome::no_result(job)
    };
    failure.exit(exit)
}

/// The job at its end.
async fn follow(
    client: &AdminClient,
    screen: &mut Screen<'_>,
    mut job: Value,
    run_id: &str,
) -> Result<Value, Failure> {
    let mut patience = tell_status(screen, None, &job);
    let job_poll = next_job(client, job.clone());
    tokio::pin!(job_poll);
    loop {
        let wait = match patience {
            None => LONG_POLL,
            Some(_) if screen.last.is_some() => Duration::ZERO,
            Some(until) => until.saturating_duration_since(Instant::now()),
        };
        let events = client.run_events(run_id, screen.after, wait);
        tokio::select! {
            // Cancel safe: what an answer that was dropped held is asked for again.
            events = events => {
                let events = events?;
                let nothing = events.is_empty();
                screen.show(&events)?;
                if nothing && patience.is_some() {
                    return Ok(job);
                }
            }
            // Pinned outside: it goes on when the other arm is first.
            next = &mut job_poll, if patience.is_none() => {
                let next = next?;
                patience = tell_status(screen, Some(&job), &next);
                job = next;
                if patience.is_none() {
                    job_poll.set(next_job(client, job.clone()));
                }
            }
        }
    }
}

/// The job once it is otherwise, or after a while.
async fn next_job(client: &AdminClient, job: Value) -> Result<Value, AdminClientError> {
    client.job_after(text(&job, "id"), text(&job, "updated_at"), LONG_POLL).await
}

/// Says what the job has become while nothing else is to be seen; until when to wait for events if
/// it has ended.
fn tell_status(screen: &Screen<'_>, before: Option<&Value>, job: &Value) -> Option<Instant> {
    let status = text(job, "status");
    let ended = JobStatus::parse(status).is_none_or(JobStatus::is_terminal);
    let is_news = before.is_none_or(|before| before["status"] != status);
    if is_news && !ended && screen.after < 0 {
        screen.context.ui.note(&format!("job {}: {status}", text(job, "id")));
    }
    // A job that was called off before it began has no more to tell.
    let called_off = status == JobStatus::Cancelled.as_str() && screen.after < 0;
    ended.then(|| Instant::now() + if called_off { Duration::ZERO } else { GRACE })
}

/// A cancelled run is a completed job.
pub(super) fn exit(job: &Value, last: Option<&str>) -> Exit {
    let status = match (text(job, "status"), last) {
        ("completed", Some("run_failed")) => "failed",
        ("completed", Some("run_cancelled")) => "cancelled",
        ("completed", _) => job["result"]["status"].as_str().unwrap_or("completed"),
        (status, _) => status,
    };
    match status {
        "completed" => Exit::Done,
        "cancelled" => Exit::OfCommand(INTERRUPTED),
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_has_an_exit_of_its_own() {
        for (status, result, last, code) in [
            ("completed", json!({"status": "completed"}), Some("run_completed"), 0),
            ("completed", Value::Null, Some("run_completed"), 0),
            ("completed", json!({"status": "cancelled"}), None, 130),
            ("completed", Value::Null, Some("run_cancelled"), 130),
            ("completed", json!({"status": "failed"}), None, 1),
            ("completed", Value::Null, Some("run_failed"), 1),
            ("failed", json!({"status": "failed"}), Some("run_failed"), 1),
            ("cancelled", Value::Null, None, 130),
        ] {
            let job = json!({"status": status, "result": result});
            assert_eq!(exit(&job, last).code(), code, "{job} {last:?}");
        }
    }

    #[test]
    fn only_a_job_that_names_its_run_is_followed() {
        let job = json!({"job_type": "subagent_run",
                         "payload": {"subagent_id": "s", "run_id": "r"}});
        assert_eq!(run_of(&job), Some(("s", "r")));
        assert_eq!(run_of(&json!({"job_type": "subagent_run", "payload": {}})), None);
        let other = json!({"job_type": "subagent_cancel", "payload": job["payload"]});
        assert_eq!(run_of(&other), None);
    }
}
