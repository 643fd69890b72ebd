//! Shows that the runtime still turns: a number that grows each second as long as tasks get their
//! turn. Watchdogs look at its age.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;

const EVERY: Duration = Duration::from_secs(1);

/// Beats, and when the last one was.
#[derive(Debug)]
pub(super) struct Liveness(Mutex<(u64, Instant)>);

impl Liveness {
    /// Making it counts as a beat: a gateway that starts is alive.
    pub(super) fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn beat(&self) {
        let mut state = self.state();
        *state = (state.0 + 1, Instant::now());
    }

    /// How often it has beaten.
    pub(super) fn beats(&self) -> u64 {
        self.state().0
    }

    /// How long ago it last did.
    pub(super) fn age(&self) -> Duration {
        self.state().1.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, (u64, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beats until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Cancel safe, each arm.
            _ = ticks.tick() => shared.liveness.beat(),
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Group;

    #[tokio::test(start_paused = true)]
    async fn it_beats_each_second_and_its_age_tells_when_it_stopped() {
        let (shared, _dir) = Shared::for_tests();
        let shared = Arc::new(shared);
        let mut group = Group::new(CancellationToken::new());
        let own = Arc::clone(&shared);
        group.spawn("liveness", move |stop| run(own, stop));
        tokio::time::sleep(Duration::from_millis(10_500)).await;
        assert_eq!(shared.liveness.beats(), 11);
        assert!(shared.alive_within(EVERY));
        group.stop(EVERY).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(shared.alive_within(Duration::from_secs(6)));
        assert!(!shared.alive_within(Duration::from_secs(5)));
    }
}
