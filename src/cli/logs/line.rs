//! One line of the log: whether it is shown, and how.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::cli::args::Level;
use crate::cli::printable;
use crate::model::time;

/// Which lines are shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filter {
    /// This level or worse.
    pub(super) level: Option<Level>,
    /// Not older.
    pub(super) since: Option<Timestamp>,
}

impl Filter {
    /// What is not one of our lines (the text of a panic) has no level and no time, and is shown.
    pub(super) fn shows(&self, line: &str) -> bool {
        let Some(event) = Event::parse(line) else { return true };
        let by_level =
            self.level.is_none_or(|least| event.level.is_none_or(|level| level >= least));
        by_level && !self.is_too_old(&event)
    }

    /// Lines from here on backward are older still.
    pub(super) fn ends_at(&self, line: &str) -> bool {
        Event::parse(line).is_some_and(|event| self.is_too_old(&event))
    }

    fn is_too_old(&self, event: &Event) -> bool {
        self.since.is_some_and(|since| event.at.is_some_and(|at| at < since))
    }
}

struct Event {
    at: Option<Timestamp>,
    level: Option<Level>,
    fields: Map<String, Value>,
}

impl Event {
    fn parse(line: &str) -> Option<Self> {
        let Value::Object(fields) = serde_json::from_str(line).ok()? else { return None };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        Some(Self {
            at: text("timestamp").and_then(time::parse),
            level: text("level").and_then(level),
            fields,
        })
    }
}

fn level(word: &str) -> Option<Level> {
    match word {
        "TRACE" => Some(Level::Trace),
        "DEBUG" => Some(Level::Debug),
        "INFO" => Some(Level::Info),
        "WARN" => Some(Level::Warn),
        "ERROR" => Some(Level::Error),
        _ => None,
    }
}

/// `2026-01-01T00:00:00.000Z INFO job{id=…}: message key=value`.
pub(super) fn render(line: &str) -> String {
    let Some(mut event) = Event::parse(line) else { return printable::line(line) };
    let mut shown = String::new();
    if let Some(at) = event.at {
        event.fields.shift_remove("timestamp");
        let _infallible = write!(shown, "{} ", time::to_wire(at));
    }
    if let Some(Value::String(level)) = event.fields.shift_remove("level") {
        let _infallible = write!(shown, "{level:>5} ");
    }
    event.fields.shift_remove("target");
    if let Some(Value::Object(span)) = event.fields.shift_remove("span") {
        let name = span.get("name").and_then(Value::as_str).unwrap_or("span");
        let _infallible = write!(shown, "{name}{{");
        let pairs: Vec<_> = span.iter().filter(|(name, _)| *name != "name").map(pair).collect();
        let _infallible = write!(shown, "{}}}: ", pairs.join(" "));
    }
    if let Some(Value::String(message)) = event.fields.shift_remove("message") {
        shown.push_str(&message);
    }
    for field in &event.fields {
        let _infallible = write!(shown, " {}", pair(field));
    }
    // A log may hold what a job or a backend said.
    printable::line(&shown)
}

pub(super) fn pair((name, value): (&String, &Value)) -> String {
    match value.as_str() {
        Some(text) if !text.is_empty() && !text.contains([' ', '"', '=']) => {
            format!("{name}={text}")
        }
        Some(_) | None => format!("{name}={value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-01-01T10:00:00.123456Z","level":"WARN","message":"poll failed","error":"no route","n":2,"target":"x","span":{"id":"j1","name":"job"}}"#;

    #[test]
    fn lines_for_people() {
        assert_eq!(
            render(LINE),
            "2026-01-01T10:00:00.123Z  WARN job{id=j1}: poll failed error=\"no route\" n=2"
        );
        assert_eq!(render("thread 'x' panicked\u{1b}[2J"), "thread 'x' panicked\\u{1b}[2J");
        assert_eq!(render("{\"n\":1}"), " n=1");
    }

    #[test]
    fn filters_by_level_and_age() {
        let shows = |level, since: Option<&str>| {
            Filter { level, since: since.map(|at| at.parse().unwrap()) }.shows(LINE)
        };
        assert!(shows(None, None));
        assert!(shows(Some(Level::Warn), None));
        assert!(!shows(Some(Level::Error), None));
        assert!(shows(None, Some("2026-01-01T09:59:00Z")));
        assert!(!shows(Some(Level::Info), Some("2026-01-01T10:01:00Z")));
    }

    #[test]
    fn what_is_not_ours_is_shown() {
        let filter = Filter {
            level: Some(Level::Error),
            since: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        };
        assert!(filter.shows("thread 'main' panicked"));
        assert!(!filter.ends_at("thread 'main' panicked"));
    }
}
