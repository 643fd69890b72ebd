//! What came back: a body read in bounded fashion, and what an error answer says.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::BackendError;
use super::http::{Call, unreachable};
use super::json::parse_json;
use crate::clock::{Clock, Moment};

/// Of an error answer no more is read: enough for any JSON error, and HTML pages are not shown.
const ERROR_BODY_BYTES: usize = 64 * 1024;
/// An error's status is known already; its text is not waited for longer than this.
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(3);
/// What a person is shown of an error text.
const MESSAGE_CHARACTERS: usize = 400;

/// Where an error text is looked for, first to last.
pub(super) const TABLE_FIELDS: &[&str] = &["message", "msg", "error_description", "error"];
/// Edge functions put what people should read into `error`.
pub(super) const FUNCTION_FIELDS: &[&str] = &["error", "message", "msg"];

/// An HTTP answer of any status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    /// When its head came in.
    pub(super) received: Moment,
}

impl Answer {
    /// Reads at most `limit` bytes; of an error answer what comes in soon.
    pub(super) async fn read(
        mut response: reqwest::Response,
        limit: u64,
        clock: &Clock,
    ) -> Result<Self, BackendError> {
        let received = clock.now();
        let mut body = Vec::new();
        if response.status().is_success() {
            if response.content_length().is_some_and(|length| length > limit) {
                return Err(BackendError::TooLarge(limit));
            }
            while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
                if (body.len() + chunk.len()) as u64 > limit {
                    return Err(BackendError::TooLarge(limit));
                }
                body.extend_from_slice(&chunk);
            }
        } else {
            let reading = async {
                while body.len() < ERROR_BODY_BYTES
                    && let Ok(Some(chunk)) = response.chunk().await
                {
                    let room = ERROR_BODY_BYTES - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                }
            };
            // What is there by then is enough: the status says more than the text.
            let _ = tokio::time::timeout(ERROR_BODY_PATIENCE, reading).await;
        }
        let status = response.status();
        Ok(Self { status, headers: std::mem::take(response.headers_mut()), body, received })
    }

    /// Itself when the status is 2xx, else the error that it describes.
    pub(super) fn success(self, call: &Call) -> Result<Self, BackendError> {
        if self.status.is_success() { Ok(self) } else { Err(self.error(call)) }
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Result<Value, BackendError> {
        parse_json(&self.body)
            .map_err(|error| BackendError::Contract(format!("{error} ({})", self.describe())))
    }

    /// The body as an array of rows.
    pub(super) fn rows(&self) -> Result<Vec<Value>, BackendError> {
        match self.json()? {
            Value::Array(rows) => Ok(rows),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => {
                Err(BackendError::Contract(format!("not an array of rows ({})", self.describe())))
            }
        }
    }

    /// `Date`.
    pub(super) fn date(&self) -> Option<Timestamp> {
        http_date(self.text(&DATE)?)
    }

    /// The error that this answer is.
    pub(super) fn error(&self, call: &Call) -> BackendError {
        let body = parse_json(&self.body).unwrap_or_default();
        let text = |name: &str| {
            let value = body.get(name)?;
            value
                .as_str()
                .or_else(|| value.get("message")?.as_str())
                .filter(|text| !text.is_empty())
        };
        let code = ["error_code", "code"]
            .iter()
            .find_map(|name| body.get(name)?.as_str())
            .or_else(|| self.text(&HeaderName::from_static("x-sb-error-code")))
            .filter(|code| code.len() <= 100);
        let message = call.error_fields.iter().find_map(|name| text(name)).map_or_else(
            || self.describe_failure(),
            |message| one_line(&without_secrets(message, &call.secrets)),
        );
        BackendError::Status {
            status: self.status.as_u16(),
            code: code.map(|code| one_line(&without_secrets(code, &call.secrets))),
            message,
            retry_after: self.retry_after(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        let text = self.text(&RETRY_AFTER)?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let now = self.date().unwrap_or_else(Timestamp::now);
        http_date(text)?.duration_since(now).try_into().ok()
    }

    /// For an error answer without a text of its own.
    fn describe_failure(&self) -> String {
        let target = self.text(&LOCATION).and_then(|target| reqwest::Url::parse(target).ok());
        if let (true, Some(target)) = (self.status.is_redirection(), target) {
            return format!(
                "it redirects to {}, which is not followed",
                target.origin().ascii_serialization()
            );
        }
        let reason = self.status.canonical_reason().unwrap_or("no reason given");
        match self.text(&CONTENT_TYPE) {
            Some(kind) if !kind.starts_with("application/json") => {
                format!("{reason} ({})", one_line(kind))
            }
            _ => reason.to_owned(),
        }
    }

    /// Status, kind and size: what may be told of a body that may hold secrets.
    pub(super) fn describe(&self) -> String {
        let kind = self.text(&CONTENT_TYPE).unwrap_or("no content type");
        format!("status {}, {}, {} bytes", self.status.as_u16(), one_line(kind), self.body.len())
    }

    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

fn without_secrets(text: &str, secrets: &[SecretString]) -> String {
    secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty()).fold(
        text.to_owned(),
        |text, secret| {
            if text.contains(secret) { text.replace(secret, "[REDACTED]") } else { text }
        },
    )
}

/// One line of readable length.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MESSAGE_CHARACTERS)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::http::Limits;
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: body.into(),
            received: Clock::system().now(),
        }
    }

    fn call() -> Call {
        let mut call = Call::get("http://127.0.0.1/".parse().unwrap(), Limits::REST);
        call.secrets.push("s3cr3t-token".into());
        call
    }

    fn parts(answer: &Answer, fields: &'static [&'static str]) -> (Option<String>, String) {
        let error = answer.error(&Call { error_fields: fields, ..call() });
        let BackendError::Status { code, message, .. } = error else { panic!("{error:?}") };
        (code, message)
    }

    #[test]
    fn every_error_shape_is_read() {
        let json = ("content-type", "application/json");
        for (body, fields, code, message) in [
            (r#"{"code":"over","message":"slow down"}"#, TABLE_FIELDS, Some("over"), "slow down"),
            (
                r#"{"code":400,"error_code":"session_expired","msg":"gone"}"#,
                TABLE_FIELDS,
                Some("session_expired"),
                "gone",
            ),
            (
                r#"{"code":"23505","message":"dup","details":null,"hint":null}"#,
                TABLE_FIELDS,
                Some("23505"),
                "dup",
            ),
            (r#"{"error":"shown","message":"not"}"#, FUNCTION_FIELDS, None, "shown"),
            (r#"{"error":{"message":"inner"}}"#, FUNCTION_FIELDS, None, "inner"),
            (
                r#"{"message":"it has s3cr3t-token\nin it"}"#,
                TABLE_FIELDS,
                None,
                "it has [REDACTED] in it",
            ),
            ("", TABLE_FIELDS, None, "Bad Request"),
            ("[1]", TABLE_FIELDS, None, "Bad Request"),
        ] {
            let found = parts(&answer(400, &[json], body), fields);
            assert_eq!(found, (code.map(str::to_owned), message.to_owned()), "{body}");
        }
        let html = answer(502, &[("content-type", "text/html")], "<html>nginx</html>");
        assert_eq!(parts(&html, TABLE_FIELDS), (None, "Bad Gateway (text/html)".into()));
        let code = answer(400, &[("x-sb-error-code", "session_not_found")], "");
        assert_eq!(parts(&code, TABLE_FIELDS).0.as_deref(), Some("session_not_found"));
        let moved = answer(301, &[("location", "https://other.example/a?token=x")], "");
        assert_eq!(
            parts(&moved, TABLE_FIELDS).1,
            "it redirects to https://other.example, which is not followed"
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (text, wanted) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None),
            ("soon", None),
        ] {
            let answer = answer(429, &[date, ("retry-after", text)], "");
            assert_eq!(answer.retry_after(), wanted.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_broken_body_is_described_and_not_quoted() {
        let error =
            answer(200, &[("content-type", "text/html")], "<b>s3cr3t</b>").json().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the backend's answer did not match the contract: not JSON (line 1, column 1) \
             (status 200, text/html, 13 bytes)"
        );
    }
}
