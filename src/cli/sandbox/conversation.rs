//! A subagent's conversation as people read it: an event in, lines out.
//!
//! All text in an event is the agent's, or came to it from elsewhere; none of it reaches the
//! terminal but through `printable`.

use std::fmt::Write as _;

use serde_json::Value;

use super::outcome::text;
use crate::cli::{age, printable};
use crate::providers::ProviderId;

/// Lines shown of a tool's result.
const RESULT_LINES: usize = 5;
/// Characters shown of each of them.
const RESULT_COLUMNS: usize = 160;
/// Characters shown of a tool's input.
const INPUT_COLUMNS: usize = 120;
/// Characters shown of why something ended.
const REASON_COLUMNS: usize = 1000;
/// What says most of a tool's input, the first that is there.
const TELLING: [&str; 11] = [
    "command",
    "file_path",
    "notebook_path",
    "path",
    "pattern",
    "url",
    "query",
    "description",
    "prompt",
    "text",
    "name",
];

/// What a line is, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Odd,
    Bad,
}

impl Tone {
    /// How a terminal is told.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Strong => Some("1"),
            Self::Faint => Some("2"),
            Self::Good => Some("32"),
            Self::Odd => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

/// A row of `subagent_run_events` in lines, each with its end; empty when there is nothing to say.
pub(super) fn render(event: &Value, colour: bool) -> String {
    let mut shown = String::new();
    for (tone, line) in lines(event) {
        let _infallible = match tone.code().filter(|_| colour && !line.is_empty()) {
            Some(code) => writeln!(shown, "\x1b[{code}m{line}\x1b[0m"),
            None => writeln!(shown, "{line}"),
        };
    }
    shown
}

/// Whether an event is a run's last.
pub(super) fn is_last(event: &Value) -> bool {
    matches!(text(event, "event_type"), "run_completed" | "run_failed" | "run_cancelled")
}

type Line = (Tone, String);

fn lines(event: &Value) -> Vec<Line> {
    let payload = &event["payload"];
    let kind = text(event, "event_type");
    if payload["truncated"] == true && payload["preview"].is_string() {
        return too_long(kind, payload);
    }
    match kind {
        "message" => message(payload),
        "system" => with_gap(Tone::Faint, "", text(payload, "content")),
        "tool_call" => {
            let (name, input) = (tool_name(payload), input(payload));
            let blank = if input.is_empty() { "" } else { ": " };
            vec![gap(), (Tone::Strong, format!("● {name}{blank}{input}"))]
        }
        "tool_result" => result(payload),
        "run_started" => started(payload),
        "run_progress" => progress(payload),
        "cancellation_requested" => {
            vec![gap(), (Tone::Odd, told("■ to be cancelled", &reason(payload)))]
        }
        "cancellation_acknowledged" => Vec::new(),
        "run_completed" => vec![gap(), (Tone::Good, ended("✓ completed", payload))],
        "run_failed" => vec![gap(), (Tone::Bad, ended("✗ failed", payload))],
        "run_cancelled" => vec![gap(), (Tone::Odd, ended("■ cancelled", payload))],
        _ => {
            let payload = printable::line(&cut(&compact(payload), INPUT_COLUMNS));
            vec![(Tone::Faint, told(&printable::line(&cut(kind, 40)), &payload))]
        }
    }
}

fn gap() -> Line {
    (Tone::Plain, String::new())
}

/// All lines of a text, the first with a mark before it, after an empty one.
fn with_gap(tone: Tone, mark: &str, text: &str) -> Vec<Line> {
    let text = text.trim_end();
    if text.trim_start().is_empty() {
        return Vec::new();
    }
    let blank = " ".repeat(mark.chars().count());
    let line = |(number, line): (usize, &str)| {
        let line = printable::line(printable::without_return(line));
        let before = if number == 0 { mark } else { &blank };
        (tone, format!("{before}{line}").trim_end().to_owned())
    };
    std::iter::once(gap()).chain(text.split('\n').enumerate().map(line)).collect()
}

fn message(payload: &Value) -> Vec<Line> {
    let content = text(payload, "content");
    if payload["kind"] == "reasoning" {
        return with_gap(Tone::Faint, "~ ", content);
    }
    match payload["role"].as_str() {
        Some("assistant") | None => with_gap(Tone::Plain, "", content),
        Some(_) => with_gap(Tone::Faint, "> ", content),
    }
}

fn started(payload: &Value) -> Vec<Line> {
    let adapter = text(payload, "adapter_id");
    let title = ProviderId::parse(adapter)
        .map_or_else(|| printable::line(&cut(adapter, 40)), |id| id.title().to_owned());
    let number = payload["run_sequence"].as_i64();
    let number = number.map_or_else(String::new, |number| format!(" {number}"));
    vec![(Tone::Strong, told(&format!("▶ run{number} started"), &title))]
}

fn progress(payload: &Value) -> Vec<Line> {
    let phase = printable::line(&cut(text(payload, "phase"), 60));
    let (attempt, most) = (payload["attempt"].as_i64(), payload["max_attempts"].as_i64());
    match (phase.as_str(), attempt) {
        // Nobody wants to be told of the only one.
        ("attempt_started", Some(1)) | ("", None) => Vec::new(),
        (_, Some(attempt)) => {
            let of = most.map_or_else(String::new, |most| format!(" of {most}"));
            vec![(Tone::Faint, format!("… attempt {attempt}{of}"))]
        }
        (_, None) => vec![(Tone::Faint, format!("… {phase}"))],
    }
}

fn tool_name(payload: &Value) -> String {
    let name = text(payload, "tool_name");
    if name.is_empty() { "a tool".to_owned() } else { printable::line(&cut(name, 80)) }
}

/// A tool's input in a few words.
fn input(payload: &Value) -> String {
    let input = &payload["tool_input"];
    let told = TELLING.iter().find_map(|name| as_words(&input[*name]));
    let summary = Some(text(payload, "summary").to_owned()).filter(|text| !text.trim().is_empty());
    let told = told.or_else(|| changed_files(input)).or(summary);
    let told = told.or_else(|| as_words(input)).unwrap_or_else(|| compact(input));
    printable::line(&cut(&words(&told), INPUT_COLUMNS))
}

/// A text, or the words of a command.
fn as_words(value: &Value) -> Option<String> {
    let text = match value.as_array() {
        Some(words) => {
            let words: Option<Vec<_>> = words.iter().map(Value::as_str).collect();
            words?.join(" ")
        }
        None => value.as_str()?.to_owned(),
    };
    Some(text).filter(|text| !text.trim().is_empty())
}

/// JSON on one line, unless there is nothing in it.
fn compact(value: &Value) -> String {
    let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    if is_empty { String::new() } else { value.to_string() }
}

/// The files that an edit of several names.
fn changed_files(input: &Value) -> Option<String> {
    let changes = input["changes"].as_array().filter(|changes| !changes.is_empty())?;
    let paths: Option<Vec<_>> = changes.iter().map(|change| change["path"].as_str()).collect();
    Some(paths?.join(", "))
}

fn result(payload: &Value) -> Vec<Line> {
    let is_error = payload["is_error"] == true;
    let content = &payload["content"];
    let content = content.as_str().map_or_else(|| compact(content), str::to_owned);
    let content = content.trim_end().trim_start_matches(['\r', '\n']);
    let content = if content.is_empty() { "(nothing)" } else { content };
    let (tone, mark) = if is_error { (Tone::Bad, "  ✗ ") } else { (Tone::Faint, "  └ ") };
    few_lines(tone, mark, content)
}

/// The first lines of a text, and how many there are more.
fn few_lines(tone: Tone, mark: &str, text: &str) -> Vec<Line> {
    let count = text.split('\n').count();
    // One line more is shown rather than counted.
    let most = if count == RESULT_LINES + 1 { count } else { RESULT_LINES };
    let mut shown: Vec<Line> = text
        .split('\n')
        .take(most)
        .enumerate()
        .map(|(number, line)| {
            let line = printable::line(&cut(printable::without_return(line), RESULT_COLUMNS));
            let before = if number == 0 { mark } else { "    " };
            (tone, format!("{before}{line}").trim_end().to_owned())
        })
        .collect();
    if count > most {
        shown.push((Tone::Faint, format!("    … {} more lines", count - most)));
    }
    shown
}

/// An event of which only the beginning was kept.
fn too_long(kind: &str, payload: &Value) -> Vec<Line> {
    let kind = printable::line(&cut(kind, 40));
    let size = payload["original_bytes"].as_u64().unwrap_or_default();
    let head = format!("({kind} of {size} bytes, of which the beginning was kept)");
    let mut shown = vec![gap(), (Tone::Faint, head)];
    shown.extend(few_lines(Tone::Faint, "  └ ", text(payload, "preview").trim_end()));
    shown
}

fn reason(payload: &Value) -> String {
    printable::line(&cut(&words(text(payload, "reason")), REASON_COLUMNS))
}

fn ended(what: &str, payload: &Value) -> String {
    let after = payload["duration_ms"]
        .as_u64()
        .map_or_else(String::new, |millis| format!(" after {}", age::millis(millis)));
    told(&format!("{what}{after}"), &reason(payload))
}

fn told(what: &str, more: &str) -> String {
    if more.is_empty() { what.to_owned() } else { format!("{what}: {more}") }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most so many characters; what is longer ends in `…`.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn events() -> Vec<Value> {
        let event =
            |(kind, payload): (&str, Value)| json!({"event_type": kind, "payload": payload});
        let many: Vec<_> = (1..=40).map(|n| format!("line {n}")).collect();
        [
            (
                "run_started",
                json!({"adapter_id": "claude_code", "run_sequence": 2, "runner": "gateway"}),
            ),
            ("run_progress", json!({"phase": "attempt_started", "attempt": 1, "max_attempts": 1})),
            ("run_progress", json!({"phase": "attempt_started", "attempt": 2, "max_attempts": 3})),
            (
                "message",
                json!({"role": "assistant", "kind": "reasoning",
                       "content": "I should look first.\nThen act."}),
            ),
            (
                "message",
                json!({"role": "assistant", "content": "I look at the tests.\n\n- one\r\n"}),
            ),
            (
                "tool_call",
                json!({"tool_name": "Bash", "summary": null,
                       "tool_input": {"command": "cargo test\n  --lib", "timeout": 5}}),
            ),
            ("tool_result", json!({"tool_name": "Bash", "content": many.join("\n")})),
            (
                "tool_call",
                json!({"tool_name": "command_execution",
                                 "tool_input": {"command": ["bash", "-lc", "ls"]}}),
            ),
            ("tool_result", json!({"content": "bash: ls: not found", "is_error": true})),
            ("tool_call", json!({"tool_name": null, "summary": "Query: rust", "tool_input": {}})),
            ("tool_result", json!({"content": ""})),
            ("tool_call", json!({"tool_name": "Edit", "tool_input": {"changes": [{"path": "a.rs"}, {"path": "b.rs"}]}})),
            ("tool_result", json!({"content": "1\n2\n3\n4\n5\n6"})),
            ("tool_call", json!({"tool_name": "TodoRead", "tool_input": {}})),
            ("tool_result", json!({"content": format!("x{}", "y".repeat(300))})),
            (
                "message",
                json!({"truncated": true, "original_bytes": 1_234_567,
                               "preview": "{\"role\": \"assistant\", \"content\": \"aaaa"}),
            ),
            ("system", json!({"content": "compacted"})),
            ("message", json!({"role": "assistant", "content": "  \n"})),
            ("cancellation_requested", json!({"reason": "Cancelled", "source": "x"})),
            ("cancellation_acknowledged", json!({})),
            ("run_completed", json!({"duration_ms": 83_000, "retry_count": 0})),
            ("run_failed", json!({"duration_ms": 3100, "reason": "Claude Code exited\nwith 1"})),
            ("run_cancelled", json!({"reason": "Cancelled"})),
            ("something_new", json!({"a": 1})),
        ]
        .into_iter()
        .map(event)
        .collect()
    }

    #[test]
    fn a_conversation() {
        let shown: String = events().iter().map(|event| render(event, false)).collect();
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn a_conversation_in_colour() {
        let shown: String = events().iter().map(|event| render(event, true)).collect();
        insta::assert_snapshot!(shown.replace('\x1b', "␛"));
    }

    #[test]
    fn an_agent_does_not_steer_the_terminal() {
        let evil = "a\u{1b}[2J\u{1b}]0;owned\u{7}\rb\u{9b}31m\u{8}\u{202e}c\u{7f}";
        let mut shown = String::new();
        for (kind, payload) in [
            ("message", json!({"content": format!("{evil}\n{evil}")})),
            ("tool_call", json!({"tool_name": evil, "tool_input": {"command": evil}})),
            ("tool_result", json!({"content": evil})),
            ("run_failed", json!({"reason": evil})),
        ] {
            shown += &render(&json!({"event_type": kind, "payload": payload}), false);
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn the_last_event_is_known() {
        let last = |kind: &str| is_last(&json!({"event_type": kind}));
        assert!(["run_completed", "run_failed", "run_cancelled"].into_iter().all(last));
        assert!(!["run_started", "message", "cancellation_acknowledged", ""].into_iter().any(last));
    }

    /// Texts with what is dangerous in them, in places where an event may have any.
    fn any_payload() -> impl Strategy<Value = Value> {
        let text = || prop_oneof!["[\\x00-\\x1f\\x7f-\\x9f\u{202a}-\u{202e}a-c]{0,30}", ".{0,30}"];
        (text(), text(), text(), any::<bool>()).prop_map(|(one, two, three, flag)| {
            json!({
                "content": one, "reason": two, "tool_name": three, "adapter_id": one,
                "summary": two, "tool_input": {two.as_str(): three, "command": one},
                "phase": three, "role": two, "is_error": flag, "preview": one, "truncated": flag,
            })
        })
    }

    proptest! {
        #[test]
        fn no_event_steers_the_terminal(
            payload in any_payload(),
            kind in prop::sample::select(vec![
                "message", "system", "tool_call", "tool_result", "run_started", "run_progress",
                "cancellation_requested", "run_completed", "run_failed", "run_cancelled",
                "x\u{1b}[2J",
            ]),
        ) {
            let shown = render(&json!({"event_type": kind, "payload": payload}), false);
            for line in shown.lines() {
                prop_assert_eq!(printable::line(line), line);
            }
        }
    }
}
