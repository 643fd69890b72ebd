//! Text of the model that may still go on, and what has to wait behind it.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::providers::agent::{AgentEvent, EventKind};

/// Bytes that are held at most; then they are told as they are.
pub(super) const HELD_BYTES: usize = 1024 * 1024;

/// What an entry takes beside its text, about.
const ENTRY_BYTES: usize = 256;

/// A part of a message.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) message_id: Option<String>,
    pub(super) model: Option<String>,
    pub(super) stop_reason: Option<String>,
    pub(super) content: String,
}

/// Merges the parts of a message. Live, of neighbouring parts only: one message at most is held,
/// until something else comes. Otherwise of all parts of a run: everything is held, and a message
/// stands where its first part stood.
#[derive(Debug)]
pub(super) struct Held {
    live: bool,
    entries: Vec<Entry>,
    /// Where the messages with an id stand among them.
    places: HashMap<String, usize>,
    bytes: usize,
}

#[derive(Debug)]
enum Entry {
    Text(Text),
    Event(AgentEvent),
}

impl Held {
    pub(super) fn new(live: bool) -> Self {
        Self { live, entries: Vec::new(), places: HashMap::new(), bytes: 0 }
    }

    /// More text.
    pub(super) fn text(&mut self, part: Text, events: &mut Vec<AgentEvent>) {
        let length = part.content.len();
        let place = part.message_id.as_ref().and_then(|id| self.places.get(id));
        match place.and_then(|place| self.entries.get_mut(*place)) {
            Some(Entry::Text(text)) => {
                text.content.push_str(&part.content);
                text.model = part.model.or(text.model.take());
                text.stop_reason = part.stop_reason.or(text.stop_reason.take());
            }
            Some(Entry::Event(_)) | None => {
                self.interrupt(events);
                if let Some(id) = &part.message_id {
                    self.places.insert(id.clone(), self.entries.len());
                    self.bytes += id.len();
                }
                self.bytes += ENTRY_BYTES;
                self.entries.push(Entry::Text(part));
            }
        }
        self.bytes += length;
        self.bound(events);
    }

    /// Something else than text.
    pub(super) fn event(&mut self, event: AgentEvent, events: &mut Vec<AgentEvent>) {
        if self.live {
            self.flush(events);
            events.push(event);
        } else {
            self.bytes += ENTRY_BYTES + size(&event.payload);
            self.entries.push(Entry::Event(event));
            self.bound(events);
        }
    }

    /// Something came that is not told of, yet ends a run of neighbouring parts.
    pub(super) fn interrupt(&mut self, events: &mut Vec<AgentEvent>) {
        if self.live {
            self.flush(events);
        }
    }

    /// Tells everything that is held; messages without text are left out.
    pub(super) fn flush(&mut self, events: &mut Vec<AgentEvent>) {
        self.places.clear();
        self.bytes = 0;
        events.extend(self.entries.drain(..).filter_map(|entry| match entry {
            Entry::Text(text) => message(text),
            Entry::Event(event) => Some(event),
        }));
    }

    fn bound(&mut self, events: &mut Vec<AgentEvent>) {
        if self.bytes > HELD_BYTES {
            self.flush(events);
        }
    }
}

fn size(payload: &Map<String, Value>) -> usize {
    serde_json::to_string(payload).map_or(0, |text| text.len())
}

fn message(text: Text) -> Option<AgentEvent> {
    if text.content.trim().is_empty() {
        return None;
    }
    let mut payload = Map::new();
    payload.insert("role".to_owned(), "assistant".into());
    payload.insert("content".to_owned(), text.content.into());
    let known =
        [("message_id", text.message_id), ("model", text.model), ("stop_reason", text.stop_reason)];
    for (name, value) in known {
        if let Some(value) = value {
            payload.insert(name.to_owned(), value.into());
        }
    }
    Some(AgentEvent { kind: EventKind::Message, payload })
}
