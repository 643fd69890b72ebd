//! What Codex's items tell: messages, tools, notices.

use serde_json::{Map, Value, json};

use super::super::events::text;
use crate::providers::agent::shapes::{Message, ToolCall, ToolResult, notice};
use crate::providers::agent::{AgentEvent, ToolNames};

/// Tells items, each once. Bounded: what it remembers is.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// Calls that were told and have no result yet.
    called: ToolNames,
}

/// A tool's use, as its item tells it.
struct Use {
    name: String,
    input: Value,
}

impl Items {
    /// Of `item.started`.
    pub(super) fn started(&mut self, item: &Map<String, Value>, events: &mut Vec<AgentEvent>) {
        // A search's query is known when it is over.
        if let Some(tool) =
            tool_use(item).filter(|tool| tool.input.get("query") != Some(&json!("")))
        {
            let id = text(item, "id");
            events.push(call(&tool, id));
            if let Some(id) = id {
                self.called.remember(id, &tool.name);
            }
        }
    }

    /// Of `item.completed`.
    pub(super) fn completed(&mut self, item: &Map<String, Value>, events: &mut Vec<AgentEvent>) {
        let id = text(item, "id");
        let said =
            |content, kind| Message { content, message_id: id, kind, ..Message::default() }.event();
        let words = text(item, "text").unwrap_or_default();
        match text(item, "type") {
            Some("agent_message") => events.extend(said(words, None)),
            Some("reasoning") => events.extend(said(words, Some("reasoning"))),
            Some("error") => {
                events.extend(notice(text(item, "message").unwrap_or_default()));
            }
            Some(_) | None => {
                if let Some(tool) = tool_use(item) {
                    let called = id.is_some_and(|id| self.called.take(id).is_some());
                    events.extend((!called).then(|| call(&tool, id)));
                    events.push(result(&tool, item));
                }
            }
        }
    }
}

fn call(tool: &Use, id: Option<&str>) -> AgentEvent {
    let (tool_name, tool_input) = (Some(tool.name.as_str()), &tool.input);
    ToolCall { tool_name, tool_use_id: id, tool_input, message_id: None }.event()
}

fn result(tool: &Use, item: &Map<String, Value>) -> AgentEvent {
    ToolResult {
        tool_use_id: text(item, "id"),
        tool_name: Some(&tool.name),
        content: content(item),
        is_error: is_error(item),
        message_id: None,
    }
    .event()
}

/// What an item calls; `None` for one that is no tool's.
fn tool_use(item: &Map<String, Value>) -> Option<Use> {
    let kind = text(item, "type")?;
    let (name, input) = match kind {
        "command_execution" => (kind.to_owned(), of_keys(item, &["command"])),
        "file_change" => (kind.to_owned(), of_keys(item, &["changes"])),
        "web_search" => (kind.to_owned(), of_keys(item, &["query", "action"])),
        "mcp_tool_call" => {
            let part = |key| text(item, key).unwrap_or_default();
            let name = format!("mcp__{}__{}", part("server"), part("tool"));
            (name, item.get("arguments").cloned().unwrap_or_default())
        }
        _ => return None,
    };
    Some(Use { name, input })
}

fn of_keys(item: &Map<String, Value>, keys: &[&str]) -> Value {
    let known = keys.iter().filter_map(|key| Some(((*key).to_owned(), item.get(*key)?.clone())));
    Value::Object(known.collect())
}

/// A command's output, or what an MCP server answered; nothing is told of the others.
fn content(item: &Map<String, Value>) -> &Value {
    let within = |key: &str, inner: &str| item.get(key)?.get(inner);
    item.get("aggregated_output")
        .or_else(|| within("error", "message"))
        .or_else(|| within("result", "content"))
        .unwrap_or(&Value::Null)
}

fn is_error(item: &Map<String, Value>) -> bool {
    matches!(text(item, "status"), Some("failed" | "declined"))
        || item.get("exit_code").and_then(Value::as_i64).is_some_and(|code| code != 0)
        || item.get("error").is_some_and(|error| !error.is_null())
}
