//! Reads a subagent's run by Codex, event by event.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::events::{Events, text};
use super::super::{decode, plan};
use super::items::Items;
use crate::providers::agent::{
    AgentEvent, AgentFormat, AgentOutcome, AgentReader, AgentRequest, ContentType, Envelope,
    content,
};
use crate::providers::{Failure, Left, Plan};

/// Codex tells whole messages, each with an id of its own: nothing is held, nothing merged.
#[derive(Debug)]
pub(super) struct Reader {
    /// Events on stdout; else it is the answer, whatever it looks like.
    reads: bool,
    /// The events are told too, not only what they come to.
    tells: bool,
    format: AgentFormat,
    wants_json: bool,
    /// Of a run without events, which repeats it on stderr.
    prompt: String,
    limit: Duration,
    events: Events,
    items: Items,
}

impl Reader {
    pub(super) fn new(request: &AgentRequest, plan: &Plan) -> Self {
        let reads = plan::prints_events(plan);
        Self {
            reads,
            tells: request.live || request.streams(),
            format: request.format,
            wants_json: request.json_schema.is_some(),
            prompt: if reads { String::new() } else { plan.stdin.clone() },
            limit: plan.time_limit,
            events: Events::default(),
            items: Items::default(),
        }
    }

    fn tell(&mut self, line: &Map<String, Value>, events: &mut Vec<AgentEvent>) {
        let item = line.get("item").and_then(Value::as_object);
        match (text(line, "type"), item) {
            (Some("item.started"), Some(item)) => self.items.started(item, events),
            (Some("item.completed"), Some(item)) => self.items.completed(item, events),
            // Events `error` tell of tries, and of what the run fails by: its end says that.
            (Some(_) | None, _) => {}
        }
    }

    fn answer<'a>(&'a self, left: &'a Left) -> Result<&'a str, Box<Failure>> {
        if self.reads {
            decode::judge(&self.events, self.limit, left)?;
            decode::said(self.events.message.as_deref())
        } else {
            decode::said(Some(decode::last_message(&self.prompt, self.limit, left)?))
        }
    }
}

impl AgentReader for Reader {
    fn take(&mut self, line: Map<String, Value>, events: &mut Vec<AgentEvent>) {
        if self.reads {
            self.events.take(&line);
            if self.tells {
                self.tell(&line, events);
            }
        }
    }

    fn end(&mut self, _: &mut Vec<AgentEvent>) {}

    fn outcome(&self, left: &Left) -> AgentOutcome {
        let answer = self.answer(left).map_err(|failure| *failure);
        let result = answer.map(|text| match self.format {
            AgentFormat::Text => Envelope::new(text.into(), ContentType::Text),
            AgentFormat::Unset | AgentFormat::Json | AgentFormat::Stream => content::envelope(text),
        });
        content::outcome(result, &self.events.usage, self.wants_json)
    }
}
