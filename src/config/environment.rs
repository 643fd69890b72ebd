//! The process environment, read once at start and overlaid by an env file; nobody else reads it.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Variables by name. Values that are not UTF-8 are kept for children and invisible to settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// From pairs, for tests and overlays.
    pub fn from_pairs<K: Into<OsString>, V: Into<OsString>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self { variables: pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect() }
    }

    /// A variable's trimmed text; empty means unset.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(std::ffi::OsStr::new(name))?.to_str()?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// Adds a variable unless it is set already: an env file never overrides.
    pub fn add_missing(&mut self, name: &str, value: &str) {
        self.variables.entry(name.into()).or_insert_with(|| value.into());
    }

    /// All variables, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.variables.iter()
    }
}
