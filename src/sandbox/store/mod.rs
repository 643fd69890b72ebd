//! SQLite in WAL mode: one writer thread, a few readers, numbered migrations.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Transaction};
use serde_json::Value;
use tokio::sync::broadcast;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("could not use the sandbox's database")]
    Sqlite(#[from] rusqlite::Error),
    /// The store is shut down.
    #[error("the sandbox's database is closed")]
    Closed,
    /// Written by a newer version.
    #[error("the sandbox's database has format {found}; this version knows up to {known}")]
    Newer {
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
    },
}

/// A committed change of one row; sent after the commit, in commit order.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Table.
    pub table: &'static str,
    /// The row after it (before it, for a deletion), as REST shows it.
    pub row: Value,
}

/// What a write may use: the open transaction, and the list of changes to tell after its commit.
pub struct Write<'a> {
    /// `BEGIN IMMEDIATE` was done.
    pub tx: &'a Transaction<'a>,
    /// Told after the commit.
    pub changes: &'a mut Vec<Change>,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    _inner: Arc<()>,
}

#[expect(clippy::unused_async, unused_variables, reason = "stub")]
impl Store {
    /// Opens (0600, makes when absent), migrates, starts the writer thread.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        unimplemented!()
    }

    /// Runs `work` in one write transaction; commits on `Ok`, rolls back on `Err`.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
        F: FnOnce(&mut Write<'_>) -> Result<T, E> + Send + 'static,
    {
        unimplemented!()
    }

    /// Runs `work` on a reader's connection.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        unimplemented!()
    }

    /// Committed changes from now on; a slow reader loses the oldest and is told so.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Change>> {
        unimplemented!()
    }

    /// One table's row by id as REST shows it (for admin and functions).
    pub fn row(
        connection: &Connection,
        table: &'static str,
        id: &str,
    ) -> Result<Option<Value>, rusqlite::Error> {
        unimplemented!()
    }

    /// Stops the writer and waits for it; checkpoints.
    pub async fn close(&self) {
        unimplemented!()
    }
}
