//! Tokens of the URLs that a drive hands out: each opens one content for one purpose for a while.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::sandbox::jwt::{JwtError, Signer};
use crate::sandbox::rules::{Rule, Rules};

/// What a token is for. It is no access token, and storage takes it no more than this takes
/// storage's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) enum Purpose {
    /// Reading a version.
    #[serde(rename = "drive-download")]
    Download,
    /// Sending parts of an upload.
    #[serde(rename = "drive-upload")]
    Upload,
}

/// Makes and reads them.
#[derive(Debug, Clone)]
pub(in crate::sandbox) struct DriveUrls {
    signer: Signer,
    rules: Rules,
}

#[derive(Deserialize)]
struct Claims {
    kind: Purpose,
    id: String,
    exp: i64,
}

impl DriveUrls {
    /// Signs with the server's key.
    pub(in crate::sandbox) fn new(signer: Signer, rules: Rules) -> Self {
        Self { signer, rules }
    }

    /// A token for what has that id, in force until `until` (seconds since 1970).
    pub(in crate::sandbox) fn mint(&self, purpose: Purpose, id: &str, until: i64) -> String {
        self.signer.sign(&json!({"kind": purpose, "id": id, "exp": until}))
    }

    /// Whether a token is for that, now (seconds since 1970).
    pub(super) fn allows(&self, token: &str, purpose: Purpose, id: &str, now: i64) -> bool {
        let claims = self.verified(token).ok();
        let claims: Option<Claims> =
            claims.and_then(|claims| serde_json::from_value(Value::Object(claims)).ok());
        claims.is_some_and(|claims| {
            (claims.kind == purpose || !self.rules.hold(Rule::DriveUrlPurpose))
                && (claims.id == id || !self.rules.hold(Rule::DriveUrlName))
                && (now < claims.exp || !self.rules.hold(Rule::UrlExpiry))
        })
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

    #[test]
    fn a_token_is_good_for_one_thing_for_a_while() {
        let urls = DriveUrls::new(Signer::new(b"secret"), Rules::default());
        let token = urls.mint(Purpose::Download, "v", 1_060);
        assert!(urls.allows(&token, Purpose::Download, "v", 1_059));
        assert!(!urls.allows(&token, Purpose::Download, "v", 1_060));
        assert!(!urls.allows(&token, Purpose::Upload, "v", 1_059));
        assert!(!urls.allows(&token, Purpose::Download, "w", 1_059));
        let others = DriveUrls::new(Signer::new(b"another"), Rules::default());
        assert!(!others.allows(&token, Purpose::Download, "v", 1_059));
    }
}
