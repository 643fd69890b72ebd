//! Lines of Claude Code's stream as events of a run.
//!
//! Told are the model's text, its calls of tools and what they gave. Left out are thoughts, which
//! are neither answer nor deed, lines of the CLI about itself, and parts of messages
//! (`stream_event`), since the whole message follows.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::held::{Held, Text};
use crate::providers::agent::{AgentEvent, EventKind};

/// Calls whose tool is remembered until their result comes, and bytes of one.
const CALLS: usize = 1024;
const CALL_BYTES: usize = 1024;

/// What it takes to tell of a run.
#[derive(Debug)]
pub(super) struct Telling {
    held: Held,
    /// Ids of calls and the names of their tools, the oldest first.
    calls: VecDeque<(String, String)>,
}

impl Telling {
    pub(super) fn new(live: bool) -> Self {
        Self { held: Held::new(live), calls: VecDeque::new() }
    }

    /// A line of type `assistant`.
    pub(super) fn assistant(&mut self, line: &Map<String, Value>, events: &mut Vec<AgentEvent>) {
        let Some(message) = line.get("message").and_then(Value::as_object) else { return };
        match message.get("content") {
            Some(Value::String(content)) => self.text(message, content, events),
            Some(Value::Array(blocks)) => {
                for block in blocks.iter().filter_map(Value::as_object) {
                    match block.get("text") {
                        Some(Value::String(content)) if kind(block) == "text" => {
                            self.text(message, content, events);
                        }
                        Some(_) | None => self.tool(message, block, events),
                    }
                }
            }
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {}
        }
    }

    /// A line of type `user`: what tools gave, and words that the CLI puts into the user's mouth.
    pub(super) fn user(&mut self, line: &Map<String, Value>, events: &mut Vec<AgentEvent>) {
        let message = line.get("message").and_then(Value::as_object);
        let Some(message) = message else { return };
        let blocks = message.get("content").and_then(Value::as_array);
        for block in blocks.into_iter().flatten().filter_map(Value::as_object) {
            self.tool(message, block, events);
        }
    }

    /// Nothing that belongs to the last message comes.
    pub(super) fn pause(&mut self, events: &mut Vec<AgentEvent>) {
        self.held.interrupt(events);
    }

    /// Nothing comes any more.
    pub(super) fn flush(&mut self, events: &mut Vec<AgentEvent>) {
        self.held.flush(events);
    }

    fn text(&mut self, message: &Map<String, Value>, content: &str, events: &mut Vec<AgentEvent>) {
        let text = |name: &str| message.get(name).and_then(Value::as_str).map(str::to_owned);
        let part = Text {
            message_id: text("id"),
            model: text("model"),
            stop_reason: text("stop_reason"),
            content: content.to_owned(),
        };
        self.held.text(part, events);
    }

    /// A block that is no text. Tools that run at the API's side have longer kinds, as
    /// `server_tool_use` and `web_search_tool_result`.
    fn tool(
        &mut self,
        message: &Map<String, Value>,
        block: &Map<String, Value>,
        events: &mut Vec<AgentEvent>,
    ) {
        let kind = kind(block);
        if kind.ends_with("tool_use") {
            let event = self.call(message, block);
            self.held.event(event, events);
        } else if kind.ends_with("tool_result") {
            let event = self.result(message, block);
            self.held.event(event, events);
        } else {
            self.held.interrupt(events);
        }
    }

    fn call(&mut self, message: &Map<String, Value>, block: &Map<String, Value>) -> AgentEvent {
        let (id, name) = (block.get("id"), block.get("name"));
        if let (Some(Value::String(id)), Some(Value::String(name))) = (id, name)
            && id.len() + name.len() <= CALL_BYTES
        {
            if self.calls.len() == CALLS {
                self.calls.pop_front();
            }
            self.calls.push_back((id.clone(), name.clone()));
        }
        let input = block.get("input");
        let payload = [
            ("tool_name", string(name)),
            ("tool_use_id", string(id)),
            ("tool_input", input.cloned().unwrap_or_default()),
            ("summary", input.and_then(summary).map_or(Value::Null, Value::String)),
            ("message_id", string(message.get("id"))),
        ];
        event(EventKind::ToolCall, payload)
    }

    fn result(&self, message: &Map<String, Value>, block: &Map<String, Value>) -> AgentEvent {
        let id = string(block.get("tool_use_id"));
        let mut calls = self.calls.iter().rev();
        let call = calls.find(|(call, _)| Some(call.as_str()) == id.as_str());
        let payload = [
            ("tool_name", call.map_or(Value::Null, |(_, name)| name.as_str().into())),
            ("tool_use_id", id),
            ("is_error", (block.get("is_error") == Some(&Value::Bool(true))).into()),
            ("message_id", string(message.get("id"))),
        ];
        let mut event = event(EventKind::ToolResult, payload);
        if let Some(content) = block.get("content").and_then(content) {
            event.payload.insert("content".to_owned(), content.into());
        }
        event
    }
}

fn kind(block: &Map<String, Value>) -> &str {
    block.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn event<const N: usize>(kind: EventKind, payload: [(&str, Value); N]) -> AgentEvent {
    let payload = payload.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    AgentEvent { kind, payload }
}

/// A string that says something, else null.
fn string(value: Option<&Value>) -> Value {
    value.filter(|value| value.as_str().is_some_and(|text| !text.is_empty())).cloned().into()
}

/// A call in one line for people.
fn summary(input: &Value) -> Option<String> {
    let text = |name: &str| input.get(name)?.as_str().filter(|text| !text.is_empty());
    text("query").map(|query| format!("Query: {query}")).or_else(|| text("text").map(str::to_owned))
}

/// What a tool gave, as text; `None` when that is nothing.
fn content(content: &Value) -> Option<String> {
    if let Some(text) = content.as_str() {
        return (!text.is_empty()).then(|| text.to_owned());
    }
    let empty = content.is_null()
        || content.as_array().is_some_and(Vec::is_empty)
        || content.as_object().is_some_and(Map::is_empty);
    if empty { None } else { serde_json::to_string_pretty(content).ok() }
}
