//! Reads and writes `gateway.json`; writers never lose each other's changes.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use super::saved::Unreadable;
use super::{ConfigError, FileLock, LockError, Paths, SavedConfig};
use crate::observe::Redactor;

/// A config is a few kilobytes; more is not ours.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Writers hold the config lock for milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads and writes `gateway.json`.
#[derive(Debug, Clone)]
pub struct ConfigStore {
    paths: Paths,
}

/// What a writer does about a file that does not parse.
#[derive(Clone, Copy)]
enum OnDamage {
    Refuse,
    SetAside,
}

impl ConfigStore {
    /// For the files of `paths`.
    pub fn new(paths: Paths) -> Self {
        Self { paths }
    }

    /// The paths it works on.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The config as it is on disk now; absent, empty or `null` is the empty config.
    pub fn load(&self) -> Result<SavedConfig, ConfigError> {
        let bytes = crate::fs::read_private(&self.paths.config_file, LARGEST)?.unwrap_or_default();
        self.parse(&bytes)
    }

    /// The same for a gateway that runs: a file that is there and holds nothing is damaged for it, as
    /// nobody who gives up a pairing leaves it like that.
    pub fn load_again(&self) -> Result<SavedConfig, ConfigError> {
        let path = &self.paths.config_file;
        let bytes = crate::fs::read_private(path, LARGEST)?;
        if bytes.as_ref().is_some_and(|bytes| matches!(bytes.trim_ascii(), b"" | b"null")) {
            let reason = "it is empty".to_owned();
            return Err(ConfigError::Damaged { path: path.clone(), reason });
        }
        self.parse(&bytes.unwrap_or_default())
    }

    fn parse(&self, bytes: &[u8]) -> Result<SavedConfig, ConfigError> {
        let path = || self.paths.config_file.clone();
        SavedConfig::parse(bytes).map_err(|unreadable| match unreadable {
            Unreadable::Damaged(reason) => ConfigError::Damaged { path: path(), reason },
            Unreadable::Newer(format) => ConfigError::Newer { path: path(), format },
        })
    }

    /// Tells the redactor of every secret that stands in the config now. One that cannot be read
    /// has nothing to tell.
    pub async fn tell_secrets(&self, redactor: &Redactor) {
        let config = self.clone();
        if let Ok(Ok(saved)) = tokio::task::spawn_blocking(move || config.load()).await {
            saved.secrets().for_each(|secret| redactor.add_secret(secret));
        }
    }

    /// Under the config lock: re-reads, lets `change` edit, writes (only when something changed).
    /// Returns what is on disk now. Blocks for milliseconds.
    pub fn update(
        &self,
        change: impl FnOnce(&mut SavedConfig),
    ) -> Result<SavedConfig, ConfigError> {
        self.write(OnDamage::Refuse, change)
    }

    /// Like [`Self::update`] but a damaged file is set aside as `gateway.json.damaged-<time>` first.
    /// Only pairing does this.
    pub fn replace_damaged(
        &self,
        change: impl FnOnce(&mut SavedConfig),
    ) -> Result<SavedConfig, ConfigError> {
        self.write(OnDamage::SetAside, change)
    }

    fn write(
        &self,
        on_damage: OnDamage,
        change: impl FnOnce(&mut SavedConfig),
    ) -> Result<SavedConfig, ConfigError> {
        self.paths.prepare()?;
        let _lock = self.lock()?;
        let before = match (self.load(), on_damage) {
            (Err(ConfigError::Damaged { .. }), OnDamage::SetAside) => {
                self.copy_aside()?;
                None
            }
            (loaded, _) => Some(loaded?),
        };
        let mut after = before.clone().unwrap_or_default();
        change(&mut after);
        if before.as_ref() != Some(&after) {
            crate::fs::remove_leftovers(&self.paths.config_file);
            crate::fs::save(&self.paths.config_file, &after.to_bytes())?;
        }
        Ok(after)
    }

    /// Puts `bytes` there as the config unless there is one.
    pub(super) fn save_if_absent(&self, bytes: &[u8]) -> Result<(), ConfigError> {
        self.paths.prepare()?;
        let _lock = self.lock()?;
        if !crate::fs::check_private_file(&self.paths.config_file)? {
            crate::fs::save(&self.paths.config_file, bytes)?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<FileLock, ConfigError> {
        let path = self.paths.config_lock();
        FileLock::acquire(&path, PATIENCE).map_err(|error| match error {
            LockError::Held => ConfigError::Busy { path },
            LockError::Fs(error) => error.into(),
        })
    }

    fn copy_aside(&self) -> Result<(), ConfigError> {
        let path = &self.paths.config_file;
        let bytes = crate::fs::read_private(path, LARGEST)?.unwrap_or_default();
        let time = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%S%.3fZ");
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{time}"));
        crate::fs::save(&PathBuf::from(name), &bytes)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use proptest::prelude::*;
    use serde_json::{Map, Value, json};
    use tempfile::TempDir;

    use super::*;

    fn scratch() -> (TempDir, ConfigStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::new(Paths::in_dir(&dir.path().join("gateway")));
        (dir, store)
    }

    fn write_raw(store: &ConfigStore, contents: &[u8]) {
        store.paths().prepare().unwrap();
        std::fs::write(&store.paths().config_file, contents).unwrap();
    }

    fn on_disk(store: &ConfigStore) -> Value {
        serde_json::from_slice(&std::fs::read(&store.paths().config_file).unwrap()).unwrap()
    }

    fn names_beside(store: &ConfigStore) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(&store.paths().dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_absent_an_empty_and_a_null_file_are_the_empty_config() {
        let (_dir, store) = scratch();
        assert_eq!(store.load().unwrap(), SavedConfig::default());
        assert!(!store.paths().dir.exists(), "reading made something");
        for contents in ["", "null"] {
            write_raw(&store, contents.as_bytes());
            assert_eq!(store.load().unwrap(), SavedConfig::default());
            let written = store.update(|config| config.set("teamId", "t")).unwrap();
            assert_eq!(store.load().unwrap().text("teamId"), written.text("teamId"));
        }
    }

    #[test]
    fn the_file_is_private_and_carries_its_format() {
        let (_dir, store) = scratch();
        store.update(|config| config.set("accessToken", "a")).unwrap();
        let mode = store.paths().config_file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(on_disk(&store), json!({ "accessToken": "a", "configVersion": 1 }));
        assert_eq!(names_beside(&store), ["gateway.config.lock", "gateway.json"]);
    }

    #[test]
    fn what_changes_nothing_writes_nothing() {
        let (_dir, store) = scratch();
        store.update(|_| {}).unwrap();
        assert!(!store.paths().config_file.exists());
        store.update(|config| config.set("teamId", "t")).unwrap();
        let inode = || store.paths().config_file.metadata().unwrap().ino();
        let before = inode();
        store.update(|config| config.set("teamId", "t")).unwrap();
        assert_eq!(inode(), before);
        store.update(|config| config.set("teamId", "u")).unwrap();
        assert_ne!(inode(), before);
    }

    #[test]
    fn a_damaged_file_is_never_overwritten() {
        let (_dir, store) = scratch();
        write_raw(&store, b"{\"accessToken\": \"hush\",\n ]");
        for error in [store.load().unwrap_err(), store.update(|c| c.set("a", 1)).unwrap_err()] {
            let text = error.to_string();
            assert!(matches!(error, ConfigError::Damaged { .. }), "{error:?}");
            assert!(text.contains("gateway.json is damaged") && text.contains("line 2"), "{text}");
            assert!(!text.contains("hush"));
        }
        let after = std::fs::read(&store.paths().config_file).unwrap();
        assert_eq!(after, b"{\"accessToken\": \"hush\",\n ]");
    }

    #[test]
    fn pairing_replaces_a_damaged_file_and_leaves_a_private_copy() {
        let (_dir, store) = scratch();
        write_raw(&store, b"{ damaged");
        store.replace_damaged(|config| config.set("teamId", "t")).unwrap();
        assert_eq!(store.load().unwrap().text("teamId"), Some("t"));
        let names = names_beside(&store);
        let copies: Vec<_> =
            names.iter().filter(|name| name.starts_with("gateway.json.damaged-2")).collect();
        let [copy] = copies.as_slice() else { panic!("{names:?}") };
        let copy = store.paths().dir.join(copy);
        assert_eq!(std::fs::read(&copy).unwrap(), b"{ damaged");
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn replacing_keeps_a_sound_file_and_refuses_a_newer_one() {
        let (_dir, store) = scratch();
        store.update(|config| config.set("other", 1)).unwrap();
        store.replace_damaged(|config| config.set("teamId", "t")).unwrap();
        assert_eq!(on_disk(&store)["other"], 1);

        write_raw(&store, br#"{"configVersion": 99}"#);
        let error = store.replace_damaged(|config| config.set("teamId", "u")).unwrap_err();
        assert!(matches!(error, ConfigError::Newer { format: 99, .. }), "{error:?}");
        assert_eq!(on_disk(&store), json!({ "configVersion": 99 }));
    }

    #[test]
    fn many_writers_lose_nothing() {
        const WRITERS: usize = 8;
        const ROUNDS: usize = 8;
        let (_dir, first) = scratch();
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let store = ConfigStore::new(first.paths().clone());
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let change = |config: &mut SavedConfig| {
                            let sum = config.value("sum").and_then(Value::as_u64).unwrap_or(0);
                            config.set("sum", sum + 1);
                            config.set(&format!("{writer}-{round}"), true);
                        };
                        store.update(change).unwrap();
                    }
                });
            }
        });
        let config = first.load().unwrap();
        assert_eq!(config.value("sum"), Some(&json!(WRITERS * ROUNDS)));
        for writer in 0..WRITERS {
            for round in 0..ROUNDS {
                assert!(config.value(&format!("{writer}-{round}")).is_some());
            }
        }
        assert_eq!(names_beside(&first), ["gateway.config.lock", "gateway.json"]);
    }

    #[test]
    fn leftovers_of_a_killed_writer_are_cleared_by_the_next() {
        let (_dir, store) = scratch();
        write_raw(&store, b"{}");
        let left = store.paths().dir.join(".gateway.json.0123456789.tmp");
        std::fs::write(&left, "{\"refreshToken\": \"old\"}").unwrap();
        store.update(|config| config.set("teamId", "t")).unwrap();
        assert!(!left.exists());
    }

    /// Names of fields that the gateway does not know, and any JSON as their values.
    fn unknown_fields() -> impl Strategy<Value = Map<String, Value>> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("\\PC{0,6}", inner), 0..4)
                    .prop_map(|pairs| pairs.into_iter().collect()),
            ]
        });
        // No known field has this prefix.
        prop::collection::vec(("x-\\PC{0,8}", value), 0..6)
            .prop_map(|pairs| pairs.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn an_update_keeps_unknown_fields(top in unknown_fields(), guest in unknown_fields()) {
            let (_dir, store) = scratch();
            let mut fields = top.clone();
            fields.insert("vmGuest".to_owned(), guest.clone().into());
            fields.insert("accessToken".to_owned(), "old".into());
            write_raw(&store, Value::from(fields).to_string().as_bytes());

            store
                .update(|config| {
                    config.set("accessToken", "new");
                    config.remove("refreshToken");
                    config.set_within("vmGuest", "vmId", "v");
                })
                .unwrap();

            let mut guest = guest;
            guest.insert("vmId".to_owned(), "v".into());
            let mut wanted = top;
            wanted.insert("vmGuest".to_owned(), guest.into());
            wanted.insert("accessToken".to_owned(), "new".into());
            wanted.insert("configVersion".to_owned(), 1.into());
            prop_assert_eq!(on_disk(&store), Value::from(wanted));
        }
    }
}
