//! Backoff with full jitter.

use std::time::Duration;

/// Delays between attempts: full jitter, 1 s to 60 s; a 429 waits 60 s at least; `Retry-After` is
/// honoured.
#[derive(Debug, Clone)]
pub struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// Before the first failure.
    pub fn new() -> Self {
        Self { attempt: 0 }
    }

    /// The delay after this failure.
    pub fn after(&mut self, error: &super::BackendError) -> Duration {
        unimplemented!("{error} {}", self.attempt)
    }

    /// A call succeeded.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}
