//! How far the first copy of a drive is, and how long the rest may take.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The speed is that of so long a time.
const WINDOW: Duration = Duration::from_mins(1);
/// A shorter time says nothing about speed.
const SHORTEST: Duration = Duration::from_secs(5);

/// Contents of both ways, until disk and server are the same for the first time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct FirstCopy {
    pub files_done: u64,
    pub files: u64,
    pub bytes_done: u64,
    pub bytes: u64,
    /// An estimate; `None` while there is nothing to go by.
    pub seconds_left: Option<u64>,
}

/// What was seen lately, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Pace(VecDeque<(Duration, FirstCopy)>);

impl Pace {
    /// Takes note of how it is `now`, and returns the time that the rest takes at the speed of the
    /// last minute. Small files cost time by their number, large ones by their bytes: what takes
    /// longer counts, so that nobody is promised too much.
    pub(super) fn left(&mut self, seen: &FirstCopy, now: Duration) -> Option<Duration> {
        self.0.push_back((now, *seen));
        while self.0.get(1).is_some_and(|(at, _)| *at + WINDOW <= now) {
            self.0.pop_front();
        }
        let (since, before) = self.0.front()?;
        let time = now.saturating_sub(*since);
        if time < SHORTEST {
            return None;
        }
        let moved = |now: u64, before: u64| now.saturating_sub(before);
        let files = rest(seen.files, seen.files_done, moved(seen.files_done, before.files_done));
        let bytes = rest(seen.bytes, seen.bytes_done, moved(seen.bytes_done, before.bytes_done));
        let times = files.into_iter().chain(bytes).fold(None, |longest: Option<f64>, times| {
            Some(longest.map_or(times, |longest| longest.max(times)))
        });
        Some(time.mul_f64(times?.clamp(0.0, 1e6)))
    }
}

/// How many times as long as what was moved the rest takes; `None`: nothing was moved.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn rest(all: u64, done: u64, moved: u64) -> Option<f64> {
    (moved > 0).then(|| all.saturating_sub(done) as f64 / moved as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(files_done: u64, bytes_done: u64) -> FirstCopy {
        FirstCopy { files_done, files: 1000, bytes_done, bytes: 1_000_000, seconds_left: None }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_steady_copy_is_estimated_by_what_takes_longer() {
        let mut pace = Pace::default();
        assert_eq!(pace.left(&copy(0, 0), at(0)), None);
        assert_eq!(pace.left(&copy(100, 1000), at(4)), None, "too early");
        // 20 files and 10,000 bytes a second: the bytes take longer.
        assert_eq!(pace.left(&copy(200, 100_000), at(10)), Some(at(90)));
        let mut pace = Pace::default();
        pace.left(&copy(0, 0), at(0));
        // Here the files do.
        assert_eq!(pace.left(&copy(100, 500_000), at(10)), Some(at(90)));
    }

    #[test]
    fn what_stands_still_has_no_end() {
        let mut pace = Pace::default();
        for second in 0..100 {
            let left = pace.left(&copy(10, 10), at(second));
            assert_eq!(left, None, "after {second} s");
        }
    }

    #[test]
    fn what_is_long_past_does_not_count() {
        let mut pace = Pace::default();
        // Slow for an hour, and then fast for two minutes.
        for minute in 0..60 {
            pace.left(&copy(minute, minute), at(minute * 60));
        }
        let mut left = None;
        for second in 0..=120 {
            left = pace.left(&copy(100 + second * 5, 100 + second * 5000), at(3600 + second));
        }
        assert_eq!(left.unwrap().as_secs(), 79);
    }
}
