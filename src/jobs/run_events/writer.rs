//! Brings one batch of events into the table, however long the backend is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::batch;
use super::spool::Line;
use crate::backend::retry::Backoff;
use crate::backend::{Api, BackendError};
use crate::jobs::patience::pause_unless_polled;
use crate::model::{RunId, SubagentId};

/// A number that is taken.
const UNIQUE_VIOLATION: &str = "23505";
/// How often a number is tried that is said to be taken, but by no row that we see.
const UNSEEN_ATTEMPTS: u32 = 3;

/// The rows of one run.
pub(in crate::jobs) trait Table: Send + Sync + 'static {
    /// The highest number; `None` when there is no row.
    fn highest(&self) -> impl Future<Output = Result<Option<i64>, BackendError>> + Send;
    /// The rows with these numbers, both included.
    fn rows(
        &self,
        from: i64,
        to: i64,
    ) -> impl Future<Output = Result<Vec<Value>, BackendError>> + Send;
    /// Inserts all of them or none.
    fn insert(
        &self,
        events: &[(i64, &str, &Value)],
    ) -> impl Future<Output = Result<(), BackendError>> + Send;
    /// Whether to warn that the backend is away.
    fn may_warn(&self) -> bool;
    /// Waits after a failure.
    fn pause(&self, refused: &BackendError, delay: Duration) -> impl Future<Output = ()> + Send;
}

/// The backend's table.
#[derive(Debug)]
pub(in crate::jobs) struct RunTable {
    pub(super) api: Api,
    pub(super) polled: watch::Receiver<Option<Instant>>,
    pub(super) subagent: SubagentId,
    pub(super) run: RunId,
}

impl Table for RunTable {
    async fn highest(&self) -> Result<Option<i64>, BackendError> {
        self.api.last_event_sequence(&self.run).await
    }

    async fn rows(&self, from: i64, to: i64) -> Result<Vec<Value>, BackendError> {
        self.api.run_events(&self.run, from, to).await
    }

    async fn insert(&self, events: &[(i64, &str, &Value)]) -> Result<(), BackendError> {
        self.api.insert_run_events(&self.subagent, &self.run, events).await
    }

    fn may_warn(&self) -> bool {
        self.api.may_warn()
    }

    async fn pause(&self, refused: &BackendError, delay: Duration) {
        pause_unless_polled(&self.polled, refused, delay).await;
    }
}

/// What was done so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rows: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) renumbered: AtomicU64,
    pub(super) refused: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Delivered {
    /// The number of the next row is known.
    Numbered(i64),
    /// So many of its first events are in the table.
    Arrived(usize),
    /// None is: somebody else's row has the number. The next that is free.
    Taken(i64),
    /// None is, and none of such a batch ever will be.
    Refused(BackendError),
    /// The session is over for good.
    SessionEnded(BackendError),
}

/// Tries until it is known what became of the batch. An answer that was lost is found out by trying
/// again with the same numbers. May be dropped at any time: what then is not known is found out
/// by the next batch that begins with the same event and number.
pub(super) async fn deliver<T: Table>(
    table: Arc<T>,
    lines: Vec<Arc<Line>>,
    next: Option<i64>,
    counters: Arc<Counters>,
) -> Delivered {
    let mut backoff = Backoff::new();
    let mut unseen = 0;
    loop {
        let tried = match next {
            None => first_number(table.as_ref()).await,
            Some(next) => insert(table.as_ref(), &lines, next, &mut unseen).await,
        };
        let error = match tried {
            Ok(delivered) => return delivered,
            Err(error) => error,
        };
        if error.ends_session() {
            return Delivered::SessionEnded(error);
        }
        count(&counters.retries, 1);
        if table.may_warn() {
            tracing::warn!(%error, "the events of a subagent's run wait for the backend");
        }
        table.pause(&error, backoff.after(&error)).await;
    }
}

async fn first_number<T: Table>(table: &T) -> Result<Delivered, BackendError> {
    match table.highest().await {
        Ok(highest) => Ok(Delivered::Numbered(after(highest))),
        Err(error) if error.is_permanent_refusal() => {
            // Whether rows can be written is another question.
            tracing::warn!(%error, "the events of a subagent's run cannot be read");
            Ok(Delivered::Numbered(0))
        }
        Err(error) => Err(error),
    }
}

/// One attempt. `unseen` counts how often the number was said to be taken by no row that we see.
async fn insert<T: Table>(
    table: &T,
    lines: &[Arc<Line>],
    next: i64,
    unseen: &mut u32,
) -> Result<Delivered, BackendError> {
    let events: Vec<(i64, &str, &Value)> = (next..)
        .zip(lines)
        .map(|(number, line)| (number, line.event_type.as_str(), &line.payload))
        .collect();
    let error = match table.insert(&events).await {
        Ok(()) => return Ok(Delivered::Arrived(lines.len())),
        Err(error) => error,
    };
    let found = match error.code() {
        Some(UNIQUE_VIOLATION) => whose(table, lines, next, unseen).await,
        _ => Err(error),
    };
    match found {
        Err(error) if error.is_permanent_refusal() && error.code() != Some(UNIQUE_VIOLATION) => {
            Ok(Delivered::Refused(error))
        }
        found => found,
    }
}

/// Whose the row is that has our number. An error means: try once more.
async fn whose<T: Table>(
    table: &T,
    lines: &[Arc<Line>],
    next: i64,
    unseen: &mut u32,
) -> Result<Delivered, BackendError> {
    let ours = ours(table, lines, next).await?;
    if ours > 0 {
        return Ok(Delivered::Arrived(ours));
    }
    let free = after(table.highest().await?);
    if free > next {
        return Ok(Delivered::Taken(free));
    }
    // By a row that is gone again, or that we may not see: the latter never changes.
    *unseen += 1;
    if *unseen < UNSEEN_ATTEMPTS {
        let why = format!("number {next} is taken by no row that can be read");
        return Err(BackendError::Contract(why));
    }
    Ok(Delivered::Taken(next + 1))
}

/// How many of the first events are in the table already. The first row tells nearly always, and
/// somebody else's rows may be large.
async fn ours<T: Table>(table: &T, lines: &[Arc<Line>], next: i64) -> Result<usize, BackendError> {
    let first = table.rows(next, next).await?;
    let (Some(head), Some(rest)) = (lines.get(..1), lines.get(1..)) else { return Ok(0) };
    let Some(last) = i64::try_from(rest.len()).ok().filter(|more| *more > 0) else {
        return Ok(batch::found(head, next, &first));
    };
    if batch::found(head, next, &first) == 0 {
        return Ok(0);
    }
    let others = table.rows(next + 1, next + last).await?;
    Ok(1 + batch::found(rest, next + 1, &others))
}

fn after(highest: Option<i64>) -> i64 {
    highest.map_or(0, |highest| highest.saturating_add(1))
}
