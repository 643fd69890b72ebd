//! The live events of a subagent's run: told as they happen, in the table within a second, and never
//! lost, doubled or reordered while the backend is away.
//!
//! What is told goes through a small bounded channel to the [`RunEventsDriver`], which its owner
//! polls beside the run. The driver puts every event into the run's [`spool`] on disk first and
//! follows with inserts, one at a time, so that memory is bounded whatever the backend does, and a
//! gateway that is killed leaves the rest for its successor. Numbers are given when events are
//! sent; an answer that was lost is found out by sending again with the same numbers.

mod backlog;
mod batch;
mod driver;
mod left;
mod spool;
mod turns;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(in crate::jobs) use driver::{Ended, RunEventsDriver};
pub(in crate::jobs) use left::{Left, finish, left};
use spool::Owner;
pub(crate) use turns::Turns;
use writer::{Counters, RunTable, Table};

use super::handlers::Host;
use super::journal::file_stem;
use crate::model::{RunId, SubagentId};
use crate::observe::Redactor;

/// Most events between teller and driver.
const WAITING_EVENTS: usize = 256;
/// Most bytes of them; one that is larger goes alone.
const WAITING_BYTES: u32 = 1024 * 1024;

/// Tells the events of one run. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::jobs) struct RunEvents {
    shared: Arc<Shared>,
    outbox: mpsc::Sender<Told>,
    settled: watch::Receiver<Settled>,
}

#[derive(Debug)]
struct Shared {
    /// How many were told; the driver gets them in this order.
    told: Mutex<i64>,
    room: Arc<Semaphore>,
    redactor: Redactor,
    path: PathBuf,
    counters: Arc<Counters>,
}

/// An event on its way to the driver.
#[derive(Debug)]
struct Told {
    event_type: &'static str,
    /// As JSON, the way it is stored.
    payload: String,
    _room: OwnedSemaphorePermit,
}

/// How far the driver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settled {
    /// How many of what was told since the spool was opened; negative while an earlier gateway's
    /// wait.
    events: i64,
    /// The driver has ended.
    over: bool,
}

/// What was done for a run so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::jobs) struct Figures {
    /// Events that are in the table.
    pub(in crate::jobs) rows: u64,
    /// Inserts that brought them there.
    pub(in crate::jobs) batches: u64,
    /// Attempts that failed for a passing reason.
    pub(in crate::jobs) retries: u64,
    /// How often somebody else's row had our number.
    pub(in crate::jobs) renumbered: u64,
    /// Events that the backend refused for good.
    pub(in crate::jobs) refused: u64,
}

/// The events of a run. What an earlier gateway left of it is sent first. Nothing happens until the
/// driver is polled. The driver ends when every handle is gone and everything is settled, or when
/// `stop` is cancelled.
pub(in crate::jobs) fn open(
    host: &Host,
    subagent: &SubagentId,
    run: &RunId,
    stop: CancellationToken,
) -> (RunEvents, RunEventsDriver) {
    let table = RunTable {
        api: host.api.clone(),
        polled: host.polled.clone(),
        subagent: subagent.clone(),
        run: run.clone(),
    };
    let owner =
        Owner { gateway: host.api.gateway().clone(), subagent: subagent.clone(), run: run.clone() };
    let path = host.journal.events_dir().join(file_name(run));
    open_with(table, &host.event_turns, owner, path, host.redactor.clone(), stop)
}

/// [`open`] with the parts it needs of a host.
fn open_with<T: Table>(
    table: T,
    turns: &Turns,
    owner: Owner,
    path: PathBuf,
    redactor: Redactor,
    stop: CancellationToken,
) -> (RunEvents, RunEventsDriver<T>) {
    let (outbox, inbox) = mpsc::channel(WAITING_EVENTS);
    // Unknown until the spool was opened: an earlier gateway's events may wait there.
    let (progress, settled) = watch::channel(Settled { events: i64::MIN, over: false });
    let counters = Arc::<Counters>::default();
    let shared = Shared {
        told: Mutex::new(0),
        room: Arc::new(Semaphore::new(WAITING_BYTES as usize)),
        redactor,
        path: path.clone(),
        counters: Arc::clone(&counters),
    };
    let turn = turns.of(&owner.run);
    let driver = RunEventsDriver::new(table, turn, (owner, path), inbox, progress, counters, stop);
    (RunEvents { shared: Arc::new(shared), outbox, settled }, driver)
}

impl RunEvents {
    /// Tells an event, and waits only while there is no room. The gateway's own secrets are taken
    /// out; a payload of more than 200,000 characters becomes a preview. Dropped before it returned,
    /// it has told nothing. Once the driver has ended, what is told is lost.
    pub(in crate::jobs) async fn tell(
        &self,
        event_type: &'static str,
        payload: Map<String, Value>,
    ) {
        let payload = self.shared.redactor.own_secrets_in(Value::Object(payload));
        let payload = match batch::shape(payload) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(event_type, %error, "an event of a subagent's run is no JSON");
                return;
            }
        };
        let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX).clamp(1, WAITING_BYTES);
        let room = Arc::clone(&self.shared.room).acquire_many_owned(bytes).await;
        let (Ok(room), Ok(place)) = (room, self.outbox.reserve().await) else {
            tracing::debug!(event_type, "an event of a subagent's run comes after the end");
            return;
        };
        // Counted and sent under one lock: the count is the order.
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told += 1;
        place.send(Told { event_type, payload, _room: room });
    }

    /// Returns true once everything that was told before the call is in the table, or was refused
    /// for good, however long the backend is away; false when the driver ended before that (what is
    /// left stays on disk). The driver must be polled meanwhile. May be dropped at any time.
    pub(in crate::jobs) async fn settled(&self) -> bool {
        let told = *self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settled = self.settled.clone();
        let reached = settled.wait_for(|settled| settled.over || settled.events >= told).await;
        reached.is_ok_and(|settled| settled.events >= told)
    }

    /// Deletes the spool. To be called once everything is [`settled`](Self::settled).
    pub(in crate::jobs) async fn remove(self) {
        left::remove(self.shared.path.clone()).await;
    }

    /// What was done so far.
    pub(in crate::jobs) fn figures(&self) -> Figures {
        let counters = &self.shared.counters;
        Figures {
            rows: counters.rows.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            retries: counters.retries.load(Ordering::Relaxed),
            renumbered: counters.renumbered.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
        }
    }
}

/// The file of a run's spool.
fn file_name(run: &RunId) -> String {
    format!("{}.jsonl", file_stem(run.as_str()))
}

#[cfg(test)]
mod tests;
