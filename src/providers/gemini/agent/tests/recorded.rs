//! Every recorded run, read as a subagent's, against what a careful reader said of it.

use proptest::prelude::*;
use serde_json::Value;

use super::super::super::tests::recorded::{dir, left, rows};
use super::*;
use crate::providers::Left;
use crate::providers::agent::testing::{is_as_written, pieces, read};
use crate::providers::agent::{AgentEvent, AgentOutcome, ContentType, EventKind};

fn table() -> Vec<[String; 3]> {
    let table = std::fs::read_to_string(dir().join("agent.tsv")).unwrap();
    let cells = |line: &str| -> Vec<String> { line.split('\t').map(str::to_owned).collect() };
    table.lines().skip(1).map(|line| cells(line).try_into().unwrap()).collect()
}

/// An event in the table's words.
fn shown(event: &AgentEvent) -> String {
    let field = |key: &str| match event.payload.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.replace('\n', "\\n"),
        Some(other) => other.to_string(),
    };
    match event.kind {
        EventKind::Message => {
            assert_eq!((field("role").as_str(), event.payload.len()), ("assistant", 2));
            format!("message {}", field("content"))
        }
        EventKind::System => format!("system {}", field("message")),
        EventKind::ToolCall => {
            assert!(event.payload["message_id"].is_null());
            assert!(field("tool_use_id").starts_with(&field("tool_name")));
            format!("call {} {}", field("tool_name"), field("tool_input"))
        }
        EventKind::ToolResult => {
            assert!(event.payload["message_id"].is_null());
            assert!(field("tool_use_id").starts_with(&field("tool_name")));
            let end = if event.payload["is_error"] == true { "error" } else { "ok" };
            format!("result {} {end} {}", field("tool_name"), field("content"))
        }
    }
}

fn word(outcome: &AgentOutcome) -> &'static str {
    outcome
        .result
        .as_ref()
        .map_or_else(|failure| failure.code.as_str(), |envelope| envelope.content_type.as_str())
}

/// The events of a recording, and what it came to, read without its stdout being kept.
fn run(case: &str) -> (Vec<AgentEvent>, AgentOutcome) {
    let left = left(case).unwrap();
    let mut reader = reader(AgentFormat::Unset);
    let events = read(reader.as_mut(), &[left.stdout.as_bytes()]);
    let outcome = reader.outcome(&Left { stdout: String::new(), ..left });
    (events, outcome)
}

fn wrong([case, events, outcome]: &[String; 3]) -> Option<String> {
    let (told, came_to) = run(case);
    let told: Vec<String> = told.iter().map(shown).collect();
    let expected: Vec<&str> =
        if events == "-" { Vec::new() } else { events.split(" · ").collect() };
    let same = expected.len() == told.len()
        && expected.iter().zip(&told).all(|(written, text)| is_as_written(written, text));
    (!same || word(&came_to) != outcome).then(|| {
        format!(
            "{case}\n  expected: {events} ({outcome})\n  found:    {told:?} ({})",
            word(&came_to)
        )
    })
}

#[test]
fn recorded_runs_tell_what_the_table_says() {
    let table = table();
    let streams =
        rows().into_iter().filter(|row| row.run == "stream-json" && row.case != "resume-missing");
    let streams: Vec<String> = streams.map(|row| row.case).collect();
    let named: Vec<String> = table.iter().map(|[case, ..]| case.clone()).collect();
    assert_eq!(named, streams);
    let failures: Vec<String> = table.iter().filter_map(wrong).collect();
    assert!(failures.is_empty(), "{} rows are wrong:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_recorded_run_comes_to_what_a_model_s_run_comes_to() {
    for row in rows().iter().filter(|row| row.outcome != "not_a_run") {
        let (case, left) = (&row.case, left(&row.case).unwrap());
        let format = match row.run.as_str() {
            "text" => AgentFormat::Text,
            "json" => AgentFormat::Json,
            _ => AgentFormat::Stream,
        };
        let mut reader = reader(format);
        let events = read(reader.as_mut(), &[left.stdout.as_bytes()]);
        let streams = format == AgentFormat::Stream;
        assert!(streams || events.is_empty(), "{case}");
        let stdout = if streams { String::new() } else { left.stdout.clone() };
        let told_usage = left.stdout.contains("\"stats\"");
        let outcome = reader.outcome(&Left { stdout, ..left });
        match &outcome.result {
            Ok(envelope) => {
                assert_eq!(row.outcome, "answer", "{case}");
                let expected: Value = serde_json::from_str(&row.expected).unwrap();
                match envelope.content_type {
                    ContentType::Json if expected.is_object() => {
                        assert_eq!(envelope.content, expected, "{case}");
                    }
                    // What the model says of its tools holds what they gave.
                    ContentType::Json => {
                        assert!(expected.as_str().unwrap().starts_with("tool said: {"), "{case}");
                        let keys: Vec<&String> =
                            envelope.content.as_object().unwrap().keys().collect();
                        assert!(keys == ["output"] || keys == ["error"], "{case}: {keys:?}");
                    }
                    kind @ (ContentType::Markdown | ContentType::Text) => {
                        assert_eq!(kind == ContentType::Text, row.run == "text", "{case}");
                        let found = envelope.content.as_str().unwrap();
                        let (start, end) =
                            expected.as_str().unwrap().split_once('…').unwrap_or((found, ""));
                        assert!(found.starts_with(start) && found.ends_with(end), "{case}");
                        assert!(row.expected.contains('…') || found == expected, "{case}");
                    }
                }
            }
            Err(failure) => {
                assert_eq!(failure.code.as_str(), row.outcome, "{case}");
                assert!(failure.message.contains(&row.expected), "{case}: {}", failure.message);
            }
        }
        let usage = outcome.metadata.get("usage");
        assert_eq!(usage.is_some_and(|usage| usage.get("models").is_some()), told_usage, "{case}");
        assert!(outcome.metadata.keys().all(|key| key == "usage"), "{case}");
        assert_eq!(outcome.parse_error, None, "{case}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn neither_pieces_nor_garbage_change_what_is_told(
        row in prop::sample::select(table()),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        garbage in prop::sample::select(vec!["", "\n", "warning: x\n", "{\"type\":\n", "[1]\n"]),
    ) {
        let left = left(&row[0]).unwrap();
        let text: String =
            left.stdout.split_inclusive('\n').flat_map(|line| [garbage, line]).collect();
        let pieces = pieces(text.as_bytes(), &cuts);
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let mut reader = reader(AgentFormat::Stream);
        let events = read(reader.as_mut(), &pieces);
        let (whole, outcome) = run(&row[0]);
        prop_assert_eq!(events, whole);
        prop_assert_eq!(reader.outcome(&Left { stdout: String::new(), ..left }), outcome);
    }
}
