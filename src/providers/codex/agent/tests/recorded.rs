//! Every recorded run, read as a subagent's, against what a careful reader said of it.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;

use super::super::super::tests::recorded::{recorded, rows};
use super::*;
use crate::providers::Left;
use crate::providers::agent::testing::{is_as_written, pieces, read};
use crate::providers::agent::{AgentEvent, AgentOutcome, ContentType, EventKind};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers/codex")
}

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
            let kind = event.payload.get("kind").and_then(Value::as_str).unwrap_or("message");
            assert_eq!(field("role"), "assistant");
            format!("{kind} {} {}", field("message_id"), field("content"))
        }
        EventKind::System => format!("system {}", field("message")),
        EventKind::ToolCall => {
            assert!(event.payload["message_id"].is_null());
            let (id, name) = (field("tool_use_id"), field("tool_name"));
            format!("call {id} {name} {}", field("tool_input"))
        }
        EventKind::ToolResult => {
            assert!(event.payload["message_id"].is_null());
            let (id, name) = (field("tool_use_id"), field("tool_name"));
            let end = if event.payload["is_error"] == true { "error" } else { "ok" };
            format!("result {id} {name} {end} {}", field("content"))
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
    let left = recorded(&dir().join(case));
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
    assert_eq!(table.len(), 38);
    let failures: Vec<String> = table.iter().filter_map(wrong).collect();
    assert!(failures.is_empty(), "{} rows are wrong:\n{}", failures.len(), failures.join("\n"));
}

/// Whose answers hold JSON.
const JSON: [&str; 6] = [
    "structured",
    "structured-invalid-answer",
    "structured-json",
    "structured-model",
    "structured-new-keys",
    "structured-unknown-model",
];
/// No answer in the form that was asked for, but one.
const PROSE: (&str, &str) = ("structured-not-json-answer", "not json at all");

#[test]
fn every_recorded_run_comes_to_what_a_model_s_run_comes_to() {
    let table = std::fs::read_to_string(dir().join("expected.tsv")).unwrap();
    let rows = rows(&table);
    assert_eq!(rows.len(), 109);
    let told: Vec<String> = self::table().into_iter().map(|[case, ..]| case).collect();
    for row in rows.iter().filter(|row| row.outcome != "not_a_run") {
        let case = row.case;
        let events_are_printed = row.mode.starts_with("events");
        let left = recorded(&dir().join(case));
        let format = AgentFormat::Unset;
        let request = AgentRequest { format, ..request("prompt") };
        let help: &[&str] = if events_are_printed { &[] } else { &["--json"] };
        let plan = Codex.agent_plan(&request, &installed(help)).unwrap();
        let mut reader = Codex.agent_reader(&request, &plan);
        let events = read(reader.as_mut(), &[left.stdout.as_bytes()]);
        let stdout = if events_are_printed { String::new() } else { left.stdout.clone() };
        let outcome = reader.outcome(&Left { stdout, ..left });

        let text = match &outcome.result {
            Ok(envelope) if case == PROSE.0 => {
                assert_eq!(envelope.content_type, ContentType::Markdown);
                assert_eq!(envelope.content, PROSE.1);
                envelope.content.as_str().unwrap_or_default().to_owned()
            }
            Ok(envelope) => {
                assert_eq!(row.outcome, "answer", "{case}");
                let is_json = envelope.content_type == ContentType::Json;
                assert_eq!(is_json, JSON.contains(&case), "{case}");
                if is_json {
                    assert_eq!(envelope.content.to_string(), row.expected, "{case}");
                } else {
                    let text = serde_json::json!({ "text": envelope.content }).to_string();
                    assert!(is_as_written(row.expected, &text), "{case}: {text}");
                }
                envelope
                    .content
                    .as_str()
                    .map_or_else(|| envelope.content.to_string(), str::to_owned)
            }
            Err(failure) => {
                assert_eq!(failure.code.as_str(), row.outcome, "{case}");
                assert!(failure.message.contains(row.expected), "{case}: {}", failure.message);
                String::new()
            }
        };
        if !told.iter().any(|told| told == case) {
            let answers = events_are_printed && !text.is_empty();
            let shown: Vec<String> = events.iter().map(shown).collect();
            let message = format!("message item_0 {}", text.replace('\n', "\\n"));
            assert_eq!(shown, if answers { vec![message] } else { Vec::new() }, "{case}");
        }
        let tokens = if case == PROSE.0 { "100+20" } else { row.tokens };
        let usage = tokens.split_once('+').map(|(input, _)| input.parse().unwrap());
        let found = outcome.metadata.get("usage").map(|usage| usage["input_tokens"].as_i64());
        assert_eq!(found.flatten(), usage, "{case}");
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
        garbage in prop::sample::select(vec!["", "\n", "warning: x\n", "{\"type\":\n", "[1]\n", "{}\n"]),
    ) {
        let left = recorded(&dir().join(&row[0]));
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
