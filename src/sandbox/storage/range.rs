//! The `Range` header.

use std::ops::Range;

/// What a request wants of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: no range asked for, or one that a server may ignore.
    Whole,
    /// A part, not empty.
    Part(Range<u64>),
    /// A part that it does not have.
    Outside,
}

/// Reads the header for a content of `size` bytes. Other units, several ranges and nonsense are
/// ignored, as the standard allows.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some((unit, spec)) = header.and_then(|header| header.split_once('=')) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return Wanted::Whole,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(last)) if first.is_empty() => size.saturating_sub(last)..size,
        _ => return Wanted::Whole,
    };
    if range.is_empty() { Wanted::Outside } else { Wanted::Part(range) }
}

/// Digits only; a number that is too large for us is larger than every content.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_range_is_honoured() {
        for (header, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=90-", 90..100),
            ("bytes=90-1000", 90..100),
            ("bytes=-5", 95..100),
            ("bytes=-1000", 0..100),
            ("BYTES = 1-2", 1..3),
            ("bytes=0-99999999999999999999999", 0..100),
        ] {
            assert_eq!(wanted(Some(header), 100), Wanted::Part(range), "{header}");
        }
    }

    #[test]
    fn a_range_past_the_end_is_outside() {
        for header in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999999-"]
        {
            assert_eq!(wanted(Some(header), 100), Wanted::Outside, "{header}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Outside);
        assert_eq!(wanted(Some("bytes=-1"), 0), Wanted::Outside);
    }

    #[test]
    fn what_a_server_may_ignore_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=0x1-2",
        ] {
            assert_eq!(wanted(Some(header), 100), Wanted::Whole, "{header}");
        }
        assert_eq!(wanted(None, 100), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_content(header in "\\PC{0,20}", size in any::<u64>()) {
            for header in [header.clone(), format!("bytes={header}")] {
                if let Wanted::Part(range) = wanted(Some(&header), size) {
                    prop_assert!(range.start < range.end && range.end <= size);
                }
            }
        }

        #[test]
        fn a_written_range_is_read(first in any::<u64>(), last in any::<u64>(), size in any::<u64>()) {
            let read = wanted(Some(&format!("bytes={first}-{last}")), size);
            let expected = if first > last {
                Wanted::Whole
            } else if first >= size {
                Wanted::Outside
            } else {
                Wanted::Part(first..last.saturating_add(1).min(size))
            };
            prop_assert_eq!(read, expected);
        }
    }
}
