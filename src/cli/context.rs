//! What every command starts from.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::failure::Failure;
use super::ui::Ui;
use crate::config::{
    ConfigStore, Environment, GlobalOptions, Paths, Purpose, SavedConfig, Settings, Sourced,
};
use crate::observe::{Redactor, logging};
use crate::runtime::upgrade::Installation;

/// Made once in [`super::main`].
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Global flags.
    pub options: GlobalOptions,
    /// The process environment.
    pub environment: Environment,
    /// Stdout and stderr.
    pub ui: Ui,
    /// Knows every secret that this process comes by.
    pub redactor: Redactor,
    /// The umask that this process was started with.
    pub caller_umask: u32,
    /// `start` has sent this process to the background.
    pub detached: bool,
    /// This executable, as it was called at the start: after an upgrade the kernel's name of it
    /// ends in "(deleted)".
    pub executable: PathBuf,
    /// Where this program is installed; `None` where that cannot be found out.
    pub installation: Option<Installation>,
    /// The line to the gateway that hands over to this process.
    pub takes_over: Option<Arc<OwnedFd>>,
}

impl Context {
    /// Resolves the settings, and warns of variables that were not understood.
    pub(crate) fn settings(&self, purpose: Purpose) -> Result<Settings, Failure> {
        let settings = Settings::resolve(&self.options, self.environment.clone(), purpose)?;
        for warning in &settings.warnings {
            self.ui.warn_once(warning);
        }
        if !logging::is_filter(&settings.log_filter.value) {
            let Sourced { value, source } = &settings.log_filter;
            self.ui.warn_once(&format!(
                "{source} is ignored: {value:?} is neither a level (error, warn, info, debug, \
                 trace) nor a list of target=level"
            ));
        }
        if let Some(key) = &settings.anon_key {
            self.redactor.add_secret(key.value.expose_secret());
        }
        if let Some(token) = &settings.guest.bootstrap_token {
            self.redactor.add_secret(token.value.expose_secret());
        }
        Ok(settings)
    }

    /// The paths alone: what stops a gateway or reads its log must work however its config looks.
    pub(crate) fn paths(&self, purpose: Purpose) -> Result<Paths, Failure> {
        Ok(Paths::resolve(&self.options, self.environment.clone(), purpose)?)
    }

    /// The saved config; its tokens are kept out of everything that is printed from here on.
    pub(crate) fn saved(&self, settings: &Settings) -> Result<SavedConfig, Failure> {
        let saved = ConfigStore::new(settings.paths.clone()).load()?;
        saved.secrets().for_each(|secret| self.redactor.add_secret(secret));
        Ok(saved)
    }
}
