//! Runs that no recording has.

use serde_json::{Value, json};

use super::*;
use crate::process::Ended;
use crate::providers::agent::testing::{left, read};
use crate::providers::agent::{AgentOutcome, ContentType};
use crate::providers::{ErrorCode, Left, OUTPUT_LIMIT};

fn stdout(lines: &[Value]) -> String {
    lines.iter().flat_map(|line| [line.to_string(), "\n".into()]).collect()
}

/// What these lines tell, each as `[kind, payload]`, and what they come to.
fn ran(lines: &[Value]) -> (Vec<Value>, AgentOutcome) {
    let mut reader = reader(AgentFormat::Unset);
    let events = read(reader.as_mut(), &[stdout(lines).as_bytes()]);
    let events = events.into_iter().map(|event| json!([event.kind.as_str(), event.payload]));
    (events.collect(), reader.outcome(&left(0, "", "")))
}

fn wrote(content: &str) -> Value {
    json!({"type": "message", "role": "assistant", "content": content, "delta": true})
}

fn message(content: &str) -> Value {
    json!(["message", {"role": "assistant", "content": content}])
}

fn used(id: &str) -> Value {
    json!({"type": "tool_use", "tool_name": "search", "tool_id": id, "parameters": {"query": "x"}})
}

fn gave(id: &str, output: &str) -> Value {
    json!({"type": "tool_result", "tool_id": id, "status": "success", "output": output})
}

fn success() -> Value {
    json!({"type": "result", "status": "success", "stats": {"total_tokens": 3}})
}

#[test]
fn a_message_ends_where_something_else_begins() {
    let lines = [
        wrote("Let me "),
        wrote("look. "),
        used("1"),
        gave("1", "found"),
        wrote("It is "),
        wrote("{\"a\":1}"),
        success(),
    ];
    let (events, outcome) = ran(&lines);
    assert_eq!(
        events,
        [
            message("Let me look. "),
            json!(["tool_call", {
                "tool_name": "search", "tool_use_id": "1", "tool_input": {"query": "x"},
                "summary": "Query: x", "message_id": null,
            }]),
            json!(["tool_result", {
                "tool_use_id": "1", "tool_name": "search", "content": "found", "is_error": false,
                "message_id": null,
            }]),
            message("It is {\"a\":1}"),
        ]
    );
    let envelope = outcome.result.unwrap();
    assert_eq!((envelope.content, envelope.content_type), (json!({"a": 1}), ContentType::Json));
    assert_eq!(Value::Object(outcome.metadata), json!({"usage": {"total_tokens": 3}}));
}

#[test]
fn the_answer_is_the_text_of_the_last_turn_that_has_any() {
    let answer = |lines: &[Value]| {
        ran(lines).1.result.map(|envelope| envelope.content).map_err(|failure| failure.code)
    };
    let lines = [wrote("First. "), used("1"), wrote("Still. "), gave("1", ""), success()];
    assert_eq!(answer(&lines).unwrap(), "First. Still. ");
    let lines =
        [wrote("First. "), gave("1", ""), gave("2", ""), wrote("La"), wrote("st."), success()];
    assert_eq!(answer(&lines).unwrap(), "Last.");
    for lines in [vec![success()], vec![wrote("x")], vec![wrote(" "), success()]] {
        assert_eq!(answer(&lines), Err(ErrorCode::ProviderOutputInvalid), "{lines:?}");
    }
}

#[test]
fn results_are_told_with_what_is_known() {
    let error = |output: &Value| {
        json!({
            "type": "tool_result", "tool_id": "9", "status": "error", "output": output,
            "error": {"type": "x", "message": "why"},
        })
    };
    for (line, content) in [
        (error(&json!("out")), json!("out")),
        (error(&json!("")), json!("why")),
        (error(&json!(null)), json!("why")),
        (error(&json!({"a": 1})), json!("{\n  \"a\": 1\n}")),
    ] {
        let expected = json!(["tool_result", {
            "tool_use_id": "9", "tool_name": null, "content": content, "is_error": true,
            "message_id": null,
        }]);
        assert_eq!(ran(&[line]).0, [expected]);
    }
    assert_eq!(
        ran(&[json!({"type": "tool_result"})]).0,
        [json!(["tool_result", {
            "tool_use_id": null, "tool_name": null, "is_error": false, "message_id": null,
        }])]
    );
    assert_eq!(
        ran(&[json!({"type": "tool_use"})]).0[0][1],
        json!({
            "tool_name": null, "tool_use_id": null, "tool_input": null, "summary": null,
            "message_id": null,
        })
    );
}

#[test]
fn warnings_are_told_and_what_is_unknown_is_not() {
    let lines = [
        json!({"type": "init", "session_id": "s", "model": "m"}),
        json!({"type": "message", "role": "user", "content": "p"}),
        wrote("a"),
        json!({"type": "error", "severity": "warning", "message": "Loop detected"}),
        wrote("b"),
        json!({"type": "later"}),
        wrote("c"),
        json!({"no": "type"}),
        success(),
    ];
    let (events, outcome) = ran(&lines);
    let system = json!(["system", {"message": "Loop detected"}]);
    assert_eq!(events, [message("a"), system, message("b"), message("c")]);
    assert_eq!(outcome.result.unwrap().content, "abc");
}

#[test]
fn an_error_after_text_fails_the_run_and_keeps_its_usage() {
    let error = json!({
        "type": "result", "status": "error", "stats": {"total_tokens": 3},
        "error": {"type": "unknown", "message": "[API Error: fetch failed]"},
    });
    let (events, outcome) = ran(&[wrote("The beginning"), error]);
    assert_eq!(events, [message("The beginning")]);
    let failure = outcome.result.unwrap_err();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (ErrorCode::ProviderUnavailable, "fetch failed")
    );
    assert_eq!(outcome.metadata["usage"], json!({"total_tokens": 3}));
}

#[test]
fn text_that_does_not_end_is_told_in_parts_and_kept_within_a_bound() {
    let piece = "é".repeat(200_000);
    let mut lines = vec![wrote(&piece); 14];
    lines.push(success());
    let (events, outcome) = ran(&lines);
    let lengths: Vec<usize> =
        events.iter().map(|event| event[1]["content"].as_str().unwrap().len()).collect();
    assert_eq!(lengths, [1_200_000, 1_200_000, 1_200_000, 1_200_000, 800_000]);
    let envelope = outcome.result.unwrap();
    assert_eq!(envelope.content.as_str().unwrap().len(), OUTPUT_LIMIT);
    assert!(outcome.parse_error.unwrap().contains("cut"));
}

#[test]
fn without_live_events_a_stream_tells_the_same() {
    let lines = [wrote("a"), used("1"), gave("1", "x"), wrote("b"), wrote("c"), success()];
    let told = |live, format| {
        let request = AgentRequest { format, live, ..request("p") };
        let mut reader = Gemini.agent_reader(&request, &planned(&request));
        read(reader.as_mut(), &[stdout(&lines).as_bytes()])
    };
    assert_eq!(told(true, AgentFormat::Unset).len(), 4);
    assert_eq!(told(false, AgentFormat::Stream), told(true, AgentFormat::Unset));
    // It would print one object.
    assert_eq!(told(false, AgentFormat::Unset), []);
}

#[test]
fn what_prints_no_events_is_read_at_its_end() {
    let looks = stdout(&[wrote("no"), success()]);
    for (format, stdout, content, kind) in [
        (AgentFormat::Text, looks.as_str(), json!(looks.trim_end()), ContentType::Text),
        (AgentFormat::Json, "{\"response\":\"hi\"}", json!("hi"), ContentType::Markdown),
        (AgentFormat::Json, "{\"response\":\"```\\n[1]\\n```\"}", json!([1]), ContentType::Json),
    ] {
        let mut reader = reader(format);
        assert_eq!(read(reader.as_mut(), &[stdout.as_bytes()]), []);
        let envelope = reader.outcome(&left(0, stdout, "")).result.unwrap();
        assert_eq!((envelope.content, envelope.content_type), (content, kind));
    }
    for stdout in ["{\"response\":\"\"}", "{\"response\":\"x\",\"error\":{\"message\":\"no\"}}", ""]
    {
        let outcome = reader(AgentFormat::Json).outcome(&left(0, stdout, ""));
        assert!(outcome.result.is_err(), "{stdout}");
    }
}

#[test]
fn a_run_that_was_stopped_says_so() {
    let mut reader = reader(AgentFormat::Unset);
    read(reader.as_mut(), &[stdout(&[wrote("x"), success()]).as_bytes()]);
    for (ended, code) in [
        (Ended::TimeLimit, ErrorCode::ProviderTimeout),
        (Ended::Cancelled, ErrorCode::ProviderFailed),
    ] {
        let left = Left { ended, ..left(0, "", "") };
        assert_eq!(reader.outcome(&left).result.unwrap_err().code, code);
    }
}

#[test]
fn prose_where_json_was_wanted_is_an_answer_with_a_word_about_it() {
    let schema = json!({"type": "object"}).as_object().cloned();
    let asked = AgentRequest { json_schema: schema, ..request("p") };
    for (text, is_json) in [("no", false), ("{}", true)] {
        let mut reader = Gemini.agent_reader(&asked, &planned(&asked));
        read(reader.as_mut(), &[stdout(&[wrote(text), success()]).as_bytes()]);
        let outcome = reader.outcome(&left(0, "", ""));
        assert_eq!(outcome.parse_error.is_none(), is_json);
        assert!(outcome.result.is_ok());
    }
}
