//! Exchanges a pairing code and keeps what it was exchanged for.

use secrecy::{ExposeSecret, SecretString};

use super::context::Context;
use super::failure::Failure;
use crate::backend::{BackendError, Endpoint, Http, Pairing, exchange_pairing_code};
use crate::config::{ConfigError, ConfigStore, SavedConfig};

/// What is saved besides the identity itself.
#[derive(Debug, Clone)]
pub(crate) struct NewIdentity {
    /// The backend that gave it.
    pub url: String,
    /// Its public key.
    pub anon_key: SecretString,
    /// The name that the team sees.
    pub device_name: String,
    /// The host toggle; `None` leaves it as it was.
    pub full_control: Option<bool>,
}

/// One attempt: a code works once.
pub(crate) async fn exchange(
    context: &Context,
    identity: &NewIdentity,
    code: &str,
) -> Result<Pairing, Failure> {
    context.redactor.add_secret(code);
    let endpoint = Endpoint { url: identity.url.clone(), anon_key: identity.anon_key.clone() };
    let http = Http::new(&endpoint)?;
    let pairing = exchange_pairing_code(&http, &endpoint, code, &identity.device_name)
        .await
        .map_err(refused)?;
    context.redactor.add_secret(pairing.tokens.access.expose_secret());
    context.redactor.add_secret(pairing.tokens.refresh.expose_secret());
    Ok(pairing)
}

fn refused(error: BackendError) -> Failure {
    let by_code =
        matches!(&error, BackendError::Status { status, .. } if !matches!(status, 429 | 500..));
    let failure = Failure::from(error);
    let failure = Failure { causes: failure.causes.clone(), ..failure };
    if by_code {
        failure.hint("a code works once and for ten minutes: get a new one, and check that it is for this backend")
    } else {
        failure
    }
}

/// Saves the identity; a damaged config is set aside first.
pub(crate) fn save(
    store: &ConfigStore,
    identity: &NewIdentity,
    pairing: &Pairing,
) -> Result<SavedConfig, ConfigError> {
    store.replace_damaged(|saved| {
        saved.set("supabaseUrl", identity.url.as_str());
        saved.set("supabaseAnonKey", identity.anon_key.expose_secret());
        saved.set("accessToken", pairing.tokens.access.expose_secret());
        saved.set("refreshToken", pairing.tokens.refresh.expose_secret());
        saved.set("gatewayId", pairing.gateway_id.as_str());
        saved.set("teamId", pairing.team_id.as_str());
        saved.set("deviceName", identity.device_name.as_str());
        if let Some(enabled) = identity.full_control {
            saved.set("full_control_enabled", enabled);
        }
    })
}
