//! Tells by the clocks that time has passed unseen, or that somebody set the wall clock. Pure.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;

use super::Readings;

/// A shorter sleep breaks nothing that would not be found otherwise.
const SLEPT: Duration = Duration::from_secs(2);
/// A loaded machine may let the detector wait; nothing lets it wait so long.
const STOOD_STILL: Duration = Duration::from_secs(30);
/// Smaller corrections of the wall clock are its daily life.
const SET: SignedDuration = SignedDuration::from_secs(30);

/// What happened since the last reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The machine slept this long.
    Slept(Duration),
    /// It was awake, but this process did not run for so long (SIGSTOP, a frozen cgroup).
    StoodStill(Duration),
    /// The wall clock was set by so much, or the whole virtual machine stood still.
    WallClockSet(SignedDuration),
}

impl fmt::Display for Woken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slept(time) => write!(f, "the machine slept for {} s", time.as_secs()),
            Self::StoodStill(time) => write!(f, "the process stood still for {} s", time.as_secs()),
            Self::WallClockSet(by) => write!(f, "the wall clock was set by {} s", by.as_secs()),
        }
    }
}

/// Compares each reading with the one before.
#[derive(Debug, Clone)]
pub struct Detector {
    last: Readings,
    every: Duration,
}

impl Detector {
    /// From these readings on. It is to be asked `every` so often.
    pub fn new(first: Readings, every: Duration) -> Self {
        Self { last: first, every }
    }

    /// What these readings tell.
    pub fn observe(&mut self, now: Readings) -> Option<Woken> {
        let last = std::mem::replace(&mut self.last, now);
        let awake = now.awake.saturating_sub(last.awake);
        let boot = now.boot.saturating_sub(last.boot);
        let slept = boot.saturating_sub(awake);
        if slept >= SLEPT {
            return Some(Woken::Slept(slept));
        }
        if awake > self.every + STOOD_STILL {
            return Some(Woken::StoodStill(awake));
        }
        let passed = SignedDuration::try_from(boot).unwrap_or(SignedDuration::MAX);
        let set = now.wall.duration_since(last.wall).saturating_sub(passed);
        (set > SET || set < -SET).then_some(Woken::WallClockSet(set))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    const EVERY: Duration = Duration::from_secs(2);

    fn start() -> Readings {
        Readings {
            wall: "2026-11-21T22:00:00Z".parse().unwrap(),
            awake: Duration::from_secs(5_000),
            boot: Duration::from_mins(150),
        }
    }

    /// So much later by each clock, in milliseconds.
    fn later(from: Readings, wall: i64, awake: u64, boot: u64) -> Readings {
        Readings {
            wall: from.wall.checked_add(SignedDuration::from_millis(wall)).unwrap(),
            awake: from.awake + Duration::from_millis(awake),
            boot: from.boot + Duration::from_millis(boot),
        }
    }

    #[test]
    fn each_kind_of_gap_has_its_name() {
        const DAY: i64 = 86_400_000;
        let slept = |seconds| Some(Woken::Slept(Duration::from_secs(seconds)));
        let still = |seconds| Some(Woken::StoodStill(Duration::from_secs(seconds)));
        let set = |seconds| Some(Woken::WallClockSet(SignedDuration::from_secs(seconds)));
        for (wall, awake, boot, wanted) in [
            (2_000, 2_000, 2_000, None),
            (2_000, 9_000, 9_000, None),
            // Eight hours of sleep, with and without a wall clock that kept up.
            (28_802_000, 2_000, 28_802_000, slept(28_800)),
            (2_000, 2_000, 28_802_000, slept(28_800)),
            (3_999, 2_000, 3_999, None),
            (4_000, 2_000, 4_000, slept(2)),
            // SIGSTOP.
            (32_000, 32_000, 32_000, None),
            (600_000, 600_000, 600_000, still(600)),
            // Somebody set the clock.
            (DAY + 2_000, 2_000, 2_000, set(86_400)),
            (2_000 - DAY, 2_000, 2_000, set(-86_400)),
            (32_000, 2_000, 2_000, None),
            (32_001, 2_000, 2_000, Some(Woken::WallClockSet(SignedDuration::from_millis(30_001)))),
            (-28_000, 2_000, 2_000, None),
        ] {
            let mut detector = Detector::new(start(), EVERY);
            let now = later(start(), wall, awake, boot);
            assert_eq!(detector.observe(now), wanted, "{wall} {awake} {boot}");
            // It is told once.
            assert_eq!(detector.observe(later(now, 2_000, 2_000, 2_000)), None);
        }
    }

    #[test]
    fn readings_that_go_backwards_are_no_reason_to_panic() {
        let mut detector = Detector::new(start(), EVERY);
        let before = Readings { wall: Timestamp::MIN, awake: Duration::ZERO, boot: Duration::ZERO };
        assert!(matches!(detector.observe(before), Some(Woken::WallClockSet(_))));
        let after = Readings { wall: Timestamp::MAX, awake: Duration::MAX, boot: Duration::MAX };
        detector.observe(after);
    }

    proptest! {
        #[test]
        fn clocks_that_go_alike_tell_nothing(
            steps in proptest::collection::vec((0u64..30_000, -10_000i64..10_000, 0u64..1_000), 1..50),
        ) {
            let mut detector = Detector::new(start(), EVERY);
            let mut now = start();
            for (passed, drift, lag) in steps {
                let wall = i64::try_from(passed).unwrap() + drift;
                now = later(now, wall, passed, passed + lag);
                prop_assert_eq!(detector.observe(now), None);
            }
        }
    }
}
