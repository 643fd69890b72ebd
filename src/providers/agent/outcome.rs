//! What a subagent's run came to.

use serde_json::{Map, Value, json};

use crate::providers::Failure;

/// `content_type` of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// Prose of a model.
    Markdown,
    /// Plain text.
    Text,
    /// A JSON value.
    Json,
}

impl ContentType {
    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Markdown => "markdown",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What readers of a subagent get: `{schema_version: 1, content, content_type, summary?, sources?,
/// errors?}` and no other key.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// A text unless the type is JSON.
    pub content: Value,
    /// What it is.
    pub content_type: ContentType,
    /// In short.
    pub summary: Option<String>,
    /// Where it is from.
    pub sources: Option<Vec<String>>,
    /// What went wrong.
    pub errors: Option<Vec<String>>,
}

impl Envelope {
    /// Of a content without more.
    pub fn new(content: Value, content_type: ContentType) -> Self {
        Self { content, content_type, summary: None, sources: None, errors: None }
    }

    /// That something failed.
    pub fn error(message: &str) -> Self {
        let errors = Some(vec![message.to_owned()]);
        Self { errors, ..Self::new(message.into(), ContentType::Text) }
    }

    /// As the backend takes it.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "schema_version": 1,
            "content": self.content,
            "content_type": self.content_type.as_str(),
        });
        let optional = [
            ("summary", json!(self.summary)),
            ("sources", json!(self.sources)),
            ("errors", json!(self.errors)),
        ];
        for (name, field) in optional.into_iter().filter(|(_, field)| !field.is_null()) {
            value[name] = field;
        }
        value
    }
}

/// The end of a run, as its CLI told it.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentOutcome {
    /// What it gave, or why it gave nothing.
    pub result: Result<Envelope, Failure>,
    /// What the CLI says of itself, for the subagent's metadata: `session_id`, `total_cost_usd`,
    /// `usage`, `model_usage`, `permission_denials`, those that there are. There after failures
    /// too: a session that failed can be continued. A null `session_id`: the one that was to be
    /// continued does not exist.
    pub metadata: Map<String, Value>,
    /// Why the output could not be read the way it was asked for, when it could not.
    pub parse_error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_has_only_keys_that_say_something() {
        let plain = Envelope::new("x".into(), ContentType::Markdown);
        assert_eq!(
            plain.to_value(),
            json!({"schema_version": 1, "content": "x", "content_type": "markdown"})
        );
        assert_eq!(
            Envelope::error("no").to_value(),
            json!({
                "schema_version": 1, "content": "no", "content_type": "text", "errors": ["no"],
            })
        );
    }
}
