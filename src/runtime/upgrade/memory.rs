//! What is known of upgrades over the whole life of a process, whoever looks after them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::watch;

use super::super::status::{FailedUpgrade, UpgradeState};
use super::tracker::Tracker;
use crate::backend::GatewayEvent;
use crate::model::time;

/// Events that wait to be recorded; what is beyond is a line in the log.
const MOST_EVENTS: usize = 16;

/// How far an upgrade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The replacement gets ready.
    Preparing,
    /// It is ready; the work in hand is finished first.
    Draining,
    /// It takes over.
    HandingOver,
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Draining => "draining",
            Self::HandingOver => "handing_over",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Memory {
    state: Mutex<State>,
    /// Counts up when an upgrade failed.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    tracker: Option<Tracker>,
    /// Stage, version, wire time.
    progress: Option<(Stage, String, String)>,
    last_failed: Option<FailedUpgrade>,
    events: Vec<GatewayEvent>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watching begins, unless it has begun already.
    pub(super) fn watch(&self, tracker: impl FnOnce() -> Tracker) {
        self.state().tracker.get_or_insert_with(tracker);
    }

    /// The tracker, if one watches.
    pub(super) fn with_tracker<T>(&self, ask: impl FnOnce(&mut Tracker) -> T) -> Option<T> {
        self.state().tracker.as_mut().map(ask)
    }

    /// An upgrade is under way, so no other one is begun.
    pub(super) fn is_busy(&self) -> bool {
        self.state().progress.is_some()
    }

    /// How far it is now.
    pub(in crate::runtime) fn reached(&self, stage: Stage, version: &str) {
        self.state().progress = Some((stage, version.to_owned(), time::now_wire()));
    }

    /// It came to nothing through no fault of its own.
    pub(super) fn given_up(&self) {
        self.state().progress = None;
    }

    /// A file that is no upgrade.
    pub(super) fn refused(&self, reason: &str) {
        self.state().last_failed =
            Some(FailedUpgrade { version: None, reason: reason.to_owned(), at: time::now_wire() });
    }

    /// It failed: this version is not tried again, and the team is told.
    pub(in crate::runtime) fn failed(&self, version: &str, reason: &str) {
        tracing::warn!(version, reason, "the upgrade failed; this process goes on");
        let mut state = self.state();
        state.progress = None;
        if let Some(tracker) = &mut state.tracker {
            tracker.failed(version);
        }
        let failed = FailedUpgrade {
            version: Some(version.to_owned()),
            reason: reason.to_owned(),
            at: time::now_wire(),
        };
        if state.events.len() < MOST_EVENTS {
            state.events.push(event(&failed, version));
        }
        state.last_failed = Some(failed);
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// What is to be told to the team, once.
    pub(super) fn take_events(&self) -> Vec<GatewayEvent> {
        std::mem::take(&mut self.state().events)
    }

    /// Changes when an upgrade failed.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// For `status`.
    pub(in crate::runtime) fn report(&self) -> UpgradeState {
        let known = self.state();
        let (word, version, since) = match &known.progress {
            Some((stage, version, since)) => {
                (stage.word(), Some(version.clone()), Some(since.clone()))
            }
            None if known.tracker.is_some() => ("watching", None, None),
            None => ("off", None, None),
        };
        UpgradeState {
            state: word.to_owned(),
            version,
            since,
            last_failed: known.last_failed.clone(),
        }
    }
}

fn event(failed: &FailedUpgrade, version: &str) -> GatewayEvent {
    let ours = crate::VERSION;
    let text = |text: &str| Value::from(text);
    GatewayEvent {
        provider: None,
        level: "warn",
        code: Some("restart_failed"),
        message: format!(
            "The upgrade to {version} failed, {ours} goes on: {}",
            failed.reason.lines().next().unwrap_or_default()
        )
        .chars()
        .take(2_000)
        .collect(),
        details: Map::from_iter([
            ("version".to_owned(), text(version)),
            ("running_version".to_owned(), text(ours)),
            ("reason".to_owned(), text(&failed.reason)),
            ("failed_at".to_owned(), text(&failed.at)),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once_and_stays_to_be_seen() {
        let memory = Memory::default();
        assert_eq!(memory.report().state, "off");
        memory.reached(Stage::Draining, "2.0.0");
        assert!(memory.is_busy());
        let shown = memory.report();
        assert_eq!((shown.state.as_str(), shown.version.as_deref()), ("draining", Some("2.0.0")));
        memory.failed("2.0.0", "it ended with exit code 1");
        assert!(!memory.is_busy());
        let events = memory.take_events();
        let [event] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((event.level, event.code), ("warn", Some("restart_failed")));
        assert_eq!(event.details["version"], "2.0.0");
        assert!(memory.take_events().is_empty());
        let failed = memory.report().last_failed.unwrap();
        assert_eq!(failed.version.as_deref(), Some("2.0.0"));
        assert_eq!(failed.reason, "it ended with exit code 1");
    }
}
