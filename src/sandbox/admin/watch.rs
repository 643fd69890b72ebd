//! Long polls: an answer that waits until what it is about is otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::sandbox::store::Change;

const MAX_WAIT: Duration = Duration::from_secs(25);

/// Until when a caller that asked for `wait_ms` is let wait.
pub(super) fn deadline(wait_ms: Option<u64>) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms.unwrap_or(0)).min(MAX_WAIT)
}

/// Returns when a row of `table` that has `id` in `column` was changed, or may have been. Cancel
/// safe for who looks at the rows again afterwards.
pub(super) async fn changed(
    feed: &mut Receiver<Arc<Change>>,
    table: &'static str,
    column: &'static str,
    id: &str,
) {
    loop {
        match feed.recv().await {
            Ok(change) if change.table == table && change.row[column] == id => return,
            Ok(_) => {}
            // Whether ours was among the lost ones, the next look tells.
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
