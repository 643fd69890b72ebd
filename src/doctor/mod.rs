//! Checks of everything that a gateway needs, for `doctor` and for `diagnostic` jobs: what is in
//! order, what is not, and what to do about it.
//!
//! A [`Check`] is data; `host`, `guest`, `backend` and `providers` make
//! them. Nothing here repairs anything.

pub mod backend;
pub mod guest;
pub mod host;
pub mod providers;

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// In order.
    Ok,
    /// The gateway works all the same.
    Warn,
    /// It keeps the gateway from working.
    Fail,
}

impl Status {
    /// The word that people and readers of JSON see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A stable name, e.g. `disk_space` or `provider_codex`.
    pub id: &'static str,
    /// How it is.
    pub status: Status,
    /// What was found, one line.
    pub detail: String,
    /// What to do about it, when it is not in order.
    pub hint: Option<String>,
    /// How long the look took, milliseconds.
    pub duration_ms: u64,
    /// More for readers of JSON, where there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<Value>,
}

impl Check {
    /// In order.
    pub fn ok(id: &'static str, detail: impl Into<String>) -> Self {
        Self::new(id, Status::Ok, &detail.into(), None)
    }

    /// Not as it should be, which the gateway can live with.
    pub fn warn(id: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(id, Status::Warn, &detail.into(), Some(hint.into()))
    }

    /// It stops the gateway.
    pub fn fail(id: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(id, Status::Fail, &detail.into(), Some(hint.into()))
    }

    fn new(id: &'static str, status: Status, detail: &str, hint: Option<String>) -> Self {
        let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { id, status, detail, hint, duration_ms: 0, figures: None }
    }

    /// With numbers for readers of JSON.
    #[must_use]
    pub fn with_figures(mut self, figures: Value) -> Self {
        self.figures = Some(figures);
        self
    }

    /// With how long it took.
    #[must_use]
    pub fn took(mut self, took: Duration) -> Self {
        self.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// As a `diagnostic` job tells it.
    pub fn to_result(&self) -> Value {
        json!({"id": self.id, "status": self.status, "detail": self.detail,
            "duration_ms": self.duration_ms})
    }
}

/// Nothing keeps a gateway from working.
pub fn is_ok(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.status != Status::Fail)
}

/// The same check with how long it took.
async fn timed(check: impl Future<Output = Check>) -> Check {
    let began = Instant::now();
    check.await.took(began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_stops_a_gateway() {
        let mut checks = vec![Check::ok("a", "fine"), Check::warn("b", "odd", "look")];
        assert!(is_ok(&checks));
        checks.push(Check::fail("c", "bad", "mend it"));
        assert!(!is_ok(&checks));
    }

    #[test]
    fn a_detail_is_one_line_and_a_job_is_told_no_hint() {
        let check = Check::warn("b", "odd\n  thing", "look").took(Duration::from_millis(12));
        let wanted = json!({"id": "b", "status": "warn", "detail": "odd thing", "duration_ms": 12});
        assert_eq!(check.to_result(), wanted);
    }
}
