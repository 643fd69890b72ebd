//! Times on the wire: UTC, milliseconds, `Z`. Anything else is refused by some backends.

use jiff::{Timestamp, tz::TimeZone};

/// Formats an instant as the wire wants it, e.g. `2026-11-21T22:00:00.000Z`.
pub fn to_wire(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// The wall clock now, as the wire wants it. For persisted records and requests only; durations
/// are measured on tokio's clock.
pub fn now_wire() -> String {
    to_wire(Timestamp::now())
}

/// Reads any RFC 3339 time with offset (`Z`, `+00:00`, zero to nine fractional digits).
pub fn parse(text: &str) -> Option<Timestamp> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_and_zulu() {
        let at: Timestamp = "2025-11-03T10:32:55.123999+01:00".parse().unwrap();
        assert_eq!(to_wire(at), "2025-11-03T09:32:55.123Z");
    }

    #[test]
    fn postgrest_times_are_read_as_instants() {
        assert_eq!(parse("2025-11-03T09:32:55+00:00"), parse("2025-11-03T09:32:55.000Z"));
        assert_eq!(parse("yesterday"), None);
    }
}
