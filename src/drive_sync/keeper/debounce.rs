//! Waits for the end of a flurry of changes, but not for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::path::RelPath;

/// A flurry that does not end is looked at after so long.
const CAP: Duration = Duration::from_secs(10);
/// With more places than this a look at everything is cheaper.
const MOST: usize = 10_000;

/// Places that have changed since the last look.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    places: BTreeSet<RelPath>,
    /// Something may have changed anywhere.
    everywhere: bool,
    /// The first and the last change.
    times: Option<(Duration, Duration)>,
}

/// Where to look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Places {
    Everywhere,
    These(BTreeSet<RelPath>),
}

impl Debounce {
    /// Something changed at this place; `None`: anywhere.
    pub(super) fn note(&mut self, place: Option<RelPath>, now: Duration) {
        match place {
            Some(place) if !self.everywhere && self.places.len() < MOST => {
                self.places.insert(place);
            }
            Some(_) | None => {
                self.everywhere = true;
                self.places.clear();
            }
        }
        let first = self.times.map_or(now, |(first, _)| first);
        self.times = Some((first, now));
    }

    /// When to look.
    pub(super) fn due(&self, quiet: Duration) -> Option<Duration> {
        self.times.map(|(first, last)| (last + quiet).min(first + CAP.max(quiet)))
    }

    /// Where to look now, if it is time.
    pub(super) fn take(&mut self, quiet: Duration, now: Duration) -> Option<Places> {
        if self.due(quiet)? > now {
            return None;
        }
        self.times = None;
        let places = std::mem::take(&mut self.places);
        let everywhere = std::mem::take(&mut self.everywhere);
        Some(if everywhere { Places::Everywhere } else { Places::These(places) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(1);

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    #[test]
    fn a_flurry_is_looked_at_when_it_is_over() {
        let mut debounce = Debounce::default();
        assert_eq!(debounce.take(QUIET, at(0)), None);
        debounce.note(Some(path("a")), at(100));
        debounce.note(Some(path("b")), at(900));
        assert_eq!(debounce.take(QUIET, at(1899)), None);
        let both = [path("a"), path("b")].into();
        assert_eq!(debounce.take(QUIET, at(1900)), Some(Places::These(both)));
        assert_eq!((debounce.due(QUIET), debounce.take(QUIET, at(9000))), (None, None));
    }

    #[test]
    fn one_that_does_not_end_is_looked_at_anyway() {
        let mut debounce = Debounce::default();
        for time in (0..10_000).step_by(500) {
            debounce.note(Some(path("hot")), at(time));
            assert_eq!(debounce.take(QUIET, at(time)), None);
        }
        assert!(debounce.take(QUIET, at(10_000)).is_some());
    }

    #[test]
    fn lost_events_mean_everything() {
        let mut debounce = Debounce::default();
        debounce.note(Some(path("a")), at(0));
        debounce.note(None, at(0));
        debounce.note(Some(path("b")), at(0));
        assert_eq!(debounce.take(QUIET, QUIET), Some(Places::Everywhere));
        for number in 0..=MOST {
            debounce.note(Some(path(&number.to_string())), at(0));
        }
        assert_eq!(debounce.take(QUIET, QUIET), Some(Places::Everywhere));
    }
}
