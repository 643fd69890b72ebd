//! What each job type does. A handler takes a claimed job and gives back how it ends; it never
//! writes to the row itself.

mod diagnostic;
mod model_run;
mod shell_exec;
mod subagent_cancel;
mod subagent_run;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::journal::Journal;
use super::progress::Progress;
use super::stop::JobStop;
use super::subagents::Subagents;
use super::{EventTurns, Twin};
use crate::backend::Api;
use crate::config::{ConfigStore, Environment, SavedConfig};
use crate::guest::Guest;
use crate::model::{Job, JobStatus};
use crate::observe::{Audit, JobMetrics, Redactor};
use crate::providers::{ModelCheck, Roster, work};

pub(crate) use model_run::WORK as MODEL_WORK;
pub(super) use subagent_run::{context as run_context, finished as run_finished};

/// What handlers need of the host they run on.
#[derive(Debug)]
pub struct Host {
    /// The backend.
    pub api: Api,
    /// `gateway.json`, read again before every job that needs the host toggle.
    pub config: ConfigStore,
    /// What children's environments start from.
    pub environment: Environment,
    /// Takes secrets out of what people read.
    pub redactor: Redactor,
    /// Who asked for what, for the admin of this host.
    pub audit: Audit,
    /// The umask of whoever started the gateway.
    pub caller_umask: u32,
    /// When the backend last answered a poll: results that wait are tried again then.
    pub polled: watch::Receiver<Option<Instant>>,
    /// What is claimed and how it ended, on disk.
    pub journal: Journal,
    /// The agent CLIs of this host.
    pub providers: Arc<Roster>,
    /// Counts what jobs do.
    pub metrics: JobMetrics,
    /// The runs of subagents that are in hand.
    pub(crate) subagents: Subagents,
    /// Who sends the events of which run.
    pub(crate) event_turns: EventTurns,
    /// Another process under our identity.
    pub(crate) twin: Twin,
    /// Set in a managed VM.
    pub guest: Option<Guest>,
    /// Events of a subagent's run are told while it goes on.
    pub live_events: bool,
}

impl Host {
    /// Before a child's output is shown: whatever stands in `gateway.json` now, the child may have
    /// read. A pairing from another process is known here no later than its result is made.
    pub(crate) async fn learn_secrets(&self) {
        self.config.tell_secrets(&self.redactor).await;
    }

    /// `gateway.json` as it is now; the error is for people.
    async fn saved_config(&self) -> Result<SavedConfig, String> {
        let config = self.config.clone();
        match tokio::task::spawn_blocking(move || config.load()).await {
            Ok(Ok(saved)) => Ok(saved),
            Ok(Err(error)) => Err(format!("The host toggle could not be read: {error}")),
            Err(_) => Err("The host toggle could not be read".to_owned()),
        }
    }

    /// Where work dirs of a kind lie.
    pub(crate) fn work(&self, kind: &str) -> PathBuf {
        work(&self.config, self.guest.as_ref(), kind)
    }

    /// What has a provider answer, on this host.
    pub(crate) fn model_check(&self) -> ModelCheck {
        let (config, redactor) = (self.config.clone(), self.redactor.clone());
        ModelCheck::new(config, redactor, self.environment.clone(), self.caller_umask)
            .in_guest(self.guest.clone())
    }
}

/// How a handler ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finished {
    pub(super) status: JobStatus,
    pub(super) result: Value,
    /// Null on success, a text otherwise.
    pub(super) error: Option<String>,
}

impl Finished {
    pub(super) fn completed(result: Value) -> Self {
        Self { status: JobStatus::Completed, result, error: None }
    }

    /// `result.message` is the error's text too.
    pub(super) fn failed(result: Value) -> Self {
        let error = result.get("message").and_then(Value::as_str).unwrap_or("failed").to_owned();
        Self { status: JobStatus::Failed, result, error: Some(error) }
    }

    /// What a handler gives back when it was stopped from outside. Why it was stopped decides
    /// whether anybody reads it.
    pub(super) fn stopped() -> Self {
        let message = "The gateway was shut down before the job was done";
        Self {
            status: JobStatus::Cancelled,
            result: json!({"message": message, "cancelled": true}),
            error: Some(message.to_owned()),
        }
    }
}

impl Finished {
    /// As the backend may see it: nothing of the gateway's own secrets anywhere, and no secret of
    /// any kind in what tells of a failure. The rest of a result is the caller's own.
    pub(super) fn redacted(mut self, redactor: &Redactor) -> Self {
        if self.status != JobStatus::Completed
            && let Value::Object(fields) = &mut self.result
        {
            for name in ["message", "error"] {
                if let Some(Value::String(text)) = fields.get_mut(name) {
                    *text = redactor.text(text);
                }
            }
        }
        Self {
            status: self.status,
            result: redactor.own_secrets_in(self.result),
            error: self.error.map(|error| redactor.text(&error)),
        }
    }
}

/// Runs the handler of the job's type.
pub(super) async fn run(
    host: &Host,
    job: &Job,
    stop: &JobStop,
    progress: &Progress<'_>,
) -> Finished {
    match job.job_type.as_str() {
        "shell_exec" => shell_exec::run(host, job, stop, progress).await,
        "model_run" => Box::pin(model_run::run(host, job, stop, progress)).await,
        "subagent_run" => Box::pin(subagent_run::run(host, job, stop, progress)).await,
        "diagnostic" => {
            progress.audit().starts().await;
            Box::pin(diagnostic::run(host, job, stop, progress)).await
        }
        "subagent_cancel" => {
            progress.audit().starts().await;
            Box::pin(subagent_cancel::run(host, job, stop)).await
        }
        other => Finished::failed(json!({
            "message": format!("This gateway does not know the job type {other:?}"),
            "job_type": other,
        })),
    }
}

/// `SIGTERM` for 15; the number itself for one that has no name here.
pub(super) fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| signal.to_string(), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_redacted_whole_and_results_only_of_our_own_secrets() {
        let redactor = Redactor::default();
        redactor.add_secret("correct-horse-battery");
        let result = json!({
            "message": "password=hunter22 for correct-horse-battery",
            "error": "password=hunter22",
            "stdout": "password=hunter22 correct-horse-battery",
        });
        let failed = Finished::failed(result.clone()).redacted(&redactor);
        assert_eq!(failed.result["message"], "password=[REDACTED] for [REDACTED]");
        assert_eq!(failed.result["error"], "password=[REDACTED]");
        assert_eq!(failed.result["stdout"], "password=hunter22 [REDACTED]");
        assert_eq!(failed.error.as_deref(), failed.result["message"].as_str());
        let completed = Finished::completed(result).redacted(&redactor);
        assert_eq!(completed.result["message"], "password=hunter22 for [REDACTED]");
        assert_eq!(completed.result["error"], "password=hunter22");
    }
}
