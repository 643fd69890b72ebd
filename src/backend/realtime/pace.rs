//! How long a client waits before it connects again. Pure; time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use super::super::retry::jitter_with;

/// A connection that broke is made again after this.
const LOST: Duration = Duration::from_secs(5);
/// A backend that is out of reach is tried this often at first: each try costs it nothing, and its
/// return is noticed within 5 s.
const SOON: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
/// How long "at first" is.
const PATIENT_AFTER: Duration = Duration::from_mins(5);
/// No pause is longer, but one that the backend asks for.
const LONGEST: Duration = Duration::from_mins(1);

/// How an attempt or a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A connection was there and is gone.
    Lost,
    /// There was none.
    OutOfReach,
    /// Too many connections (429).
    Limited,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failing_since: Option<Instant>,
    /// Pauses since it is tried less often.
    slow: u32,
}

impl Pace {
    /// It worked.
    pub(super) fn well(&mut self) {
        *self = Self::default();
    }

    /// The pause before the next attempt.
    pub(super) fn after(
        &mut self,
        outcome: Outcome,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        let since = *self.failing_since.get_or_insert(now);
        if outcome == Outcome::Limited {
            return jitter_with(rng, LONGEST, LONGEST + LONGEST / 4);
        }
        if now.duration_since(since) >= PATIENT_AFTER {
            self.slow = (self.slow + 1).min(6);
            let ceiling = Duration::from_secs(4 << self.slow).min(LONGEST);
            return jitter_with(rng, SOON.0, ceiling);
        }
        if outcome == Outcome::Lost { LOST } else { jitter_with(rng, SOON.0, SOON.1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_first_the_return_of_the_network_is_noticed_within_5_s() {
        let mut rng = fastrand::Rng::with_seed(1);
        let start = Instant::now();
        let mut pace = Pace::default();
        for second in 0..299 {
            let now = start + Duration::from_secs(second);
            let pause = pace.after(Outcome::OutOfReach, now, &mut rng);
            assert!(pause >= Duration::from_secs(1), "{pause:?}");
            assert!(pause <= Duration::from_secs(4), "{pause:?}");
            assert_eq!(pace.after(Outcome::Lost, now, &mut rng), Duration::from_secs(5));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn later_the_pauses_grow_to_a_minute() {
        let mut rng = fastrand::Rng::with_seed(1);
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.after(Outcome::OutOfReach, start, &mut rng);
        let later = start + PATIENT_AFTER;
        let first = pace.after(Outcome::OutOfReach, later, &mut rng);
        assert!(first <= Duration::from_secs(8), "{first:?}");
        let pauses: Vec<_> =
            (0..50).map(|_| pace.after(Outcome::OutOfReach, later, &mut rng)).collect();
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses.iter().any(|pause| *pause > Duration::from_secs(30)));
        pace.well();
        assert!(pace.after(Outcome::OutOfReach, later, &mut rng) <= SOON.1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_with_too_many_connections_gets_a_minute() {
        let mut rng = fastrand::Rng::with_seed(1);
        let pause = Pace::default().after(Outcome::Limited, Instant::now(), &mut rng);
        assert!(pause >= LONGEST, "{pause:?}");
    }
}
