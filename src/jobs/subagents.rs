//! Which runs of subagents are in hand, and which of them are to be cancelled: where a cancel job
//! meets the run that it is about.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::{RunId, SubagentId};

/// Most cancels that are remembered for runs that have not begun.
const REMEMBERED: usize = 1_000;

/// What a cancel came upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    /// The run's process: it is being ended.
    Process,
    /// A run that is in hand, but whose process has not begun (or has ended).
    InHand,
    /// Nothing; it is remembered for when the run's job comes.
    Nothing,
}

/// The runs in hand. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subagents {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    runs: HashMap<Key, Run>,
    /// Oldest first.
    remembered: VecDeque<(Key, String)>,
    /// How many events of cancels are on their way.
    announcing: HashMap<Key, watch::Sender<usize>>,
}

type Key = (SubagentId, RunId);

#[derive(Debug)]
struct Run {
    token: CancellationToken,
    reason: Option<String>,
    has_process: bool,
}

impl Subagents {
    /// A run is taken in hand; a cancel that came before is found here. The queue sees to it that
    /// no run is in hand twice.
    pub(crate) fn enter(&self, subagent: &SubagentId, run: &RunId) -> ActiveRun {
        let key = (subagent.clone(), run.clone());
        let token = CancellationToken::new();
        let mut shared = self.lock();
        let at = shared.remembered.iter().position(|(other, _)| *other == key);
        let reason = at.and_then(|at| shared.remembered.remove(at)).map(|(_, reason)| reason);
        if reason.is_some() {
            token.cancel();
        }
        shared.runs.insert(key.clone(), Run { token: token.clone(), reason, has_process: false });
        drop(shared);
        ActiveRun { all: self.clone(), key, token }
    }

    /// Cancels a run, or remembers that it is to be. The first reason stays.
    pub(crate) fn cancel(&self, subagent: &SubagentId, run: &RunId, reason: &str) -> Met {
        let key = (subagent.clone(), run.clone());
        let mut shared = self.lock();
        if let Some(run) = shared.runs.get_mut(&key) {
            run.reason.get_or_insert_with(|| reason.to_owned());
            run.token.cancel();
            return if run.has_process { Met::Process } else { Met::InHand };
        }
        if !shared.remembered.iter().any(|(other, _)| *other == key) {
            if shared.remembered.len() >= REMEMBERED {
                shared.remembered.pop_front();
            }
            shared.remembered.push_back((key, reason.to_owned()));
        }
        Met::Nothing
    }

    /// The event of a cancel is on its way: the run, in hand now or soon, waits with its last event
    /// until this is dropped.
    pub(crate) fn announce(&self, subagent: &SubagentId, run: &RunId) -> Announcing {
        let key = (subagent.clone(), run.clone());
        let mut shared = self.lock();
        shared.announcing.entry(key.clone()).or_default().send_modify(|count| *count += 1);
        Announcing { all: self.clone(), key }
    }

    /// Returns once no event of a cancel of this run is on its way (any more). To be waited for before
    /// the run's last events, which come after it. Cancel safe.
    pub(crate) async fn announced(&self, subagent: &SubagentId, run: &RunId) {
        let key = (subagent.clone(), run.clone());
        let announcing = self.lock().announcing.get(&key).map(watch::Sender::subscribe);
        if let Some(mut announcing) = announcing {
            // It fails when the last one is gone.
            let _ = announcing.wait_for(|count| *count == 0).await;
        }
    }

    /// Whether a run of this subagent is in hand.
    pub(crate) fn holds(&self, subagent: &str) -> bool {
        self.lock().runs.keys().any(|(id, _)| id.as_str() == subagent)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Whoever panicked with it had written each of its fields whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cancel whose event is on its way, until this is dropped.
#[derive(Debug)]
pub(crate) struct Announcing {
    all: Subagents,
    key: Key,
}

impl Drop for Announcing {
    fn drop(&mut self) {
        let mut shared = self.all.lock();
        let Some(announcing) = shared.announcing.get(&self.key) else { return };
        announcing.send_modify(|count| *count = count.saturating_sub(1));
        if *announcing.borrow() == 0 {
            shared.announcing.remove(&self.key);
        }
    }
}

/// A run in hand, until this is dropped.
#[derive(Debug)]
pub(crate) struct ActiveRun {
    all: Subagents,
    key: Key,
    token: CancellationToken,
}

impl ActiveRun {
    /// Is cancelled when the run is to be.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Why the run is to be cancelled, when it is.
    pub(crate) fn reason(&self) -> Option<String> {
        self.all.lock().runs.get(&self.key).and_then(|run| run.reason.clone())
    }

    /// Whether it has a process now.
    pub(crate) fn set_process(&self, has_process: bool) {
        if let Some(run) = self.all.lock().runs.get_mut(&self.key) {
            run.has_process = has_process;
        }
    }
}

impl Drop for ActiveRun {
    fn drop(&mut self) {
        self.all.lock().runs.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(run: &str) -> (SubagentId, RunId) {
        (SubagentId::new("s"), RunId::new(run))
    }

    #[test]
    fn a_cancel_meets_the_run_wherever_it_stands() {
        let all = Subagents::default();
        let (subagent, run) = ids("r");
        assert_eq!(all.cancel(&subagent, &run, "early"), Met::Nothing);
        assert_eq!(all.cancel(&subagent, &run, "again"), Met::Nothing);
        let active = all.enter(&subagent, &run);
        assert_eq!(active.reason().as_deref(), Some("early"));
        assert!(active.token().is_cancelled());
        drop(active);

        let active = all.enter(&subagent, &run);
        assert!(!active.token().is_cancelled(), "it was for the run before");
        assert_eq!(all.cancel(&subagent, &ids("other").1, "x"), Met::Nothing);
        assert_eq!((active.reason(), active.token().is_cancelled()), (None, false));
        active.set_process(true);
        assert_eq!(all.cancel(&subagent, &run, "now"), Met::Process);
        active.set_process(false);
        assert_eq!(all.cancel(&subagent, &run, "later"), Met::InHand);
        assert_eq!(active.reason().as_deref(), Some("now"));
        assert!(active.token().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_runs_last_event_waits_for_those_of_cancels() {
        let all = Subagents::default();
        let (subagent, run) = ids("r");
        assert!(!all.holds("s"));
        // Before the run is in hand, and then.
        let first = all.announce(&subagent, &run);
        let active = all.enter(&subagent, &run);
        assert!(all.holds("s") && !all.holds("r"));
        let second = all.announce(&subagent, &run);
        drop(all.announce(&subagent, &ids("other").1));
        let mut announced = Box::pin(all.announced(&subagent, &run));
        for announcing in [first, second] {
            assert!(futures_util::poll!(announced.as_mut()).is_pending());
            drop(announcing);
        }
        announced.as_mut().await;
        drop(announced);
        drop(active);
        assert!(!all.holds("s"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let all = Subagents::default();
        for number in 0..=REMEMBERED {
            let (subagent, run) = ids(&number.to_string());
            all.cancel(&subagent, &run, "x");
        }
        let reason = |run: &str| all.enter(&ids(run).0, &ids(run).1).reason();
        assert_eq!((reason("0"), reason("1")), (None, Some("x".to_owned())));
    }
}
