//! One paired identity at work: its backend, its host, what it reports.

use std::sync::Arc;

use super::capabilities;
use super::shared::Shared;
use secrecy::{ExposeSecret, SecretString};

use crate::backend::{Api, TokenStore, Tokens};
use crate::config::ConfigStore;
use crate::jobs::Host;
use crate::model::Capabilities;
use crate::observe::Redactor;

/// What the supervisors of one identity share. A new pairing makes a new one.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) shared: Arc<Shared>,
    pub(super) api: Api,
    pub(super) host: Arc<Host>,
    pub(super) device_name: String,
    pub(super) image_reference: Option<String>,
}

impl Identity {
    /// The capabilities now.
    pub(super) fn capabilities(&self) -> Capabilities {
        let toggle = *self.shared.toggle.borrow();
        capabilities::build(&self.device_name, toggle, self.image_reference.as_deref())
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

/// The saved tokens, none of which passes here without the redactor learning it: a new token must
/// be known before a child can read it from `gateway.json` and print it.
#[derive(Debug)]
pub(super) struct WatchedStore {
    config: ConfigStore,
    redactor: Redactor,
}

impl WatchedStore {
    /// The tokens of this config.
    pub(super) fn new(config: ConfigStore, redactor: Redactor) -> Self {
        Self { config, redactor }
    }

    fn learn(&self, tokens: &Tokens) {
        self.redactor.add_secret(tokens.access.expose_secret());
        self.redactor.add_secret(tokens.refresh.expose_secret());
    }
}

impl TokenStore for WatchedStore {
    fn load(&self) -> anyhow::Result<Option<Tokens>> {
        let tokens = TokenStore::load(&self.config)?;
        if let Some(tokens) = &tokens {
            self.learn(tokens);
        }
        Ok(tokens)
    }

    fn save(&self, tokens: &Tokens, parent: &SecretString) -> anyhow::Result<bool> {
        self.learn(tokens);
        TokenStore::save(&self.config, tokens, parent)
    }

    fn lock_refresh(&self) -> anyhow::Result<Box<dyn std::any::Any + Send>> {
        TokenStore::lock_refresh(&self.config)
    }
}
