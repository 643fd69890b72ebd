//! `gateway.json`: identity, tokens, toggle. Unknown fields are kept; writers never lose each
//! other's changes.

use serde_json::{Map, Value};

use super::{ConfigError, Paths};

/// The contents of `gateway.json` (camelCase on disk). Fields that this version does not know stay
/// where they are.
#[derive(Clone, Default, PartialEq)]
pub struct SavedConfig {
    fields: Map<String, Value>,
}

impl std::fmt::Debug for SavedConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedConfig").field("keys", &self.fields.keys()).finish()
    }
}

impl SavedConfig {
    /// A text field (`supabaseUrl`, `supabaseAnonKey`, `accessToken`, `refreshToken`, `gatewayId`,
    /// `teamId`, `deviceName`); empty or of another type is absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// `full_control_enabled`, false when absent.
    pub fn full_control(&self) -> bool {
        self.fields.get("full_control_enabled").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Sets a field.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &str) {
        self.fields.shift_remove(name);
    }

    /// Paired: gateway id, team id, access and refresh token are all there.
    pub fn is_paired(&self) -> bool {
        ["gatewayId", "teamId", "accessToken", "refreshToken"]
            .iter()
            .all(|name| self.text(name).is_some())
    }
}

/// Reads and writes `gateway.json`.
#[derive(Debug, Clone)]
pub struct ConfigStore {
    paths: Paths,
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
        unimplemented!()
    }

    /// Under the config lock: re-reads, lets `change` edit, writes (only when something changed).
    /// Returns what is on disk now. Blocks for milliseconds.
    pub fn update(
        &self,
        change: impl FnOnce(&mut SavedConfig),
    ) -> Result<SavedConfig, ConfigError> {
        change(&mut SavedConfig::default());
        unimplemented!()
    }

    /// Like [`Self::update`] but a damaged file is set aside as `gateway.json.damaged-<time>` first.
    /// Only pairing does this.
    pub fn replace_damaged(
        &self,
        change: impl FnOnce(&mut SavedConfig),
    ) -> Result<SavedConfig, ConfigError> {
        change(&mut SavedConfig::default());
        unimplemented!()
    }
}
