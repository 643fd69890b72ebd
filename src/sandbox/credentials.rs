//! Who asks: the `apikey` of the project and the bearer token of a session.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::Caller;
use super::access::{AccessError, Bearer, DriveToken, Identity};
use super::app::{App, now_micros};
use super::rules::Rule;

/// Why a request has no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallerError {
    /// No `apikey`, or one that is not ours.
    Key(KeyError),
    /// The bearer token is not taken.
    Token(AccessError),
}

/// What is wrong with the `apikey`: a mistake in the caller's configuration, never a sign-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyError {
    /// None given.
    Missing,
    /// Not ours.
    Invalid,
}

impl KeyError {
    /// The answer, the same for every API behind the key.
    pub(super) fn response(self) -> Response {
        let message = match self {
            Self::Missing => "No API key found in request",
            Self::Invalid => "Invalid API key",
        };
        let hint = "Send the sandbox's anon key as `apikey`; `sandbox code` shows it.";
        let body = axum::Json(json!({"message": message, "hint": hint}));
        (StatusCode::UNAUTHORIZED, body).into_response()
    }
}

/// Checks the `apikey` of a request.
pub(super) fn check_key(app: &App, headers: &HeaderMap, query: &str) -> Result<(), KeyError> {
    if !app.rules.hold(Rule::Key) {
        return Ok(());
    }
    let key = match headers.get("apikey") {
        Some(value) => value.to_str().map_err(|_| KeyError::Invalid)?.to_owned(),
        None => query_value(query, "apikey").ok_or(KeyError::Missing)?,
    };
    if app.secrets.is_anon_key(&key) { Ok(()) } else { Err(KeyError::Invalid) }
}

/// The bearer token, if one was sent.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The caller behind `apikey` and bearer; clocks may differ by `leeway` seconds.
pub(super) fn caller(
    app: &App,
    headers: &HeaderMap,
    query: &str,
    leeway: i64,
) -> Result<Caller, CallerError> {
    let caller = proven(app, headers, query, leeway)?;
    #[cfg(test)]
    let caller = app.rules.promoted(caller);
    Ok(caller)
}

fn proven(app: &App, headers: &HeaderMap, query: &str, leeway: i64) -> Result<Caller, CallerError> {
    check_key(app, headers, query).map_err(CallerError::Key)?;
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(Caller::Anonymous);
    }
    let token = bearer(headers).ok_or(CallerError::Token(AccessError::Invalid))?;
    if app.secrets.is_anon_key(token) {
        return Ok(Caller::Anonymous);
    }
    let now = now_micros() / 1_000_000;
    match app.access.read(token, now, leeway).map_err(CallerError::Token)? {
        Bearer::Session(identity) => Ok(identity.into()),
        Bearer::Drive(DriveToken { gateway_id, team_id, vm_id }) => {
            Ok(Caller::Drive { gateway_id, team_id, vm_id })
        }
    }
}

impl From<Identity> for Caller {
    fn from(identity: Identity) -> Self {
        let Identity { user_id, session_id, gateway_id, team_id } = identity;
        Self::Gateway { user_id, session_id, gateway_id, team_id }
    }
}

/// The first value of a query parameter, decoded.
pub(super) fn query_value(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// The query without the parameter `name`, everything else byte for byte.
pub(super) fn query_without(query: &str, name: &str) -> String {
    query
        .split('&')
        .filter(|pair| pair.split('=').next() != Some(name))
        .collect::<Vec<_>>()
        .join("&")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_bearer_scheme_is_read_in_any_case() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("Basic abc", None),
            ("abc", None),
        ] {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(bearer(&headers), token, "{value}");
        }
    }

    #[test]
    fn the_key_leaves_the_query_and_nothing_else_does() {
        let query = "select=*&apikey=k%2B&id=eq.a%2Cb";
        assert_eq!(query_value(query, "apikey").as_deref(), Some("k+"));
        assert_eq!(query_without(query, "apikey"), "select=*&id=eq.a%2Cb");
    }
}
