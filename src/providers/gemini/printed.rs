//! What a run's stdout says, whichever way it was printed.

use serde_json::{Map, Value};

use super::Printing;
use crate::providers::json;

/// What stdout says.
#[derive(Debug, Default)]
pub(super) struct Printed {
    /// The answer came to its end. A run that was told to stop ends with exit code 0 without that.
    pub finished: bool,
    /// The answer, or as much of it as came.
    pub text: String,
    /// The error that it ended with.
    pub error: Option<Map<String, Value>>,
    /// Tokens and times, by model; null where it does not say.
    pub stats: Value,
    /// The CLI's own object; none for text.
    pub whole: Option<Value>,
    pub session_id: Option<String>,
    /// The model that was asked for first, which may be a name for several.
    model: Option<String>,
}

impl Printed {
    /// Of a stdout that was printed that way.
    pub(super) fn read(printing: Printing, stdout: &str) -> Self {
        match printing {
            Printing::Text => Self::of_text(stdout),
            Printing::Json => json::find_object(stdout).map(Self::of_object).unwrap_or_default(),
            Printing::Events => Self::of_events(stdout),
        }
    }

    /// The CLI adds one newline.
    fn of_text(stdout: &str) -> Self {
        let text = stdout.strip_suffix('\n').unwrap_or(stdout).to_owned();
        Self { finished: true, text, ..Self::default() }
    }

    fn of_object(object: Map<String, Value>) -> Self {
        Self {
            finished: object.contains_key("response") || object.contains_key("error"),
            text: text(&object, "response").unwrap_or_default().to_owned(),
            error: error(&object),
            stats: object.get("stats").cloned().unwrap_or_default(),
            session_id: text(&object, "session_id").map(str::to_owned),
            model: None,
            whole: Some(Value::Object(object)),
        }
    }

    fn of_events(stdout: &str) -> Self {
        let mut printed = Self::default();
        for event in json::objects(stdout) {
            printed.add(event);
        }
        printed
    }

    /// The next event.
    pub(super) fn add(&mut self, event: Map<String, Value>) {
        match event.get("type").and_then(Value::as_str) {
            Some("init") => {
                self.session_id = text(&event, "session_id").map(str::to_owned);
                self.model = text(&event, "model").map(str::to_owned);
            }
            Some("message") if event.get("role").is_some_and(|role| role == "assistant") => {
                self.text.push_str(text(&event, "content").unwrap_or_default());
            }
            Some("result") => {
                self.finished = true;
                let good = event.get("status").is_some_and(|status| status == "success");
                self.error = error(&event).or_else(|| (!good).then(Map::new));
                self.stats = event.get("stats").cloned().unwrap_or_default();
                self.whole = Some(Value::Object(event));
            }
            Some(_) | None => {}
        }
    }

    /// The model that answered: the one with the main role, since the first is the router's when no
    /// model was named; without roles the one that the events began with, else the first.
    pub(super) fn answered_by(&self) -> Option<String> {
        let models = self.stats.get("models").and_then(Value::as_object);
        let mut names = models.into_iter().flatten();
        let main = |(_, model): &(&String, &Value)| model.pointer("/roles/main").is_some();
        let found = names.clone().find(main).map(|(name, _)| name.clone());
        let begun =
            self.model.as_ref().filter(|name| models.is_some_and(|m| m.contains_key(*name)));
        found
            .or_else(|| begun.cloned())
            .or_else(|| names.next().map(|(name, _)| name.clone()))
            .or_else(|| self.model.clone())
    }
}

/// A text of an event.
pub(super) fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// The object's error; one that is no object counts as its message.
fn error(object: &Map<String, Value>) -> Option<Map<String, Value>> {
    match object.get("error") {
        None | Some(Value::Null) => None,
        Some(Value::Object(error)) => Some(error.clone()),
        Some(other) => {
            let message = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
            Some(Map::from_iter([("message".to_owned(), Value::String(message))]))
        }
    }
}
