//! Whether the gateway is alive, and whether it takes jobs: what watchdogs and probes ask. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shared::POLL_INTERVAL;
use super::status::Phase;
use crate::jobs::HEARTBEAT_FRESH;

/// The runtime is alive as long as its pulse is not older.
pub(super) const ALIVE_WITHIN: Duration = Duration::from_secs(10);
/// Polls that failed for this long mean that the backend is away.
const POLLS_FRESH: Duration = POLL_INTERVAL.saturating_mul(3);

/// Why the gateway takes no new jobs. Codes are for machines and stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// `stalled`, `starting`, `draining`, `stopped`, `session_ended`, `journal`, `heartbeat` or
    /// `backend_away`.
    pub code: String,
    /// One line for people; it never quotes what others said.
    pub message: String,
}

/// The answer to `{"request":"health"}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Alive: its tasks get their turn.
    pub ok: bool,
    /// Takes new jobs.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<Reason>,
}

/// What health looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// The pulse is fresh.
    pub(super) alive: bool,
    pub(super) phase: Phase,
    /// The backend refuses the pairing.
    pub(super) session_ended: bool,
    /// What is claimed can be kept on disk.
    pub(super) journal_in_order: bool,
    /// Age of the last heartbeat that was accepted.
    pub(super) heartbeat: Option<Duration>,
    /// Age of the last poll that was answered.
    pub(super) poll: Option<Duration>,
}

/// The verdict on these facts.
pub(super) fn health(facts: Facts) -> Health {
    let mut reasons = Vec::new();
    let mut because = |code: &str, message: String| {
        reasons.push(Reason { code: code.to_owned(), message });
    };
    if !facts.alive {
        because("stalled", "the gateway's tasks do not get their turn".to_owned());
    }
    match facts.phase {
        Phase::Starting => {
            because("starting", "the backend has not accepted the gateway yet".to_owned());
        }
        Phase::Draining => because("draining", "it finishes what runs and stops".to_owned()),
        Phase::Stopped => because("stopped", "it has stopped".to_owned()),
        Phase::Up => {}
    }
    if facts.session_ended {
        because("session_ended", "the backend refuses the pairing: pair again".to_owned());
    }
    if !facts.journal_in_order {
        because("journal", "claimed jobs could not be kept on disk".to_owned());
    }
    if facts.phase == Phase::Up {
        if let Some(age) = stale(facts.heartbeat, HEARTBEAT_FRESH) {
            because("heartbeat", format!("no heartbeat was accepted for {age}"));
        }
        if let Some(age) = stale(facts.poll, POLLS_FRESH) {
            because("backend_away", format!("the backend has not answered a poll for {age}"));
        }
    }
    Health { ok: facts.alive, ready: reasons.is_empty(), reasons }
}

/// How old it is, in words, when that is too old.
fn stale(age: Option<Duration>, limit: Duration) -> Option<String> {
    match age {
        None => Some("as long as it runs".to_owned()),
        Some(age) => (age > limit).then(|| format!("{} s", age.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Facts = Facts {
        alive: true,
        phase: Phase::Up,
        session_ended: false,
        journal_in_order: true,
        heartbeat: Some(Duration::from_secs(90)),
        poll: Some(Duration::from_secs(15)),
    };

    #[test]
    fn each_fact_has_its_reason() {
        assert_eq!(health(GOOD), Health { ok: true, ready: true, reasons: Vec::new() });
        let late = Some(Duration::from_secs(91));
        for (facts, codes) in [
            (Facts { alive: false, ..GOOD }, &["stalled"][..]),
            (Facts { phase: Phase::Starting, heartbeat: None, poll: None, ..GOOD }, &["starting"]),
            (Facts { phase: Phase::Draining, poll: late, ..GOOD }, &["draining"]),
            (Facts { phase: Phase::Stopped, ..GOOD }, &["stopped"]),
            (Facts { session_ended: true, ..GOOD }, &["session_ended"]),
            (Facts { journal_in_order: false, ..GOOD }, &["journal"]),
            (Facts { heartbeat: late, ..GOOD }, &["heartbeat"]),
            (Facts { heartbeat: late, poll: None, ..GOOD }, &["heartbeat", "backend_away"]),
        ] {
            let found = health(facts);
            let named: Vec<_> = found.reasons.iter().map(|reason| reason.code.as_str()).collect();
            assert_eq!(named, codes, "{facts:?}");
            assert_eq!((found.ok, found.ready), (facts.alive, false), "{facts:?}");
        }
    }
}
