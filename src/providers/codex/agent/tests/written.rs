//! Runs that no recording has.

use serde_json::{Value, json};

use super::*;
use crate::providers::ErrorCode;
use crate::providers::agent::testing::{left, read};
use crate::providers::agent::{ContentType, EventKind};

/// What these lines tell, each as `[kind, payload]`.
fn told(reader: &mut dyn AgentReader, lines: &[Value]) -> Vec<Value> {
    let stdout: String = lines.iter().flat_map(|line| [line.to_string(), "\n".into()]).collect();
    let events = read(reader, &[stdout.as_bytes()]);
    events.into_iter().map(|event| json!([event.kind.as_str(), event.payload])).collect()
}

fn item(phase: &str, item: &Value) -> Value {
    json!({"type": format!("item.{phase}"), "item": item})
}

fn message(text: &str) -> Value {
    item("completed", &json!({"id": "m", "type": "agent_message", "text": text}))
}

fn completed() -> Value {
    json!({"type": "turn.completed", "usage": {"input_tokens": 1}})
}

fn call(name: &str, input: &Value, summary: &Value) -> Value {
    json!(["tool_call", {
        "tool_name": name, "tool_use_id": "i", "tool_input": input, "summary": summary,
        "message_id": null,
    }])
}

fn result(name: &str, content: &Value, is_error: bool) -> Value {
    let mut payload = json!({
        "tool_use_id": "i", "tool_name": name, "is_error": is_error, "message_id": null,
    });
    if !content.is_null() {
        payload["content"] = content.clone();
    }
    json!(["tool_result", payload])
}

#[test]
fn a_search_is_told_when_its_query_is_known() {
    let search = |query: &str| json!({"id": "i", "type": "web_search", "query": query});
    let input = json!({"query": "rust"});
    let whole = [
        call("web_search", &input, &json!("Query: rust")),
        result("web_search", &Value::Null, false),
    ];
    for begun in ["", "rust"] {
        let lines = [item("started", &search(begun)), item("completed", &search("rust"))];
        assert_eq!(told(reader(AgentFormat::Unset).as_mut(), &lines), whole, "{begun:?}");
    }
}

#[test]
fn changed_files_are_told_at_once() {
    let changes = json!([{"path": "a.txt", "kind": "add"}]);
    for (status, is_error) in [("completed", false), ("failed", true)] {
        let change =
            json!({"id": "i", "type": "file_change", "changes": changes, "status": status});
        assert_eq!(
            told(reader(AgentFormat::Unset).as_mut(), &[item("completed", &change)]),
            [
                call("file_change", &json!({"changes": changes}), &Value::Null),
                result("file_change", &Value::Null, is_error),
            ]
        );
    }
}

#[test]
fn a_server_s_tool_is_told_by_its_whole_name() {
    let begun = json!({
        "id": "i", "type": "mcp_tool_call", "server": "docs", "tool": "find",
        "arguments": {"text": "x"}, "result": null, "error": null, "status": "in_progress",
    });
    let with = |fields: Value| {
        let mut ended = begun.clone();
        ended.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        item("completed", &ended)
    };
    let name = "mcp__docs__find";
    let content = json!([{"type": "text", "text": "found"}]);
    let text = format!("{content:#}");
    for (end, content, is_error) in [
        (json!({"status": "completed", "result": {"content": content}}), json!(text), false),
        (json!({"status": "completed", "result": {"content": []}}), Value::Null, false),
        (json!({"status": "failed", "error": {"message": "no"}}), json!("no"), true),
        (json!({"error": {"message": "no"}}), json!("no"), true),
    ] {
        let lines = [item("started", &begun), with(end)];
        assert_eq!(
            told(reader(AgentFormat::Unset).as_mut(), &lines),
            [call(name, &json!({"text": "x"}), &json!("x")), result(name, &content, is_error),]
        );
    }
}

#[test]
fn a_refused_command_is_an_error_and_the_same_id_may_come_again() {
    let command = |status: &str| {
        json!({
            "id": "i", "type": "command_execution", "command": "ls", "aggregated_output": "",
            "exit_code": null, "status": status,
        })
    };
    let begun = item("started", &command("in_progress"));
    let refused = item("completed", &command("declined"));
    let lines = [begun, refused.clone(), refused];
    let one = [
        call("command_execution", &json!({"command": "ls"}), &Value::Null),
        result("command_execution", &Value::Null, true),
    ];
    assert_eq!(told(reader(AgentFormat::Unset).as_mut(), &lines), [one.clone(), one].concat());
}

#[test]
fn a_command_fails_by_its_status_or_its_exit_code() {
    for (status, exit_code, is_error) in [
        ("completed", json!(0), false),
        ("completed", json!(null), false),
        ("completed", json!(1), true),
        ("failed", json!(0), true),
    ] {
        let command = json!({
            "id": "i", "type": "command_execution", "command": "ls", "aggregated_output": "x\n",
            "exit_code": exit_code, "status": status,
        });
        let events = told(reader(AgentFormat::Unset).as_mut(), &[item("completed", &command)]);
        assert_eq!(events[1], result("command_execution", &json!("x\n"), is_error), "{command}");
    }
}

#[test]
fn what_has_no_id_and_what_is_unknown() {
    let lines = [
        item("completed", &json!({"type": "agent_message", "text": "a"})),
        item("completed", &json!({"type": "agent_message", "text": ""})),
        item("completed", &json!({"type": "error", "message": ""})),
        item("updated", &json!({"id": "t", "type": "todo_list", "items": []})),
        item("completed", &json!({"id": "t", "type": "todo_list", "items": []})),
        json!({"type": "item.completed"}),
        json!({"type": 1}),
        item("completed", &json!({"type": "command_execution", "exit_code": 0})),
    ];
    let events = told(reader(AgentFormat::Unset).as_mut(), &lines);
    assert_eq!(events[0], json!(["message", {"role": "assistant", "content": "a"}]));
    assert_eq!(events[1][1]["tool_use_id"], Value::Null);
    assert_eq!(events.len(), 3, "{events:?}");
}

#[test]
fn events_are_told_live_or_when_they_are_asked_for() {
    let lines = [message("hi"), completed()];
    for (live, format, count) in [
        (true, AgentFormat::Unset, 1),
        (true, AgentFormat::Json, 1),
        (true, AgentFormat::Stream, 1),
        (true, AgentFormat::Text, 0),
        (false, AgentFormat::Unset, 0),
        (false, AgentFormat::Json, 0),
        (false, AgentFormat::Stream, 1),
    ] {
        let request = AgentRequest { format, live, ..request("p") };
        let mut reader = Codex.agent_reader(&request, &planned(&request));
        assert_eq!(told(reader.as_mut(), &lines).len(), count, "{live} {format:?}");
        if format != AgentFormat::Text {
            assert_eq!(reader.outcome(&left(0, "", "")).result.unwrap().content, "hi");
        }
    }
}

#[test]
fn a_text_is_the_answer_even_if_it_looks_like_events() {
    let mut reader = reader(AgentFormat::Text);
    let stdout = format!("{}\n", message("no"));
    assert_eq!(read(reader.as_mut(), &[stdout.as_bytes()]), []);
    let envelope = reader.outcome(&left(0, &stdout, "")).result.unwrap();
    assert_eq!(envelope.content_type, ContentType::Text);
    assert_eq!(envelope.content, stdout.trim_end());
    let empty = reader.outcome(&left(0, "\n", "")).result.unwrap_err();
    assert_eq!(empty.code, ErrorCode::ProviderOutputInvalid);
    // The prompt, which is printed before, may hold anything.
    let asked = request("x\nERROR: 401 Unauthorized");
    let asked = AgentRequest { format: AgentFormat::Text, ..asked };
    let reader = Codex.agent_reader(&asked, &planned(&asked));
    let stderr = format!("OpenAI Codex v0.169.0\nuser\n{}\nERROR: usage limit\n", asked.prompt);
    let failure = reader.outcome(&left(1, "", &stderr)).result.unwrap_err();
    assert_eq!(failure.code, ErrorCode::ProviderRateLimited);
    let stderr = format!("OpenAI Codex v0.169.0\nuser\n{}\n", asked.prompt);
    let failure = reader.outcome(&left(1, "", &stderr)).result.unwrap_err();
    assert_eq!(failure.code, ErrorCode::ProviderFailed);
}

#[test]
fn the_last_message_is_the_answer_and_the_verdict_decides() {
    let ended = |lines: &[Value], code| {
        let mut reader = reader(AgentFormat::Unset);
        told(reader.as_mut(), lines);
        reader.outcome(&left(code, "", ""))
    };
    let failed = json!({"type": "turn.failed", "error": {"message": "usage limit"}});
    let whole = ended(&[message("first"), message("It is {\"a\": 1}."), completed()], 1);
    let envelope = whole.result.unwrap();
    assert_eq!((envelope.content, envelope.content_type), (json!({"a": 1}), ContentType::Json));
    assert_eq!(Value::Object(whole.metadata), json!({"usage": {"input_tokens": 1}}));

    let broken = ended(&[message("first"), failed], 0);
    assert_eq!(broken.result.unwrap_err().code, ErrorCode::ProviderRateLimited);
    assert!(broken.metadata.is_empty());
    let silent = ended(&[completed()], 0).result.unwrap_err();
    assert_eq!(silent.code, ErrorCode::ProviderOutputInvalid);
    let cut = ended(&[message("first")], 0).result.unwrap_err();
    assert_eq!(cut.code, ErrorCode::ProviderOutputInvalid);
}

#[test]
fn prose_where_json_was_wanted_is_an_answer_with_a_word_about_it() {
    let schema = json!({"type": "object"}).as_object().cloned();
    let asked = AgentRequest { json_schema: schema, ..request("p") };
    for (text, is_json) in [("no", false), ("{}", true)] {
        let mut reader = Codex.agent_reader(&asked, &planned(&asked));
        told(reader.as_mut(), &[message(text), completed()]);
        let outcome = reader.outcome(&left(0, "", ""));
        assert_eq!(outcome.parse_error.is_none(), is_json);
        let kind = outcome.result.unwrap().content_type;
        assert_eq!(kind == ContentType::Json, is_json, "{text}");
    }
}

#[test]
fn calls_without_results_do_not_pile_up() {
    let mut reader = reader(AgentFormat::Unset);
    let begun = |id: usize| {
        let id = id.to_string();
        item("started", &json!({"id": id, "type": "command_execution", "command": "ls"}))
    };
    let lines: Vec<Value> = (0..2000).map(begun).collect();
    assert_eq!(told(reader.as_mut(), &lines).len(), 2000);
    // The newest are remembered, the oldest are not: such a call is told again with its result.
    let end = |id: &str| {
        item("completed", &json!({"id": id, "type": "command_execution", "command": "ls"}))
    };
    let kinds =
        |events: &[Value]| -> Vec<Value> { events.iter().map(|event| event[0].clone()).collect() };
    assert_eq!(kinds(&told(reader.as_mut(), &[end("1999")])), ["tool_result"]);
    let call = EventKind::ToolCall.as_str();
    assert_eq!(kinds(&told(reader.as_mut(), &[end("0")])), [call, "tool_result"]);
}
