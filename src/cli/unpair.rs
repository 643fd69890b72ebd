//! `unpair`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::args::UnpairArgs;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::instance::Instance;
use super::stop::{Stopped, stop};
use super::{asynchronous, audit};
use crate::backend::{Api, Endpoint, Http, Session};
use crate::config::{ConfigStore, Purpose, SavedConfig, Settings};
use crate::fs::read_private;
use crate::model::{Capabilities, GatewayId, GatewayStatus, TeamId};

/// Work in hand may end by itself for so long, then it is cancelled.
const DRAIN: Duration = Duration::from_secs(30);
const CANCEL: Duration = Duration::from_secs(30);
const LONGEST_CAPABILITIES: u64 = 1024 * 1024;
const IDENTITY: [&str; 4] = ["gatewayId", "teamId", "accessToken", "refreshToken"];

/// Runs the command.
pub(crate) fn run(context: &Context, args: &UnpairArgs) -> Outcome {
    let settings = context.settings(Purpose::Start)?;
    let saved = context.saved(&settings)?;
    let running = Instance::find(&settings.paths).is_running();
    if !running && !IDENTITY.iter().any(|name| saved.text(name).is_some()) && !saved.full_control()
    {
        context.ui.out("This gateway is not paired.")?;
        return Ok(Exit::Done);
    }
    if !args.yes && !confirmed(context, running)? {
        context.ui.out("Nothing was changed.")?;
        return Ok(Exit::Failed);
    }
    if running {
        stop_for_good(context, &settings)?;
    } else if saved.is_paired()
        && let Err(failure) = say_offline(&settings, &saved)
    {
        context.ui.warn(&format!("the backend was not told: {}", failure.message));
    }
    let store = ConfigStore::new(settings.paths.clone());
    store.update(|saved| {
        for name in IDENTITY {
            saved.remove(name);
        }
        saved.set("full_control_enabled", false);
    })?;
    let about = json!({"gateway_id": saved.text("gatewayId"), "full_control": false});
    audit::tell(context, &settings.paths, "unpaired", about);
    context.ui.out("Unpaired: identity and tokens are removed, machine control is off.")?;
    Ok(Exit::Done)
}

fn confirmed(context: &Context, running: bool) -> Result<bool, Failure> {
    let question = if running {
        "Stop the running gateway and give up its pairing?"
    } else {
        "Give up the pairing of this gateway?"
    };
    context.ui.confirm(question).ok_or_else(|| {
        Failure::usage("nobody can be asked whether to give up the pairing")
            .hint("say so with `panorama-gateway unpair --yes`")
    })
}

/// A gateway that stops says `offline` itself.
fn stop_for_good(context: &Context, settings: &Settings) -> Result<(), Failure> {
    let stop = |limit, force| stop(&settings.paths, Some(limit), force, &context.ui);
    if let Stopped::NotYet(_) = stop(DRAIN, false)? {
        context.ui.note("cancelling the work in hand");
        if let Stopped::NotYet(_) = stop(CANCEL, true)? {
            return Err(Failure::new("the gateway does not stop; nothing was removed").hint(
                "end it (`panorama-gateway status -v` names its process), then unpair again",
            ));
        }
    }
    Ok(())
}

fn say_offline(settings: &Settings, saved: &SavedConfig) -> Result<(), Failure> {
    let file = settings.paths.capabilities();
    let Some(bytes) = read_private(&file, LONGEST_CAPABILITIES)? else { return Ok(()) };
    let Ok(capabilities) = serde_json::from_slice::<Capabilities>(&bytes) else {
        return Err(Failure::new(format!("{} does not parse", file.display())));
    };
    let (url, anon_key) = settings.backend(Purpose::Start)?;
    let endpoint = Endpoint { url, anon_key };
    let id = |name| saved.text(name).unwrap_or_default().to_owned();
    let work = async {
        let http = Http::new(&endpoint)?;
        let store = Arc::new(ConfigStore::new(settings.paths.clone()));
        let session = Session::new(http.clone(), endpoint.clone(), store)?;
        session.authenticate().await?;
        let gateway = GatewayId::new(id("gatewayId"));
        let team = TeamId::new(id("teamId"));
        let api = Api::new(http, endpoint.clone(), Arc::new(session), gateway, team);
        api.heartbeat(GatewayStatus::Offline, &capabilities, &settings.device_name.value).await?;
        Ok::<_, Failure>(())
    };
    asynchronous::short(work)?
}
