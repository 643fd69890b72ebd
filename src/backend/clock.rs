//! The server's clock, measured from the moment an answer came in, never by comparing server times
//! with the local wall clock. It goes on while the machine sleeps.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::clock::{Clock, Moment};

/// What time it is at the backend, by the `Date` of its last answer.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    local: Clock,
    seen: Mutex<Option<(Moment, Timestamp)>>,
}

impl ServerClock {
    /// Goes with this clock.
    pub(super) fn new(local: Clock) -> Self {
        Self { local, seen: Mutex::default() }
    }

    /// This machine's clock.
    pub(super) fn local(&self) -> &Clock {
        &self.local
    }

    /// An answer that came in at `received` said that it is `date`.
    pub(super) fn observe(&self, received: Moment, date: Timestamp) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((received, date));
    }

    /// The server's time, once it was heard of.
    pub(super) fn heard(&self) -> Option<Timestamp> {
        let (received, date) = (*self.seen.lock().unwrap_or_else(PoisonError::into_inner))?;
        date.checked_add(self.local.since(received)).ok()
    }

    /// The server's time, or this machine's as long as nothing better is known.
    pub(super) fn now(&self) -> Timestamp {
        self.heard().unwrap_or_else(|| self.local.read().wall)
    }

    /// When (here) the server's time will be `expiry`; now when that is past.
    pub(super) fn moment_of(&self, expiry: Timestamp) -> Moment {
        let life = expiry.duration_since(self.now());
        self.local.now().after(life.try_into().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::SignedDuration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_servers_time_goes_on_between_answers() {
        let (local, steering) = Clock::steered();
        let clock = ServerClock::new(local.clone());
        assert_eq!(clock.heard(), None);
        let date: Timestamp = "2001-01-01T00:00:00Z".parse().unwrap();
        clock.observe(local.now(), date);
        tokio::time::advance(Duration::from_secs(70)).await;
        // Asleep or awake, and whatever the wall clock says.
        steering.sleep(Duration::from_secs(30));
        steering.set_wall(SignedDuration::from_hours(24));
        assert_eq!(clock.now(), "2001-01-01T00:01:40Z".parse().unwrap());
        let end = clock.moment_of("2001-01-01T00:02:00Z".parse().unwrap());
        assert_eq!(local.left(end), Duration::from_secs(20));
        assert_eq!(local.left(clock.moment_of(date)), Duration::ZERO);
    }
}
