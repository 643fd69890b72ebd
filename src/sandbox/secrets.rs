//! The secrets of this installation: made once, at random, kept in `secrets.json` (0600).

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::jwt::Signer;
use crate::fs::{self, FsError};

const FORMAT: u32 = 1;
const MAX_SIZE: u64 = 64 * 1024;
/// An anon key is not a credential of a person: it lasts as long as the installation.
const ANON_LIFETIME_SECONDS: i64 = 20 * 365 * 24 * 3600;

/// Why there are no secrets to work with.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The file cannot be used.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// It does not parse; it is never overwritten.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it does not parse.
        #[source]
        source: serde_json::Error,
    },
    /// A newer version wrote it.
    #[error("{} has format {found}; this version knows format {FORMAT}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The operating system gave no random bytes.
    #[error("could not get random bytes from the operating system")]
    Random(#[from] getrandom::Error),
}

/// What signs tokens and opens the admin API.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) jwt_secret: SecretString,
    pub(super) anon_key: String,
    pub(super) admin_token: SecretString,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    jwt_secret: String,
    anon_key: String,
    admin_token: String,
}

impl Secrets {
    /// Where a data dir keeps them.
    pub(super) fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("secrets.json")
    }

    /// The saved ones; `None` when there are none yet.
    pub(super) fn load(data_dir: &Path) -> Result<Option<Self>, SecretsError> {
        let path = Self::path(data_dir);
        let Some(bytes) = fs::read_private(&path, MAX_SIZE)? else { return Ok(None) };
        let saved: Saved = serde_json::from_slice(&bytes)
            .map_err(|source| SecretsError::Damaged { path: path.clone(), source })?;
        if saved.version > FORMAT {
            return Err(SecretsError::Newer { path, found: saved.version });
        }
        Ok(Some(Self {
            jwt_secret: saved.jwt_secret.into(),
            anon_key: saved.anon_key,
            admin_token: saved.admin_token.into(),
        }))
    }

    /// The saved ones, or new ones, saved before they are used.
    pub(super) fn load_or_make(data_dir: &Path, now: i64) -> Result<Self, SecretsError> {
        if let Some(secrets) = Self::load(data_dir)? {
            return Ok(secrets);
        }
        let jwt_secret = random_token()?;
        let saved = Saved {
            version: FORMAT,
            anon_key: Signer::new(jwt_secret.as_bytes()).sign(&json!({
                "iss": "panorama-sandbox",
                "role": "anon",
                "iat": now,
                "exp": now.saturating_add(ANON_LIFETIME_SECONDS),
            })),
            jwt_secret,
            admin_token: random_token()?,
        };
        let path = Self::path(data_dir);
        let text = serde_json::to_vec_pretty(&saved)
            .map_err(|source| SecretsError::Damaged { path: path.clone(), source })?;
        fs::save(&path, &text)?;
        Ok(Self {
            jwt_secret: saved.jwt_secret.into(),
            anon_key: saved.anon_key,
            admin_token: saved.admin_token.into(),
        })
    }

    /// Whether this is the anon key; constant time.
    pub(super) fn is_anon_key(&self, text: &str) -> bool {
        same(text, &self.anon_key)
    }

    /// Whether this is the admin token; constant time.
    pub(super) fn is_admin_token(&self, text: &str) -> bool {
        same(text, self.admin_token.expose_secret())
    }
}

/// Whether two secrets are equal; the time tells their lengths at most.
pub(super) fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// 32 random bytes as base64url: 43 characters.
pub(super) fn random_token() -> Result<String, getrandom::Error> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes::<32>()?))
}

/// Bytes from the operating system.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_tokens_are_long_and_differ() {
        let (one, other) = (random_token().unwrap(), random_token().unwrap());
        assert_eq!(one.len(), 43);
        assert_ne!(one, other);
    }

    #[test]
    fn debug_shows_no_secret() {
        let secrets = Secrets {
            jwt_secret: "jwt-secret-text".to_owned().into(),
            anon_key: "anon".into(),
            admin_token: "admin-token-text".to_owned().into(),
        };
        let shown = format!("{secrets:?}");
        assert!(!shown.contains("secret-text") && !shown.contains("token-text"), "{shown}");
        assert!(secrets.is_admin_token("admin-token-text"));
        assert!(!secrets.is_admin_token("admin-token-tex") && !secrets.is_admin_token(""));
    }
}
