//! The system's clock and chance, for the engine.

use std::time::Duration;

use tokio::time::Instant;

use super::super::ports::{Clock, Rng};

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct SystemClock(Instant);

impl SystemClock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> i64 {
        i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Chance from the system.
#[derive(Debug)]
pub(super) struct SystemRng;

impl Rng for SystemRng {
    fn bits(&mut self) -> u64 {
        uuid::Uuid::new_v4().as_u64_pair().1
    }
}
