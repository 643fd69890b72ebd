//! Keeps all drives of this machine in step for as long as the gateway lives.
//!
//! One thread does all of it, one drive after the other; a drive that has much to do gives way to
//! the others after some seconds. Nothing that goes wrong here ends the gateway: it is told in the
//! report and tried again.

mod control;
mod debounce;
mod drives;
mod first_copy;
mod folder;
mod lookout;
mod mirror;
mod monitor;
mod observed;
mod renewal;
pub mod report;
pub mod request;
mod settings;
mod system;
pub mod tally;
mod teller;
mod watch;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use monitor::Monitor;
pub use settings::{Settings, SettingsError};

pub use super::remote::{KeepToken, SessionToken};

/// As whom the drives are asked for, and where.
#[derive(Clone)]
pub struct Identity {
    /// The backend's address.
    pub backend: Url,
    /// The backend's public key.
    pub anon_key: SecretString,
    /// A client of its own: see [`Link::new`](super::remote::Link::new).
    pub client: reqwest::Client,
    /// The machine's id, which stands in the names of conflict copies.
    pub vm_id: String,
    /// The token that opens the drives.
    pub token: SecretString,
    /// Keeps a renewed token, so that a restart finds it.
    pub keep_token: Option<KeepToken>,
    /// What gives a new token when the old one has ended.
    pub session: Option<SessionToken>,
}

/// Keeps the drives in step until `stop`. To be run as one of the gateway's supervisors.
///
/// # Errors
/// When the state dir cannot be used, or another process uses it.
pub async fn keep(
    settings: Settings,
    identity: Identity,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    keep_watched(settings, identity, Monitor::default(), stop).await
}

/// The same, for those who want to know how it goes.
///
/// # Errors
/// As [`keep`].
pub async fn keep_watched(
    settings: Settings,
    identity: Identity,
    monitor: Monitor,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Handle::current();
    let teller = teller::Teller::new(monitor.clone(), &settings.state_dir);
    // The engine's calls block; it has a thread of the pool to itself and ends with `stop`.
    let thread = tokio::task::spawn_blocking(move || {
        control::Control::new(settings, identity, monitor, runtime, stop)?.run();
        Ok(())
    });
    tokio::select! {
        // The keeper has the last word: it writes the last report itself. What the teller has under
        // way then comes to nothing.
        ended = thread => ended?,
        never = teller.run() => match never {},
    }
}
