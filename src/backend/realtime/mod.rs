//! Realtime: the backend tells of new and changed jobs over a WebSocket.
//!
//! What it tells are hints, delivered at most once and never replayed: everything must be right
//! without them. `link` is the protocol without I/O, `socket` makes connections, [`Client`]
//! brings both together and connects again for as long as it takes.

mod channel;
mod client;
mod link;
mod once;
mod pace;
mod socket;

use serde_json::Value;
use tokio::time::Instant;

use super::BackendError;
use crate::model::JobId;

pub use client::Client;
pub use once::{Connection, connect};

/// What of `gateway_jobs` a channel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// New jobs of the team.
    Inserts,
    /// Changes of this gateway's jobs.
    Updates,
}

/// How far the channel of new jobs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is no socket.
    Disconnected,
    /// There is one; new jobs are not told yet.
    Joining,
    /// New jobs are told.
    Ready,
    /// The backend refuses; it is asked again in 10 minutes.
    Unavailable,
}

/// What a [`Client`] has to say.
#[derive(Debug)]
pub enum Event {
    /// Another state, and why, when something went wrong.
    State(State, Option<String>),
    /// A socket was made. What happened before it was not told.
    Connected,
    /// The backend says that from now on it tells; what happened before was not told.
    Subscribed(Topic),
    /// A job of this gateway was queued.
    Queued {
        /// The row.
        row: Value,
        /// The row was not there before.
        since: Instant,
    },
    /// A job of this gateway was changed and is not `running` now.
    NotRunning(JobId),
    /// Something happened that the backend did not tell in full: ask.
    Unclear,
    /// The backend refuses realtime, for this reason. Said once until it works again.
    Unavailable(String),
    /// The session could not be refreshed.
    SessionFailed(BackendError),
}
