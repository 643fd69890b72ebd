//! The driver: takes what was told to disk and follows with inserts, one at a time.

use std::future::pending;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::spool::{Line, Owner};
use super::turns::Turn;
use super::writer::{Counters, Delivered, RunTable, Table, count, deliver};
use super::{Settled, Told};
use crate::backend::BackendError;

/// How often a disk that took nothing is tried again.
const TRY_DISK_EVERY: Duration = Duration::from_secs(1);
/// Most events that go to disk in one write.
const MOST_AT_ONCE: usize = 64;
/// So many refused events of a run are logged one by one.
const LOGGED_REFUSALS: u64 = 10;

/// How a driver ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::jobs) enum Ended {
    /// Everything that was told is in the table, or was refused for good.
    Settled,
    /// It was stopped; what is left is on disk.
    Stopped,
    /// The session is over for good; what is left is on disk.
    SessionOver,
}

/// A future that follows a run with its events. The owner polls it beside the run.
#[derive(Debug)]
pub(in crate::jobs) struct RunEventsDriver<T = RunTable> {
    table: Arc<T>,
    turn: Arc<Turn>,
    owner: Owner,
    path: PathBuf,
    inbox: mpsc::Receiver<Told>,
    progress: watch::Sender<Settled>,
    counters: Arc<Counters>,
    stop: CancellationToken,
}

/// An insert under way, and its events.
struct Delivery {
    lines: Vec<Arc<Line>>,
    delivered: Pin<Box<dyn Future<Output = Delivered> + Send>>,
}

impl<T: Table> RunEventsDriver<T> {
    pub(super) fn new(
        table: T,
        turn: Turn,
        (owner, path): (Owner, PathBuf),
        inbox: mpsc::Receiver<Told>,
        progress: watch::Sender<Settled>,
        counters: Arc<Counters>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            table: Arc::new(table),
            turn: Arc::new(turn),
            owner,
            path,
            inbox,
            progress,
            counters,
            stop,
        }
    }

    /// Follows until every handle is gone and everything is settled, or until it is stopped. Dropped
    /// before, it leaves what is not settled on disk.
    pub(in crate::jobs) async fn run(mut self) -> Ended {
        let turn = Arc::clone(&self.turn);
        let _turn = turn.take().await;
        let mut backlog = Backlog::open(self.path.clone(), self.owner.clone()).await;
        self.publish(&backlog);
        let ended = self.follow(&mut backlog).await;
        // What is still on its way must not be lost.
        self.inbox.close();
        while let Some(told) = self.inbox.recv().await {
            backlog.keep([(told.event_type, told.payload)].into_iter()).await;
        }
        if backlog.only_in_memory() > 0 {
            backlog.try_disk().await;
        }
        self.progress.send_modify(|settled| settled.over = true);
        self.log_end(&backlog);
        ended
    }

    async fn follow(&mut self, backlog: &mut Backlog) -> Ended {
        let mut delivery: Option<Delivery> = None;
        let mut closed = false;
        let mut retry = tokio::time::interval(TRY_DISK_EVERY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if delivery.is_none() {
                delivery = self.next_delivery(backlog).await;
            }
            if closed && backlog.is_settled() {
                return Ended::Settled;
            }
            let mut told = Vec::new();
            tokio::select! {
                // Cancel safe, each arm: a token, a channel, a timer, and a future that is kept.
                () = self.stop.cancelled() => return Ended::Stopped,
                received = self.inbox.recv_many(&mut told, MOST_AT_ONCE),
                    if !closed && backlog.has_room() =>
                {
                    closed = received == 0;
                    let events = told.into_iter().map(|told| (told.event_type, told.payload));
                    backlog.keep(events).await;
                }
                _ = retry.tick(), if backlog.waits_for_disk() => {
                    backlog.try_disk().await;
                }
                delivered = finished(&mut delivery) => {
                    let lines = delivery.take().map(|delivery| delivery.lines).unwrap_or_default();
                    if !self.note(backlog, &lines, delivered).await {
                        return Ended::SessionOver;
                    }
                    self.publish(backlog);
                }
            }
        }
    }

    /// What is to be sent next; while the first number is not known, that is asked for even before
    /// the first event.
    async fn next_delivery(&self, backlog: &mut Backlog) -> Option<Delivery> {
        let lines = backlog.next_batch().await;
        if lines.is_empty() {
            self.publish(backlog);
            if backlog.next().is_some() {
                return None;
            }
        }
        let (table, counters) = (Arc::clone(&self.table), Arc::clone(&self.counters));
        let delivered = Box::pin(deliver(table, lines.clone(), backlog.next(), counters));
        Some(Delivery { lines, delivered })
    }

    /// Takes in what became of a batch; false when nothing can be sent any more.
    async fn note(&self, backlog: &mut Backlog, lines: &[Arc<Line>], delivered: Delivered) -> bool {
        match delivered {
            Delivered::Numbered(next) => backlog.number(next).await,
            Delivered::Taken(next) => {
                count(&self.counters.renumbered, 1);
                backlog.number(next).await;
            }
            Delivered::Arrived(events) => {
                count(&self.counters.batches, 1);
                count(&self.counters.rows, events);
                backlog.arrived(events).await;
            }
            Delivered::Refused(error) => {
                if backlog.refused(lines.len()).await {
                    self.log_refusal(lines.first(), &error);
                    count(&self.counters.refused, 1);
                }
            }
            Delivered::SessionEnded(error) => {
                tracing::error!(%error, "the events of a subagent's run cannot be sent");
                return false;
            }
        }
        true
    }

    fn log_refusal(&self, line: Option<&Arc<Line>>, error: &BackendError) {
        let refused = self.counters.refused.load(Ordering::Relaxed);
        let Some(line) = line.filter(|_| refused < LOGGED_REFUSALS) else { return };
        tracing::error!(
            %error, index = line.index, event_type = line.event_type, bytes = line.size,
            "the backend refuses an event of a subagent's run; it is left out"
        );
    }

    fn log_end(&self, backlog: &Backlog) {
        let refused = self.counters.refused.load(Ordering::Relaxed);
        if refused > LOGGED_REFUSALS {
            tracing::error!(refused, "the backend refused events of a subagent's run");
        }
        let lost = backlog.only_in_memory();
        if lost > 0 {
            tracing::error!(lost, "the disk did not take the last events of a subagent's run");
        }
    }

    fn publish(&self, backlog: &Backlog) {
        let events = backlog.settled();
        self.progress.send_if_modified(|settled| {
            let changed = settled.events != events;
            settled.events = events;
            changed
        });
    }
}

/// What became of the delivery; never, while there is none.
async fn finished(delivery: &mut Option<Delivery>) -> Delivered {
    match delivery {
        Some(delivery) => delivery.delivered.as_mut().await,
        None => pending().await,
    }
}
