//! Whether each part of a backend can be reached, and what time it is there. Changes nothing there
//! or here: no row is written, no token is rotated.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use secrecy::SecretString;

use super::http::{Call, Limits};
use super::{BackendError, Endpoint, Http, TokenStore, Tokens};
use crate::config::LockError;

/// Auth, REST and functions are asked a question that costs them nothing.
const LIMITS: Limits = Limits { time: Duration::from_secs(10), bytes: 1 << 20 };

/// A part of a backend that is spoken to over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Sessions.
    Auth,
    /// Tables.
    Rest,
    /// Edge functions.
    Functions,
}

impl Part {
    fn call(self, endpoint: &Endpoint) -> Result<Call, BackendError> {
        let path = match self {
            Self::Auth => "auth/v1/health",
            Self::Rest => "rest/v1/gateway_jobs?select=id&limit=1",
            Self::Functions => "functions/v1/gateway-heartbeat",
        };
        let mut call = Call::get(endpoint.join(path)?, LIMITS);
        if self == Self::Functions {
            // What a browser asks first: nothing runs for it.
            call.method = Method::OPTIONS;
        }
        call.authorize(endpoint, &endpoint.anon_key)?;
        Ok(call)
    }

    /// The part is there although it refuses this question, which nobody has logged in for.
    fn is_there(self, error: &BackendError) -> bool {
        let BackendError::Status { status, message, .. } = error else { return false };
        let about_key = message.to_ascii_lowercase().contains("api key");
        match self {
            Self::Auth => false,
            Self::Rest => matches!(status, 401 | 403) && !about_key,
            Self::Functions => matches!(status, 400..=403 | 405) && !about_key,
        }
    }
}

/// Asks a part of the backend for a sign of life, with the public key alone.
pub async fn reach(http: &Http, endpoint: &Endpoint, part: Part) -> Result<(), BackendError> {
    let call = part.call(endpoint)?;
    match http.send(&call).await?.success(&call) {
        Err(error) if !part.is_there(&error) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// How far this machine's clock is ahead of the backend's (negative: behind), by its last answer,
/// which tells whole seconds; `None` before there was one.
pub fn clock_ahead(http: &Http) -> Option<SignedDuration> {
    Some(Timestamp::now().duration_since(http.clock().heard()?))
}

/// Saved tokens that are used as they are: somebody else refreshes them.
#[derive(Debug)]
pub struct BorrowedTokens<S>(pub S);

impl<S: TokenStore> TokenStore for BorrowedTokens<S> {
    fn load(&self) -> anyhow::Result<Option<Tokens>> {
        self.0.load()
    }

    fn save(&self, _tokens: &Tokens, _parent: &SecretString) -> anyhow::Result<bool> {
        Ok(false)
    }

    /// Never had, so that the session never rotates.
    fn lock_refresh(&self) -> anyhow::Result<Box<dyn std::any::Any + Send>> {
        Err(LockError::Held.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, message: &str) -> BackendError {
        let message = message.to_owned();
        BackendError::Status { status, code: None, message, retry_after: None }
    }

    #[test]
    fn a_part_that_refuses_strangers_is_there() {
        for (part, status, message, wanted) in [
            (Part::Rest, 401, "permission denied for table gateway_jobs", true),
            (Part::Rest, 401, "Invalid API key", false),
            (Part::Rest, 404, "not found", false),
            (Part::Functions, 405, "", true),
            (Part::Functions, 404, "", false),
            (Part::Functions, 503, "", false),
            (Part::Auth, 401, "Invalid API key", false),
        ] {
            assert_eq!(part.is_there(&refused(status, message)), wanted, "{part:?} {status}");
        }
    }

    #[test]
    fn the_question_to_functions_runs_none() {
        let endpoint = Endpoint { url: "http://127.0.0.1:1".into(), anon_key: "k".into() };
        assert_eq!(Part::Functions.call(&endpoint).unwrap().method, Method::OPTIONS);
        assert_eq!(Part::Auth.call(&endpoint).unwrap().method, Method::GET);
    }
}
