//! A job's `debug`: how its CLI was called and what it printed. Pure.

use std::path::Path;

use serde_json::{Value, json};

use super::payload::Asked;
use super::result::exit_code;
use crate::observe::Redactor;
use crate::process::Ended;
use crate::providers::{ErrorSummary, Format, Plan, PlanRun, output_path};

/// Characters kept of a text.
const TEXT_LIMIT: usize = 200_000;

/// What is known before the run; the rest is null.
pub(super) fn before(redactor: &Redactor, asked: &Asked, plan: &Plan, work_dir: &Path) -> Value {
    let line = command_line(redactor, plan);
    let schema_chars = match &asked.request.format {
        Format::Text => 0,
        Format::Json { schema } => json!(schema).to_string().chars().count(),
    };
    json!({
        "provider_id": asked.provider.as_str(),
        "command": line,
        "args": redactor.arguments(&plan.args),
        "command_line": line,
        "work_dir": work_dir.display().to_string(),
        "prompt_chars": asked.request.prompt.chars().count(),
        "json_schema_chars": schema_chars,
        "timeout_ms": millis(plan.time_limit),
        "output_mode": plan.output.as_str(),
        "output_path": output_path(work_dir, plan).map(|path| path.display().to_string()),
        "files": plan.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(),
        "stdout": null, "stdout_truncated": null, "stdout_bytes": null,
        "stderr": null, "stderr_truncated": null, "stderr_bytes": null,
        "exit_code": null, "duration_ms": null, "timed_out": null, "error_summary": null,
    })
}

/// The same with what the run left.
pub(super) fn after(
    redactor: &Redactor,
    mut debug: Value,
    ran: &PlanRun,
    summary: Option<&ErrorSummary>,
) -> Value {
    let (stdout, stdout_cut) = shown(redactor, &ran.left.stdout);
    let (stderr, stderr_cut) = shown(redactor, &ran.left.stderr);
    for (name, value) in [
        ("stdout", json!(stdout)),
        ("stdout_truncated", json!(stdout_cut || ran.left.stdout_truncated)),
        ("stdout_bytes", json!(ran.stdout_bytes)),
        ("stderr", json!(stderr)),
        ("stderr_truncated", json!(stderr_cut || ran.stderr_truncated)),
        ("stderr_bytes", json!(ran.stderr_bytes)),
        ("exit_code", json!(exit_code(&ran.left))),
        ("duration_ms", json!(millis(ran.duration))),
        ("timed_out", json!(ran.left.ended == Ended::TimeLimit)),
        ("error_summary", redactor.value(&json!(summary))),
    ] {
        debug[name] = value;
    }
    debug
}

/// As people may see it: no prompt, no system text, no schema.
pub(super) fn command_line(redactor: &Redactor, plan: &Plan) -> String {
    redactor.command_line(&plan.program.display().to_string(), &plan.args)
}

/// Redacted first: a secret that is cut in half is not found.
fn shown(redactor: &Redactor, text: &str) -> (String, bool) {
    let mut text = redactor.text(text);
    match text.char_indices().nth(TEXT_LIMIT) {
        Some((end, _)) => {
            text.truncate(end);
            (text, true)
        }
        None => (text, false),
    }
}

/// Milliseconds, for JSON.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
