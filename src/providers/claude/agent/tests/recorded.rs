//! Every recorded run tells what was written down of it, and comes to what was written down.

use proptest::prelude::*;
use serde_json::Value;

use super::{request, run};
use crate::process::Ended;
use crate::providers::agent::{AgentEvent, AgentRequest, EventKind};
use crate::providers::claude::tests::recorded::{Case, cases, rows};
use crate::providers::{ErrorCode, Left};

fn read(case: &Case, live: bool) -> (Vec<AgentEvent>, super::AgentOutcome) {
    let request = AgentRequest { live, ..request(&case.wants) };
    run(&request, &case.mode, &[case.left.stdout.as_bytes()], &case.left)
}

fn streamed() -> Vec<Case> {
    cases().into_iter().filter(|case| case.mode == "stream-json").collect()
}

/// In the words of the table.
fn shown(event: &AgentEvent) -> String {
    let text = |name: &str| event.payload[name].as_str().unwrap_or("?");
    let words = match event.kind {
        EventKind::Message => format!("say {}", text("content")),
        EventKind::System => "system".to_owned(),
        EventKind::ToolCall => {
            format!("call {} {}", text("tool_name"), event.payload["tool_input"])
        }
        EventKind::ToolResult => {
            let word = if event.payload["is_error"] == true { "fail" } else { "gave" };
            format!("{word} {} {}", text("tool_name"), text("content"))
        }
    };
    words.replace('\n', "\\n").replace('|', "∣")
}

fn is(found: &str, expected: &str) -> bool {
    match expected.strip_suffix('…') {
        Some(start) => found.starts_with(start),
        None => found == expected,
    }
}

#[test]
fn every_recorded_run_tells_what_was_written_down() {
    let (rows, cases) = (rows("events.tsv"), streamed());
    assert_eq!((rows.len(), cases.len()), (59, 59));
    let mut wrong = Vec::new();
    for (row, case) in rows.into_iter().zip(&cases) {
        let [name, session, denials, expected] = row.try_into().unwrap();
        assert_eq!(name, case.name);
        for live in [true, false] {
            let (events, outcome) = read(case, live);
            let found: Vec<_> = events.iter().map(shown).collect();
            let listed: Vec<_> = expected.split(" | ").filter(|event| !event.is_empty()).collect();
            if found.len() != listed.len() || !found.iter().zip(&listed).all(|(a, b)| is(a, b)) {
                wrong.push(format!("{name} (live {live}): {found:#?}"));
            }
            let of = outcome.metadata.get("session_id").and_then(Value::as_str).unwrap_or("-");
            let denied = outcome.metadata.get("permission_denials").and_then(Value::as_array);
            let denied = denied.map_or("-".to_owned(), |denied| denied.len().to_string());
            if !of.starts_with(&session) || denied != denials {
                wrong.push(format!("{name}: session {of}, {denied} denials"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Where a subagent's run comes to something else than a model's.
fn expected(case: &Case) -> (&str, Value) {
    let holds: Value = serde_json::from_str(&case.holds).unwrap();
    match (case.name.as_str(), case.outcome.as_str(), case.mode.as_str()) {
        // The model's words are an answer, though not the one that was asked for.
        ("structured-text-only-not-json" | "structured-array-schema", _, _) => ("markdown", holds),
        // The caller chose the value of the flag.
        ("bad-choice", _, _) => ("invalid_request", holds),
        // Text is text.
        ("structured-text-format", _, _) => ("text", format!("{holds}").into()),
        (_, "answer", "text") => ("text", holds),
        (_, "answer", _) if case.wants == "object" => ("json", holds),
        (_, "answer", _) => ("markdown", holds),
        (_, code, _) => (code, holds),
    }
}

#[test]
fn every_recorded_run_comes_to_what_was_written_down() {
    let cases = cases();
    assert_eq!(cases.len(), 144);
    let mut wrong = Vec::new();
    for case in &cases {
        let (kind, holds) = expected(case);
        let (_, outcome) = read(case, true);
        let right = match &outcome.result {
            Ok(envelope) => {
                let text = (envelope.content.as_str(), holds.as_str());
                let same = match text {
                    (Some(found), Some(expected)) => is(found, expected),
                    _ => envelope.content == holds,
                };
                same && envelope.content_type.as_str() == kind
            }
            Err(failure) => {
                failure.code.as_str() == kind && failure.message.contains(holds.as_str().unwrap())
            }
        };
        if !right {
            wrong.push(format!("{}: expected {kind} {holds}, found {outcome:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn output_that_is_not_what_was_asked_for_is_said() {
    let told = cases().into_iter().filter(|case| read(case, true).1.parse_error.is_some());
    let told: Vec<_> = told.map(|case| case.name).collect();
    let expected = ["structured-array-schema", "structured-text-only-not-json"];
    assert_eq!(told, expected);
}

#[test]
fn a_recorded_run_comes_with_its_cost_and_usage_even_when_it_failed() {
    for case in cases().iter().filter(|case| case.left.stdout.contains("\"type\":\"result\"")) {
        let (_, outcome) = read(case, true);
        let metadata = &outcome.metadata;
        assert!(metadata["total_cost_usd"].is_number(), "{}", case.name);
        assert!(metadata["usage"]["output_tokens"].is_u64(), "{}", case.name);
        assert!(metadata["model_usage"].is_object(), "{}", case.name);
        assert!(metadata["permission_denials"].is_array(), "{}", case.name);
    }
}

#[test]
fn being_stopped_is_the_verdict_whatever_was_printed() {
    for case in cases() {
        for (ended, code, message) in [
            (Ended::TimeLimit, ErrorCode::ProviderTimeout, "no answer within 110 s"),
            (Ended::Cancelled, ErrorCode::ProviderFailed, "cancelled"),
        ] {
            let mut stopped = case.clone();
            stopped.left.ended = ended;
            let (_, outcome) = read(&stopped, true);
            let failure = outcome.result.unwrap_err();
            assert_eq!((failure.code, failure.message.as_str()), (code, message), "{}", case.name);
            assert_eq!(outcome.metadata, read(&case, true).1.metadata, "{}", case.name);
        }
    }
}

/// Without its last line a run still has a session, by which it is continued.
#[test]
fn a_cut_stream_keeps_its_session_and_gives_no_answer() {
    for case in streamed().iter().filter(|case| case.outcome == "answer") {
        let (name, whole) = (&case.name, &case.left.stdout);
        let at = whole.find("{\"type\":\"result\"").unwrap() + 40;
        let left = Left { exit: crate::process::Exit::Code(0), ..case.left.clone() };
        let (events, outcome) =
            run(&request(&case.wants), "stream-json", &[&whole.as_bytes()[..at]], &left);
        let failure = outcome.result.unwrap_err();
        assert_eq!(failure.code, ErrorCode::ProviderOutputInvalid, "{name}");
        assert_eq!(failure.message, "the output holds no answer", "{name}");
        assert_eq!(outcome.parse_error.as_deref(), Some("the output holds no answer"), "{name}");
        assert_eq!(outcome.metadata.keys().collect::<Vec<_>>(), ["session_id"], "{name}");
        assert!(!events.is_empty(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_split_and_no_noise_changes_what_is_told(
        case in proptest::sample::select(streamed()),
        live in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        noise in prop::collection::vec((any::<prop::sample::Index>(), 0..6usize), 0..6),
    ) {
        let noises = ["", "warning: {x}", "{\"type\":\"assistant\"", "[1]", "{\"type\":7}",
            "{\"type\":\"assistant\",\"message\":{\"content\":[{\"type\":\"text\"},null,3]}}"];
        // Between lines that follow each other only: a line of another kind may end a message.
        let mut lines: Vec<_> = case.left.stdout.lines().collect();
        for (at, which) in noise {
            lines.insert(at.index(lines.len() + 1), noises[which]);
        }
        let text = lines.join("\n").into_bytes();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(text.len());
        let (mut from, mut pieces) = (0, Vec::new());
        for cut in cuts {
            pieces.push(&text[from..cut]);
            from = cut;
        }
        let request = AgentRequest { live, ..request(&case.wants) };
        let (events, outcome) = run(&request, "stream-json", &pieces, &case.left);
        let (clean_events, clean) = read(&case, live);
        prop_assert_eq!(events, clean_events);
        if !case.left.stdout.is_empty() {
            prop_assert_eq!(outcome, clean);
        }
    }

    #[test]
    fn any_objects_are_read_and_bounded(
        lines in prop::collection::vec(any_line(), 0..30), live in any::<bool>(),
    ) {
        let text = lines.join("\n");
        let left = crate::providers::claude::tests::left("", "", crate::process::Exit::Code(0));
        let request = AgentRequest { live, ..request("object") };
        let (events, outcome) = run(&request, "stream-json", &[text.as_bytes()], &left);
        for event in events.iter().filter(|event| event.kind == EventKind::Message) {
            prop_assert!(event.payload.values().all(Value::is_string));
        }
        if let Err(failure) = outcome.result {
            prop_assert!(!failure.message.is_empty() && !failure.message.contains('\n'));
        }
    }
}

/// A line whose keys mean something and whose values may be anything.
fn any_line() -> impl Strategy<Value = String> {
    let words = [
        "type",
        "subtype",
        "message",
        "content",
        "id",
        "text",
        "tool_use",
        "tool_result",
        "assistant",
        "user",
        "result",
        "system",
        "init",
        "name",
        "input",
        "is_error",
        "session_id",
        "summary",
        "sources",
        "structured_output",
        "query",
    ];
    let word = proptest::sample::select(words.to_vec());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u8>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..5).prop_map(|pairs| {
                Value::Object(
                    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                )
            }),
        ]
    });
    value.prop_map(|value| value.to_string())
}
