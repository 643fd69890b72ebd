//! What no recording has: messages in parts, tools at the API's side, other versions' results.

use serde_json::{Value, json};

use super::{request, run, streaming};
use crate::process::Exit;
use crate::providers::agent::{AgentEvent, AgentOutcome, AgentRequest, Envelope};
use crate::providers::claude::agent::held::HELD_BYTES;
use crate::providers::claude::tests::left;
use crate::providers::{ErrorCode, Failure};

fn assistant(id: &str, blocks: &Value) -> Value {
    json!({"type": "assistant", "message": {
        "id": id, "model": "m", "content": blocks, "stop_reason": null,
    }})
}

fn say(id: &str, text: &str) -> Value {
    assistant(id, &json!([{"type": "text", "text": text}]))
}

fn user(block: &Value) -> Value {
    json!({"type": "user", "message": {"role": "user", "content": [block]}})
}

fn call(id: &str, name: &str, input: &Value) -> Value {
    json!({"type": "tool_use", "id": id, "name": name, "input": input})
}

fn printed(lines: &[Value]) -> String {
    lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

fn events(request: &AgentRequest, lines: &[Value]) -> Vec<AgentEvent> {
    let text = printed(lines);
    run(request, "stream-json", &[text.as_bytes()], &left("", "", Exit::Code(0))).0
}

fn told(live: bool, lines: &[Value]) -> Vec<Value> {
    let request = AgentRequest { live, ..streaming() };
    let events = events(&request, lines).into_iter();
    events.map(|event| json!({ event.kind.as_str(): event.payload })).collect()
}

/// The texts of messages, and `#` for anything else.
fn texts(live: bool, lines: &[Value]) -> Vec<String> {
    let told = told(live, lines).into_iter();
    told.map(|event| event["message"]["content"].as_str().unwrap_or("#").to_owned()).collect()
}

fn outcome(mode: &str, wants: &str, stdout: &str, exit: i32) -> AgentOutcome {
    let left = left(stdout, "", Exit::Code(exit));
    run(&request(wants), mode, &[stdout.as_bytes()], &left).1
}

fn envelope(mode: &str, wants: &str, result: &Value) -> Envelope {
    outcome(mode, wants, &result.to_string(), 0).result.unwrap()
}

fn failure(mode: &str, wants: &str, stdout: &str) -> Failure {
    outcome(mode, wants, stdout, 0).result.unwrap_err()
}

#[test]
fn events_have_their_shapes() {
    let lines = [
        assistant("m1", &json!([{"type": "thinking", "thinking": "hm"}])),
        json!({"type": "assistant", "message": {"id": "m1", "model": "m", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "Hi"}]}}),
        assistant("m1", &json!([call("t1", "WebSearch", &json!({"query": "rust", "text": "x"}))])),
        assistant("m1", &json!([call("t2", "Say", &json!({"text": "words"}))])),
        user(&json!({"type": "tool_result", "tool_use_id": "t1", "content": "found"})),
        user(&json!({"type": "tool_result", "tool_use_id": "t2", "is_error": true,
            "content": [{"type": "text", "text": "no"}]})),
        user(&json!({"type": "tool_result", "tool_use_id": "t9", "content": ""})),
        json!({"type": "assistant", "message": {"content": [
            {"type": "text", "text": "Bye"}, {"type": "tool_use", "input": [1]},
        ]}}),
    ];
    insta::assert_json_snapshot!(told(true, &lines));
}

#[test]
fn neighbouring_parts_of_a_message_are_one() {
    let tool = assistant("a", &json!([call("t", "Bash", &json!({}))]));
    let thought = assistant("a", &json!([{"type": "thinking", "thinking": "hm"}]));
    let status = json!({"type": "system", "subtype": "status"});
    let result = json!({"type": "result", "result": "x"});
    let both =
        assistant("a", &json!([{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]));
    let table: [(&[Value], &[&str], &[&str]); 9] = [
        (&[say("a", "1"), say("a", "2")], &["12"], &["12"]),
        (&[both.clone(), say("a", "3")], &["123"], &["123"]),
        (&[say("a", "1"), say("b", "2"), say("a", "3")], &["1", "2", "3"], &["13", "2"]),
        (&[say("a", "1"), tool.clone(), say("a", "2")], &["1", "#", "2"], &["12", "#"]),
        (&[say("a", "1"), thought, say("a", "2")], &["1", "2"], &["12"]),
        (&[say("a", "1"), result, say("a", "2")], &["1", "2"], &["12"]),
        (&[say("a", "1"), status, say("a", "2")], &["12"], &["12"]),
        (&[say("a", " "), say("b", ""), tool], &["#"], &["#"]),
        (
            &[
                json!({"type": "assistant", "message": {"content": "1"}}),
                json!({"type": "assistant", "message": {"content": "2"}}),
            ],
            &["1", "2"],
            &["1", "2"],
        ),
    ];
    for (lines, live, whole) in table {
        assert_eq!(texts(true, lines), live, "{lines:?}");
        assert_eq!(texts(false, lines), whole, "{lines:?}");
    }
}

#[test]
fn a_message_is_told_as_soon_as_it_cannot_go_on() {
    let request = streaming();
    let plan = crate::providers::claude::tests::call("stream-json");
    let mut reader = super::super::reader(&request, &plan);
    let mut counts = Vec::new();
    for line in [
        say("a", "1"),
        say("a", "2"),
        say("b", "3"),
        assistant("b", &json!([call("t", "Bash", &json!({}))])),
        say("c", "4"),
        json!({"type": "result", "result": "4"}),
        json!({"type": "system", "subtype": "task_notification"}),
    ] {
        let mut events = Vec::new();
        reader.take(line.as_object().unwrap().clone(), &mut events);
        counts.push(events.len());
    }
    assert_eq!(counts, [0, 0, 1, 2, 0, 1, 0]);
}

#[test]
fn what_is_held_is_bounded() {
    let part = "x".repeat(100 * 1024);
    let lines = vec![say("a", &part); 25];
    let output = assistant("b", &json!([call("t", "Bash", &json!({"command": part}))]));
    let calls = vec![output; 25];
    for live in [true, false] {
        let texts = texts(live, &lines);
        assert_eq!(texts.concat().len(), 25 * part.len());
        assert!(texts.len() > 1);
        assert!(texts.iter().all(|text| text.len() <= HELD_BYTES + part.len()));
    }
    let request = AgentRequest { live: false, ..streaming() };
    let plan = crate::providers::claude::tests::call("stream-json");
    let mut reader = super::super::reader(&request, &plan);
    let mut events = Vec::new();
    for line in calls.into_iter().take(12) {
        reader.take(line.as_object().unwrap().clone(), &mut events);
    }
    assert!(!events.is_empty());
}

#[test]
fn as_many_calls_are_remembered_as_can_be_open() {
    let calls = |count: usize| {
        let mut lines: Vec<_> = (0..count)
            .map(|at| assistant("a", &json!([call(&format!("t{at}"), "Bash", &json!({}))])))
            .collect();
        lines.push(user(&json!({"type": "tool_result", "tool_use_id": "t0", "content": "x"})));
        told(true, &lines).pop().unwrap()["tool_result"]["tool_name"].clone()
    };
    assert_eq!((calls(1024), calls(1025)), (json!("Bash"), Value::Null));
}

#[test]
fn tools_at_the_apis_side_are_told_too() {
    let lines = [
        assistant(
            "a",
            &json!([{"type": "server_tool_use", "id": "s", "name": "web_search",
            "input": {"query": "q"}}]),
        ),
        assistant(
            "a",
            &json!([{"type": "web_search_tool_result", "tool_use_id": "s",
            "content": [{"url": "u"}]}]),
        ),
    ];
    let told = told(true, &lines);
    assert_eq!(told[0]["tool_call"]["summary"], "Query: q");
    assert_eq!(told[1]["tool_result"]["tool_name"], "web_search");
    assert_eq!(told[1]["tool_result"]["content"], "[\n  {\n    \"url\": \"u\"\n  }\n]");
    assert_eq!(told[1]["tool_result"]["message_id"], "a");
}

#[test]
fn a_run_that_prints_no_events_tells_none() {
    for mode in ["json", "text"] {
        let text = say("a", "1").to_string();
        let left = left(&text, "", Exit::Code(0));
        assert_eq!(run(&request("text"), mode, &[text.as_bytes()], &left).0, []);
    }
}

#[test]
fn an_answer_is_found_where_versions_put_it() {
    let result = |fields: Value| {
        let mut result = json!({"type": "result", "is_error": false});
        result.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        result
    };
    for (wants, fields, kind, content) in [
        ("text", json!({"result": "# Hi"}), "markdown", json!("# Hi")),
        ("text", json!({"result": ""}), "markdown", json!("")),
        ("text", json!({"result": "{\"a\":1}"}), "markdown", json!("{\"a\":1}")),
        ("object", json!({"result": "x {\"a\":1}"}), "json", json!({"a": 1})),
        ("object", json!({"result": "no"}), "markdown", json!("no")),
        ("text", json!({"result": "x", "structured_output": {"a": 1}}), "json", json!({"a": 1})),
        ("text", json!({"result": "x", "structured_output": null}), "markdown", json!("x")),
        ("text", json!({"structuredOutput": [1]}), "json", json!([1])),
        ("text", json!({"result": {"a": 1}}), "json", json!({"a": 1})),
    ] {
        for mode in ["json", "stream-json"] {
            let found = envelope(mode, wants, &result(fields.clone()));
            assert_eq!((found.content_type.as_str(), &found.content), (kind, &content), "{fields}");
        }
    }
    let untyped = envelope("json", "text", &json!({"answer": 1}));
    assert_eq!(untyped.content, json!({"answer": 1}));
    assert_eq!(envelope("json", "text", &json!({"result": "x"})).content, "x");
}

#[test]
fn a_summary_and_sources_are_lifted() {
    let of = |result: Value| {
        let found = envelope("json", "text", &result);
        (found.summary.unwrap_or_default(), found.sources.unwrap_or_default().join(" "))
    };
    let result = |output: Value| json!({"type": "result", "structured_output": output});
    for (output, summary, sources) in [
        (json!({"summary": "s", "overview": "o", "sources": ["a", "b"]}), "s", "a b"),
        (json!({"summary": "", "overview": "o", "sources": []}), "o", ""),
        (json!({"summary": 1, "sources": [{"url": "u"}, 7, "a"]}), "", "u a"),
        (json!({"sources": "a"}), "", ""),
        (json!(["summary"]), "", ""),
    ] {
        let expected = (summary.to_owned(), sources.to_owned());
        assert_eq!(of(result(output.clone())), expected, "{output}");
    }
    let beside = json!({"type": "result", "result": "x", "summary": "s", "sources": ["a"]});
    assert_eq!(of(beside), ("s".to_owned(), "a".to_owned()));
    let inside_first = json!({"type": "result", "structured_output": {"summary": "in"},
        "summary": "out", "sources": ["out"]});
    assert_eq!(of(inside_first), ("in".to_owned(), "out".to_owned()));
}

#[test]
fn an_error_fails_the_run_whatever_else_is_there() {
    let result = json!({"type": "result", "subtype": "success", "is_error": true, "num_turns": 2,
        "result": "API Error: 429 slow down", "structured_output": {"a": 1},
        "session_id": "s", "total_cost_usd": 0.5});
    for mode in ["json", "stream-json"] {
        let found = outcome(mode, "object", &result.to_string(), 0);
        assert_eq!(found.result.unwrap_err().code, ErrorCode::ProviderRateLimited);
        assert_eq!(
            Value::Object(found.metadata),
            json!({"session_id": "s", "total_cost_usd": 0.5})
        );
        assert_eq!(found.parse_error, None);
    }
}

#[test]
fn the_last_result_decides_and_lines_may_follow_it() {
    let lines = [
        json!({"type": "system", "subtype": "init", "session_id": "s"}),
        json!({"type": "result", "result": "one"}),
        json!({"type": "result", "result": "two", "usage": {"x": 1}}),
        json!({"type": "system", "subtype": "task_updated"}),
    ];
    let text = printed(&lines);
    for (mode, session) in [("json", None), ("stream-json", Some("s"))] {
        let found = outcome(mode, "text", &text, 143);
        assert_eq!(found.result.unwrap().content, "two");
        assert_eq!(found.metadata["usage"], json!({"x": 1}));
        assert_eq!(found.metadata.get("session_id").and_then(Value::as_str), session);
    }
}

#[test]
fn output_without_an_answer_is_told_apart() {
    for (mode, stdout, message) in [
        ("json", "All done, see above.", "the output holds no answer"),
        ("json", "", "nothing was printed"),
        ("stream-json", "", "nothing was printed"),
        ("stream-json", "{\"type\":\"system\"}", "the output holds no answer"),
        ("json", "{\"type\":\"result\",\"is_error\":false}", "the result holds no answer"),
        ("text", " \n", "nothing was printed"),
    ] {
        let found = failure(mode, "text", stdout);
        let expected = (ErrorCode::ProviderOutputInvalid, message);
        assert_eq!((found.code, found.message.as_str()), expected, "{stdout}");
        let parse_error = outcome(mode, "text", stdout, 0).parse_error;
        assert_eq!(parse_error.as_deref(), Some(message), "{stdout}");
        let failed = outcome(mode, "text", "", 3);
        assert_eq!(failed.parse_error, None);
        assert!(failed.result.unwrap_err().message.contains("exit code 3"));
    }
    let stopped = json!({"type": "result", "errors": ["Reached maximum turns"]}).to_string();
    assert_eq!(failure("json", "text", &stopped).code, ErrorCode::InvalidRequest);
}

#[test]
fn text_is_what_was_printed_and_an_error_when_it_ended_badly() {
    let found = outcome("text", "text", "Hi\n\n", 0).result.unwrap();
    assert_eq!((found.content, found.content_type.as_str()), (json!("Hi\n"), "text"));
    let failed = outcome("text", "text", "API Error: 401 no\n", 1).result.unwrap_err();
    assert_eq!(failed.code, ErrorCode::ProviderAuth);
}
