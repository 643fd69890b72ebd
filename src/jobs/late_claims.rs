//! Claims that an earlier gateway may have sent, and that may still arrive: their rows are queued,
//! until they are not.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::journal::Record;
use crate::model::{JobId, time};

/// No request is on its way for longer.
const LONGEST_WAY: SignedDuration = SignedDuration::from_mins(2);
/// How often such a row is looked at. Not as often as is polled: a row that is being looked at is
/// not taken from a poll.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(7);

/// The intents of such claims. They stay in the journal meanwhile.
#[derive(Debug, Default)]
pub(super) struct LateClaims {
    records: Mutex<HashMap<JobId, Record>>,
}

impl LateClaims {
    /// Whether the claim of this record, whose row is queued `now`, may still arrive. It is kept
    /// then.
    pub(super) fn expect(&self, record: &Record, now: Timestamp) -> bool {
        let sent = time::parse(&record.started_at);
        let may_arrive = record.run.is_none()
            && record.subagent.is_none()
            && record.completion.is_none()
            // A clock that was set back proves nothing.
            && sent.is_some_and(|sent| now.duration_since(sent).abs() < LONGEST_WAY);
        if may_arrive {
            self.lock().insert(record.id.clone(), record.clone());
        }
        may_arrive
    }

    /// The intent of this row, for whoever claims it again.
    pub(super) fn take(&self, id: &JobId) -> Option<Record> {
        self.lock().remove(id)
    }

    /// All of them but for those that `others` know of.
    pub(super) fn take_but(&self, others: impl Fn(&JobId) -> bool) -> Vec<Record> {
        let mut records = self.lock();
        records.extract_if(|id, _| !others(id)).map(|(_, record)| record).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Record>> {
        // Each change of the map is whole by itself.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::journal::SubagentWork;
    use crate::model::{GatewayId, RunId, SubagentId};

    fn record(id: &str, started_at: &str) -> Record {
        let (id, gateway) = (JobId::new(id), GatewayId::new("g"));
        Record::intent(id, gateway, "shell_exec".into(), started_at.into())
    }

    #[test]
    fn only_a_young_and_bare_intent_may_arrive() {
        let late = LateClaims::default();
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let mut begun = record("begun", "2026-11-22T09:59:59.000Z");
        begun.subagent = Some(SubagentWork {
            subagent_id: SubagentId::new("s"),
            run_id: RunId::new("r"),
            end: None,
        });
        for record in [
            begun,
            record("old", "2026-11-22T09:58:00.000Z"),
            record("of tomorrow", "2026-11-23T10:00:00.000Z"),
            record("of no time", "soon"),
        ] {
            assert!(!late.expect(&record, now), "{record:?}");
        }
        assert!(late.is_empty());
        for id in ["a", "b", "c"] {
            assert!(late.expect(&record(id, "2026-11-22T09:58:01.000Z"), now));
        }
        assert_eq!(late.take(&JobId::new("a")).map(|record| record.id), Some(JobId::new("a")));
        assert_eq!(late.take(&JobId::new("a")), None);
        let taken = late.take_but(|id| id.as_str() == "b");
        assert_eq!(taken.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["c"]);
        assert!(!late.is_empty());
    }
}
