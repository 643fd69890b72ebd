//! Which status a heartbeat reports. Pure.

use std::time::Duration;

use crate::model::GatewayStatus;

/// A poll is recent within this many poll intervals.
const RECENT_POLLS: u32 = 3;

/// What the rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// The host takes work at all.
    pub(super) host_available: bool,
    /// What is claimed can be kept on disk.
    pub(super) journal_in_order: bool,
    /// Not draining.
    pub(super) accepting: bool,
    /// Age of the last good poll; `None` until the first one.
    pub(super) last_good_poll: Option<Duration>,
    /// How often polls are made.
    pub(super) poll_interval: Duration,
}

/// The status for these facts. `offline` is never its answer: only shutdown says that.
pub(super) fn status(facts: Facts) -> GatewayStatus {
    if !facts.host_available {
        return GatewayStatus::Error;
    }
    if !facts.accepting {
        return GatewayStatus::Pending;
    }
    match facts.last_good_poll {
        None => GatewayStatus::Pending,
        Some(_) if !facts.journal_in_order => GatewayStatus::Error,
        Some(age) if age <= facts.poll_interval * RECENT_POLLS => GatewayStatus::Ready,
        Some(_) => GatewayStatus::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fact_that_speaks_decides() {
        let facts = |host_available, accepting, poll: Option<u64>| Facts {
            host_available,
            journal_in_order: true,
            accepting,
            last_good_poll: poll.map(Duration::from_secs),
            poll_interval: Duration::from_secs(5),
        };
        assert_eq!(status(facts(false, false, None)), GatewayStatus::Error);
        assert_eq!(status(facts(true, false, Some(0))), GatewayStatus::Pending);
        assert_eq!(status(facts(true, true, None)), GatewayStatus::Pending);
        assert_eq!(status(facts(true, true, Some(15))), GatewayStatus::Ready);
        assert_eq!(status(facts(true, true, Some(16))), GatewayStatus::Error);
        let full = |facts: Facts| Facts { journal_in_order: false, ..facts };
        assert_eq!(status(full(facts(true, true, Some(0)))), GatewayStatus::Error);
        assert_eq!(status(full(facts(true, true, None))), GatewayStatus::Pending);
        assert_eq!(status(full(facts(true, false, Some(0)))), GatewayStatus::Pending);
    }
}
