//! What every request handler shares.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::access::AccessTokens;
use super::auth::RefreshChain;
use super::drives::Drives;
use super::functions::EdgeFunction;
use super::health::Health;
use super::rate::GuessLimit;
use super::realtime::Entrance;
use super::rules::Rules;
use super::secrets::Secrets;
use super::storage::Storage;
use super::store::Store;
use crate::model::TeamId;

/// Handlers get it as axum's state.
pub(super) type Shared = Arc<App>;

/// One running control plane.
#[derive(Debug)]
pub(super) struct App {
    pub(super) store: Store,
    pub(super) storage: Storage,
    pub(super) drives: Drives,
    pub(super) secrets: Secrets,
    pub(super) access: AccessTokens,
    pub(super) chain: RefreshChain,
    pub(super) guesses: GuessLimit,
    pub(super) realtime: Entrance,
    pub(super) rules: Rules,
    pub(super) team_id: TeamId,
    /// For programs on this machine.
    pub(super) url: String,
    /// For gateways, which may be elsewhere.
    pub(super) public_url: String,
    /// How far clocks may differ where tables are concerned.
    pub(super) clock_leeway: Duration,
    /// How long an older refresh token may be used once more.
    pub(super) reuse_interval: Duration,
    /// Functions beyond the sandbox's own.
    pub(super) edge_functions: Vec<&'static EdgeFunction>,
    pub(super) health: Health,
    /// Cancelled when the server stops: whoever waits answers now.
    pub(super) stop: CancellationToken,
}

/// The address that a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Wall time now, microseconds since 1970, as the database holds times.
pub(super) fn now_micros() -> i64 {
    Timestamp::now().as_microsecond()
}

/// A database time on the wire.
pub(super) fn wire_time(micros: i64) -> String {
    crate::model::time::to_wire(
        Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH),
    )
}

/// A duration in the database's unit.
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
