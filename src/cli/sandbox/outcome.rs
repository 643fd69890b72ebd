//! What a job came to, as a command of the shell would tell it.

use std::str::FromStr;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::ui::Ui;
use crate::cli::{printable, table};
use crate::model::JobStatus;
use crate::sandbox::AdminClient;

/// The exit status of a command that ran into its time limit, as `timeout` has it.
const TIMED_OUT: u8 = 124;
/// The longest that the server lets a call wait.
pub(super) const LONG_POLL: std::time::Duration = std::time::Duration::from_secs(25);

/// Waits for a job's end; says each change of its status on stderr.
pub(super) async fn follow(
    client: &AdminClient,
    ui: &Ui,
    mut job: Value,
) -> Result<Value, Failure> {
    let mut said = String::new();
    loop {
        let id = text(&job, "id").to_owned();
        let status = text(&job, "status").to_owned();
        if status != said {
            ui.note(&format!("job {id}: {status}"));
        }
        if JobStatus::parse(&status).is_none_or(JobStatus::is_terminal) {
            return Ok(job);
        }
        said = status;
        let before = text(&job, "updated_at").to_owned();
        job = client.job_after(&id, &before, LONG_POLL).await?;
    }
}

/// Shows how a job ended, and ends as its command did: its row in JSON, or what it printed.
pub(super) fn tell(ui: &Ui, job: &Value, json: bool) -> Outcome {
    if !json {
        return replay(ui, job);
    }
    ui.out(&table::json(job))?;
    Ok(exit(job).unwrap_or(Exit::Failed))
}

/// Prints what the job's command printed, where it belongs, and ends as it did.
fn replay(ui: &Ui, job: &Value) -> Outcome {
    let result = &job["result"];
    ui.out_raw(text(result, "stdout"))?;
    ui.err_raw(text(result, "stderr"));
    for remark in remarks(result) {
        ui.warn(&remark);
    }
    exit(job).ok_or_else(|| no_result(job))
}

/// What the output itself does not tell.
fn remarks(result: &Value) -> Vec<String> {
    let set = |flag: &str| result[flag].as_bool() == Some(true);
    let mut remarks = Vec::new();
    for stream in ["stdout", "stderr"] {
        if set(&format!("{stream}_truncated")) {
            remarks.push(format!("{stream} was longer; the rest was not kept"));
        }
    }
    if set("timed_out") {
        // Nothing else shows that it was not the command that chose this exit status. Commands run
        // in a login shell, and a profile that waits for something looks like a command that hangs.
        let what = printable::line(text(result, "message"));
        remarks.push(format!("{what} (the profile of the login shell included), and was stopped"));
    }
    remarks
}

/// That a job did not complete, and why.
pub(super) fn no_result(job: &Value) -> Failure {
    Failure::new(format!("the job {}: {}", verb(job), reason(job))).hint(format!(
        "`panorama-gateway sandbox job {}` shows all of it while the sandbox runs",
        text(job, "id")
    ))
}

/// The exit of the job's command; `None` when the job itself failed.
fn exit(job: &Value) -> Option<Exit> {
    if job["status"] != JobStatus::Completed.as_str() {
        return None;
    }
    let result = &job["result"];
    if result["timed_out"].as_bool() == Some(true) {
        return Some(Exit::OfCommand(TIMED_OUT));
    }
    if let Some(signal) = signal_number(&result["signal"]) {
        return Some(Exit::OfCommand(128u8.saturating_add(signal)));
    }
    match result["exit_code"].as_i64() {
        // The shell sees the last eight bits, too.
        Some(code) => Some(Exit::OfCommand(u8::try_from(code & 0xff).unwrap_or(1))),
        None => Some(Exit::Failed),
    }
}

fn signal_number(signal: &Value) -> Option<u8> {
    if let Some(number) = signal.as_u64() {
        return u8::try_from(number).ok();
    }
    let name = signal.as_str()?;
    let name = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    Signal::from_str(&name).ok().and_then(|signal| u8::try_from(signal as i32).ok())
}

fn verb(job: &Value) -> &'static str {
    if job["status"] == JobStatus::Cancelled.as_str() { "was cancelled" } else { "failed" }
}

/// Why a job failed, one line.
fn reason(job: &Value) -> String {
    let error = text(job, "error");
    let reason = if error.is_empty() { text(&job["result"], "message") } else { error };
    let reason = if reason.is_empty() { "it does not say why" } else { reason };
    printable::line(&reason.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A text field, or nothing.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn completed(result: &Value) -> Value {
        json!({"status": "completed", "result": result})
    }

    #[test]
    fn exits_as_the_command_did() {
        for (result, code) in [
            (json!({"exit_code": 0}), 0),
            (json!({"exit_code": 3}), 3),
            (json!({"exit_code": 259}), 3),
            (json!({"exit_code": null, "timed_out": true, "signal": "SIGKILL"}), 124),
            (json!({"exit_code": null, "signal": "SIGKILL"}), 137),
            (json!({"exit_code": null, "signal": "TERM"}), 143),
            (json!({"exit_code": null, "signal": 2}), 130),
            (json!({"exit_code": null}), 1),
        ] {
            assert_eq!(exit(&completed(&result)).map(Exit::code), Some(code), "{result}");
        }
    }

    #[test]
    fn what_the_output_does_not_tell_is_said() {
        let message = "The command did not end within 30000 ms";
        let result = json!({"stdout_truncated": true, "timed_out": true, "message": message});
        assert_eq!(
            remarks(&result),
            [
                "stdout was longer; the rest was not kept",
                "The command did not end within 30000 ms (the profile of the login shell included), \
                 and was stopped",
            ]
        );
        assert_eq!(remarks(&json!({"timed_out": false, "message": "The command ended"})), [""; 0]);
    }

    #[test]
    fn a_failed_job_has_a_reason_and_no_exit() {
        let job = json!({"status": "failed", "error": null, "result": {"message": "not\nallowed"}});
        assert_eq!(exit(&job), None);
        assert_eq!(reason(&job), "not allowed");
        assert_eq!(reason(&json!({"error": "gone"})), "gone");
        assert_eq!(reason(&json!({})), "it does not say why");
    }
}
