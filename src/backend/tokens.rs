//! A token pair, what can be read of it, and where it is kept.

use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::json::parse_json;
use crate::config::{ConfigStore, FileLock};
use crate::observe::Redactor;

/// Longer than the one network call that the holder of the refresh lock makes.
const REFRESH_LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// A token pair.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Short-lived JWT.
    pub access: SecretString,
    /// Works once; its parent may be used again.
    pub refresh: SecretString,
}

/// Where tokens are kept between runs. Blocking; implemented for `config::ConfigStore`.
pub trait TokenStore: std::fmt::Debug + Send + Sync + 'static {
    /// The saved pair now.
    fn load(&self) -> anyhow::Result<Option<Tokens>>;

    /// Saves a new pair durably before it is used, provided that the saved refresh token still is
    /// `parent` (or the new one already). `Ok(false)`: somebody else has put other tokens there,
    /// or removed them (a new pairing, an unpairing); nothing was written.
    fn save(&self, tokens: &Tokens, parent: &SecretString) -> anyhow::Result<bool>;

    /// Takes the machine-wide refresh lock (held until dropped).
    fn lock_refresh(&self) -> anyhow::Result<Box<dyn std::any::Any + Send>>;
}

impl TokenStore for ConfigStore {
    fn load(&self) -> anyhow::Result<Option<Tokens>> {
        let config = ConfigStore::load(self).context("read the saved tokens")?;
        let (Some(access), Some(refresh)) =
            (config.text("accessToken"), config.text("refreshToken"))
        else {
            return Ok(None);
        };
        Ok(Some(Tokens { access: access.into(), refresh: refresh.into() }))
    }

    fn save(&self, tokens: &Tokens, parent: &SecretString) -> anyhow::Result<bool> {
        let mut ours = false;
        self.update(|config| {
            let saved = config.text("refreshToken");
            ours = saved == Some(parent.expose_secret())
                || saved == Some(tokens.refresh.expose_secret());
            if ours {
                config.set("accessToken", tokens.access.expose_secret());
                config.set("refreshToken", tokens.refresh.expose_secret());
            }
        })
        .context("save the new tokens")?;
        Ok(ours)
    }

    fn lock_refresh(&self) -> anyhow::Result<Box<dyn std::any::Any + Send>> {
        let lock = FileLock::acquire(&self.paths().refresh_lock(), REFRESH_LOCK_PATIENCE)
            .context("take the refresh lock")?;
        Ok(Box::new(lock))
    }
}

/// Tells the redactor of every token before anything is done with it: a rotated one may never reach
/// the file that is watched (its disk is full) and can be in a log line before the watch notices.
#[derive(Debug)]
pub struct RedactedTokens<S> {
    store: S,
    redactor: Redactor,
}

impl<S> RedactedTokens<S> {
    /// The same store, told of to `redactor`.
    pub fn new(store: S, redactor: Redactor) -> Self {
        Self { store, redactor }
    }

    fn tell(&self, tokens: &Tokens) {
        for token in [&tokens.access, &tokens.refresh] {
            self.redactor.add_secret(token.expose_secret());
        }
    }
}

impl<S: TokenStore> TokenStore for RedactedTokens<S> {
    fn load(&self) -> anyhow::Result<Option<Tokens>> {
        let tokens = self.store.load()?;
        if let Some(tokens) = &tokens {
            self.tell(tokens);
        }
        Ok(tokens)
    }

    fn save(&self, tokens: &Tokens, parent: &SecretString) -> anyhow::Result<bool> {
        self.tell(tokens);
        self.store.save(tokens, parent)
    }

    fn lock_refresh(&self) -> anyhow::Result<Box<dyn std::any::Any + Send>> {
        self.store.lock_refresh()
    }
}

/// What we read of an access token. Unverified: it only decides when to ask.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// `exp`.
    pub(super) expires: Option<Timestamp>,
    /// `sub`: whose token it is.
    pub(super) subject: Option<String>,
}

impl Claims {
    /// Of a JWT; empty for anything else.
    pub(super) fn of(access: &SecretString) -> Self {
        Self::decode(access.expose_secret()).unwrap_or_default()
    }

    fn decode(token: &str) -> Option<Self> {
        let payload = token.split('.').nth(1)?;
        let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let claims = parse_json(&payload).ok()?;
        let seconds = claims.get("exp").and_then(|exp| {
            #[expect(clippy::cast_possible_truncation, reason = "saturates, and is checked below")]
            exp.as_i64().or_else(|| exp.as_f64().map(|seconds| seconds as i64))
        });
        Some(Self {
            expires: seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()),
            subject: claims.get("sub").and_then(Value::as_str).map(str::to_owned),
        })
    }
}

/// Equal texts.
pub(super) fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> SecretString {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)).into()
    }

    #[test]
    fn expiry_and_subject_are_read_where_they_can_be() {
        let at = Timestamp::from_second(1_900_000_000).unwrap();
        for (claims, expires, subject) in [
            (r#"{"exp":1900000000,"sub":"u1"}"#, Some(at), Some("u1")),
            (r#"{"exp":1900000000.7}"#, Some(at), None),
            (r#"{"exp":"1900000000","sub":7}"#, None, None),
            (r#"{"exp":1e300}"#, None, None),
            ("[]", None, None),
            ("not json", None, None),
        ] {
            let wanted = Claims { expires, subject: subject.map(str::to_owned) };
            assert_eq!(Claims::of(&jwt(claims)), wanted, "{claims}");
        }
        for token in ["", "opaque", "a.b", "..", "a.%%%.c"] {
            assert_eq!(Claims::of(&token.into()), Claims::default(), "{token:?}");
        }
    }

    /// Nothing can be kept.
    #[derive(Debug)]
    struct Full;

    impl TokenStore for Full {
        fn load(&self) -> anyhow::Result<Option<Tokens>> {
            Ok(Some(pair("loaded")))
        }

        fn save(&self, _: &Tokens, _: &SecretString) -> anyhow::Result<bool> {
            anyhow::bail!("disk full")
        }

        fn lock_refresh(&self) -> anyhow::Result<Box<dyn std::any::Any + Send>> {
            Ok(Box::new(()))
        }
    }

    fn pair(name: &str) -> Tokens {
        Tokens {
            access: format!("{name}-access-token").into(),
            refresh: format!("{name}-refresh-one").into(),
        }
    }

    #[test]
    fn tokens_are_known_to_the_redactor_even_when_they_cannot_be_saved() {
        let redactor = Redactor::default();
        let store = RedactedTokens::new(Full, redactor.clone());
        assert!(store.load().unwrap().is_some());
        assert!(store.save(&pair("rotated"), &"parent".into()).is_err());
        for secret in [
            "loaded-access-token",
            "loaded-refresh-one",
            "rotated-access-token",
            "rotated-refresh-one",
        ] {
            assert_eq!(redactor.own_secrets(secret), "[REDACTED]");
        }
    }
}
