//! One value from flag, environment and env file, with where it came from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::env_file::EnvFile;
use super::variable::Variable;
use super::{ConfigError, Environment};

/// Longer waits than a year are slips of the pen, and would overflow clocks.
const LONGEST: Duration = Duration::from_hours(365 * 24);
/// Characters of a bad value that a warning quotes.
const LONGEST_SHOWN: usize = 40;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag of this name, e.g. `--supabase-url`.
    Flag(&'static str),
    /// A variable of the process.
    Variable(&'static str),
    /// A variable that only the env file names.
    EnvFile(&'static str, PathBuf),
    /// `gateway.json`.
    Saved,
    /// Built in.
    Default,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::EnvFile(name, path) => write!(f, "{name} in {}", path.display()),
            Self::Saved => f.write_str("saved config"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and its source.
#[derive(Debug, Clone)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub source: Source,
}

impl<T> Sourced<T> {
    /// A built-in value.
    pub(super) fn default(value: T) -> Self {
        Self { value, source: Source::Default }
    }

    /// Another value from the same source.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Sourced<U> {
        Sourced { value: change(self.value), source: self.source }
    }
}

/// The environment after the overlay, and what was not understood so far.
pub(super) struct Layers<'a> {
    environment: &'a Environment,
    env_file: Option<&'a EnvFile>,
    warnings: Vec<String>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(
        environment: &'a Environment,
        env_file: Option<&'a EnvFile>,
        warnings: Vec<String>,
    ) -> Self {
        Self { environment, env_file, warnings }
    }

    pub(super) fn environment(&self) -> &'a Environment {
        self.environment
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    /// A flag that must not be blank: nobody means another layer by `--supabase-url ""`.
    pub(super) fn flag(
        name: &'static str,
        given: Option<&str>,
    ) -> Result<Option<Sourced<String>>, ConfigError> {
        let Some(given) = given else { return Ok(None) };
        let value = given.trim();
        if value.is_empty() {
            return Err(blank(name));
        }
        Ok(Some(Sourced { value: value.to_owned(), source: Source::Flag(name) }))
    }

    /// The first of these variables that is set.
    pub(super) fn variable(&self, variables: &[Variable]) -> Option<Sourced<String>> {
        variables.iter().find_map(|variable| {
            let value = self.environment.get(variable.name())?.to_owned();
            Some(Sourced { value, source: self.source(*variable) })
        })
    }

    /// The flag, else the first of these variables that is set.
    pub(super) fn text(
        &self,
        flag: &'static str,
        given: Option<&str>,
        variables: &[Variable],
    ) -> Result<Option<Sourced<String>>, ConfigError> {
        Ok(Self::flag(flag, given)?.or_else(|| self.variable(variables)))
    }

    /// The flag, else the variable; need not be UTF-8.
    pub(super) fn path(
        &self,
        flag: &'static str,
        given: Option<&Path>,
        variable: Variable,
    ) -> Result<Option<Sourced<PathBuf>>, ConfigError> {
        if let Some(given) = given {
            if given.as_os_str().is_empty() {
                return Err(blank(flag));
            }
            return Ok(Some(Sourced { value: given.to_owned(), source: Source::Flag(flag) }));
        }
        let value = self.environment.path(variable.name());
        Ok(value.map(|value| Sourced { value, source: self.source(variable) }))
    }

    /// `1/true/yes/on` or `0/false/no/off`.
    pub(super) fn boolean(&mut self, variable: Variable, default: bool) -> Sourced<bool> {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        };
        self.parsed(variable, "neither 1/true/yes/on nor 0/false/no/off", parse)
            .unwrap_or(Sourced::default(default))
    }

    /// A whole number; one out of bounds is the nearest bound.
    pub(super) fn number(
        &mut self,
        variable: Variable,
        default: usize,
        range: (usize, usize),
    ) -> Sourced<usize> {
        self.whole_number(variable, range).unwrap_or_else(|| Sourced::default(default))
    }

    /// A whole number, moved into its range, where one is set.
    pub(super) fn whole_number(
        &mut self,
        variable: Variable,
        (least, most): (usize, usize),
    ) -> Option<Sourced<usize>> {
        let parse = |text: &str| text.parse::<usize>().ok();
        let found = self.parsed(variable, "not a whole number", parse)?;
        let value = found.value.clamp(least, most);
        self.warn_if_moved(variable, &found.value, &value, "");
        Some(Sourced { value, source: found.source })
    }

    /// Milliseconds; fewer than `least` are `least`.
    pub(super) fn milliseconds(
        &mut self,
        variable: Variable,
        least: Duration,
    ) -> Option<Sourced<Duration>> {
        let parse = |text: &str| text.parse().ok().map(Duration::from_millis);
        let found = self.parsed(variable, "not a whole number of milliseconds", parse)?;
        let value = found.value.clamp(least, LONGEST);
        self.warn_if_moved(variable, &found.value.as_millis(), &value.as_millis(), " ms");
        Some(Sourced { value, source: found.source })
    }

    /// A variable by way of `parse`; what it does not understand is a warning and unset.
    pub(super) fn parsed<T>(
        &mut self,
        variable: Variable,
        wrong: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Sourced<T>> {
        let Sourced { value, source } = self.variable(&[variable])?;
        let parsed = parse(&value);
        if parsed.is_none() {
            let shown: String = value.chars().take(LONGEST_SHOWN).collect();
            self.warn(format!("{source} is ignored: {shown:?} is {wrong}"));
        }
        parsed.map(|value| Sourced { value, source })
    }

    fn warn_if_moved<T: PartialEq + std::fmt::Display>(
        &mut self,
        variable: Variable,
        given: &T,
        taken: &T,
        unit: &str,
    ) {
        if given != taken {
            let source = self.source(variable);
            self.warn(format!("{source} is taken as {taken}{unit}: {given}{unit} is out of range"));
        }
    }

    fn source(&self, variable: Variable) -> Source {
        let name = variable.name();
        match self.env_file {
            Some(file) if file.names.contains(name) => Source::EnvFile(name, file.path.clone()),
            Some(_) | None => Source::Variable(name),
        }
    }
}

fn blank(flag: &'static str) -> ConfigError {
    ConfigError::Value {
        name: flag.to_owned(),
        value: String::new(),
        reason: "it is empty".to_owned(),
    }
}
