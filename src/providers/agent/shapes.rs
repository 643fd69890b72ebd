//! Payloads of events, in the shapes in which every CLI's are told.

use serde_json::{Map, Value};

use super::{AgentEvent, EventKind};

/// Text of the model.
#[derive(Debug, Clone, Copy, Default)]
pub struct Message<'a> {
    /// The text; without any there is no event.
    pub content: &'a str,
    /// What it is a part of, where the CLI says.
    pub message_id: Option<&'a str>,
    /// Who wrote it, where the CLI says.
    pub model: Option<&'a str>,
    /// Why it ended, where the CLI says.
    pub stop_reason: Option<&'a str>,
    /// `reasoning` for what is not meant as an answer.
    pub kind: Option<&'a str>,
}

impl Message<'_> {
    /// Keys that are not known are left out.
    pub fn event(self) -> Option<AgentEvent> {
        if self.content.is_empty() {
            return None;
        }
        let fields = [
            ("role", Some("assistant")),
            ("content", Some(self.content)),
            ("message_id", self.message_id),
            ("model", self.model),
            ("stop_reason", self.stop_reason),
            ("kind", self.kind),
        ];
        let known = fields.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?)));
        let payload = known.map(|(key, text)| (key, Value::from(text))).collect();
        Some(AgentEvent { kind: EventKind::Message, payload })
    }
}

/// The use of a tool. What is not known is null.
#[derive(Debug, Clone, Copy)]
pub struct ToolCall<'a> {
    /// Which tool.
    pub tool_name: Option<&'a str>,
    /// By it its result is known.
    pub tool_use_id: Option<&'a str>,
    /// What it is given.
    pub tool_input: &'a Value,
    /// The message that asks for it.
    pub message_id: Option<&'a str>,
}

impl ToolCall<'_> {
    /// With a summary of the input.
    pub fn event(self) -> AgentEvent {
        let payload = object([
            ("tool_name", self.tool_name.into()),
            ("tool_use_id", self.tool_use_id.into()),
            ("tool_input", self.tool_input.clone()),
            ("summary", summary(self.tool_input).into()),
            ("message_id", self.message_id.into()),
        ]);
        AgentEvent { kind: EventKind::ToolCall, payload }
    }
}

/// What a tool gave. What is not known is null.
#[derive(Debug, Clone, Copy)]
pub struct ToolResult<'a> {
    /// That of its call.
    pub tool_use_id: Option<&'a str>,
    /// That of its call.
    pub tool_name: Option<&'a str>,
    /// In whatever form the CLI gives it; empty, it is left out.
    pub content: &'a Value,
    /// It failed, or was refused.
    pub is_error: bool,
    /// The message that brings it.
    pub message_id: Option<&'a str>,
}

impl ToolResult<'_> {
    /// With the content as a text.
    pub fn event(self) -> AgentEvent {
        let mut payload = object([
            ("tool_use_id", self.tool_use_id.into()),
            ("tool_name", self.tool_name.into()),
            ("is_error", self.is_error.into()),
            ("message_id", self.message_id.into()),
        ]);
        if let Some(content) = content_text(self.content) {
            payload.insert("content".to_owned(), content.into());
        }
        AgentEvent { kind: EventKind::ToolResult, payload }
    }
}

/// What a CLI says of itself; nothing when it says nothing.
pub fn notice(message: &str) -> Option<AgentEvent> {
    let payload = || object([("message", message.into())]);
    (!message.trim().is_empty()).then(|| AgentEvent { kind: EventKind::System, payload: payload() })
}

/// A content as a text: what is no string as JSON with an indent of two. `None`: it is empty.
pub fn content_text(content: &Value) -> Option<String> {
    let empty = match content {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    let text = || content.as_str().map_or_else(|| format!("{content:#}"), str::to_owned);
    (!empty).then(text)
}

/// What a tool's input is about, in a line: its query, else its text.
fn summary(input: &Value) -> Option<String> {
    let text = |key: &str| input.get(key)?.as_str().filter(|text| !text.is_empty());
    let query = text("query").map(|query| format!("Query: {query}"));
    query.or_else(|| text("text").map(str::to_owned))
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payload(event: &AgentEvent) -> Value {
        Value::Object(event.payload.clone())
    }

    #[test]
    fn a_message_tells_only_what_is_known() {
        let bare = Message { content: "hi", ..Message::default() }.event().unwrap();
        assert_eq!(bare.kind, EventKind::Message);
        assert_eq!(payload(&bare), json!({"role": "assistant", "content": "hi"}));
        let whole = Message {
            content: "hm",
            message_id: Some("m1"),
            model: Some("x"),
            stop_reason: Some("end_turn"),
            kind: Some("reasoning"),
        };
        assert_eq!(
            payload(&whole.event().unwrap()),
            json!({
                "role": "assistant", "content": "hm", "message_id": "m1", "model": "x",
                "stop_reason": "end_turn", "kind": "reasoning",
            })
        );
        assert_eq!(Message::default().event(), None);
    }

    #[test]
    fn a_call_is_summed_up_by_its_query_or_its_text() {
        for (input, summary) in [
            (json!({"query": "rust", "text": "t"}), json!("Query: rust")),
            (json!({"text": "t"}), json!("t")),
            (json!({"query": 1, "text": ["t"]}), Value::Null),
            (json!({"command": "ls"}), Value::Null),
            (json!("query"), Value::Null),
        ] {
            let call = ToolCall {
                tool_name: None,
                tool_use_id: Some("u1"),
                tool_input: &input,
                message_id: None,
            };
            let event = call.event();
            assert_eq!(event.kind, EventKind::ToolCall);
            assert_eq!(
                payload(&event),
                json!({
                    "tool_name": null, "tool_use_id": "u1", "tool_input": input,
                    "summary": summary, "message_id": null,
                })
            );
        }
    }

    #[test]
    fn the_content_of_a_result_is_a_text_or_left_out() {
        let result = |content: &Value| {
            let result = ToolResult {
                tool_use_id: Some("u1"),
                tool_name: Some("ls"),
                content,
                is_error: true,
                message_id: None,
            };
            payload(&result.event())
        };
        let bare = json!({
            "tool_use_id": "u1", "tool_name": "ls", "is_error": true, "message_id": null,
        });
        for empty in [json!(null), json!(""), json!([]), json!({})] {
            assert_eq!(result(&empty), bare, "{empty}");
        }
        for (content, text) in [
            (json!("a\n"), "a\n"),
            (json!([{"type": "text"}]), "[\n  {\n    \"type\": \"text\"\n  }\n]"),
            (json!(false), "false"),
            (json!(0), "0"),
        ] {
            assert_eq!(result(&content)["content"], text);
        }
    }

    #[test]
    fn a_notice_says_something() {
        assert_eq!(payload(&notice("x y").unwrap()), json!({"message": "x y"}));
        assert_eq!(notice("x").unwrap().kind, EventKind::System);
        assert_eq!(notice(" \n"), None);
    }
}
