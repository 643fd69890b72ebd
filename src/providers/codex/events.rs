//! What Codex prints with `--json`: an event a line.

use serde_json::{Map, Value};

use super::super::json;

/// How the turn ended, by the CLI's own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Completed,
    /// With its message.
    Failed(String),
}

/// What the events of a run come to.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// There was at least one: Codex got past its start.
    pub(super) any: bool,
    /// By it the conversation is continued.
    pub(super) thread: Option<String>,
    /// The last completed message of the model.
    pub(super) message: Option<String>,
    /// As it came. After a continuation it is the thread's running total, not the turn's.
    pub(super) usage: Value,
    /// `None`: it ended, or was ended, in the middle.
    pub(super) verdict: Option<Verdict>,
    /// The last `error` event. Retries are told that way too, so alone it decides nothing.
    pub(super) warning: Option<String>,
}

impl Events {
    /// Reads stdout; lines that are no events are left out.
    pub(super) fn read(stdout: &str) -> Self {
        let mut events = Self::default();
        for event in json::objects(stdout) {
            events.take(&event);
        }
        events
    }

    /// The next one.
    pub(super) fn take(&mut self, event: &Map<String, Value>) {
        let Some(kind) = text(event, "type") else { return };
        match kind {
            "thread.started" => self.thread = text(event, "thread_id").map(String::from),
            "item.completed" => self.take_item(event.get("item")),
            "turn.completed" => {
                self.usage = event.get("usage").cloned().unwrap_or_default();
                self.verdict = Some(Verdict::Completed);
            }
            "turn.failed" => {
                let error = event.get("error").and_then(Value::as_object);
                let message = error.and_then(|error| text(error, "message"));
                self.verdict = Some(Verdict::Failed(message.unwrap_or_default().to_owned()));
            }
            "error" => self.warning = text(event, "message").map(String::from),
            _ => {}
        }
        self.any |= kind.contains('.') || kind == "error";
    }

    /// Messages of the model; items of type `error` are notices, and commands may fail.
    fn take_item(&mut self, item: Option<&Value>) {
        let Some(item) = item.and_then(Value::as_object) else { return };
        if text(item, "type") == Some("agent_message")
            && let Some(message) = text(item, "text")
        {
            self.message = Some(message.to_owned());
        }
    }
}

/// A text of an event.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}
