//! `/realtime/v1`: committed changes, told to whoever subscribed and may read them.
//!
//! One task hears the store's changes and owns the sockets' tasks. A change is serialised once and
//! handed to all sockets through one bounded ring; a socket that falls behind its length is closed,
//! so that nothing is lost silently and nothing piles up. Frames are answered by `channels`, which
//! knows nothing of sockets.
//!
//! A subscription is live when it is confirmed: a socket listens to the ring from its first moment
//! on, and a commit reaches the ring after any confirmation that was sent before it.

mod channels;
mod event;
mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod join;
mod socket;
#[cfg(test)]
mod tests;
mod token;
mod upgrade;

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::accept;
use super::app::{Shared, now_micros, wire_time};
use super::store::Change;
use crate::phoenix::Version;
use crate::task::{Ending, Group};
use event::Event;
pub(super) use upgrade::websocket;

/// Sockets on their way from the handler to the task.
const QUEUE: usize = 64;
/// Changes that a socket may be behind.
const RING: usize = 1024;

/// What sockets hear.
#[derive(Debug, Clone)]
enum Heard {
    /// A change.
    Change(Arc<Event>),
    /// There were more changes at once than we could follow.
    Lost,
}

/// A socket between its handshake and its task.
#[derive(Debug)]
struct Newcomer {
    upgrade: OnUpgrade,
    version: Version,
    /// Its place among all sockets.
    place: OwnedSemaphorePermit,
}

/// Where handlers leave new sockets.
#[derive(Debug)]
pub(super) struct Entrance {
    places: Arc<Semaphore>,
    newcomers: mpsc::Sender<Newcomer>,
}

/// Where [`run`] takes them from.
#[derive(Debug)]
pub(super) struct Newcomers(mpsc::Receiver<Newcomer>);

/// Both ends of the way in, for so many sockets at a time.
pub(super) fn entrance(most: usize) -> (Entrance, Newcomers) {
    let (newcomers, inbox) = mpsc::channel(QUEUE);
    let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    (Entrance { places, newcomers }, Newcomers(inbox))
}

/// Serves sockets until `stop`, then says so to each and lets it close.
pub(super) async fn run(app: Shared, mut newcomers: Newcomers, stop: CancellationToken) {
    let mut sockets = Group::new(stop.child_token());
    let mut changes = app.store.changes();
    let (ring, _) = broadcast::channel(RING);
    loop {
        // All are cancel safe: what was not taken stays in its channel.
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = sockets.next(), if !sockets.is_empty() => {
                if let Ending::Panicked(panic) = ended.ending {
                    tracing::error!(%panic, "a realtime socket's task panicked");
                }
            }
            Some(newcomer) = newcomers.0.recv() => {
                let (app, heard) = (app.clone(), ring.subscribe());
                sockets.spawn("realtime socket", |stop| socket::start(app, newcomer, heard, stop));
            }
            change = changes.recv() => match change {
                // An error means that there is no socket.
                Ok(change) => drop(event(&app, change).map(|event| ring.send(event))),
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "too many changes at once: realtime sockets are closed");
                    let _ = ring.send(Heard::Lost);
                }
                Err(broadcast::error::RecvError::Closed) => break,
            },
        }
    }
    drop(newcomers);
    sockets.stop(accept::DRAIN).await;
}

fn event(app: &Shared, change: Arc<Change>) -> Option<Heard> {
    let table = app.store.schema().table(change.table)?;
    Some(Heard::Change(Arc::new(Event::new(change, table, wire_time(now_micros())))))
}
