//! The writer: one thread, one connection. It runs what waits as one transaction with a savepoint
//! for each piece of work, so that many small writes share a commit.
//!
//! A piece that fails or panics rolls back alone. Answers and changes go out after the commit, in
//! its order. The thread ends when it is told to or when every [`super::Store`] is gone; what was
//! accepted before is done first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
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
    /// Finish what was accepted, then end.
    Close,
}

/// A piece of work whose types are hidden.
pub(super) trait Work: Send {
    /// Does it. True: to be committed.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Forgets what it did, it will not last.
    fn fail(&mut self, error: StoreError);
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
    F: FnOnce(&mut Write<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.work.take() else { return false };
        // What a panicking closure leaves half-done in the database is rolled back, and it owned
        // everything else that it touched.
        let run = AssertUnwindSafe(|| work(&mut Write { tx: connection }));
        let result =
            catch_unwind(run).map_err(|panic| StoreError::Panicked(panic_text(panic.as_ref())));
        let good = matches!(result, Ok(Ok(_)));
        self.result = Some(result);
        good
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

impl Writer {
    /// The thread's whole life.
    pub(super) fn run(mut self) {
        while let Some(message) = self.inbox.blocking_recv() {
            let mut batch = Vec::new();
            self.accept(message, &mut batch);
            while batch.len() < BATCH
                && let Ok(message) = self.inbox.try_recv()
            {
                self.accept(message, &mut batch);
            }
            self.commit_all(batch);
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

    fn accept(&mut self, message: Message, batch: &mut Vec<Box<dyn Work>>) {
        match message {
            Message::Work(work) => batch.push(work),
            // Nothing more comes in; what is in the channel is still received.
            Message::Close => self.inbox.close(),
        }
    }

    fn commit_all(&self, mut batch: Vec<Box<dyn Work>>) {
        if batch.is_empty() {
            return;
        }
        match self.transact(&mut batch) {
            Ok(changes) => {
                for change in changes {
                    // An error means that nobody listens.
                    let _ = self.changes.send(Arc::new(change));
                }
            }
            Err(error) => {
                if !self.connection.is_autocommit()
                    && let Err(error) = self.connection.execute_batch("ROLLBACK")
                {
                    tracing::error!(%error, "could not roll back");
                }
                let error = Arc::new(error);
                for work in &mut batch {
                    work.fail(StoreError::Commit(Arc::clone(&error)));
                }
            }
        }
        for work in batch {
            work.answer();
        }
    }

    fn transact(&self, batch: &mut [Box<dyn Work>]) -> rusqlite::Result<Vec<Change>> {
        let execute = |sql| self.connection.prepare_cached(sql)?.execute([]).map(drop);
        execute("BEGIN IMMEDIATE")?;
        for work in batch {
            execute("SAVEPOINT work")?;
            self.limit.set(self.allowed);
            let good = work.run(&self.connection);
            self.limit.lift();
            if !good {
                // Fails if SQLite rolled everything back by itself, as for a full disk: then the
                // earlier pieces of this transaction are gone, too, and are told so.
                execute("ROLLBACK TO work")?;
            }
            execute("RELEASE work")?;
        }
        let wanted = self.changes.receiver_count() > 0;
        let changes = changes::take(&self.connection, &self.schema, wanted)?;
        execute("COMMIT")?;
        Ok(changes)
    }
}
