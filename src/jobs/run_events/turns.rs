//! Whose turn it is to send a run's events: two drivers on one spool would number its events twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::model::RunId;

/// The turns of all runs. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    runs: Arc<Mutex<HashMap<RunId, Weak<Semaphore>>>>,
}

impl Turns {
    /// What gives the turns of one run.
    pub(super) fn of(&self, run: &RunId) -> Turn {
        let mut runs = self.lock();
        let permits = runs.get(run).and_then(Weak::upgrade).unwrap_or_else(|| {
            let permits = Arc::new(Semaphore::new(1));
            runs.insert(run.clone(), Arc::downgrade(&permits));
            permits
        });
        drop(runs);
        Turn { all: self.clone(), run: run.clone(), permits }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Weak<Semaphore>>> {
        // Each change of the map is whole by itself.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that may have its turn.
#[derive(Debug)]
pub(super) struct Turn {
    all: Turns,
    run: RunId,
    permits: Arc<Semaphore>,
}

impl Turn {
    /// Waits until everybody before has dropped theirs. Cancel safe.
    pub(super) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so there is always one.
        self.permits.acquire().await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut runs = self.all.lock();
        if Arc::strong_count(&self.permits) == 1 {
            runs.remove(&self.run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_after_the_other_and_nothing_is_left() {
        let turns = Turns::default();
        let (first, second) = (turns.of(&RunId::new("r")), turns.of(&RunId::new("r")));
        let other = turns.of(&RunId::new("other"));
        let held = first.take().await;
        assert!(other.take().await.is_some());
        let mut waiting = Box::pin(second.take());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(held);
        assert!(waiting.await.is_some());
        drop((first, second, other));
        assert!(turns.lock().is_empty());
    }
}
