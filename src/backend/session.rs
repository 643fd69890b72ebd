//! The session: access and refresh token, rotated without loss.

use std::sync::Arc;

use secrecy::SecretString;

use super::{BackendError, Endpoint, Http};

/// A token pair.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Short-lived JWT.
    pub access: SecretString,
    /// Works once; its parent may be used again.
    pub refresh: SecretString,
}

/// Where tokens are kept between runs. Blocking; implemented for `config::ConfigStore`.
pub trait TokenStore: std::fmt::Debug + Send + Sync + 'static {
    /// The saved pair now.
    fn load(&self) -> anyhow::Result<Option<Tokens>>;
    /// Saves a new pair durably before it is used.
    fn save(&self, tokens: &Tokens) -> anyhow::Result<()>;
    /// Takes the machine-wide refresh lock (held until dropped).
    fn lock_refresh(&self) -> anyhow::Result<Box<dyn std::any::Any + Send>>;
}

/// What `status` says of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// Not checked with the backend yet.
    Unchecked,
    /// In order.
    Valid,
    /// The last refresh failed for a passing reason (its text).
    Retrying(String),
    /// Over for good (the terminal code).
    Ended(String),
}

/// Cheap to clone through `Arc`; single flight.
#[derive(Debug)]
pub struct Session {
    _private: (),
}

impl Session {
    /// Loads the saved tokens; no network.
    pub fn new(
        http: Http,
        endpoint: Endpoint,
        store: Arc<dyn TokenStore>,
    ) -> Result<Self, BackendError> {
        unimplemented!("{http:?} {endpoint:?} {store:?}")
    }

    /// At start: refreshes when less than 90 s are left, else checks with `GET /auth/v1/user`.
    pub async fn authenticate(&self) -> Result<(), BackendError> {
        unimplemented!()
    }

    /// Refreshes when less than 120 s are left; called every 30 s and after a wake.
    pub async fn keep_fresh(&self) -> Result<(), BackendError> {
        unimplemented!()
    }

    /// Forces one refresh unless the current token is not `stale` any more (single flight).
    pub async fn refresh_if_current(&self, stale: &SecretString) -> Result<(), BackendError> {
        unimplemented!("{stale:?}")
    }

    /// The access token to send now.
    pub fn access_token(&self) -> SecretString {
        unimplemented!()
    }

    /// How it is.
    pub fn state(&self) -> SessionState {
        unimplemented!()
    }
}
