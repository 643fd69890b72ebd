//! SQLite in WAL mode: one writer thread, a few readers, numbered migrations.
//!
//! Every write goes through the writer's thread, so a closure given to [`Store::write`] sees and
//! changes the database alone. [`Store::close`] finishes what was accepted, checkpoints and joins.

mod changes;
mod functions;
mod limit;
mod open;
mod placeholders;
mod rows;
pub mod schema;
mod subagents;
mod tables;
pub mod value;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Params};
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

pub use changes::{Change, ChangeKind};
use limit::TimeLimit;
pub use rows::{MOST_BYTES, RowError};
use schema::{Schema, Table};
use writer::{Message, Task, Work, Writer};

/// Readers that work at a time.
const READERS: usize = 4;
/// Pieces of work that wait for the writer before callers wait in turn.
const QUEUE: usize = 256;
/// How long one piece of work may take, as for users of the hosted platform.
const TIME_LIMIT: Duration = Duration::from_secs(8);
/// Changes kept for a slow listener.
const CHANGES: usize = 1024;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be made or opened.
    #[error("could not open the sandbox's database {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is in the file is no database, or no whole one.
    #[error("the sandbox's database {} is damaged", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What SQLite found.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite could not open it.
    #[error("could not open the sandbox's database {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite said no.
    #[error("could not use the sandbox's database")]
    Sqlite(#[from] rusqlite::Error),
    /// The transaction was not committed, with this write or with all that shared it; nothing of
    /// it remains.
    #[error("could not commit to the sandbox's database")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// The work panicked; nothing of it remains.
    #[error("work on the sandbox's database panicked: {0}")]
    Panicked(String),
    /// The store is shut down.
    #[error("the sandbox's database is closed")]
    Closed,
    /// Written by a newer version.
    #[error(
        "the sandbox's database has format {found}; this version knows up to {known}: \
         install a newer panorama-gateway or use another --data-dir"
    )]
    Newer {
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
    },
}

impl StoreError {
    /// Whether it passes: the disk is full, the file is busy, the store shuts down, or somebody's
    /// statement took too long. Whoever asked may try again.
    pub fn passes(&self) -> bool {
        let cause = match self {
            Self::Closed => return true,
            Self::Sqlite(error) => error,
            Self::Commit(error) => error.as_ref(),
            Self::File { .. }
            | Self::Damaged { .. }
            | Self::Open { .. }
            | Self::Panicked(_)
            | Self::Newer { .. } => return false,
        };
        matches!(
            cause.sqlite_error_code(),
            Some(
                ErrorCode::DiskFull
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::OperationInterrupted
            )
        )
    }
}

/// What a write may use. Changes of tables that REST shows are noted by themselves.
#[derive(Debug)]
pub struct Write<'a> {
    /// Inside a transaction that is neither to be committed nor rolled back by hand.
    pub tx: &'a Connection,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    schema: Arc<Schema>,
    work: mpsc::Sender<Message>,
    changes: broadcast::Sender<Arc<Change>>,
    readers: Arc<Readers>,
    /// Ends when the writer's connection is closed.
    done: watch::Receiver<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Readers {
    idle: Mutex<Vec<(Connection, TimeLimit)>>,
    allowed: Duration,
    permits: Arc<Semaphore>,
    path: PathBuf,
}

impl Store {
    /// Opens (0600, makes when absent), migrates, starts the writer thread. The directory must
    /// exist.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Schema::built_in())
    }

    /// The same with tables and functions beyond the sandbox's own.
    pub fn open_with(path: &Path, schema: Schema) -> Result<Self, StoreError> {
        Self::open_limited(path, schema, TIME_LIMIT)
    }

    fn open_limited(path: &Path, schema: Schema, allowed: Duration) -> Result<Self, StoreError> {
        let (connection, limit) = open::writer(path, &schema)?;
        changes::watch(&connection, &schema)?;
        let schema = Arc::new(schema);
        let (work, inbox) = mpsc::channel(QUEUE);
        let (changes, _) = broadcast::channel(CHANGES);
        let (done_sender, done) = watch::channel(());
        let writer = Writer {
            connection,
            limit,
            allowed,
            schema: Arc::clone(&schema),
            inbox,
            changes: changes.clone(),
            done: done_sender,
        };
        let thread = std::thread::Builder::new()
            .name("sandbox-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| StoreError::File { path: path.to_owned(), source })?;
        let readers = Arc::new(Readers {
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(READERS)),
            allowed,
            path: path.to_owned(),
        });
        let thread = Mutex::new(Some(thread));
        Ok(Self { inner: Arc::new(Inner { schema, work, changes, readers, done, thread }) })
    }

    /// Runs `work` alone on the writer's connection; what it did lasts on `Ok` and is rolled back
    /// on `Err` and on a panic. Returns after the commit. When the future is dropped, the work may
    /// be done all the same. Statements after eight seconds fail with `SQLITE_INTERRUPT`.
    ///
    /// It shares a transaction with others. When SQLite rolls that back because of one of them, all
    /// the others run once more: what `work` does beside the database must bear that.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
        F: FnMut(&mut Write<'_>) -> Result<T, E> + Send + 'static,
    {
        self.send(work, Message::Work).await
    }

    /// The same in a transaction of its own: `work` runs once.
    pub async fn write_alone<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
        F: FnOnce(&mut Write<'_>) -> Result<T, E> + Send + 'static,
    {
        let mut work = Some(work);
        let once = move |write: &mut Write<'_>| match work.take() {
            Some(work) => work(write),
            None => Err(StoreError::Closed.into()),
        };
        self.send(once, Message::Alone).await
    }

    async fn send<T, E, F>(
        &self,
        work: F,
        message: impl FnOnce(Box<dyn Work>) -> Message,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
        F: FnMut(&mut Write<'_>) -> Result<T, E> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let message = message(Box::new(Task::new(work, reply)));
        self.inner.work.send(message).await.map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)??
    }

    /// Runs `work` on a reader's connection; it sees one state of the database throughout, and
    /// every write that returned before. Statements after eight seconds fail with
    /// `SQLITE_INTERRUPT`.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let readers = Arc::clone(&self.inner.readers);
        let permit = Arc::clone(&readers.permits).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::Closed)?;
        let task = tokio::task::spawn_blocking(move || readers.run(permit, work));
        task.await.unwrap_or_else(|error| {
            Err(match error.try_into_panic() {
                Ok(panic) => StoreError::Panicked(crate::task::panic_text(panic.as_ref())),
                Err(_) => StoreError::Closed,
            }
            .into())
        })
    }

    /// Makes everything that was committed outlive a power cut, which a commit alone does not.
    pub async fn sync(&self) -> Result<(), StoreError> {
        let readers = Arc::clone(&self.inner.readers);
        let task = tokio::task::spawn_blocking(move || open::sync(&readers.path));
        task.await.map_err(|_| StoreError::Closed)?
    }

    /// Committed changes from now on; a slow reader loses the oldest and is told so.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Change>> {
        self.inner.changes.subscribe()
    }

    /// The tables and functions that REST shows.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.inner.schema
    }

    /// One row of a built-in table by id as REST shows it (for admin and functions).
    pub fn row(
        connection: &Connection,
        table: &'static str,
        id: &str,
    ) -> Result<Option<Value>, rusqlite::Error> {
        rows::by_key(connection, built_in(table)?, id)
    }

    /// Rows of a built-in table as REST shows them; `tail` is SQL from `WHERE` on, e.g.
    /// `WHERE team_id = ?1 ORDER BY created_at DESC, id DESC LIMIT 50`.
    pub fn rows(
        connection: &Connection,
        table: &'static str,
        tail: &'static str,
        parameters: impl Params,
    ) -> Result<Vec<Value>, rusqlite::Error> {
        rows::select(connection, built_in(table)?, tail, parameters)
    }

    /// Inserts into a built-in table what REST would take as a body, with the table's defaults
    /// (id, times); asks for no right. Returns the row as REST shows it.
    pub fn insert(
        connection: &Connection,
        table: &'static str,
        fields: &Map<String, Value>,
    ) -> Result<Value, RowError> {
        rows::insert(connection, built_in(table)?, fields)
    }

    /// Takes no more work, finishes what was accepted, checkpoints, waits for the writer to end.
    /// Later calls wait for the same.
    pub async fn close(&self) {
        let readers = &self.inner.readers;
        let all = u32::try_from(READERS).unwrap_or(u32::MAX);
        // Waits for the readers at work, then lets in no others: a checkpoint needs them gone.
        let permits = readers.permits.acquire_many(all).await;
        readers.permits.close();
        drop(permits);
        readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // An error means that it is closing already.
        let _ = self.inner.work.send(Message::Close).await;
        let mut done = self.inner.done.clone();
        while done.changed().await.is_ok() {}
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It is past its last statement; panics of work were caught before.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Readers {
    fn run<T, E, F>(&self, permit: OwnedSemaphorePermit, work: F) -> Result<T, E>
    where
        E: From<StoreError> + From<rusqlite::Error>,
        F: FnOnce(&Connection) -> Result<T, E>,
    {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (connection, limit) = match idle {
            Some(reader) => reader,
            None => open::reader(&self.path)?,
        };
        limit.set(self.allowed);
        let transaction = connection.unchecked_transaction()?;
        // A panic drops the connection; the next reader opens another.
        let result = work(&transaction);
        limit.lift();
        transaction.finish()?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((connection, limit));
        drop(permit);
        result
    }
}

fn built_in(name: &'static str) -> rusqlite::Result<&'static Table> {
    let table = tables::BUILT_IN.iter().find(|table| table.name == name).copied();
    table.ok_or_else(|| rusqlite::Error::InvalidParameterName(name.to_owned()))
}
