//! Signed tokens: JWT with HS256, and nothing else.
//!
//! The algorithm is pinned: a token that names another one is refused before its signature is
//! looked at. Signatures are compared in constant time. Whether a token is still in force is for
//! its reader to judge.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Why a token is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwtError {
    /// Not three base64url parts that hold JSON objects.
    #[error("the token is malformed")]
    Malformed,
    /// Another algorithm, or header extensions that we do not know.
    #[error("the token's algorithm is not HS256")]
    Algorithm,
    /// Signed with another key, or changed.
    #[error("the token's signature is invalid")]
    Signature,
}

/// Signs and verifies with one key.
#[derive(Clone)]
pub(super) struct Signer {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// With this secret, of any length.
    pub(super) fn new(secret: &[u8]) -> Self {
        Self { keyed: keyed(secret) }
    }

    /// The compact form of a token with these claims.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let mut token = URL_SAFE_NO_PAD.encode(HEADER);
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut mac = self.keyed.clone();
        mac.update(token.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        token.push('.');
        token.push_str(&signature);
        token
    }

    /// The claims of a token that was signed with our key.
    pub(super) fn verify(&self, token: &str) -> Result<Map<String, Value>, JwtError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let header = object(header)?;
        if header.get("alg").and_then(Value::as_str) != Some("HS256") || header.contains_key("crit")
        {
            return Err(JwtError::Algorithm);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwtError::Malformed)?;
        let mut mac = self.keyed.clone();
        mac.update(signed.as_bytes());
        mac.verify_slice(&signature).map_err(|_| JwtError::Signature)?;
        object(claims)
    }
}

/// The claims of a token whoever signed it: what would be without signatures.
#[cfg(test)]
pub(super) fn unverified(token: &str) -> Result<Map<String, Value>, JwtError> {
    object(token.split('.').nth(1).ok_or(JwtError::Malformed)?)
}

/// HMAC-SHA256 under `secret`, whatever its length.
pub(super) fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    // A whole block is the one key length that cannot be refused; HMAC itself makes one this way.
    let mut block = [0_u8; 64];
    match block.get_mut(..secret.len()) {
        Some(start) => start.copy_from_slice(secret),
        None => block[..32].copy_from_slice(&Sha256::digest(secret)),
    }
    Hmac::new(&block.into())
}

fn object(part: &str) -> Result<Map<String, Value>, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JwtError::Malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KNOWN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
        eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.\
        SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";

    fn part(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    #[test]
    fn signs_the_well_known_example() {
        let signer = Signer::new(b"your-256-bit-secret");
        let claims = json!({"sub": "1234567890", "name": "John Doe", "iat": 1_516_239_022});
        assert_eq!(signer.sign(&claims), KNOWN);
        assert_eq!(Value::Object(signer.verify(KNOWN).unwrap()), claims);
    }

    #[test]
    fn verifies_the_example_of_rfc_7515() {
        let key = URL_SAFE_NO_PAD
            .decode(
                "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1\
                 Z9CAow",
            )
            .unwrap();
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
            eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290\
            Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(Signer::new(&key).verify(token).unwrap()["iss"], "joe");
    }

    #[test]
    fn a_changed_token_is_refused() {
        let signer = Signer::new(b"your-256-bit-secret");
        let [header, claims, signature]: [&str; 3] =
            KNOWN.split('.').collect::<Vec<_>>().try_into().unwrap();
        let other = part(&json!({"sub": "somebody else"}));
        assert_eq!(
            signer.verify(&format!("{header}.{other}.{signature}")),
            Err(JwtError::Signature)
        );
        assert_eq!(signer.verify(&format!("{header}.{claims}.")), Err(JwtError::Signature));
        assert_eq!(Signer::new(b"another").verify(KNOWN), Err(JwtError::Signature));
    }

    #[test]
    fn the_algorithm_is_pinned() {
        let signer = Signer::new(b"secret");
        let claims = part(&json!({"sub": "x"}));
        for header in [
            json!({"alg": "none"}),
            json!({"alg": "hs256"}),
            json!({"alg": "RS256"}),
            json!({"typ": "JWT"}),
            json!({"alg": "HS256", "crit": ["exp"]}),
        ] {
            let token = format!("{}.{claims}.", part(&header));
            assert_eq!(signer.verify(&token), Err(JwtError::Algorithm), "{header}");
        }
    }

    #[test]
    fn garbage_is_malformed() {
        let signer = Signer::new(b"secret");
        for token in ["", ".", "..", "a.b", "a.b.c", "é.é.é", "e30.e30.e30=", "W10.e30.e30"] {
            assert!(
                matches!(signer.verify(token), Err(JwtError::Malformed | JwtError::Algorithm)),
                "{token:?}"
            );
        }
    }
}
