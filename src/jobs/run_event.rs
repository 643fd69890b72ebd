//! One event behind those that a subagent's run has, from somebody who does not write the others.

use serde_json::Value;

use super::handlers::Host;
use super::patience::{pause, read};
use crate::backend::BackendError;
use crate::backend::retry::Backoff;
use crate::model::{RunId, SubagentId};

/// A number that is taken.
const UNIQUE_VIOLATION: &str = "23505";
/// How often the next number is looked for while others write.
const TRIES: usize = 50;
/// So many of the last events are looked at for one that is there.
const LAST: i64 = 16;

/// Appends an event, however long the backend is away. The gateway's own secrets are taken out.
/// When the future is dropped, the event may or may not be there.
pub(super) async fn append(
    host: &Host,
    of: &SubagentId,
    run: &RunId,
    event_type: &str,
    payload: Value,
) -> Result<(), BackendError> {
    let payload = host.redactor.own_secrets_in(payload);
    let mut tries = 0;
    loop {
        let last = read(host, || host.api.last_event_sequence(run)).await?;
        let next = last.map_or(0, |last| last.saturating_add(1));
        match insert(host, of, run, (next, event_type, &payload)).await {
            Err(error) if error.code() == Some(UNIQUE_VIOLATION) && tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

/// Whether an event of this type and from the same source is among the last of a run.
pub(super) async fn is_among_last(
    host: &Host,
    run: &RunId,
    event_type: &str,
    payload: &Value,
) -> Result<bool, BackendError> {
    let Some(last) = read(host, || host.api.last_event_sequence(run)).await? else {
        return Ok(false);
    };
    let rows = read(host, || host.api.run_events(run, last - LAST, last)).await?;
    let source = |payload: &Value| payload.get("source").cloned();
    let is_same = |row: &Value| {
        is_type(row, event_type) && row.get("payload").map(source) == Some(source(payload))
    };
    Ok(rows.iter().any(is_same))
}

fn is_type(row: &Value, event_type: &str) -> bool {
    row.get("event_type").and_then(Value::as_str) == Some(event_type)
}

/// Until it is known what became of this row.
async fn insert(
    host: &Host,
    of: &SubagentId,
    run: &RunId,
    event: (i64, &str, &Value),
) -> Result<(), BackendError> {
    let (sequence, event_type, payload) = event;
    let mut backoff = Backoff::new();
    let mut may_be_there = false;
    loop {
        let refused = match host.api.insert_run_events(of, run, &[event]).await {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        if refused.code() == Some(UNIQUE_VIOLATION) && may_be_there {
            // Ours, perhaps: the answer was lost.
            let rows = read(host, || host.api.run_events(run, sequence, sequence)).await?;
            let ours = |row: &Value| {
                is_type(row, event_type) && row.get("payload").is_some_and(|there| there == payload)
            };
            return if rows.iter().any(ours) { Ok(()) } else { Err(refused) };
        }
        if refused.ends_session() || refused.is_permanent_refusal() {
            return Err(refused);
        }
        may_be_there = true;
        pause(host, &refused, backoff.after(&refused)).await;
    }
}
