//! Backoff with full jitter, and bounded repeating of calls that may be repeated.

use std::time::Duration;

use tokio::time::Instant;

use super::BackendError;

/// No delay is shorter.
const SHORTEST: Duration = Duration::from_secs(1);
/// The jitter's ceiling never grows over this.
const LONGEST: Duration = Duration::from_mins(1);
/// A longer `Retry-After` is cut: nobody switches a gateway off by a header.
const LONGEST_ASKED: Duration = Duration::from_mins(15);

/// Delays between attempts: full jitter, 1 s to 60 s; a 429 waits 60 s at least; `Retry-After` is
/// honoured (up to 15 minutes).
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
    pub fn after(&mut self, error: &BackendError) -> Duration {
        self.after_within(error, LONGEST)
    }

    /// The same, but no longer than this unless the backend asks for time.
    pub fn after_within(&mut self, error: &BackendError, longest: Duration) -> Duration {
        self.attempt = self.attempt.saturating_add(1);
        let ceiling = 1u64.checked_shl(self.attempt).map_or(LONGEST, Duration::from_secs);
        let mut delay = jitter(SHORTEST, ceiling.min(longest));
        if error.status() == Some(429) {
            delay = jitter(LONGEST, LONGEST + LONGEST / 4);
        }
        match error.retry_after() {
            // Everybody was told the same second, so a little jitter goes on top.
            Some(asked) => {
                let asked = asked.min(LONGEST_ASKED);
                delay.max(jitter(asked, asked + SHORTEST))
            }
            None => delay,
        }
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

/// A random delay of at least `from`, at most `to`.
pub(super) fn jitter(from: Duration, to: Duration) -> Duration {
    from + to.saturating_sub(from).mul_f64(fastrand::f64())
}

/// The same with randomness of the caller's.
pub(super) fn jitter_with(rng: &mut fastrand::Rng, from: Duration, to: Duration) -> Duration {
    from + to.saturating_sub(from).mul_f64(rng.f64())
}

/// How often and how long a call may be repeated.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// No attempt starts later than this after the first.
    pub within: Duration,
}

impl Bounds {
    /// For a read that a job waits for: a hiccup is bridged, an outage is not.
    pub const READ: Self = Self { attempts: 4, within: Duration::from_secs(30) };
}

/// Repeats a call that may be repeated (a read, an idempotent write) while its errors are
/// transient, with [`Backoff`] between attempts. The last error when the bounds are reached.
pub async fn bounded<T, F>(bounds: Bounds, mut call: impl FnMut() -> F) -> Result<T, BackendError>
where
    F: Future<Output = Result<T, BackendError>>,
{
    let start = Instant::now();
    let mut backoff = Backoff::new();
    for _ in 1..bounds.attempts {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let delay = backoff.after(&error);
        if !error.is_transient() || start.elapsed() + delay > bounds.within {
            return Err(error);
        }
        tokio::time::sleep(delay).await;
    }
    call().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, retry_after: Option<u64>) -> BackendError {
        BackendError::Status {
            status,
            code: None,
            message: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn delays_grow_with_jitter_and_stay_in_bounds() {
        for _ in 0..200 {
            let mut backoff = Backoff::new();
            let error = BackendError::TimedOut(Duration::ZERO);
            let first = backoff.after(&error);
            assert!((1.0..=2.0).contains(&first.as_secs_f64()), "{first:?}");
            for _ in 0..80 {
                let delay = backoff.after(&error);
                assert!((1.0..=60.0).contains(&delay.as_secs_f64()), "{delay:?}");
            }
            backoff.reset();
            assert!(backoff.after(&error) <= Duration::from_secs(2));
        }
    }

    #[test]
    fn rate_limits_and_retry_after_are_honoured() {
        let at_least = |error, seconds| {
            let delay = Backoff::new().after(&error);
            assert!(delay >= Duration::from_secs(seconds), "{delay:?} after {error}");
            assert!(delay <= Duration::from_secs(seconds + 16), "{delay:?} after {error}");
        };
        at_least(status(429, None), 60);
        at_least(status(429, Some(5)), 60);
        at_least(status(429, Some(300)), 300);
        at_least(status(503, Some(30)), 30);
        at_least(status(503, Some(u64::MAX)), 900);
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_only_what_passes_and_only_so_often() {
        let mut calls = 0;
        let bounds = Bounds { attempts: 3, within: Duration::from_mins(1) };
        let error = bounded(bounds, || {
            calls += 1;
            async { Err::<(), _>(status(503, None)) }
        })
        .await
        .unwrap_err();
        assert_eq!((calls, error.status()), (3, Some(503)));

        for (answer, within, wanted) in [(404, 60, 1), (429, 10, 1)] {
            let mut calls = 0;
            let bounds = Bounds { attempts: 9, within: Duration::from_secs(within) };
            bounded(bounds, || {
                calls += 1;
                async move { Err::<(), _>(status(answer, None)) }
            })
            .await
            .unwrap_err();
            assert_eq!(calls, wanted, "{answer}");
        }

        let mut calls = 0;
        let value = bounded(bounds, || {
            calls += 1;
            let result = if calls == 2 { Ok(7) } else { Err(status(500, None)) };
            async move { result }
        })
        .await
        .unwrap();
        assert_eq!((calls, value), (2, 7));
    }
}
