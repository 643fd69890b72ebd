//! The system's clock and chance, for the engine.

use std::time::Duration;

use tokio::time::Instant;

use super::super::ports::{Clock, Rng};

/// Names this boot of the machine; empty where the system has no such name.
pub(super) fn boot() -> Vec<u8> {
    std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Names this boot and, inside a container, this start of it: file systems are mounted anew at each.
/// Empty where it cannot be told.
pub(super) fn start() -> String {
    let boot = String::from_utf8(boot()).unwrap_or_default();
    // Field 22 of the first process is when it was started; its name, which comes before, may hold
    // blanks and ends with the last bracket.
    let first = std::fs::read_to_string("/proc/1/stat").unwrap_or_default();
    let began = first.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    match (boot.trim(), began) {
        ("", _) | (_, None) => String::new(),
        (boot, Some(began)) => format!("{boot}/{began}"),
    }
}

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
