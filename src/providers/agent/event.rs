//! What an agent CLI tells while it works.

use serde_json::{Map, Value};

/// Kinds of events that come from a CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Text of the model: `message`.
    Message,
    /// Something that the CLI says of itself: `system`.
    System,
    /// The model uses a tool: `tool_call`.
    ToolCall,
    /// What the tool gave: `tool_result`.
    ToolResult,
}

impl EventKind {
    /// `event_type` of `subagent_run_events`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::System => "system",
            Self::ToolCall => "tool_call",
            Self::ToolResult => "tool_result",
        }
    }
}

/// One of them, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentEvent {
    /// Its kind.
    pub kind: EventKind,
    /// `payload`, of unbounded size.
    pub payload: Map<String, Value>,
}
