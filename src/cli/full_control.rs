//! `full-control`: the host toggle.

use serde_json::json;

use super::args::{FullControlArgs, Toggle};
use super::context::Context;
use super::failure::{Exit, Outcome};
use super::instance::Instance;
use super::{audit, guest};
use crate::config::{ConfigStore, Purpose};

/// Runs the command.
pub(crate) fn run(context: &Context, args: &FullControlArgs) -> Outcome {
    guest::refuse(
        context,
        "`full-control`",
        "machine control in it is ruled by the team's toggle and by each resource",
    )?;
    let purpose = if args.action == Toggle::Status { Purpose::Look } else { Purpose::Start };
    let settings = context.settings(purpose)?;
    let store = ConfigStore::new(settings.paths.clone());
    let wanted = match args.action {
        Toggle::Enable => Some(true),
        Toggle::Disable => Some(false),
        Toggle::Status => None,
    };
    let enabled = match wanted {
        None => store.load()?.full_control(),
        Some(wanted) => {
            // A toggle that is off already is not written where there is no config yet.
            if store.load()?.full_control() == wanted {
                wanted
            } else {
                let saved = store.update(|saved| saved.set("full_control_enabled", wanted))?;
                let about = json!({"enabled": wanted});
                audit::tell(context, &settings.paths, "full_control_changed", about);
                saved.full_control()
            }
        }
    };
    context.ui.out(&format!(
        "Machine control is {} on this host.",
        if enabled { "enabled" } else { "disabled" }
    ))?;
    if wanted == Some(true) {
        context.ui.note(
            "jobs may now run commands here as this user, where the team's toggle and the resource allow it, too",
        );
    }
    if wanted.is_some() && Instance::find(&settings.paths).is_running() {
        context.ui.note("the running gateway takes it over at once");
    }
    Ok(Exit::Done)
}
