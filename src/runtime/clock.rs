//! The clock supervisor: notices that the machine slept, that the process stood still, or that
//! somebody set the wall clock, and wakes everybody.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::clock::{Clock, Detector};

/// A wake is noticed within this time.
const EVERY: Duration = Duration::from_secs(2);

/// Watches until `stop`.
pub(super) async fn run(shared: Arc<Shared>, clock: Clock, stop: CancellationToken) {
    let mut detector = Detector::new(clock.read(), EVERY);
    loop {
        tokio::select! {
            // Cancel safe: a timer.
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
        if let Some(woken) = detector.observe(clock.read()) {
            tracing::info!("{woken}: looking after everything at once");
            shared.wake.send_modify(|wakes| *wakes += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::task::Group;

    #[tokio::test(start_paused = true)]
    async fn each_gap_wakes_everybody_once() {
        let (shared, _dir) = Shared::for_tests();
        let shared = Arc::new(shared);
        let (clock, steering) = Clock::steered();
        let mut group = Group::new(CancellationToken::new());
        let own = Arc::clone(&shared);
        group.spawn("clock", move |stop| run(own, clock, stop));
        let wakes = || *shared.wake.borrow();
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(wakes(), 0);
        let gaps: [&dyn Fn(); 3] = [
            &|| steering.sleep(Duration::from_hours(8)),
            &|| steering.set_wall(SignedDuration::from_hours(24)),
            &|| steering.set_wall(SignedDuration::from_hours(-24)),
        ];
        for (before, gap) in (0..).zip(gaps) {
            gap();
            tokio::time::sleep(EVERY * 2).await;
            assert_eq!(wakes(), before + 1);
            tokio::time::sleep(Duration::from_hours(1)).await;
            assert_eq!(wakes(), before + 1);
        }
        // SIGSTOP: time has passed, and no timer was served meanwhile.
        tokio::time::advance(Duration::from_mins(10)).await;
        tokio::time::sleep(EVERY).await;
        assert_eq!(wakes(), 4);
        group.stop(Duration::from_secs(1)).await;
    }
}
