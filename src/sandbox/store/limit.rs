//! How long one piece of work may use a connection.
//!
//! SQLite asks now and then while it works, and so do functions that may take long; a statement
//! whose time is over ends with `SQLITE_INTERRUPT`. Otherwise one costly filter would keep a reader,
//! or the only writer, for as long as it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, ffi};
use tokio::time::Instant;

/// SQLite's steps between two looks at the clock. A step may be a function that parses megabytes.
const STEPS: std::ffi::c_int = 100;
const NONE: u64 = u64::MAX;

/// The limit of one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct TimeLimit {
    start: Instant,
    /// Milliseconds after `start`.
    end: Arc<AtomicU64>,
}

impl TimeLimit {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), end: Arc::new(AtomicU64::new(NONE)) }
    }

    /// From now on statements of `connection` obey.
    pub(super) fn watch(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let limit = self.clone();
        connection.progress_handler(STEPS, Some(move || limit.is_over()))
    }

    /// Until this is called again, or [`Self::lift`].
    pub(super) fn set(&self, allowed: Duration) {
        let end = self.elapsed().saturating_add(in_millis(allowed)).min(NONE - 1);
        self.end.store(end, Ordering::Relaxed);
    }

    /// As long as it takes.
    pub(super) fn lift(&self) {
        self.end.store(NONE, Ordering::Relaxed);
    }

    /// An error when the time is over.
    pub(super) fn check(&self) -> rusqlite::Result<()> {
        if self.is_over() {
            return Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_INTERRUPT),
                None,
            ));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let end = self.end.load(Ordering::Relaxed);
        end != NONE && self.elapsed() >= end
    }

    fn elapsed(&self) -> u64 {
        in_millis(self.start.elapsed())
    }
}

fn in_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NONE)
}
