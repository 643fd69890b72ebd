//! What a channel's token grants, and the words in which a bad one is refused.

use crate::sandbox::Caller;
use crate::sandbox::access::{AccessError, AccessTokens, Unreadable};
use crate::sandbox::jwt::JwtError;

/// Whom a channel serves, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    /// Whose rights count.
    pub(super) caller: Caller,
    /// `exp` of the token, seconds since 1970; the bare key has none.
    pub(super) expires_at: Option<i64>,
}

impl Grant {
    /// That of the socket's key: no rights.
    pub(super) fn anonymous() -> Self {
        Self { caller: Caller::Anonymous, expires_at: None }
    }
}

/// Why a token is not taken; clients look at these texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    /// Seconds since its `exp`.
    #[error("Token has expired {0} seconds ago")]
    Expired(i64),
    /// Its `iat` or `nbf` lies ahead.
    #[error("Token is not valid yet")]
    NotYet,
    /// No JWT.
    #[error("The token provided is not a valid JWT")]
    Malformed,
    /// Not signed by us.
    #[error("Failed to validate JWT signature")]
    Signature,
    /// Of another kind.
    #[error("The token provided is not the access token of a session")]
    Claims,
}

impl TokenError {
    /// `Code: text`, as replies to a join give it.
    pub(super) fn reason(self) -> String {
        let code = match self {
            Self::Expired(_) | Self::NotYet | Self::Claims => "InvalidJWTToken",
            Self::Malformed => "MalformedJWT",
            Self::Signature => "JwtSignatureError",
        };
        format!("{code}: {self}")
    }
}

/// Reads an access token at `now`, seconds since 1970. Other than tables, channels allow for no
/// difference of clocks at `exp`.
pub(super) fn read(tokens: &AccessTokens, token: &str, now: i64) -> Result<Grant, TokenError> {
    let (identity, term) = tokens.claims(token).map_err(|error| match error {
        Unreadable::Jwt(JwtError::Malformed) => TokenError::Malformed,
        Unreadable::Jwt(JwtError::Algorithm | JwtError::Signature) => TokenError::Signature,
        Unreadable::Claims => TokenError::Claims,
    })?;
    term.check(now, 0).map_err(|error| match error {
        AccessError::Expired => TokenError::Expired(now.saturating_sub(term.until)),
        AccessError::NotYet => TokenError::NotYet,
        AccessError::Invalid => TokenError::Malformed,
    })?;
    Ok(Grant { caller: identity.into(), expires_at: Some(term.until) })
}
