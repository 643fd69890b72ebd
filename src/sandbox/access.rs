//! Access tokens: which claims they carry, and when they are in force.

use serde::Deserialize;
use serde_json::{Value, json};

use super::jwt::{JwtError, Signer};
use crate::model::{GatewayId, TeamId};

const AUDIENCE: &str = "authenticated";

/// Whose token it is: one session of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "these are the names of the claims")]
pub(super) struct Identity {
    /// `sub`.
    pub(super) user_id: String,
    /// `session_id`.
    pub(super) session_id: String,
    /// `app_metadata.gateway_id`.
    pub(super) gateway_id: GatewayId,
    /// `app_metadata.team_id`.
    pub(super) team_id: TeamId,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessError {
    /// Malformed, forged, or not an access token at all.
    Invalid,
    /// Past its `exp`.
    Expired,
    /// Its `iat` or `nbf` lies ahead.
    NotYet,
}

/// Why a text is no access token, now or ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is no token of ours.
    Jwt(JwtError),
    /// It is ours, but of another kind.
    Claims,
}

/// When a token is in force, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    /// `exp`.
    pub(super) until: i64,
    /// The later one of `iat` and `nbf`.
    from: i64,
}

impl Term {
    /// Whether it is in force at `now`; clocks may differ by `leeway` seconds.
    pub(super) fn check(self, now: i64, leeway: i64) -> Result<(), AccessError> {
        if now >= self.until.saturating_add(leeway) {
            return Err(AccessError::Expired);
        }
        // A clock that was set back by a second must not lock a gateway out, whatever the leeway.
        let ahead = now.saturating_add(leeway.max(1));
        if self.from > ahead { Err(AccessError::NotYet) } else { Ok(()) }
    }
}

/// Makes and reads access tokens.
#[derive(Debug, Clone)]
pub(super) struct AccessTokens {
    signer: Signer,
    issuer: String,
    lifetime: i64,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: String,
    role: String,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    session_id: String,
    app_metadata: AppMetadata,
}

#[derive(Deserialize)]
struct AppMetadata {
    gateway_id: GatewayId,
    team_id: TeamId,
}

impl AccessTokens {
    /// `issuer` goes into `iss`; `lifetime` is in seconds.
    pub(super) fn new(signer: Signer, issuer: String, lifetime: i64) -> Self {
        Self { signer, issuer, lifetime }
    }

    /// How long a new token lasts, seconds.
    pub(super) fn lifetime(&self) -> i64 {
        self.lifetime
    }

    /// A token that is in force from `now` (seconds since 1970).
    pub(super) fn mint(&self, identity: &Identity, now: i64) -> String {
        self.signer.sign(&json!({
            "iss": self.issuer,
            "sub": identity.user_id,
            "aud": AUDIENCE,
            "exp": now.saturating_add(self.lifetime),
            "iat": now,
            "role": AUDIENCE,
            "session_id": identity.session_id,
            "aal": "aal1",
            "amr": [{"method": "pairing_code", "timestamp": now}],
            "email": "",
            "phone": "",
            "app_metadata": app_metadata(identity),
            "user_metadata": {},
            "is_anonymous": false,
        }))
    }

    /// Reads a token at `now`; clocks may differ by `leeway` seconds.
    pub(super) fn read(&self, token: &str, now: i64, leeway: i64) -> Result<Identity, AccessError> {
        let (identity, term) = self.claims(token).map_err(|_| AccessError::Invalid)?;
        term.check(now, leeway)?;
        Ok(identity)
    }

    /// What a token claims, and when; whether that is now is for the caller to check.
    pub(super) fn claims(&self, token: &str) -> Result<(Identity, Term), Unreadable> {
        let claims = self.signer.verify(token).map_err(Unreadable::Jwt)?;
        let claims: Claims =
            serde_json::from_value(Value::Object(claims)).map_err(|_| Unreadable::Claims)?;
        if claims.aud != AUDIENCE || claims.role != AUDIENCE {
            return Err(Unreadable::Claims);
        }
        let from = claims.nbf.map_or(claims.iat, |nbf| nbf.max(claims.iat));
        let identity = Identity {
            user_id: claims.sub,
            session_id: claims.session_id,
            gateway_id: claims.app_metadata.gateway_id,
            team_id: claims.app_metadata.team_id,
        };
        Ok((identity, Term { until: claims.exp, from }))
    }
}

/// `app_metadata` of a token and of its user.
pub(super) fn app_metadata(identity: &Identity) -> Value {
    json!({
        "provider": "pairing_code",
        "providers": ["pairing_code"],
        "gateway_id": identity.gateway_id,
        "team_id": identity.team_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            user_id: "u".into(),
            session_id: "s".into(),
            gateway_id: GatewayId::new("g"),
            team_id: TeamId::new("t"),
        }
    }

    fn tokens() -> AccessTokens {
        AccessTokens::new(Signer::new(b"secret"), "http://localhost/auth/v1".into(), 3600)
    }

    #[test]
    fn a_token_is_in_force_until_its_exp() {
        let tokens = tokens();
        let token = tokens.mint(&identity(), 1_000);
        assert_eq!(tokens.read(&token, 1_000, 0), Ok(identity()));
        assert_eq!(tokens.read(&token, 4_599, 0), Ok(identity()));
        assert_eq!(tokens.read(&token, 4_600, 0), Err(AccessError::Expired));
        assert_eq!(tokens.read(&token, 4_629, 30), Ok(identity()));
        assert_eq!(tokens.read(&token, 4_630, 30), Err(AccessError::Expired));
        assert_eq!(tokens.read(&token, 900, 30), Err(AccessError::NotYet));
    }

    #[test]
    fn other_tokens_under_the_same_key_are_not_access_tokens() {
        let signer = Signer::new(b"secret");
        for claims in [
            json!({"role": "anon", "iss": "x", "iat": 1, "exp": 9_999_999_999_i64}),
            json!({"role": "service_role", "aud": "authenticated", "sub": "u", "session_id": "s",
                   "iat": 1, "exp": 9_999_999_999_i64,
                   "app_metadata": {"gateway_id": "g", "team_id": "t"}}),
            json!({"role": "authenticated", "aud": "authenticated", "sub": "u", "iat": 1,
                   "exp": 9_999_999_999_i64, "app_metadata": {}}),
        ] {
            let read = tokens().read(&signer.sign(&claims), 1_000, 0);
            assert_eq!(read, Err(AccessError::Invalid), "{claims}");
        }
    }
}
