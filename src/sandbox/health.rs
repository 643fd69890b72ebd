//! Whether the database takes writes: asked by a small one, at most once a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::store::{Store, StoreError};

/// How long an answer holds, so that whoever asks all the time costs little.
const FRESH: Duration = Duration::from_secs(1);
/// A writer that is busy for longer counts as one that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen last, and when.
#[derive(Debug, Default)]
pub(super) struct Health {
    last: Mutex<Option<(Instant, bool)>>,
}

impl Health {
    /// True when a write was committed within the last second.
    pub(super) async fn takes_writes(&self, store: &Store) -> bool {
        if let Some((at, good)) = *self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && at.elapsed() < FRESH
        {
            return good;
        }
        let good = match tokio::time::timeout(PATIENCE, store.write(|write| touch(write.tx))).await
        {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the database takes no writes");
                false
            }
            Err(_) => {
                tracing::warn!("the database has been busy for too long");
                false
            }
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), good));
        good
    }
}

/// Writes one page and changes nothing.
fn touch(connection: &rusqlite::Connection) -> Result<(), StoreError> {
    let number: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    Ok(connection.pragma_update(None, "application_id", number)?)
}
