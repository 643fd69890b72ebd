//! Time that goes on while the machine sleeps, which tokio's clock does not count.
//!
//! A [`Moment`] is for what ends at the backend however long we sleep: a token, the freshness of a
//! heartbeat, a pause that was asked for. What is about this machine's own work (time limits,
//! intervals, drains) stays on tokio's clock. [`Detector`] tells when the clocks show that the
//! machine slept, the process stood still, or somebody set the wall clock.

mod detector;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

pub use detector::{Detector, Woken};

/// Nothing is planned further ahead.
const HORIZON: Duration = Duration::from_hours(10 * 365 * 24);

/// The clocks of this machine at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readings {
    /// The wall clock, which anybody may set.
    pub wall: Timestamp,
    /// Time that the machine was awake, from some start.
    pub awake: Duration,
    /// The same with the time that it slept.
    pub boot: Duration,
}

/// A point of time, by tokio's clock and the time that the machine has slept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Instant);

impl Moment {
    /// So much later, for any time.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.checked_add(time.min(HORIZON)).unwrap_or(self.0))
    }
}

/// Where time is read. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// `None`: the system's.
    steered: Option<Arc<Steered>>,
}

impl Clock {
    /// The system's clocks.
    pub fn system() -> Self {
        Self::default()
    }

    /// Clocks that go with tokio's (which tests pause), and what sets them.
    pub fn steered() -> (Self, Steering) {
        let steered = Arc::new(Steered {
            began: Instant::now(),
            wall: Timestamp::now(),
            shifts: Mutex::default(),
        });
        (Self { steered: Some(Arc::clone(&steered)) }, Steering { steered })
    }

    /// What they show.
    pub fn read(&self) -> Readings {
        self.steered.as_ref().map_or_else(system::read, |steered| steered.read())
    }

    /// Now.
    pub fn now(&self) -> Moment {
        let Readings { awake, boot, .. } = self.read();
        Moment(Instant::now()).after(boot.saturating_sub(awake))
    }

    /// How long ago that was; zero when it is to come.
    pub fn since(&self, moment: Moment) -> Duration {
        self.now().0.saturating_duration_since(moment.0)
    }

    /// What is left until then; zero when it is past.
    pub fn left(&self, end: Moment) -> Duration {
        end.0.saturating_duration_since(self.now().0)
    }
}

/// Sets clocks of [`Clock::steered`].
#[derive(Debug, Clone)]
pub struct Steering {
    steered: Arc<Steered>,
}

impl Steering {
    /// The machine has slept this long.
    pub fn sleep(&self, time: Duration) {
        self.steered.shift(|shifts| shifts.slept += time);
    }

    /// Somebody sets the wall clock forward, or back.
    pub fn set_wall(&self, by: SignedDuration) {
        self.steered.shift(|shifts| shifts.set = shifts.set.saturating_add(by));
    }
}

#[derive(Debug)]
struct Steered {
    began: Instant,
    wall: Timestamp,
    shifts: Mutex<Shifts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Shifts {
    slept: Duration,
    set: SignedDuration,
}

impl Steered {
    fn shift(&self, change: impl FnOnce(&mut Shifts)) {
        change(&mut self.shifts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(&self) -> Readings {
        let Shifts { slept, set } = *self.shifts.lock().unwrap_or_else(PoisonError::into_inner);
        let awake = self.began.elapsed();
        let boot = awake + slept;
        let wall = self.wall.checked_add(boot).and_then(|wall| wall.checked_add(set));
        Readings { wall: wall.unwrap_or(self.wall), awake, boot }
    }
}

#[cfg(not(target_os = "macos"))]
mod system {
    use std::time::Duration;

    use jiff::Timestamp;
    use rustix::time::{ClockId, clock_gettime};

    use super::Readings;

    pub(super) fn read() -> Readings {
        let awake = of(ClockId::Monotonic);
        Readings { wall: Timestamp::now(), awake, boot: of(ClockId::Boottime) }
    }

    fn of(clock: ClockId) -> Duration {
        clock_gettime(clock).try_into().unwrap_or_default()
    }
}

/// Untested. There `CLOCK_MONOTONIC` counts sleep, and the standard library's clock
/// (`CLOCK_UPTIME_RAW`) does not.
#[cfg(target_os = "macos")]
mod system {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    use jiff::Timestamp;
    use rustix::time::{ClockId, clock_gettime};

    use super::Readings;

    #[expect(clippy::disallowed_methods, reason = "the clock below tokio's")]
    static BEGAN: LazyLock<(Instant, Duration)> = LazyLock::new(|| (Instant::now(), boot()));

    pub(super) fn read() -> Readings {
        let (began, boot_then) = *BEGAN;
        Readings { wall: Timestamp::now(), awake: boot_then + began.elapsed(), boot: boot() }
    }

    fn boot() -> Duration {
        clock_gettime(ClockId::Monotonic).try_into().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_comes_while_the_machine_sleeps() {
        let (clock, steering) = Clock::steered();
        let began = clock.now();
        let end = began.after(Duration::from_hours(1));
        tokio::time::advance(Duration::from_mins(10)).await;
        assert_eq!(clock.left(end), Duration::from_mins(50));
        steering.sleep(Duration::from_mins(20));
        assert_eq!(clock.left(end), Duration::from_mins(30));
        assert_eq!(clock.since(began), Duration::from_mins(30));
        steering.sleep(Duration::from_hours(8));
        assert_eq!(clock.left(end), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_moves_no_moment() {
        let (clock, steering) = Clock::steered();
        let end = clock.now().after(Duration::from_mins(1));
        let wall = clock.read().wall;
        for days in [1, -2] {
            steering.set_wall(SignedDuration::from_hours(24 * days));
            assert_eq!(clock.left(end), Duration::from_mins(1));
        }
        assert_eq!(clock.read().wall.duration_since(wall), SignedDuration::from_hours(-24));
    }

    #[tokio::test(start_paused = true)]
    async fn absurd_times_are_cut() {
        let (clock, steering) = Clock::steered();
        assert_eq!(clock.left(clock.now().after(Duration::MAX)), HORIZON);
        steering.set_wall(SignedDuration::MAX);
        steering.set_wall(SignedDuration::MAX);
        clock.read();
    }

    #[tokio::test]
    async fn the_systems_clocks_agree_while_nothing_sleeps() {
        let clock = Clock::system();
        let (first, moment) = (clock.read(), clock.now());
        tokio::time::sleep(Duration::from_millis(20)).await;
        let second = clock.read();
        let awake = second.awake.saturating_sub(first.awake);
        let boot = second.boot.saturating_sub(first.boot);
        assert!(awake >= Duration::from_millis(20), "{awake:?}");
        assert!(boot.abs_diff(awake) < Duration::from_secs(1), "{boot:?} {awake:?}");
        assert!(first.boot + Duration::from_secs(1) >= first.awake);
        assert!(clock.since(moment) >= Duration::from_millis(20));
    }
}
