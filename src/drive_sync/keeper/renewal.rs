//! When the drives' token is to be renewed, whatever the clocks do meanwhile.

use std::time::Duration;

use jiff::Timestamp;

/// However long a token lasts: the younger it is, the longer the machine may sleep.
const LONGEST: Duration = Duration::from_hours(24);
/// When nothing sensible was said of its end.
const SOON: Duration = Duration::from_mins(1);

/// When a token is renewed: after two thirds of its time, and once a day.
///
/// The time that the process counts stands still while the machine sleeps, and anybody may set the
/// wall clock: it is due by whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Renewal {
    awake: Duration,
    wall: Timestamp,
}

impl Renewal {
    /// For a token that ends then (RFC 3339).
    pub(super) fn plan(expires_at: &str, awake: Duration, wall: Timestamp) -> Self {
        let left = expires_at
            .parse::<Timestamp>()
            .ok()
            .and_then(|end| Duration::try_from(end.duration_since(wall)).ok())
            .unwrap_or(SOON);
        Self::after(left * 2 / 3, awake, wall)
    }

    /// So much later.
    pub(super) fn after(wait: Duration, awake: Duration, wall: Timestamp) -> Self {
        let wait = wait.clamp(Duration::from_secs(1), LONGEST);
        Self { awake: awake + wait, wall: wall.checked_add(wait).unwrap_or(Timestamp::MAX) }
    }

    /// Whether it is time.
    pub(super) fn is_due(self, awake: Duration, wall: Timestamp) -> bool {
        self.awake <= awake || self.wall <= wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(hours: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH + HOUR * u32::try_from(hours).unwrap()
    }

    #[test]
    fn it_is_due_after_two_thirds_of_its_time_and_once_a_day() {
        for (lasts, due) in [(3, 2), (30, 20), (24 * 7, 24)] {
            let renewal = Renewal::plan(&at(lasts).to_string(), HOUR, at(0));
            let awake = |hours: u32| HOUR + HOUR * hours;
            assert!(!renewal.is_due(awake(due - 1), at(u64::from(due) - 1)), "{lasts}");
            assert!(renewal.is_due(awake(due), at(u64::from(due))), "{lasts}");
        }
    }

    #[test]
    fn a_machine_that_slept_and_a_clock_that_stands_still_do_not_put_it_off() {
        let renewal = Renewal::plan(&at(30).to_string(), HOUR, at(0));
        assert!(renewal.is_due(HOUR, at(20)), "it slept");
        assert!(renewal.is_due(HOUR * 21, at(0)), "the clock was set back");
    }

    #[test]
    fn what_has_ended_or_says_nothing_is_renewed_soon() {
        for text in ["", "tomorrow", "1969-01-01T00:00:00Z"] {
            let renewal = Renewal::plan(text, HOUR, at(0));
            assert!(!renewal.is_due(HOUR, at(0)));
            assert!(renewal.is_due(HOUR + SOON, at(0)), "{text:?}");
        }
    }
}
