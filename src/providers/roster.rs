//! What is known of all providers, for everybody who minds: heartbeat, queue, handlers, status.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::health::{Health, Lack};
use super::{Failure, Installed, ProviderId};
use crate::model::ProviderSupports;
use crate::observe::Redactor;

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// It was looked for.
    pub searched: bool,
    /// The executable, also where it does not answer.
    pub command: Option<PathBuf>,
    /// What it is; `None`: it cannot be used.
    pub installed: Option<Installed>,
    /// What follows from that.
    pub supports: ProviderSupports,
    /// How it is.
    pub health: Health,
}

impl Standing {
    /// Why there is nothing to run, part of a sentence.
    pub fn absence(&self) -> &str {
        // Without a command, the reason is a sentence about the search.
        let error = self.command.as_ref().and_then(|_| self.health.error());
        error.unwrap_or("it was not found on this host")
    }
}

/// All of them.
pub type Standings = BTreeMap<ProviderId, Standing>;

/// A run that ended, as far as its provider's health minds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The provider.
    pub provider: ProviderId,
    /// `model_run` or `subagent_run`.
    pub context: &'static str,
    /// The job.
    pub job_id: String,
    /// The subagent's run, where it is one.
    pub run_id: Option<String>,
}

/// A run changed its provider's health for the worse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worsened {
    /// The run.
    pub ran: Ran,
    /// Why, one line.
    pub error: String,
}

/// See the module.
#[derive(Debug)]
pub struct Roster {
    standings: watch::Sender<Standings>,
    /// Which of them were ready when the team was last told.
    told: Mutex<Option<BTreeSet<ProviderId>>>,
    /// Who records events, while somebody does.
    listener: watch::Sender<Option<mpsc::Sender<Worsened>>>,
    redactor: Redactor,
}

impl Roster {
    /// All three, not looked for yet. Errors are shown to the team, so secrets are taken out.
    pub fn new(redactor: Redactor) -> Self {
        let standings = ProviderId::ALL.into_iter().map(|id| (id, Standing::default()));
        Self {
            standings: watch::Sender::new(standings.collect()),
            told: Mutex::default(),
            listener: watch::Sender::new(None),
            redactor,
        }
    }

    /// One of them now.
    pub fn standing(&self, id: ProviderId) -> Standing {
        self.standings.borrow().get(&id).cloned().unwrap_or_default()
    }

    /// All of them now.
    pub fn standings(&self) -> Standings {
        self.standings.borrow().clone()
    }

    /// All of them, and every change.
    pub fn subscribe(&self) -> watch::Receiver<Standings> {
        self.standings.subscribe()
    }

    /// The team knows by now that these, and no others, are ready.
    pub fn team_knows(&self, ready: BTreeSet<ProviderId>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(ready);
    }

    /// Whether what the team was last told of who is ready still holds.
    pub fn is_known_to_team(&self) -> bool {
        let ready = self.standings().into_iter().filter(|(_, standing)| standing.health.is_ready());
        let ready: BTreeSet<_> = ready.map(|(id, _)| id).collect();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&ready)
    }

    /// One of them as soon as it was looked for.
    pub async fn searched(&self, id: ProviderId) -> Standing {
        let mut standings = self.standings.subscribe();
        let found = standings
            .wait_for(|standings| standings.get(&id).is_some_and(|standing| standing.searched))
            .await;
        found.ok().and_then(|standings| standings.get(&id).cloned()).unwrap_or_default()
    }

    /// A job's run ended. Whoever runs a CLI for a job says so here, once a run.
    pub fn ran(&self, ran: Ran, result: Result<(), &Failure>) {
        let redacted = result.map_err(|failure| self.redacted(failure));
        let mut worse = false;
        self.update(ran.provider, |standing| {
            // What is gone by now is not brought back by how its last run ended.
            if standing.installed.is_some() {
                worse = standing.health.ran(redacted.as_ref().map(|&()| ()), Instant::now());
            }
        });
        let Err(failure) = redacted else { return };
        if worse {
            tracing::warn!(provider = ran.provider.as_str(), error = %failure.message,
                "a run showed that a provider is unhealthy");
            self.tell(Worsened { ran, error: failure.message });
        }
    }

    /// Changes what is known of one; readers are told only of what is really new.
    pub fn update(&self, id: ProviderId, change: impl FnOnce(&mut Standing)) {
        self.standings.send_if_modified(|standings| {
            let standing = standings.entry(id).or_default();
            let before = standing.clone();
            change(standing);
            *standing != before
        });
    }

    /// One that this build does not know.
    pub fn not_run_yet(&self, id: ProviderId) {
        self.update(id, |standing| {
            standing.searched = true;
            standing.health.missing(
                "this version does not run it yet",
                Lack::Absent,
                Instant::now(),
            );
        });
    }

    /// Nothing is known any more.
    pub fn forget(&self) {
        self.standings.send_modify(|standings| {
            for standing in standings.values_mut() {
                *standing = Standing::default();
            }
        });
    }

    /// From now on this hears of runs that changed health for the worse.
    pub fn listen(&self, listener: mpsc::Sender<Worsened>) {
        self.listener.send_replace(Some(listener));
    }

    /// Without secrets.
    pub fn redacted(&self, failure: &Failure) -> Failure {
        Failure { message: self.redactor.text(&failure.message), ..failure.clone() }
    }

    /// Without secrets.
    pub fn redacted_text(&self, text: &str) -> String {
        self.redactor.text(text)
    }

    fn tell(&self, worsened: Worsened) {
        let listener = self.listener.borrow().clone();
        let told = listener.is_some_and(|listener| listener.try_send(worsened).is_ok());
        if !told {
            tracing::warn!("an event about a provider could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::ErrorCode;

    fn ran(provider: ProviderId) -> Ran {
        Ran { provider, context: "model_run", job_id: "j".to_owned(), run_id: None }
    }

    #[tokio::test]
    async fn a_run_that_makes_a_provider_unhealthy_is_told_once_and_without_secrets() {
        let redactor = Redactor::default();
        redactor.add_secret("correct-horse-battery");
        let roster = Roster::new(redactor);
        let (tell, mut told) = mpsc::channel(4);
        roster.listen(tell);
        let mut standings = roster.subscribe();
        roster.ran(ran(ProviderId::Codex), Ok(()));
        assert!(!standings.has_changed().unwrap(), "it is not installed");
        roster.update(ProviderId::Codex, |codex| codex.installed = Some(Installed::default()));
        roster.ran(ran(ProviderId::Codex), Ok(()));
        assert!(standings.borrow_and_update()[&ProviderId::Codex].health.is_ready());
        let failure = Failure {
            code: ErrorCode::ProviderAuth,
            message: "bad key correct-horse-battery".to_owned(),
            summary: None,
        };
        roster.ran(ran(ProviderId::Codex), Err(&failure));
        roster.ran(ran(ProviderId::Codex), Err(&failure));
        let error = "bad key [REDACTED]".to_owned();
        let expected = Worsened { ran: ran(ProviderId::Codex), error: error.clone() };
        assert_eq!(told.try_recv(), Ok(expected));
        assert!(told.try_recv().is_err());
        assert_eq!(roster.standing(ProviderId::Codex).health.error(), Some(error.as_str()));
        assert!(standings.has_changed().unwrap());
    }

    #[tokio::test]
    async fn readers_hear_only_of_what_is_new() {
        let roster = Roster::new(Redactor::default());
        let mut standings = roster.subscribe();
        roster.update(ProviderId::Gemini, |_| ());
        assert!(!standings.has_changed().unwrap());
        roster.update(ProviderId::Gemini, |standing| {
            (standing.searched, standing.installed) = (true, Some(Installed::default()));
        });
        assert!(standings.has_changed().unwrap());
        standings.mark_unchanged();
        assert!(roster.searched(ProviderId::Gemini).await.searched);
        roster.ran(ran(ProviderId::Gemini), Ok(()));
        standings.mark_unchanged();
        roster.ran(ran(ProviderId::Gemini), Ok(()));
        assert!(!standings.has_changed().unwrap());
    }
}
