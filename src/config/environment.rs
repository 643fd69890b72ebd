//! The process environment, read once at start and overlaid by an env file; nobody else reads it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Variables by name. Values that are not UTF-8 are kept for children and invisible to settings.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

/// Names only: values may be secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("names", &self.variables.keys()).finish()
    }
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
        let value = self.variables.get(OsStr::new(name))?.to_str()?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// A variable that holds a path, which need not be UTF-8 and is not trimmed; empty means unset.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.variables.get(OsStr::new(name))?;
        (!value.is_empty()).then(|| value.into())
    }

    /// Adds a variable unless it is set already: an env file never overrides. Says whether it was
    /// added.
    pub fn add_missing(&mut self, name: &str, value: &str) -> bool {
        let missing = !self.variables.contains_key(OsStr::new(name));
        if missing {
            self.variables.insert(name.into(), value.into());
        }
        missing
    }

    /// All variables, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.variables.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn blank_is_unset_and_text_is_trimmed() {
        let environment = Environment::from_pairs([("A", ""), ("B", "  "), ("C", " x ")]);
        assert_eq!(environment.get("A"), None);
        assert_eq!(environment.get("B"), None);
        assert_eq!(environment.get("C"), Some("x"));
        assert_eq!(environment.get("D"), None);
        assert_eq!(environment.path("A"), None);
    }

    #[test]
    fn a_path_need_not_be_utf8() {
        let odd = OsString::from_vec(b"/home/\xff".to_vec());
        let environment = Environment::from_pairs([("HOME", odd.clone())]);
        assert_eq!(environment.get("HOME"), None);
        assert_eq!(environment.path("HOME"), Some(odd.into()));
    }

    #[test]
    fn what_is_set_is_never_overridden_even_when_empty() {
        let mut environment = Environment::from_pairs([("A", "1"), ("B", "")]);
        assert!(!environment.add_missing("A", "2"));
        assert!(!environment.add_missing("B", "2"));
        assert!(environment.add_missing("C", "2"));
        assert_eq!(environment, Environment::from_pairs([("A", "1"), ("B", ""), ("C", "2")]));
    }

    #[test]
    fn values_do_not_show_in_debug_output() {
        let environment = Environment::from_pairs([("TOKEN", "hush")]);
        let shown = format!("{environment:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hush"), "{shown}");
    }
}
