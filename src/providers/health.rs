//! How a provider is: a state machine that is told of checks and runs. Pure; time is passed in.
//!
//! A provider without a verdict yet counts as unavailable. The verdict comes from a full check (a
//! model answers) and from runs; a light check (the command is there and tells its version) only
//! says whether there is anything to have a verdict on.

use std::time::Duration;

use tokio::time::Instant;

use super::{ErrorCode, Failure};
use crate::model::ProviderHealth;

/// An unhealthy provider is checked again after this time, and one whose command did not answer is
/// asked again.
pub const CHECK_AGAIN: Duration = Duration::from_mins(15);
/// One that was only too slow is looked into again after this time, then after twice that, and so
/// on up to [`CHECK_AGAIN`]: the host may just have had much to do.
pub const SLOW_AGAIN: Duration = Duration::from_mins(1);

/// Most characters of an error that are kept.
const ERROR_LENGTH: usize = 500;

/// What is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// No verdict yet.
    #[default]
    Unknown,
    /// It answers.
    Healthy,
    /// It is there and does not answer.
    Unhealthy,
    /// It is not there, or its command does not even tell its version.
    Unavailable,
}

impl Status {
    /// The wire's word. Readers take `unknown` as ready, so no verdict is told as `unavailable`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown | Self::Unavailable => "unavailable",
        }
    }
}

/// What a light check lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// There is no command: it is found again when there is one.
    Absent,
    /// It is there and does not tell its version.
    Mute,
    /// The same, and only because it took too long.
    Slow,
}

/// What a full check that went well tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// The model that answered, where the CLI tells it.
    pub model: Option<String>,
}

/// The last full check.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FullCheck {
    /// Wire time.
    at: String,
    status: Status,
    model: Option<String>,
    took: Duration,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    status: Status,
    error: Option<String>,
    /// The last thing that decided was a full check.
    by_full: bool,
    full: Option<FullCheck>,
    /// When to look into it again.
    again_at: Option<Instant>,
    /// How often running it was too slow to tell anything.
    slow: u32,
}

impl Health {
    /// What is known.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Why it is not healthy, one line.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether it may be asked for.
    pub fn is_ready(&self) -> bool {
        self.status == Status::Healthy
    }

    /// Whether jobs for it must still wait.
    pub fn is_undecided(&self) -> bool {
        self.status == Status::Unknown
    }

    /// When something is to be done about it next, other than by news.
    pub fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// A light check that went wrong.
    pub fn missing(&mut self, error: &str, lack: Lack, now: Instant) {
        self.status = Status::Unavailable;
        self.error = Some(one_line(error));
        self.by_full = false;
        self.again_at = match lack {
            Lack::Absent => None,
            Lack::Mute => Some(now + CHECK_AGAIN),
            Lack::Slow => Some(now + self.slow_again()),
        };
    }

    fn slow_again(&mut self) -> Duration {
        let pause = SLOW_AGAIN.saturating_mul(1 << self.slow.min(4));
        self.slow = self.slow.saturating_add(1);
        pause.min(CHECK_AGAIN)
    }

    /// Whether its command, which was there and did not answer, is to be asked again.
    pub fn wants_light(&self, now: Instant) -> bool {
        self.status == Status::Unavailable && self.again_at.is_some_and(|at| at <= now)
    }

    /// A light check that went well. `is_new`: it is not the file that the verdict is about.
    pub fn found(&mut self, is_new: bool, now: Instant) {
        match self.status {
            Status::Unknown | Status::Unavailable => {
                self.status = Status::Unknown;
                (self.error, self.by_full, self.again_at) = (None, false, None);
            }
            // A new version may have cured it.
            Status::Unhealthy if is_new => self.again_at = Some(now),
            Status::Healthy | Status::Unhealthy => {}
        }
    }

    /// Whether a full check is due.
    pub fn wants_full(&self, now: Instant) -> bool {
        match self.status {
            Status::Unknown => true,
            Status::Unhealthy => self.again_at.is_some_and(|at| at <= now),
            Status::Healthy | Status::Unavailable => false,
        }
    }

    /// A full check ended, at this wire time, having taken so long.
    pub fn checked(
        &mut self,
        result: Result<CheckReport, Box<Failure>>,
        at: &str,
        took: Duration,
        now: Instant,
    ) {
        let (status, model, error, again) = match result {
            Ok(report) => {
                self.slow = 0;
                (Status::Healthy, report.model, None, None)
            }
            Err(failure) => {
                let is_slow = failure.code == ErrorCode::ProviderTimeout;
                let again = if is_slow { self.slow_again() } else { CHECK_AGAIN };
                (Status::Unhealthy, None, Some(one_line(&failure.message)), Some(again))
            }
        };
        (self.status, self.error, self.by_full) = (status, error, true);
        self.again_at = again.map(|again| now + again);
        self.full = Some(FullCheck { at: at.to_owned(), status, model, took });
    }

    /// A run ended. True when it changed the verdict for the worse. What is the caller's fault, or
    /// passes by itself, says nothing.
    pub fn ran(&mut self, result: Result<(), &Failure>, now: Instant) -> bool {
        match result {
            Ok(()) => {
                self.slow = 0;
                if self.status != Status::Healthy {
                    (self.status, self.error) = (Status::Healthy, None);
                    (self.by_full, self.again_at) = (false, None);
                }
                false
            }
            Err(failure) if failure.code.marks_unhealthy() => {
                let was_well = matches!(self.status, Status::Healthy | Status::Unknown);
                if was_well {
                    (self.status, self.by_full) = (Status::Unhealthy, false);
                    self.again_at = Some(now + CHECK_AGAIN);
                }
                if self.status == Status::Unhealthy {
                    self.error = Some(one_line(&failure.message));
                }
                was_well
            }
            Err(_) => false,
        }
    }

    /// As capabilities say it. The caller knows when the last light check was.
    pub fn to_wire(&self, checked_at: &str) -> ProviderHealth {
        let full = self.full.as_ref();
        ProviderHealth {
            status: self.status.as_str().to_owned(),
            check_type: self.check_type().to_owned(),
            checked_at: checked_at.to_owned(),
            last_full_checked_at: full.map(|full| full.at.clone()),
            last_full_status: full.map(|full| full.status.as_str().to_owned()),
            error: self.error.clone(),
            model: full.and_then(|full| full.model.clone()),
            duration_ms: full.map(|full| milliseconds(full.took)),
        }
    }

    /// `full` or `light`.
    pub fn check_type(&self) -> &'static str {
        if self.by_full { "full" } else { "light" }
    }

    /// How long the last full check took, milliseconds.
    pub fn duration_ms(&self) -> Option<u64> {
        self.full.as_ref().map(|full| milliseconds(full.took))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Blanks of any kind become one; a long text is cut.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(ERROR_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: &str = "2026-11-21T22:00:00.000Z";

    fn failure(code: ErrorCode) -> Failure {
        Failure { code, message: "no\n  luck".to_owned(), summary: None }
    }

    /// One that was found and checked with this result.
    fn checked(result: Result<(), ErrorCode>, now: Instant) -> Health {
        let mut health = Health::default();
        health.found(true, now);
        let result = result
            .map(|()| CheckReport { model: Some("m".to_owned()) })
            .map_err(|code| Box::new(failure(code)));
        health.checked(result, AT, Duration::from_millis(1234), now);
        health
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_verdict_it_counts_as_unavailable_and_wants_a_check() {
        let now = Instant::now();
        let mut health = Health::default();
        for is_new in [true, false] {
            assert!(health.is_undecided() && health.wants_full(now) && !health.is_ready());
            assert_eq!(health.to_wire(AT).status, "unavailable");
            health.found(is_new, now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_decides_and_light_ones_let_its_verdict_stand() {
        let now = Instant::now();
        let mut health = checked(Ok(()), now);
        health.found(false, now);
        health.found(true, now);
        assert!(health.is_ready() && !health.wants_full(now + CHECK_AGAIN * 100));
        assert_eq!(
            serde_json::to_value(health.to_wire("later")).unwrap(),
            json!({"status": "healthy", "check_type": "full", "checked_at": "later",
                "last_full_checked_at": AT, "last_full_status": "healthy", "model": "m",
                "duration_ms": 1234})
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_unhealthy_one_is_checked_again_after_a_while_or_when_its_file_changed() {
        let now = Instant::now();
        let mut health = checked(Err(ErrorCode::ProviderUnavailable), now);
        assert_eq!(health.status(), Status::Unhealthy);
        assert_eq!(health.error(), Some("no luck"));
        assert!(!health.wants_full(now + CHECK_AGAIN - Duration::from_secs(1)));
        assert!(health.wants_full(now + CHECK_AGAIN));
        health.found(false, now);
        assert!(!health.wants_full(now));
        health.found(true, now);
        assert!(health.wants_full(now));
        assert!(!health.is_undecided(), "jobs do not wait for a second verdict");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_unavailable_and_wants_a_new_verdict_when_it_is_back() {
        let now = Instant::now();
        let mut health = checked(Ok(()), now);
        health.missing("gone", Lack::Absent, now);
        assert_eq!((health.status(), health.error()), (Status::Unavailable, Some("gone")));
        assert!(!health.is_undecided() && !health.wants_full(now + CHECK_AGAIN));
        assert!(!health.wants_light(now + CHECK_AGAIN), "nothing is there to be asked");
        health.missing("mute", Lack::Mute, now);
        assert!(!health.wants_light(now) && health.wants_light(now + CHECK_AGAIN));
        assert_eq!(health.to_wire(AT).check_type, "light");
        health.found(false, now);
        assert!(health.wants_full(now));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_too_slow_is_tried_again_soon_and_then_ever_later() {
        let mut now = Instant::now();
        let mut health = Health::default();
        for minutes in [1, 2, 4, 8, 15, 15] {
            health.missing("slow", Lack::Slow, now);
            let due = now + Duration::from_mins(minutes);
            assert_eq!(health.again_at(), Some(due), "{minutes}");
            assert!(!health.wants_light(now) && health.wants_light(due));
            now = due;
        }
        health.found(true, now);
        health.checked(Ok(CheckReport::default()), AT, Duration::ZERO, now);
        let late = || Err(Box::new(failure(ErrorCode::ProviderTimeout)));
        for minutes in [1, 2] {
            health.checked(late(), AT, Duration::ZERO, now);
            assert_eq!(health.again_at(), Some(now + Duration::from_mins(minutes)));
        }
        assert!(!health.ran(Ok(()), now));
        health.checked(late(), AT, Duration::ZERO, now);
        assert_eq!(health.again_at(), Some(now + SLOW_AGAIN), "a run had gone well");
    }

    #[tokio::test(start_paused = true)]
    async fn runs_move_the_verdict_once_and_only_by_what_is_the_providers_fault() {
        use ErrorCode::{
            InvalidRequest, ProviderAuth, ProviderFailed, ProviderOutputInvalid,
            ProviderRateLimited, ProviderTimeout, ProviderUnavailable,
        };
        let now = Instant::now();
        for (code, worse) in [
            (ProviderAuth, true),
            (ProviderOutputInvalid, true),
            (ProviderFailed, true),
            (ProviderRateLimited, false),
            (ProviderUnavailable, false),
            (ProviderTimeout, false),
            (InvalidRequest, false),
        ] {
            let mut health = checked(Ok(()), now);
            assert_eq!(health.ran(Err(&failure(code)), now), worse, "{code:?}");
            assert_eq!(health.is_ready(), !worse, "{code:?}");
            assert!(!health.ran(Err(&failure(code)), now), "once: {code:?}");
            assert_eq!(health.wants_full(now + CHECK_AGAIN), worse, "{code:?}");
            let wire = health.to_wire(AT);
            assert_eq!(wire.last_full_status.as_deref(), Some("healthy"));
            assert_eq!(wire.check_type, if worse { "light" } else { "full" });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_run_heals_whatever_made_it_unhealthy() {
        let now = Instant::now();
        let mut by_run = checked(Ok(()), now);
        by_run.ran(Err(&failure(ErrorCode::ProviderAuth)), now);
        let by_check = checked(Err(ErrorCode::ProviderAuth), now);
        for mut health in [by_run, by_check, Health::default()] {
            assert!(!health.ran(Ok(()), now));
            assert!(health.is_ready() && health.error().is_none());
            assert!(!health.wants_full(now + CHECK_AGAIN));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_fails_does_not_bring_back_what_is_gone() {
        let mut health = Health::default();
        health.missing("gone", Lack::Absent, Instant::now());
        assert!(!health.ran(Err(&failure(ErrorCode::ProviderFailed)), Instant::now()));
        assert_eq!((health.status(), health.error()), (Status::Unavailable, Some("gone")));
    }

    #[test]
    fn an_error_is_one_line_of_bounded_length() {
        assert_eq!(one_line(" a\r\n\tb "), "a b");
        assert_eq!(one_line(&"ä".repeat(10_000)).chars().count(), ERROR_LENGTH);
    }
}
