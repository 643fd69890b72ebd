//! One line of the audit log, for people.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::line::pair;
use crate::cli::printable;
use crate::model::time;

/// `2026-01-01T00:00:00.000Z job started: shell_exec j1, by user u1 via chat; ran …`.
pub(super) fn render(line: &str) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else {
        return printable::line(line);
    };
    let mut shown = String::new();
    if let Some(at) = text(&fields, "timestamp").and_then(time::parse) {
        fields.shift_remove("timestamp");
        let _infallible = write!(shown, "{} ", time::to_wire(at));
    }
    if let Some(Value::String(event)) = fields.shift_remove("event") {
        let _infallible = write!(shown, "{:<20}", event.replace('_', " "));
        if event.starts_with("job_") {
            shown.push_str(&job(&mut fields));
        }
    }
    for field in &fields {
        let _infallible = write!(shown, " {}", pair(field));
    }
    // Commands and reasons are what others wrote.
    printable::line(&shown)
}

/// What is known of a job's line, in words; the fields that it used are gone then.
fn job(fields: &mut Map<String, Value>) -> String {
    let mut take = |name: &str| match fields.shift_remove(name) {
        Some(Value::String(text)) => Some(text),
        Some(other) => {
            fields.insert(name.to_owned(), other);
            None
        }
        None => None,
    };
    let mut shown = format!(
        " {} {}",
        take("job_type").filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned()),
        take("job_id").unwrap_or_default()
    );
    let who = [
        ("by user", take("requested_by_user_id")),
        ("by agent", take("requested_by_agent_id")),
        ("via", take("requested_via")),
    ];
    for (what, who) in who {
        if let Some(who) = who {
            let _infallible = write!(shown, ", {what} {who}");
        }
    }
    let (started, ended) = (take("started_at"), take("ended_at"));
    if let Some(status) = take("status") {
        let _infallible = write!(shown, ": {status}");
        if let Some(seconds) = seconds(started.as_deref(), ended.as_deref()) {
            let _infallible = write!(shown, " after {seconds:.1} s");
        }
    }
    if let Some(reason) = take("reason") {
        let _infallible = write!(shown, ": {reason}");
    }
    if let Some(command) = take("command") {
        let _infallible = write!(shown, ": {}", Value::from(command));
    }
    if let (Some(cwd), Some(user)) = (take("cwd"), take("user")) {
        let _infallible = write!(shown, " in {cwd} as {user}");
    }
    if let Some(Value::Object(toggles)) = fields.shift_remove("toggles") {
        let word = |on: &Value| if on == &Value::Bool(true) { "on" } else { "off" };
        let all: Vec<_> = toggles.iter().map(|(name, on)| format!("{name} {}", word(on))).collect();
        let _infallible = write!(shown, " ({})", all.join(", "));
    }
    shown
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

fn seconds(started: Option<&str>, ended: Option<&str>) -> Option<f64> {
    let at = |text: Option<&str>| -> Option<Timestamp> { time::parse(text?) };
    Some(at(ended)?.duration_since(at(started)?).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_reads_by_itself_and_steers_no_terminal() {
        let lines = [
            r#"{"timestamp":"2026-01-01T10:00:00.000Z","event":"gateway_upgraded","from":"0.1.0","to":"0.2.0"}"#,
            r#"{"timestamp":"2026-01-01T10:00:00.000Z","event":"gateway_started","version":"0.2.0","pid":7,"user":"root","gateway_id":"g","full_control":true}"#,
            r#"{"timestamp":"2026-01-01T10:00:01.000Z","event":"paired","gateway_id":"g","team_id":"t","device_name":"my box","by":"root"}"#,
            r#"{"timestamp":"2026-01-01T10:00:02.000Z","event":"job_started","job_id":"j1","job_type":"shell_exec","requested_via":"chat","requested_by_user_id":"u1","resource_id":"r","command":"echo a\necho \u001b[2J","cwd":"/","user":"root","toggles":{"host":true,"team":true,"resource":true}}"#,
            r#"{"timestamp":"2026-01-01T10:00:03.000Z","event":"job_ended","job_id":"j1","job_type":"shell_exec","requested_by_agent_id":"a1","command":"exit 3","cwd":"/","user":"root","toggles":{"host":true},"status":"completed","started_at":"2026-01-01T10:00:01.500Z","ended_at":"2026-01-01T10:00:03.000Z","exit_code":3,"ended_by":"itself"}"#,
            r#"{"timestamp":"2026-01-01T10:00:04.000Z","event":"job_refused","job_id":"j2","job_type":"shell_exec","command":"id","toggles":{"host":false,"team":true},"status":"failed","started_at":"2026-01-01T10:00:03.000Z","ended_at":"2026-01-01T10:00:04.000Z","reason":"Machine control is off"}"#,
            r#"{"timestamp":"2026-01-01T10:00:05.000Z","event":"lines_lost","lines":3,"reason":"the disk was full"}"#,
            "torn {",
        ];
        let shown: Vec<_> = lines.iter().map(|line| render(line)).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn odd_fields_are_shown_as_they_are() {
        let line = r#"{"event":"job_ended","job_id":7,"job_type":"","status":true,"toggles":1}"#;
        assert_eq!(render(line), "job ended            unknown  job_id=7 status=true");
        assert_eq!(render("[1]"), "[1]");
        let line = r#"{"event":"job_ended","job_id":"j","job_type":"x","requested_via":"sandbox"}"#;
        assert_eq!(render(line), "job ended            x j, via sandbox");
    }
}
