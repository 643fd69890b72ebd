//! `service` with systemd.

use std::path::Path;

use super::describe::{Described, describe};
use super::{found, installed, look, needs_root, remove, say_gateway, scope_of, write};
use crate::cli::args::{ServiceInstallArgs, ServiceScopeArgs};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::instance::Instance;
use crate::config::Purpose;
use crate::service::systemd::{self, PROPERTIES, State, UNIT};
use crate::service::tool::{self, ToolError};
use crate::service::{Present, Scope};

/// Installs, enables and starts; doing it again changes nothing.
pub(super) fn install(context: &Context, args: &ServiceInstallArgs) -> Outcome {
    let Described { description, paths, is_paired } = describe(context, args)?;
    let scope = &description.scope;
    if args.dry_run {
        let text = systemd::unit(&description, version(scope).ok().flatten())?;
        context.ui.out_raw(&text)?;
        return Ok(Exit::Done);
    }
    needs_root(scope)?;
    let file = found(systemd::file(scope, &context.environment))?;
    let before = look(&file)?;
    let version = version(scope).map_err(|error| unreachable(scope, &error))?;
    let text = systemd::unit(&description, version)?;
    if !is_paired {
        return Err(Failure::not_paired().hint(
            "pair first (`panorama-gateway pair <CODE> --no-start`), then install the service",
        ));
    }
    let changed = before != Present::Ours(text.clone());
    if changed {
        write(&file, &text)?;
    }
    systemctl(scope, &["daemon-reload"])?;
    systemctl(scope, &["enable", UNIT])?;
    context.ui.out(&format!("Installed and enabled {}.", file.display()))?;
    start(context, scope, &Instance::find(&paths), changed && before != Present::Nothing)?;
    if description.scope == Scope::User {
        linger(context, args.linger);
    }
    Ok(Exit::Done)
}

/// A gateway that runs already is somebody's: its work is not cut short unasked.
fn start(
    context: &Context,
    scope: &Scope,
    running: &Instance,
    changed: bool,
) -> Result<(), Failure> {
    let flag = flag_for_people(scope);
    let state = state(scope)?;
    let own = state.main_pid();
    match running {
        Instance::Running { pid, .. } if own.is_none() || *pid != own => {
            let who = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            context.ui.warn(&format!("a gateway runs already{who}, not as this service"));
            context.ui.note(&format!(
                "the service starts with the machine; to have it now: `panorama-gateway stop \
                 --wait`, then `systemctl {flag}start {UNIT}`"
            ));
            return Ok(());
        }
        Instance::Running { .. } | Instance::Stopped { .. } => {}
    }
    if changed && state.is_active() {
        context.ui.out("The service runs; what was changed counts from its next start.")?;
        context
            .ui
            .note(&format!("`systemctl {flag}restart {UNIT}` finishes its jobs and does that"));
        return Ok(());
    }
    systemctl(scope, &["start", UNIT]).map_err(|failure| {
        failure.hint(format!("`systemctl {flag}status {UNIT}` and `panorama-gateway logs` say why"))
    })?;
    context.ui.out("The service runs.")?;
    Ok(())
}

/// Offered, since it concerns all services of this user.
fn linger(context: &Context, wanted: Option<bool>) {
    let user = nix::unistd::getuid().to_string();
    let shown = tool::run("loginctl", &["show-user", &user, "--property=Linger"]);
    if wanted == Some(false) || shown.is_ok_and(|text| text.trim() == "Linger=yes") {
        return;
    }
    let question = "Keep it running while you are not logged in (loginctl enable-linger)?";
    let wanted = wanted.or_else(|| context.ui.confirm(question));
    if wanted == Some(true) {
        match tool::run("loginctl", &["enable-linger"]) {
            Ok(_) => return context.ui.note("it runs from the start of the machine on"),
            Err(error) => context.ui.warn(&format!("lingering could not be enabled: {error}")),
        }
    }
    context.ui.note(
        "it runs while you are logged in; `loginctl enable-linger` keeps it running after that",
    );
}

/// Stops, disables and removes, but only what is ours.
pub(super) fn uninstall(context: &Context, args: &ServiceScopeArgs) -> Outcome {
    let scope = scope_of(args);
    let file = found(systemd::file(&scope, &context.environment))?;
    if look(&file)? == Present::Nothing {
        context.ui.out("The service is not installed.")?;
        return Ok(Exit::Done);
    }
    needs_root(&scope)?;
    if let Err(error) = version(&scope) {
        return Err(unreachable(&scope, &error));
    }
    systemctl(&scope, &["disable", UNIT])?;
    if state(&scope)?.is_active() {
        context.ui.note("stopping it; jobs in hand are finished first (^C does not cancel them)");
    }
    systemctl(&scope, &["stop", UNIT])?;
    remove(&file)?;
    systemctl(&scope, &["daemon-reload"])?;
    // Else a service that had failed would be listed for ever. It may not be known any more.
    let _not_known = tool::run("systemctl", &words(&scope, &["reset-failed", UNIT]));
    context.ui.out(&format!("Stopped, disabled and removed {}.", file.display()))?;
    Ok(Exit::Done)
}

/// From the manager, and from the gateway itself.
pub(super) fn status(context: &Context, args: &ServiceScopeArgs) -> Outcome {
    let scope = scope_of(args);
    let file = found(systemd::file(&scope, &context.environment))?;
    context.ui.out(&format!("installed  {}", installed(&file)))?;
    let state = match version(&scope).and_then(|_| show(&scope)) {
        Ok(state) => state,
        Err(error) => return Err(unreachable(&scope, &error)),
    };
    context.ui.out(&format!("enabled    {}", if state.is_enabled() { "yes" } else { "no" }))?;
    context.ui.out(&format!("service    {}", state.line()))?;
    if let Some(text) = state.get("StatusText") {
        context.ui.out(&format!("it says    {text}"))?;
    }
    let paths = context.paths(Purpose::Look)?;
    say_gateway(context, &Instance::find(&paths), state.main_pid())
}

fn state(scope: &Scope) -> Result<State, Failure> {
    Ok(show(scope)?)
}

fn show(scope: &Scope) -> Result<State, ToolError> {
    let property = format!("--property={PROPERTIES}");
    Ok(State::parse(&tool::run("systemctl", &words(scope, &["show", &property, UNIT]))?))
}

/// Asks the manager itself, not only its tool.
fn version(scope: &Scope) -> Result<Option<u32>, ToolError> {
    let text = tool::run("systemctl", &words(scope, &["show", "--property=Version"]))?;
    Ok(systemd::version(&text))
}

fn systemctl(scope: &Scope, command: &[&str]) -> Result<(), Failure> {
    tool::run("systemctl", &words(scope, command))?;
    Ok(())
}

fn words<'a>(scope: &Scope, command: &[&'a str]) -> Vec<&'a str> {
    let level = match scope {
        Scope::User => "--user",
        Scope::System { .. } => "--system",
    };
    [level].into_iter().chain(command.iter().copied()).collect()
}

fn flag_for_people(scope: &Scope) -> &'static str {
    match scope {
        Scope::User => "--user ",
        Scope::System { .. } => "",
    }
}

fn unreachable(scope: &Scope, error: &ToolError) -> Failure {
    let has_systemd = Path::new("/run/systemd/system").is_dir();
    let (message, hint) = match (scope, error) {
        (_, ToolError::Missing { .. }) => (
            "this system has no systemd",
            "have what starts programs here run `panorama-gateway start --foreground`; \
             `service install --dry-run` prints a unit file",
        ),
        (_, ToolError::Refused { .. }) if !has_systemd => (
            "systemd does not run on this system",
            "have what starts programs here (a container's entry point, say) run \
             `panorama-gateway start --foreground`; `service install --dry-run` prints a unit file",
        ),
        (Scope::User, ToolError::Refused { .. }) => (
            "this user's systemd does not answer",
            "log in as this user (ssh, not su or sudo), or use `sudo … service install --system`",
        ),
        (Scope::System { .. }, ToolError::Refused { .. }) => {
            ("systemd does not answer", "see `systemctl status`")
        }
    };
    Failure::of(error).context(message).hint(hint)
}
