//! The writer: one thread, one connection. It runs what waits as one transaction with a savepoint
//! for each piece of work, so that many small writes share a commit.
//!
//! A piece that fails or panics rolls back alone. Some errors (a time that is over, a full disk)
//! make SQLite itself roll back the whole transaction: then the piece that met one is told, and the
//! others run once more, in another transaction without it. Answers and changes go out after the
//! commit, in its order. The thread ends when it is told to or when every [`super::Store`] is gone;
//! what was accepted before is done first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::{Connection, ffi};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::limit::TimeLimit;
use super::{Change, Schema, StoreError, Write, changes};
use crate::task::panic_text;

/// How many pieces of work share a commit at most.
const BATCH: usize = 64;

/// What the thread is asked to do.
pub(super) enum Message {
    /// A piece of work.
    Work(Box<dyn Work>),
    /// A piece of work that shares its transaction with no other.
    Alone(Box<dyn Work>),
    /// Finish what was accepted, then end.
    Close,
}

/// A piece of work whose types are hidden.
pub(super) trait Work: Send {
    /// Does it, perhaps once more. True: to be committed.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Forgets what it did, it will not last.
    fn fail(&mut self, error: StoreError);
    /// It would be told that it did what it was to do.
    fn is_good(&self) -> bool;
    /// Answers, after the commit or the roll-back.
    fn answer(self: Box<Self>);
}

/// What the closure returned, or why that does not count. The caller makes one error of both, so
/// that no code of its own runs on this thread but the closure.
pub(super) type Finished<T, E> = Result<Result<T, E>, StoreError>;

/// A closure and where its result goes.
pub(super) struct Task<T, E, F> {
    work: Option<F>,
    result: Option<Finished<T, E>>,
    reply: oneshot::Sender<Finished<T, E>>,
}

impl<T, E, F> Task<T, E, F> {
    /// Pairs them.
    pub(super) fn new(work: F, reply: oneshot::Sender<Finished<T, E>>) -> Self {
        Self { work: Some(work), result: None, reply }
    }
}

impl<T, E, F> Work for Task<T, E, F>
where
    T: Send,
    E: Send,
    F: FnMut(&mut Write<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        // One that panicked does not run again.
        let Some(mut work) = self.work.take() else { return false };
        // What a panicking closure leaves half-done in the database is rolled back, and it owned
        // everything else that it touched.
        let run = AssertUnwindSafe(|| work(&mut Write { tx: connection }));
        let result =
            catch_unwind(run).map_err(|panic| StoreError::Panicked(panic_text(panic.as_ref())));
        if result.is_ok() {
            self.work = Some(work);
        }
        self.result = Some(result);
        self.is_good()
    }

    fn is_good(&self) -> bool {
        matches!(self.result, Some(Ok(Ok(_))))
    }

    fn fail(&mut self, error: StoreError) {
        self.result = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        if let Some(result) = self.result {
            // Nobody waits any more: the write stands all the same.
            let _ = self.reply.send(result);
        }
    }
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) limit: TimeLimit,
    /// For each piece of work.
    pub(super) allowed: Duration,
    pub(super) schema: Arc<Schema>,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) changes: broadcast::Sender<Arc<Change>>,
    /// Dropped when the connection is closed.
    pub(super) done: watch::Sender<()>,
}

/// What became of a transaction.
enum Transaction {
    Committed(Vec<Change>),
    /// SQLite rolled it back by itself; the index of the piece that it was doing.
    Undone(usize),
}

impl Writer {
    /// The thread's whole life.
    pub(super) fn run(mut self) {
        let may_commit = Arc::new(AtomicBool::new(false));
        let guarded = Arc::clone(&may_commit);
        // A piece whose transaction is gone might go on; each of its statements would last alone.
        let hooked = self.connection.commit_hook(Some(move || !guarded.load(Ordering::Relaxed)));
        if let Err(error) = hooked {
            tracing::error!(%error, "could not guard commits to the sandbox's database");
        }
        while let Some(message) = self.inbox.blocking_recv() {
            let (mut batch, mut alone) = (Vec::new(), None);
            self.accept(message, &mut batch, &mut alone);
            while batch.len() < BATCH
                && alone.is_none()
                && let Ok(message) = self.inbox.try_recv()
            {
                self.accept(message, &mut batch, &mut alone);
            }
            self.commit_all(batch, &may_commit);
            self.commit_all(alone.into_iter().collect(), &may_commit);
        }
        let Self { connection, done, .. } = self;
        // Leaves one file; not doing so costs only the next start some time.
        let checkpoint = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = checkpoint {
            tracing::warn!(%error, "could not checkpoint the sandbox's database");
        }
        drop(connection);
        drop(done);
    }

    fn accept(
        &mut self,
        message: Message,
        batch: &mut Vec<Box<dyn Work>>,
        alone: &mut Option<Box<dyn Work>>,
    ) {
        match message {
            Message::Work(work) => batch.push(work),
            Message::Alone(work) => *alone = Some(work),
            // Nothing more comes in; what is in the channel is still received.
            Message::Close => self.inbox.close(),
        }
    }

    fn commit_all(&self, mut batch: Vec<Box<dyn Work>>, may_commit: &AtomicBool) {
        while !batch.is_empty() {
            match self.transact(&mut batch, may_commit) {
                Ok(Transaction::Committed(changes)) => {
                    for change in changes {
                        // An error means that nobody listens.
                        let _ = self.changes.send(Arc::new(change));
                    }
                    break;
                }
                Ok(Transaction::Undone(index)) => {
                    let mut work = batch.remove(index);
                    if work.is_good() {
                        // It took no notice.
                        work.fail(StoreError::Commit(Arc::new(undone())));
                    }
                    work.answer();
                }
                Err(error) => {
                    self.give_up(&mut batch, error);
                    break;
                }
            }
        }
        for work in batch {
            work.answer();
        }
    }

    fn give_up(&self, batch: &mut [Box<dyn Work>], error: rusqlite::Error) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "could not roll back");
        }
        let error = Arc::new(error);
        for work in batch {
            work.fail(StoreError::Commit(Arc::clone(&error)));
        }
    }

    fn transact(
        &self,
        batch: &mut [Box<dyn Work>],
        may_commit: &AtomicBool,
    ) -> rusqlite::Result<Transaction> {
        let execute = |sql| self.connection.prepare_cached(sql)?.execute([]).map(drop);
        execute("BEGIN IMMEDIATE")?;
        for (index, work) in batch.iter_mut().enumerate() {
            execute("SAVEPOINT work")?;
            self.limit.set(self.allowed);
            let good = work.run(&self.connection);
            self.limit.lift();
            if self.connection.is_autocommit() {
                return Ok(Transaction::Undone(index));
            }
            if !good {
                execute("ROLLBACK TO work")?;
            }
            execute("RELEASE work")?;
        }
        let wanted = self.changes.receiver_count() > 0;
        let changes = changes::take(&self.connection, &self.schema, wanted)?;
        may_commit.store(true, Ordering::Relaxed);
        let committed = execute("COMMIT");
        may_commit.store(false, Ordering::Relaxed);
        committed?;
        Ok(Transaction::Committed(changes))
    }
}

/// What is told of a transaction that is gone when nothing else is known of it.
fn undone() -> rusqlite::Error {
    let code = ffi::Error::new(ffi::SQLITE_ABORT_ROLLBACK);
    rusqlite::Error::SqliteFailure(code, Some("SQLite rolled the transaction back".to_owned()))
}
