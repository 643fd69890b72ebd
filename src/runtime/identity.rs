//! One paired identity at work: its backend, its host, what it reports.

use std::sync::Arc;

use super::capabilities;
use super::shared::Shared;
use super::validation::Occasion;
use crate::backend::Api;
use crate::jobs::Host;
use crate::model::Capabilities;

/// What the supervisors of one identity share. A new pairing makes a new one.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) shared: Arc<Shared>,
    pub(super) api: Api,
    pub(super) host: Arc<Host>,
    pub(super) device_name: String,
    pub(super) image_reference: Option<String>,
    /// Runs inside a virtual machine of the team's: there is no realtime there.
    pub(super) is_guest: bool,
    /// Why there is work for this identity now.
    pub(super) occasion: Occasion,
}

impl Identity {
    /// The capabilities now, as if everything had been checked at this wire time.
    pub(super) fn capabilities(&self, checked_at: &str) -> Capabilities {
        let toggle = *self.shared.toggle.borrow();
        let image = self.image_reference.as_deref();
        let providers = capabilities::providers(&self.host.providers.standings(), checked_at);
        capabilities::build(&self.device_name, toggle, image, providers)
    }

    /// Keeps what the backend accepted, for an `unpair` that says `offline` while nothing runs.
    pub(super) async fn keep_capabilities(&self, capabilities: &Capabilities) {
        let path = self.host.config.paths().capabilities();
        let bytes = match serde_json::to_vec(capabilities) {
            Ok(bytes) => bytes,
            Err(error) => return tracing::warn!(%error, "capabilities cannot be written"),
        };
        let saved = tokio::task::spawn_blocking(move || crate::fs::save(&path, &bytes)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the capabilities last sent could not be kept");
        }
    }
}
