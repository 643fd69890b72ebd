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
    use crate::config::Paths;

    fn jwt(claims: &str) -> SecretString {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)).into()
    }

    fn stored(access: &str, refresh: &str) -> (tempfile::TempDir, ConfigStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::new(Paths::in_dir(&dir.path().join("gateway")));
        store
            .update(|config| {
                config.set("gatewayId", "g");
                config.set("accessToken", access);
                config.set("refreshToken", refresh);
            })
            .unwrap();
        (dir, store)
    }

    fn pair(access: &str, refresh: &str) -> Tokens {
        Tokens { access: access.into(), refresh: refresh.into() }
    }

    fn saved(store: &ConfigStore) -> Option<(String, String)> {
        let tokens = TokenStore::load(store).unwrap()?;
        let text = |secret: &SecretString| secret.expose_secret().to_owned();
        Some((text(&tokens.access), text(&tokens.refresh)))
    }

    fn is_saved(store: &ConfigStore, access: &str, refresh: &str) -> bool {
        saved(store) == Some((access.to_owned(), refresh.to_owned()))
    }

    #[test]
    fn a_new_pair_takes_the_place_of_its_parent_alone() {
        let (_dir, store) = stored("a1", "r1");
        assert!(store.save(&pair("a2", "r2"), &"r1".into()).unwrap());
        assert!(is_saved(&store, "a2", "r2"));
        assert_eq!(store.load().unwrap().text("gatewayId"), Some("g"), "the rest is kept");
        // Once more, from a lost answer: the refresh token is the live one again.
        assert!(store.save(&pair("a3", "r2"), &"r1".into()).unwrap());
        assert!(is_saved(&store, "a3", "r2"));
        // A straggler, whose parent is long gone.
        assert!(!store.save(&pair("a9", "r9"), &"r1".into()).unwrap());
        assert!(is_saved(&store, "a3", "r2"));
    }

    #[test]
    fn an_unpairing_is_not_undone() {
        let (_dir, store) = stored("a1", "r1");
        store
            .update(|config| {
                config.remove("accessToken");
                config.remove("refreshToken");
            })
            .unwrap();
        assert!(!store.save(&pair("a2", "r2"), &"r1".into()).unwrap());
        assert_eq!(saved(&store), None);
        let (_dir, store) = stored("a1", "r1");
        std::fs::remove_file(&store.paths().config_file).unwrap();
        assert!(!store.save(&pair("a2", "r2"), &"r1".into()).unwrap());
        assert!(!store.paths().config_file.exists());
    }

    #[test]
    fn half_a_pair_is_none_and_a_damaged_file_is_an_error() {
        let (_dir, store) = stored("a1", "");
        assert_eq!(saved(&store), None);
        store.update(|config| config.remove("accessToken")).unwrap();
        assert_eq!(saved(&store), None);
        std::fs::write(&store.paths().config_file, "{ damaged").unwrap();
        assert!(TokenStore::load(&store).is_err());
        assert!(store.save(&pair("a2", "r2"), &"r1".into()).is_err());
        assert_eq!(std::fs::read(&store.paths().config_file).unwrap(), b"{ damaged");
    }

    #[test]
    fn of_many_that_save_children_of_one_parent_one_wins() {
        let (_dir, store) = stored("a", "parent");
        let won: Vec<usize> = std::thread::scope(|scope| {
            let savers: Vec<_> = (0..8)
                .map(|index| {
                    let store = ConfigStore::new(store.paths().clone());
                    let new = pair("new", &format!("r{index}"));
                    scope.spawn(move || store.save(&new, &"parent".into()).unwrap())
                })
                .collect();
            let outcomes = savers.into_iter().map(|saver| saver.join().unwrap());
            outcomes.enumerate().filter_map(|(index, won)| won.then_some(index)).collect()
        });
        let [winner] = won.as_slice() else { panic!("{won:?}") };
        assert!(is_saved(&store, "new", &format!("r{winner}")));
    }

    #[test]
    fn the_refresh_lock_excludes_another_process_until_it_is_dropped() {
        let (_dir, store) = stored("a", "r");
        let path = store.paths().refresh_lock();
        let held = store.lock_refresh().unwrap();
        assert!(FileLock::try_acquire(&path).is_err());
        // Writers of other settings do not wait for it.
        store.update(|config| config.set("other", 1)).unwrap();
        drop(held);
        FileLock::try_acquire(&path).unwrap();
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
            Ok(Some(pair("loaded-access-token", "loaded-refresh-one")))
        }

        fn save(&self, _: &Tokens, _: &SecretString) -> anyhow::Result<bool> {
            anyhow::bail!("disk full")
        }

        fn lock_refresh(&self) -> anyhow::Result<Box<dyn std::any::Any + Send>> {
            Ok(Box::new(()))
        }
    }

    #[test]
    fn tokens_are_known_to_the_redactor_even_when_they_cannot_be_saved() {
        let redactor = Redactor::default();
        let store = RedactedTokens::new(Full, redactor.clone());
        assert!(store.load().unwrap().is_some());
        let rotated = pair("rotated-access-token", "rotated-refresh-one");
        assert!(store.save(&rotated, &"parent".into()).is_err());
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
