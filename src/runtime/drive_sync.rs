//! Drive sync as one of the gateway's supervisors: it may fail, and jobs go on.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::events;
use super::identity::Identity;
use crate::backend::GatewayEvent;
use crate::config::{ConfigStore, Environment, SavedConfig};
use crate::drive_sync::keeper::{self, KeepToken, SessionToken, Settings};
use crate::fs::Owner;
use crate::observe::Redactor;

/// Where the token stands in `gateway.json`, in the VM's own object or (on a machine that tries
/// drive sync with a sandbox) at the top.
const FIELD: &str = "driveSync";
const GUEST: &str = "vmGuest";
/// Before it is tried again.
const RETRY: Duration = Duration::from_mins(1);

/// Whether, and how, this gateway keeps drives in step: as it was told to at its start, or, in a
/// managed VM, as its environment says.
pub(super) fn settings(
    given: Option<&Settings>,
    is_guest: bool,
    environment: &Environment,
) -> Option<Result<Settings, keeper::SettingsError>> {
    if let Some(given) = given {
        return Some(Ok(given.clone()));
    }
    if !is_guest {
        return None;
    }
    match Settings::read(environment) {
        Ok(settings) => settings.enabled.then_some(Ok(settings)),
        Err(error) => Some(Err(error)),
    }
}

/// Keeps the drives in step; says why it cannot, once for each reason.
pub(super) async fn run(
    identity: Arc<Identity>,
    settings: Result<Settings, String>,
    stop: CancellationToken,
) {
    let mut told: Option<String> = None;
    while !stop.is_cancelled() {
        let ended = match &settings {
            Ok(settings) => keep(&identity, settings.clone(), &stop).await,
            Err(error) => Err(anyhow!(error.clone())),
        };
        if stop.is_cancelled() {
            return;
        }
        let why = match ended {
            Ok(()) => "it ended".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        tracing::error!(%why, "drive sync does not run");
        identity.shared.drives.failed(&why);
        if told.as_ref() != Some(&why) {
            record(&identity, &why).await;
            told = Some(why);
        }
        tokio::select! {
            // Cancel safe: nothing is under way.
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn keep(
    identity: &Arc<Identity>,
    settings: Settings,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let saved = identity.host.config.load().context("read the config")?;
    let held = token(&saved).ok_or_else(|| anyhow!("there is no token for drives"))?;
    identity.host.redactor.add_secret(&held.token);
    let folder_owner = owner_of_folders(identity).await?;
    let settings = Settings { folder_owner, ..settings };
    let endpoint = identity.api.endpoint();
    let who = keeper::Identity {
        backend: endpoint.url.parse().context("the backend's address")?,
        anon_key: endpoint.anon_key.clone(),
        client: identity.api.http().another_client().await?,
        vm_id: held.vm_id,
        token: SecretString::from(held.token),
        keep_token: Some(keep_token(&identity.host.config, &identity.host.redactor)),
        session: Some(session_token(identity)),
    };
    let monitor = identity.shared.drives.clone();
    keeper::keep_watched(settings, who, monitor, stop.child_token()).await
}

/// A VM's commands work in the drives as their own user.
async fn owner_of_folders(identity: &Identity) -> anyhow::Result<Option<Owner>> {
    let Some(guest) = identity.host.guest.clone() else { return Ok(None) };
    let found = tokio::task::spawn_blocking(move || guest.find_user()).await;
    let user = found.context("look up the user of commands")??;
    Ok(user.map(|user| user.owner()))
}

struct Held {
    token: String,
    vm_id: String,
}

fn token(saved: &SavedConfig) -> Option<Held> {
    let text = |value: &Value, name: &str| value.get(name)?.as_str().map(str::to_owned);
    if let Some(vm_id) = saved.vm_id() {
        let token = text(saved.guest_value(FIELD)?, "token")?;
        return Some(Held { token, vm_id: vm_id.to_owned() });
    }
    let own = saved.value(FIELD)?;
    Some(Held { token: text(own, "token")?, vm_id: text(own, "vmId")? })
}

/// A renewed token is put where the old one was.
fn keep_token(config: &ConfigStore, redactor: &Redactor) -> KeepToken {
    let (config, redactor) = (config.clone(), redactor.clone());
    KeepToken(Arc::new(move |renewed| {
        redactor.add_secret(&renewed.token);
        let saved = config.update(|saved| {
            if saved.is_guest() {
                let both = json!({"token": renewed.token, "expiresAt": renewed.expires_at});
                saved.set_within(GUEST, FIELD, both);
            } else {
                saved.set_within(FIELD, "token", renewed.token.as_str());
                saved.set_within(FIELD, "expiresAt", renewed.expires_at.as_str());
            }
        });
        if let Err(error) = saved {
            // The new one is in use; the old one opens the drives until its own end.
            tracing::warn!(%error, "the drives' new token could not be saved");
        }
    }))
}

/// Opens the drives anew after the machine has slept for longer than their token lasts.
fn session_token(identity: &Arc<Identity>) -> SessionToken {
    let session = Arc::clone(identity.api.session());
    SessionToken(Arc::new(move || session.access_token()))
}

async fn record(identity: &Identity, why: &str) {
    let event = GatewayEvent {
        provider: None,
        level: "error",
        code: Some("drive_sync_stopped"),
        message: format!("Drive sync does not run: {why}"),
        details: Map::new(),
    };
    events::record(identity, event).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_vm_is_asked_by_its_environment() {
        let on = Environment::from_pairs([("PANORAMA_DRIVE_SYNC_ENABLED", "1")]);
        let none = Environment::from_pairs([("OTHER", "1")]);
        assert!(settings(None, true, &on).is_some_and(|settings| settings.is_ok()));
        assert!(settings(None, false, &on).is_none());
        assert!(settings(None, true, &none).is_none());
        let broken = Environment::from_pairs([("PANORAMA_DRIVE_SYNC_ENABLED", "maybe")]);
        assert!(settings(None, true, &broken).is_some_and(|settings| settings.is_err()));
        let given = Settings::default();
        assert_eq!(settings(Some(&given), false, &none), Some(Ok(given.clone())));
    }

    #[test]
    fn the_token_is_a_vms_own_or_that_of_a_trial() {
        let mut saved = SavedConfig::default();
        assert!(token(&saved).is_none());
        saved.set(FIELD, json!({"token": "t1", "vmId": "v1"}));
        assert!(
            token(&saved)
                .is_some_and(|held| (held.token, held.vm_id) == ("t1".into(), "v1".into()))
        );
        saved.set(GUEST, json!({"vmId": "v2"}));
        assert!(token(&saved).is_none());
        saved.set_within(GUEST, FIELD, json!({"token": "t2"}));
        assert!(
            token(&saved)
                .is_some_and(|held| (held.token, held.vm_id) == ("t2".into(), "v2".into()))
        );
    }
}
