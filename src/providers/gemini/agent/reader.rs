//! Reads a subagent's run by Gemini CLI, event by event.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::printed::{Printed, text};
use super::super::{Printing, decode};
use crate::providers::agent::shapes::{Message, ToolCall, ToolResult, notice};
use crate::providers::agent::{
    AgentEvent, AgentFormat, AgentOutcome, AgentReader, AgentRequest, ContentType, Envelope,
    ToolNames, content,
};
use crate::providers::{Left, OUTPUT_LIMIT, Plan};

/// Bytes of text that are held; from there on it is told as a message of its own.
const HELD: usize = 1024 * 1024;

/// Text comes in pieces without an id: a message ends where something else begins, live or not.
#[derive(Debug)]
pub(super) struct Reader {
    printing: Printing,
    format: AgentFormat,
    wants_json: bool,
    limit: Duration,
    /// What the events come to; its text is that of the last turn which wrote any, as it is where
    /// the CLI prints one object.
    printed: Printed,
    /// A tool has answered: text after it is another turn's.
    turn_ended: bool,
    /// The answer was longer than what is kept.
    cut: bool,
    held: String,
    tools: ToolNames,
}

impl Reader {
    pub(super) fn new(request: &AgentRequest, plan: &Plan) -> Self {
        Self {
            printing: Printing::of(plan),
            format: request.format,
            wants_json: request.json_schema.is_some(),
            limit: plan.time_limit,
            printed: Printed::default(),
            turn_ended: false,
            cut: false,
            held: String::new(),
            tools: ToolNames::default(),
        }
    }

    fn wrote(&mut self, piece: &str, events: &mut Vec<AgentEvent>) {
        if self.turn_ended {
            self.turn_ended = false;
            self.cut = false;
            self.printed.text.clear();
        }
        self.held.push_str(piece);
        if self.held.len() >= HELD {
            self.flush(events);
        }
    }

    fn flush(&mut self, events: &mut Vec<AgentEvent>) {
        let content = std::mem::take(&mut self.held);
        events.extend(Message { content: &content, ..Message::default() }.event());
    }

    fn called(&mut self, line: &Map<String, Value>) -> AgentEvent {
        let (id, name) = (text(line, "tool_id"), text(line, "tool_name"));
        if let (Some(id), Some(name)) = (id, name) {
            self.tools.remember(id, name);
        }
        let tool_input = line.get("parameters").unwrap_or(&Value::Null);
        ToolCall { tool_name: name, tool_use_id: id, tool_input, message_id: None }.event()
    }

    fn answered(&mut self, line: &Map<String, Value>) -> AgentEvent {
        self.turn_ended = true;
        let id = text(line, "tool_id");
        let name = id.and_then(|id| self.tools.take(id));
        let output = line.get("output").filter(|output| **output != "" && !output.is_null());
        let reason = || line.get("error")?.get("message");
        ToolResult {
            tool_use_id: id,
            tool_name: name.as_deref(),
            content: output.or_else(reason).unwrap_or(&Value::Null),
            is_error: text(line, "status") == Some("error"),
            message_id: None,
        }
        .event()
    }

    /// Keeps the event's part in the outcome.
    fn keep(&mut self, line: Map<String, Value>) {
        self.printed.add(line);
        let answer = &mut self.printed.text;
        if answer.len() > OUTPUT_LIMIT {
            answer.truncate(answer.floor_char_boundary(OUTPUT_LIMIT));
            self.cut = true;
        }
    }
}

impl AgentReader for Reader {
    fn take(&mut self, line: Map<String, Value>, events: &mut Vec<AgentEvent>) {
        if self.printing != Printing::Events {
            return;
        }
        let kind = text(&line, "type");
        if kind == Some("message") && text(&line, "role") == Some("assistant") {
            self.wrote(text(&line, "content").unwrap_or_default(), events);
        } else {
            self.flush(events);
            match kind {
                Some("tool_use") => events.push(self.called(&line)),
                Some("tool_result") => events.push(self.answered(&line)),
                Some("error") => events.extend(text(&line, "message").and_then(notice)),
                Some(_) | None => {}
            }
        }
        self.keep(line);
    }

    fn end(&mut self, events: &mut Vec<AgentEvent>) {
        self.flush(events);
    }

    fn outcome(&self, left: &Left) -> AgentOutcome {
        let whole;
        let printed = if self.printing == Printing::Events {
            &self.printed
        } else {
            whole = Printed::read(self.printing, &left.stdout);
            &whole
        };
        let judged = decode::judge(self.printing, self.limit, printed, left);
        let result = judged.map_err(|failure| *failure).map(|()| self.envelope(&printed.text));
        let mut outcome = content::outcome(result, &printed.stats, self.wants_json);
        if self.cut && outcome.result.is_ok() {
            outcome.parse_error = Some(format!("the answer was cut after {OUTPUT_LIMIT} bytes"));
        }
        outcome
    }
}

impl Reader {
    fn envelope(&self, text: &str) -> Envelope {
        match self.format {
            AgentFormat::Text => Envelope::new(text.into(), ContentType::Text),
            AgentFormat::Unset | AgentFormat::Json | AgentFormat::Stream => content::envelope(text),
        }
    }
}
