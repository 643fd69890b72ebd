//! Request bodies, bounded.

use axum::body::{Body, HttpBody as _};
use http_body_util::BodyExt as _;
use memchr::memmem;
use serde::de::DeserializeOwned;

use super::store::value;

/// Auth, functions and admin: what they take is small.
pub(super) const SMALL: usize = 1024 * 1024;
/// Tables: a job's result carries up to 5,000,000 bytes of each stream, and JSON may make six of
/// one.
pub(super) const LARGE: usize = 64 * 1024 * 1024;
/// How much more is read and thrown away, so that a client that is still sending hears why.
const DRAIN: usize = 8 * SMALL;

/// Why a body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// Longer than the bound (bytes).
    TooLarge(usize),
    /// The connection broke, or the framing is wrong.
    Broken,
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(mut body: Body, limit: usize) -> Result<Vec<u8>, BodyError> {
    // As long as it is said to be: a long one would be copied each time it grows.
    let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let mut bytes = Vec::with_capacity(length.unwrap_or(0).min(limit));
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen <= limit {
            bytes.extend_from_slice(&data);
            continue;
        }
        bytes = Vec::new();
        if seen > limit.saturating_add(DRAIN) {
            break;
        }
    }
    if seen > limit { Err(BodyError::TooLarge(limit)) } else { Ok(bytes) }
}

/// A JSON object without U+0000, which Postgres stores neither; `Err` is one line that says what is
/// wrong with it.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if holds_nul(bytes) {
        return Err("the body holds U+0000, which cannot be stored".to_owned());
    }
    // Derived readers would take an array for a struct.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err("the body is not what is expected: it must be an object".to_owned());
    }
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            format!("the body is not what is expected: {error}")
        } else {
            "the body is not JSON".to_owned()
        }
    })
}

fn holds_nul(bytes: &[u8]) -> bool {
    const ESCAPED: &[u8] = br"\u0000";
    // A backslash that is escaped itself looks the same, so only the parsed text tells.
    memmem::find(bytes, ESCAPED).is_some()
        && serde_json::from_slice(bytes).is_ok_and(|body| value::has_nul(&body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bound_is_exact() {
        assert_eq!(read(Body::from(vec![b'a'; 10]), 10).await.map(|b| b.len()), Ok(10));
        assert_eq!(read(Body::from(vec![b'a'; 11]), 10).await, Err(BodyError::TooLarge(10)));
    }

    #[test]
    fn messages_name_the_field_but_do_not_echo_garbage() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Strict {
            #[expect(dead_code, reason = "only parsed")]
            code: String,
        }
        let unknown = parse::<Strict>(br#"{"code":"x","more":1}"#).unwrap_err();
        assert!(unknown.contains("more"), "{unknown}");
        assert_eq!(parse::<Strict>(b"<html>").unwrap_err(), "the body is not JSON");
        assert_eq!(parse::<Strict>(b"").unwrap_err(), "the body is not JSON");
        assert!(parse::<Strict>(b" [\"x\"]").unwrap_err().ends_with("must be an object"));
        assert!(parse::<Strict>(br#"{"code":"x\u0000"}"#).unwrap_err().contains("U+0000"));
        assert!(parse::<Strict>(br#"{"code":"x\\u0000"}"#).is_ok());
    }
}
