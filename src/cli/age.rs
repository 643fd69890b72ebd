//! Durations as people say them.

use jiff::Timestamp;

/// `950 ms`, `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`.
pub(crate) fn millis(millis: u64) -> String {
    let seconds = millis / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// From one wall time to a later one; a clock that was set back gives 0.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> String {
    let span = to.as_millisecond().saturating_sub(from.as_millisecond());
    millis(u64::try_from(span).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_grow_with_the_duration() {
        let texts = [0, 999, 1000, 59_999, 60_000, 3_720_000, 90_000_000].map(millis);
        assert_eq!(texts, ["0 ms", "999 ms", "1 s", "59 s", "1 min", "1 h 2 min", "1 d 1 h"]);
    }

    #[test]
    fn a_clock_set_back_is_no_age() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(between("2026-01-01T00:00:00Z".parse().unwrap(), now), "0 ms");
    }
}
