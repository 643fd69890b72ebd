//! One channel: from join to readiness and back. Pure; time is passed in.

use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

use super::super::retry::jitter_with;

/// Without the backend's word that it tells, so long after the join, the channel is joined again.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// A backend that refuses for good is asked again.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_mins(10);
/// A channel that was joined this long ago has earned a new try at once.
const SETTLED: Duration = Duration::from_secs(30);
/// No pause between joins is longer.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A backend that asks for time gets this at least.
const LIMITED_PAUSE: Duration = Duration::from_secs(5);

/// What the reason of a refused join means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is too old.
    Expired,
    /// It passes: a limit, a restart, a database that is not there yet.
    Passing,
    /// Asking again does not help.
    Final,
}

impl Refusal {
    /// Reads `Code: text`.
    pub(super) fn of(reason: &str) -> Self {
        const FINAL: [&str; 5] = [
            "Unauthorized",
            "MalformedJWT",
            "JwtSignatureError",
            "TenantNotFound",
            "RealtimeDisabledForTenant",
        ];
        let code = reason.split(':').next().unwrap_or_default().trim();
        if reason.to_ascii_lowercase().contains("expired") {
            Self::Expired
        } else if FINAL.contains(&code) {
            Self::Final
        } else {
            Self::Passing
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// To be joined then; with another token than this one, which the backend refused.
    Waiting { at: Instant, refused: Option<SecretString> },
    /// A token for the join is being fetched.
    Asking,
    /// Joined or about to be; the backend does not tell yet.
    Joining { join: Join, ready_by: Instant, answered: bool },
    /// The backend tells.
    Ready { join: Join },
    /// Refused for good; asked again then.
    Refused { until: Instant },
}

#[derive(Debug, Clone)]
struct Join {
    reference: String,
    at: Instant,
    token: SecretString,
}

/// A join needs a token.
#[derive(Debug)]
pub(super) struct Due {
    /// Not this one: the backend refused it.
    pub(super) refused: Option<SecretString>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Channel {
    phase: Phase,
    /// Joins since the channel was last settled.
    attempts: u32,
    /// What the backend complained of since the join: it closes the channel next.
    complaint: Option<Refusal>,
}

impl Channel {
    pub(super) fn new(now: Instant) -> Self {
        Self { phase: Phase::Waiting { at: now, refused: None }, attempts: 0, complaint: None }
    }

    /// A join is due: waits for [`Self::join`] from now on.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let refused = match &mut self.phase {
            Phase::Waiting { at, refused } if *at <= now => refused.take(),
            Phase::Refused { until } if *until <= now => None,
            Phase::Waiting { .. }
            | Phase::Asking
            | Phase::Joining { .. }
            | Phase::Ready { .. }
            | Phase::Refused { .. } => return None,
        };
        self.phase = Phase::Asking;
        Some(Due { refused })
    }

    pub(super) fn wants_token(&self) -> bool {
        matches!(self.phase, Phase::Asking)
    }

    /// The join goes out under this reference.
    pub(super) fn join(&mut self, now: Instant, reference: String, token: SecretString) {
        let join = Join { reference, at: now, token };
        self.complaint = None;
        self.phase = Phase::Joining { join, ready_by: now + READY_WITHIN, answered: false };
    }

    /// The reference of the join in force, once it was sent.
    pub(super) fn reference(&self) -> Option<&str> {
        self.joined().map(|join| join.reference.as_str())
    }

    /// When the join in force was sent.
    pub(super) fn joined_at(&self) -> Option<Instant> {
        self.joined().map(|join| join.at)
    }

    /// The token that the backend has for this channel.
    pub(super) fn token(&self) -> Option<&SecretString> {
        self.joined().map(|join| &join.token)
    }

    /// The backend got another token.
    pub(super) fn pushed(&mut self, new: SecretString) {
        match &mut self.phase {
            Phase::Joining { join, .. } | Phase::Ready { join } => join.token = new,
            Phase::Waiting { .. } | Phase::Asking | Phase::Refused { .. } => {}
        }
    }

    fn joined(&self) -> Option<&Join> {
        match &self.phase {
            Phase::Joining { join, .. } | Phase::Ready { join } => Some(join),
            Phase::Waiting { .. } | Phase::Asking | Phase::Refused { .. } => None,
        }
    }

    /// The backend took the join.
    pub(super) fn accepted(&mut self) {
        if let Phase::Joining { answered, .. } = &mut self.phase {
            *answered = true;
        }
    }

    /// The join was answered (or needs no answer any more).
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::Joining { answered: true, .. } | Phase::Ready { .. })
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(self.phase, Phase::Refused { .. })
    }

    /// The backend says that it tells. False when nothing was joined.
    pub(super) fn ready(&mut self) -> bool {
        let Some(join) = self.joined().cloned() else { return false };
        self.phase = Phase::Ready { join };
        true
    }

    /// The backend says that it does not tell, for now; it may try again by itself.
    pub(super) fn unready(&mut self, now: Instant) {
        if let Phase::Ready { join } = &self.phase {
            let ready_by = now + READY_WITHIN;
            self.phase = Phase::Joining { join: join.clone(), ready_by, answered: true };
        }
    }

    /// Joined too long ago without readiness.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Joining { ready_by, .. } if ready_by <= now)
    }

    /// The backend complains; what it does about that comes next.
    pub(super) fn complained(&mut self, of: Refusal) {
        self.complaint = Some(of);
    }

    /// The backend closed the channel, or it crashed there.
    pub(super) fn closed(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        let complaint = self.complaint.take();
        self.failed(now, complaint, rng);
    }

    /// The join failed: it is tried again after a pause.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        refusal: Option<Refusal>,
        rng: &mut fastrand::Rng,
    ) {
        let join = self.joined().cloned();
        if join.as_ref().is_some_and(|join| now.duration_since(join.at) >= SETTLED) {
            self.attempts = 0;
        }
        let mut pause = match self.attempts {
            0 => Duration::ZERO,
            n => {
                let ceiling = Duration::from_secs(1 << n.min(6)).min(LONGEST_PAUSE);
                jitter_with(rng, ceiling / 2, ceiling)
            }
        };
        self.attempts = self.attempts.saturating_add(1);
        let mut refused = None;
        match refusal {
            Some(Refusal::Final) => {
                self.phase = Phase::Refused { until: now + REFUSED_PAUSE };
                return;
            }
            Some(Refusal::Passing) => {
                pause = pause.max(jitter_with(rng, LIMITED_PAUSE, LIMITED_PAUSE * 2));
            }
            Some(Refusal::Expired) => refused = join.map(|join| join.token),
            None => {}
        }
        self.phase = Phase::Waiting { at: now + pause, refused };
    }

    /// No token could be had.
    pub(super) fn no_token(&mut self, at: Instant) {
        if self.wants_token() {
            self.phase = Phase::Waiting { at, refused: None };
        }
    }

    /// The backend refuses the whole socket for good.
    pub(super) fn refuse(&mut self, now: Instant) {
        self.phase = Phase::Refused { until: now + REFUSED_PAUSE };
    }

    /// The socket is gone. A pause that the backend asked for goes on.
    pub(super) fn disconnected(&mut self, now: Instant) {
        match self.phase {
            Phase::Waiting { .. } | Phase::Refused { .. } => {}
            Phase::Asking | Phase::Joining { .. } | Phase::Ready { .. } => {
                self.phase = Phase::Waiting { at: now, refused: None };
            }
        }
    }

    /// Whatever it waits for, it is tried now.
    pub(super) fn hurry(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Waiting { at, .. } | Phase::Refused { until: at } => *at = now.min(*at),
            Phase::Asking | Phase::Joining { .. } | Phase::Ready { .. } => {}
        }
    }

    /// When something is to be done about it, if nothing comes before that.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Waiting { at, .. } | Phase::Refused { until: at } => Some(*at),
            Phase::Joining { ready_by, .. } => Some(*ready_by),
            Phase::Asking | Phase::Ready { .. } => None,
        }
    }
}
