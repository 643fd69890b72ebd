//! Lines of Claude Code's stream as events of a run.
//!
//! Told are the model's text, its calls of tools and what they gave. Left out are thoughts, which
//! are neither answer nor deed, lines of the CLI about itself, and parts of messages
//! (`stream_event`), since the whole message follows.

use serde_json::{Map, Value};

use super::held::{Held, Text};
use crate::providers::agent::shapes::{ToolCall, ToolResult};
use crate::providers::agent::{AgentEvent, ToolNames};

/// What it takes to tell of a run.
#[derive(Debug)]
pub(super) struct Telling {
    held: Held,
    tools: ToolNames,
}

impl Telling {
    pub(super) fn new(live: bool) -> Self {
        Self { held: Held::new(live), tools: ToolNames::default() }
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
        let (id, name) = (said(block, "id"), said(block, "name"));
        if let (Some(id), Some(name)) = (id, name) {
            self.tools.remember(id, name);
        }
        let call = ToolCall {
            tool_name: name,
            tool_use_id: id,
            tool_input: block.get("input").unwrap_or(&Value::Null),
            message_id: said(message, "id"),
        };
        call.event()
    }

    fn result(&mut self, message: &Map<String, Value>, block: &Map<String, Value>) -> AgentEvent {
        let id = said(block, "tool_use_id");
        let tool_name = id.and_then(|id| self.tools.take(id));
        let result = ToolResult {
            tool_use_id: id,
            tool_name: tool_name.as_deref(),
            content: block.get("content").unwrap_or(&Value::Null),
            is_error: block.get("is_error") == Some(&Value::Bool(true)),
            message_id: said(message, "id"),
        };
        result.event()
    }
}

fn kind(block: &Map<String, Value>) -> &str {
    block.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// A field that says something.
fn said<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str().filter(|text| !text.is_empty())
}
