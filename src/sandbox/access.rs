//! Access tokens: which claims they carry, and when they are in force.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::jwt::{JwtError, Signer};
use super::rules::{Rule, Rules};
use crate::model::{GatewayId, TeamId};

const AUDIENCE: &str = "authenticated";
/// Audience, role and scope of drive tokens.
const DRIVE: &str = "drive";

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

/// Whose drive token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "these are the names of the claims")]
pub(super) struct DriveToken {
    /// `app_metadata.gateway_id`.
    pub(super) gateway_id: GatewayId,
    /// `app_metadata.team_id`.
    pub(super) team_id: TeamId,
    /// `app_metadata.vm_id`.
    pub(super) vm_id: Option<String>,
}

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bearer {
    /// A session of a gateway.
    Session(Identity),
    /// The right to drive sync.
    Drive(DriveToken),
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

/// Makes and reads access tokens.
#[derive(Debug, Clone)]
pub(super) struct AccessTokens {
    signer: Signer,
    issuer: String,
    lifetime: i64,
    rules: Rules,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: String,
    role: String,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    scope: Option<String>,
    session_id: Option<String>,
    app_metadata: AppMetadata,
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "these are the names of the claims")]
struct AppMetadata {
    gateway_id: GatewayId,
    team_id: TeamId,
    vm_id: Option<String>,
}

impl AccessTokens {
    /// `issuer` goes into `iss`; `lifetime` is in seconds.
    pub(super) fn new(signer: Signer, issuer: String, lifetime: i64, rules: Rules) -> Self {
        Self { signer, issuer, lifetime, rules }
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

    /// A drive token that is in force from `now` for `lifetime` (both in seconds).
    pub(super) fn mint_drive(&self, token: &DriveToken, now: i64, lifetime: i64) -> String {
        self.signer.sign(&json!({
            "iss": self.issuer,
            "sub": token.gateway_id,
            "aud": DRIVE,
            "exp": now.saturating_add(lifetime),
            "iat": now,
            "role": DRIVE,
            "scope": DRIVE,
            "app_metadata": {
                "gateway_id": token.gateway_id,
                "team_id": token.team_id,
                "vm_id": token.vm_id,
            },
        }))
    }

    /// Reads a token at `now`; clocks may differ by `leeway` seconds.
    pub(super) fn read(&self, token: &str, now: i64, leeway: i64) -> Result<Bearer, AccessError> {
        let (bearer, term) = self.claims(token).map_err(|_| AccessError::Invalid)?;
        self.check(term, now, leeway)?;
        Ok(bearer)
    }

    /// The same for callers that take sessions only.
    pub(super) fn session(
        &self,
        token: &str,
        now: i64,
        leeway: i64,
    ) -> Result<Identity, AccessError> {
        match self.read(token, now, leeway)? {
            Bearer::Session(identity) => Ok(identity),
            Bearer::Drive(_) => Err(AccessError::Invalid),
        }
    }

    /// What a token claims, and when; whether that is now is for the caller to check.
    pub(super) fn claims(&self, token: &str) -> Result<(Bearer, Term), Unreadable> {
        let claims = self.verified(token).map_err(Unreadable::Jwt)?;
        let claims: Claims =
            serde_json::from_value(Value::Object(claims)).map_err(|_| Unreadable::Claims)?;
        let from = claims.nbf.map_or(claims.iat, |nbf| nbf.max(claims.iat));
        let term = Term { until: claims.exp, from };
        let AppMetadata { gateway_id, team_id, vm_id } = claims.app_metadata;
        #[cfg(test)]
        if !self.rules.hold(Rule::Kind) {
            let (user_id, session_id) = (claims.sub, claims.session_id.unwrap_or_default());
            let identity = Identity { user_id, session_id, gateway_id, team_id };
            return Ok((Bearer::Session(identity), term));
        }
        match (claims.aud.as_str(), claims.role.as_str(), claims.session_id) {
            (AUDIENCE, AUDIENCE, Some(session_id)) => {
                let user_id = claims.sub;
                let identity = Identity { user_id, session_id, gateway_id, team_id };
                Ok((Bearer::Session(identity), term))
            }
            (DRIVE, DRIVE, None) if claims.scope.as_deref() == Some(DRIVE) => {
                Ok((Bearer::Drive(DriveToken { gateway_id, team_id, vm_id }), term))
            }
            _ => Err(Unreadable::Claims),
        }
    }

    /// Whether a token is in force at `now`; clocks may differ by `leeway` seconds.
    pub(super) fn check(&self, term: Term, now: i64, leeway: i64) -> Result<(), AccessError> {
        if now >= term.until.saturating_add(leeway) && self.rules.hold(Rule::Expiry) {
            return Err(AccessError::Expired);
        }
        // A clock that was set back by a second must not lock a gateway out, whatever the leeway.
        let ahead = now.saturating_add(leeway.max(1));
        if term.from > ahead && self.rules.hold(Rule::Beginning) {
            return Err(AccessError::NotYet);
        }
        Ok(())
    }

    fn verified(&self, token: &str) -> Result<Map<String, Value>, JwtError> {
        #[cfg(test)]
        if !self.rules.hold(Rule::Signature) {
            return super::jwt::unverified(token);
        }
        self.signer.verify(token)
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
        AccessTokens::new(
            Signer::new(b"secret"),
            "http://localhost/auth/v1".into(),
            3600,
            Rules::default(),
        )
    }

    #[test]
    fn a_token_is_in_force_until_its_exp() {
        let tokens = tokens();
        let token = tokens.mint(&identity(), 1_000);
        let identity = || Bearer::Session(identity());
        assert_eq!(tokens.read(&token, 1_000, 0), Ok(identity()));
        assert_eq!(tokens.read(&token, 4_599, 0), Ok(identity()));
        assert_eq!(tokens.read(&token, 4_600, 0), Err(AccessError::Expired));
        assert_eq!(tokens.read(&token, 4_629, 30), Ok(identity()));
        assert_eq!(tokens.read(&token, 4_630, 30), Err(AccessError::Expired));
        assert_eq!(tokens.read(&token, 900, 30), Err(AccessError::NotYet));
    }

    #[test]
    fn a_drive_token_is_no_session() {
        let tokens = tokens();
        let drive = DriveToken {
            gateway_id: GatewayId::new("g"),
            team_id: TeamId::new("t"),
            vm_id: Some("v".into()),
        };
        let token = tokens.mint_drive(&drive, 1_000, 60);
        assert_eq!(tokens.read(&token, 1_059, 0), Ok(Bearer::Drive(drive)));
        assert_eq!(tokens.session(&token, 1_059, 0), Err(AccessError::Invalid));
        assert_eq!(tokens.read(&token, 1_060, 0), Err(AccessError::Expired));
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
