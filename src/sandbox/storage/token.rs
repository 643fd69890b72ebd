//! Tokens of signed URLs: each opens one object for one purpose until its time is over.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::sandbox::jwt::{JwtError, Signer};
use crate::sandbox::rules::{Rule, Rules};

/// What a token is for. No token is for two purposes, and none of these is an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// Reading an object.
    #[serde(rename = "storage-download")]
    Download,
    /// Storing an object that is not there yet.
    #[serde(rename = "storage-upload")]
    Upload,
    /// Storing an object, in place of what is there.
    #[serde(rename = "storage-upsert")]
    Upsert,
}

/// What a token grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) purpose: Purpose,
    pub(super) team_id: String,
    pub(super) bucket: String,
    pub(super) name: String,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenError {
    /// Malformed, forged, or a token of another kind.
    Invalid,
    /// Its time is over.
    Expired,
}

/// Makes and reads tokens of signed URLs.
#[derive(Debug, Clone)]
pub(in crate::sandbox) struct UrlTokens {
    signer: Signer,
    rules: Rules,
}

#[derive(Deserialize)]
struct Claims {
    kind: Purpose,
    team_id: String,
    bucket: String,
    name: String,
    exp: i64,
}

impl UrlTokens {
    /// Signs with the server's key.
    pub(in crate::sandbox) fn new(signer: Signer, rules: Rules) -> Self {
        Self { signer, rules }
    }

    /// A token that is in force from `now` for `lifetime` (seconds).
    pub(super) fn mint(&self, grant: &Grant, now: i64, lifetime: u32) -> String {
        self.signer.sign(&json!({
            "kind": grant.purpose,
            "team_id": grant.team_id,
            "bucket": grant.bucket,
            "name": grant.name,
            "iat": now,
            "exp": now.saturating_add(lifetime.into()),
        }))
    }

    /// Reads a token at `now` (seconds since 1970).
    pub(super) fn read(&self, token: &str, now: i64) -> Result<Grant, TokenError> {
        let claims = self.verified(token).map_err(|_| TokenError::Invalid)?;
        let claims: Claims =
            serde_json::from_value(Value::Object(claims)).map_err(|_| TokenError::Invalid)?;
        if now >= claims.exp && self.rules.hold(Rule::UrlExpiry) {
            return Err(TokenError::Expired);
        }
        let Claims { kind: purpose, team_id, bucket, name, .. } = claims;
        Ok(Grant { purpose, team_id, bucket, name })
    }

    fn verified(&self, token: &str) -> Result<Map<String, Value>, JwtError> {
        #[cfg(test)]
        if !self.rules.hold(Rule::UrlSignature) {
            return crate::sandbox::jwt::unverified(token);
        }
        self.signer.verify(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GatewayId, TeamId};
    use crate::sandbox::access::{AccessError, AccessTokens, Identity};

    fn grant(purpose: Purpose) -> Grant {
        Grant { purpose, team_id: "t".into(), bucket: "b".into(), name: "a/b".into() }
    }

    #[test]
    fn a_token_is_in_force_until_its_exp() {
        let tokens = UrlTokens::new(Signer::new(b"secret"), Rules::default());
        for purpose in [Purpose::Download, Purpose::Upload, Purpose::Upsert] {
            let token = tokens.mint(&grant(purpose), 1_000, 60);
            assert_eq!(tokens.read(&token, 1_059), Ok(grant(purpose)));
            assert_eq!(tokens.read(&token, 1_060), Err(TokenError::Expired));
            let others = UrlTokens::new(Signer::new(b"another"), Rules::default());
            assert_eq!(others.read(&token, 1_000), Err(TokenError::Invalid));
        }
    }

    #[test]
    fn access_tokens_and_these_do_not_stand_for_each_other() {
        let signer = Signer::new(b"secret");
        let access = AccessTokens::new(signer.clone(), "x".into(), 3600, Rules::default());
        let identity = Identity {
            user_id: "u".into(),
            session_id: "s".into(),
            gateway_id: GatewayId::new("g"),
            team_id: TeamId::new("t"),
        };
        let tokens = UrlTokens::new(signer.clone(), Rules::default());
        let session = access.mint(&identity, 1_000);
        assert_eq!(tokens.read(&session, 1_000), Err(TokenError::Invalid));
        let url = tokens.mint(&grant(Purpose::Upsert), 1_000, 60);
        assert_eq!(access.read(&url, 1_000, 0), Err(AccessError::Invalid));
        let anon = signer.sign(&json!({"role": "anon", "exp": 9_999_999_999_i64}));
        assert_eq!(tokens.read(&anon, 1_000), Err(TokenError::Invalid));
    }
}
