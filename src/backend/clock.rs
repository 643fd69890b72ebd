//! The server's clock and the life of tokens, in one place: everything is measured on tokio's clock
//! from the moment an answer came in, never by comparing server times with the local wall clock.
//!
//! Tokio's clock stands still while the machine sleeps: after a wake the first answer's `Date`
//! corrects [`ServerClock`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Nothing that a server says makes us plan further ahead.
const HORIZON: Duration = Duration::from_hours(10 * 365 * 24);

/// What time it is at the backend, by the `Date` of its last answer.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    seen: Mutex<Option<(Instant, Timestamp)>>,
}

impl ServerClock {
    /// An answer that came in at `received` said that it is `date`.
    pub(super) fn observe(&self, received: Instant, date: Timestamp) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((received, date));
    }

    /// The server's time, once it was heard of.
    pub(super) fn heard(&self) -> Option<Timestamp> {
        let (received, date) = (*self.seen.lock().unwrap_or_else(PoisonError::into_inner))?;
        date.checked_add(received.elapsed()).ok()
    }

    /// The server's time, or this machine's as long as nothing better is known.
    pub(super) fn now(&self) -> Timestamp {
        self.heard().unwrap_or_else(Timestamp::now)
    }

    /// When (on tokio's clock) the server's time will be `expiry`; now when that is past.
    pub(super) fn instant_of(&self, expiry: Timestamp) -> Instant {
        lives(Instant::now(), expiry.duration_since(self.now()).try_into().unwrap_or_default())
    }
}

/// `start + life`, for any life.
pub(super) fn lives(start: Instant, life: Duration) -> Instant {
    let life = life.min(HORIZON);
    start.checked_add(life).unwrap_or(start)
}

/// What is left until `end`; zero when it is past.
pub(super) fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_servers_time_goes_on_between_answers() {
        let clock = ServerClock::default();
        assert_eq!(clock.heard(), None);
        let date: Timestamp = "2001-01-01T00:00:00Z".parse().unwrap();
        clock.observe(Instant::now(), date);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(clock.now(), "2001-01-01T00:01:40Z".parse().unwrap());
        let end = clock.instant_of("2001-01-01T00:02:00Z".parse().unwrap());
        assert_eq!(left(end), Duration::from_secs(20));
        assert_eq!(left(clock.instant_of(date)), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn absurd_lives_are_cut() {
        assert_eq!(left(lives(Instant::now(), Duration::MAX)), HORIZON);
    }
}
