//! Keeps what is known of one provider true: finds it, probes it, has it checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::discovery::{Finding, Look, Search};
use super::health::{CheckReport, Lack};
use super::probe::{Limits, probe};
use super::{Asker, ErrorCode, Failure, Installed, NoAnswer, Provider, ProviderId, Roster};
use crate::config::Settings;
use crate::model::{ProviderSupports, time};

/// Over the check's own limit, which ends the CLI.
const CHECK_PATIENCE: Duration = Duration::from_mins(1);

/// The full check: does a model answer? A run of the CLI, which this part knows nothing about.
pub trait Check: Send + Sync {
    /// Has the provider answer. Dropping the future ends the CLI.
    fn check(
        &self,
        provider: &dyn Provider,
        installed: &Installed,
    ) -> impl Future<Output = Result<CheckReport, Box<Failure>>> + Send;
}

/// See the module.
pub struct Attendant {
    provider: &'static dyn Provider,
    search: Search,
    asker: Asker,
    roster: Arc<Roster>,
    known: Option<Look>,
    limits: Limits,
}

impl Attendant {
    /// Nothing is looked for yet.
    pub fn new(
        provider: &'static dyn Provider,
        settings: &Settings,
        asker: Asker,
        roster: Arc<Roster>,
    ) -> Self {
        let search = Search::new(provider.id(), settings);
        Self { provider, search, asker, roster, known: None, limits: Limits::default() }
    }

    /// With other limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Which provider it attends to.
    pub fn id(&self) -> ProviderId {
        self.provider.id()
    }

    /// All that was found out is to be found out again.
    pub fn forget(&mut self) {
        self.search.forget();
        self.known = None;
    }

    /// A light check. It starts processes only when something has changed on disk since the last
    /// one, or when a command that did not answer is due to be asked again.
    pub async fn light(&mut self) {
        let id = self.provider.id();
        let look = self.search.look().await;
        let is_due = self.roster.standing(id).health.wants_light(Instant::now());
        if self.known.as_ref() == Some(&look) && !is_due {
            return;
        }
        let (command, probed) = self.find(&look).await;
        let now = Instant::now();
        match probed {
            Ok(installed) => {
                let supports = self.provider.supports(&installed);
                tracing::info!(provider = id.as_str(), command = %installed.command.display(),
                    version = installed.version.as_deref(), "found a provider");
                self.roster.update(id, |standing| {
                    (standing.searched, standing.command) = (true, command);
                    (standing.installed, standing.supports) = (Some(installed), supports);
                    standing.health.found(true, now);
                });
            }
            Err((lack, problem)) => {
                let problem = self.roster.redacted_text(&problem);
                tracing::info!(provider = id.as_str(), %problem, "a provider cannot be used");
                self.roster.update(id, |standing| {
                    standing.health.missing(&problem, lack, now);
                    (standing.searched, standing.command) = (true, command);
                    (standing.installed, standing.supports) = (None, ProviderSupports::default());
                });
            }
        }
        self.known = Some(look);
    }

    async fn find(&mut self, look: &Look) -> (Option<PathBuf>, Result<Installed, (Lack, String)>) {
        let provider = self.provider;
        match self.search.run(&self.asker, provider.probe_env(), look, self.limits).await {
            Finding::Missing(problem) => (None, Err((Lack::Absent, problem))),
            Finding::Mute { command, problem } => (Some(command), Err(mute(problem))),
            Finding::Found { command, version } => {
                let probed = self.probe(&command, version).await;
                if let Ok(Installed { version: Some(version), .. }) = &probed {
                    self.search.learn(look, &command, version);
                }
                (Some(command), probed.map_err(mute))
            }
        }
    }

    async fn probe(&self, command: &Path, version: Option<String>) -> Result<Installed, NoAnswer> {
        let probe = async |version, limits| {
            probe(self.provider, &self.asker, command, version, limits).await
        };
        match probe(version.clone(), self.limits).await {
            Err(error) if error.is_slow => {
                tracing::info!(provider = self.provider.id().as_str(), %error,
                    "a provider is slow; it is asked once more, with more patience");
                probe(version, self.limits.patient()).await
            }
            probed => probed,
        }
    }

    /// A full check, if one is due.
    pub async fn full_if_due(&self, check: &impl Check) {
        let id = self.provider.id();
        let standing = self.roster.standing(id);
        let Some(installed) = standing.installed else { return };
        if !standing.health.wants_full(Instant::now()) {
            return;
        }
        full_check(self.provider, &installed, check, &self.roster).await;
    }
}

fn mute(problem: NoAnswer) -> (Lack, String) {
    (if problem.is_slow { Lack::Slow } else { Lack::Mute }, problem.text)
}

/// A full check now: has the provider answer, and enters what came of it. Dropping the future ends
/// the CLI and enters nothing.
pub async fn full_check(
    provider: &dyn Provider,
    installed: &Installed,
    check: &impl Check,
    roster: &Roster,
) {
    let id = provider.id();
    let began = Instant::now();
    let checked = timeout(CHECK_PATIENCE, check.check(provider, installed)).await;
    let result = checked.unwrap_or_else(|_| {
        let message = "the check did not end in time".to_owned();
        Err(Box::new(Failure { code: ErrorCode::ProviderTimeout, message, summary: None }))
    });
    let result = result.map_err(|failure| Box::new(roster.redacted(&failure)));
    match &result {
        Ok(_) => tracing::info!(provider = id.as_str(), "a provider is healthy"),
        Err(failure) => {
            tracing::warn!(provider = id.as_str(), error = %failure.message,
                "a provider is unhealthy");
        }
    }
    let took = began.elapsed();
    roster.update(id, |standing| {
        standing.health.checked(result, &time::now_wire(), took, Instant::now());
    });
}
