//! What became of a CLI's run, read from what it left. Data only.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::process::{Ended, Exit};

/// What a run left behind; input of every decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Text of stdout, bounded.
    pub stdout: String,
    /// stdout was longer than the bound.
    pub stdout_truncated: bool,
    /// Text of stderr, bounded.
    pub stderr: String,
    /// How the CLI ended.
    pub exit: Exit,
    /// Who ended it.
    pub ended: Ended,
    /// The file that the plan names, when it is there.
    pub file: Option<String>,
}

/// What a decoder finds.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The model answered.
    Answer(Box<Answer>),
    /// It did not.
    Failure(Failure),
}

/// The model's answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// The object that was asked for, or `{text}`.
    pub output: Value,
    /// The CLI's own object, or `{text}`.
    pub raw: Value,
    /// The CLI's own words, or null.
    pub usage: Value,
    /// Usage by model, where the CLI tells it.
    pub model_usage: Option<Value>,
    /// The model that answered, where the CLI tells it.
    pub model: Option<String>,
    /// The CLI's session, by which it is continued.
    pub session_id: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind, by which callers and health decide.
    pub code: ErrorCode,
    /// One line for people.
    pub message: String,
    /// The CLI's own error object, when it printed one.
    pub summary: Option<ErrorSummary>,
}

/// `error_code` of a failed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not logged in, a wrong key, no right to the model.
    ProviderAuth,
    /// Too many requests, or no quota left.
    ProviderRateLimited,
    /// Overloaded, 5xx, no network.
    ProviderUnavailable,
    /// The time limit, ours or the CLI's.
    ProviderTimeout,
    /// It ended well and its output holds no answer.
    ProviderOutputInvalid,
    /// Anything else.
    ProviderFailed,
    /// The caller's mistake: a schema or model that does not exist, a prompt too long.
    InvalidRequest,
}

impl ErrorCode {
    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProviderAuth => "provider_auth",
            Self::ProviderRateLimited => "provider_rate_limited",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::ProviderTimeout => "provider_timeout",
            Self::ProviderOutputInvalid => "provider_output_invalid",
            Self::ProviderFailed => "provider_failed",
            Self::InvalidRequest => "invalid_request",
        }
    }

    /// Whether it says something about the provider: what is the caller's or passes does not.
    pub fn marks_unhealthy(self) -> bool {
        match self {
            Self::ProviderAuth | Self::ProviderOutputInvalid | Self::ProviderFailed => true,
            Self::ProviderRateLimited
            | Self::ProviderUnavailable
            | Self::ProviderTimeout
            | Self::InvalidRequest => false,
        }
    }

    /// The code of an HTTP status that a CLI reports of its API.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::ProviderAuth,
            429 => Self::ProviderRateLimited,
            408 | 504 => Self::ProviderTimeout,
            500.. => Self::ProviderUnavailable,
            400 | 404 | 413 | 422 => Self::InvalidRequest,
            _ => Self::ProviderFailed,
        }
    }
}

/// `error_summary`: of the first JSON object in stderr that tells of an error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorSummary {
    /// Its message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The parameter that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
}

impl ErrorSummary {
    /// Of an object that is an error or holds one under `error`; `None` when it tells nothing.
    pub fn of(object: &Map<String, Value>) -> Option<Self> {
        let error = object.get("error").and_then(Value::as_object).unwrap_or(object);
        let text = |name: &str| match error.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null
            | Value::Bool(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => None,
        };
        let summary = Self {
            message: text("message"),
            kind: text("type"),
            code: text("code"),
            param: text("param"),
        };
        (summary != Self::default()).then_some(summary)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_is_summed_up_wherever_it_stands() {
        let of = |value: Value| ErrorSummary::of(value.as_object().unwrap());
        let nested = json!({"session_id": "s", "error": {"message": "no", "code": 401}});
        let summary = of(nested).unwrap();
        assert_eq!(summary.message.as_deref(), Some("no"));
        assert_eq!(summary.code.as_deref(), Some("401"));
        assert_eq!(
            serde_json::to_value(&summary).unwrap(),
            json!({"message": "no", "code": "401"})
        );
        assert_eq!(of(json!({"answer": 1})), None);
    }

    #[test]
    fn what_passes_or_is_the_callers_says_nothing_about_the_provider() {
        let marking = [401, 403, 429, 500, 503, 529, 504, 400, 404, 418]
            .map(|status| ErrorCode::of_status(status).marks_unhealthy());
        let expected = [true, true, false, false, false, false, false, false, false, true];
        assert_eq!(marking, expected);
    }
}
