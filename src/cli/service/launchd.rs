//! `service` with launchd. Written by the manual; untested on macOS.

use super::describe::{Described, describe};
use super::{found, installed, look, needs_root, remove, say_gateway, scope_of, write};
use crate::cli::args::{ServiceInstallArgs, ServiceScopeArgs};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::instance::Instance;
use crate::config::Purpose;
use crate::service::launchd::{self, LABEL};
use crate::service::tool::{self, ToolError};
use crate::service::{Present, Scope};

/// Installs and starts; doing it again changes nothing.
pub(super) fn install(context: &Context, args: &ServiceInstallArgs) -> Outcome {
    let Described { description, paths, is_paired } = describe(context, args)?;
    let text = launchd::plist(&description)?;
    if args.dry_run {
        context.ui.out_raw(&text)?;
        return Ok(Exit::Done);
    }
    let scope = &description.scope;
    needs_root(scope)?;
    let file = found(launchd::file(scope, &context.environment))?;
    let before = look(&file)?;
    if !is_paired {
        return Err(Failure::not_paired().hint(
            "pair first (`panorama-gateway pair <CODE> --no-start`), then install the service",
        ));
    }
    let loaded = printed(scope).ok();
    let own = loaded.as_deref().and_then(pid);
    if before != Present::Ours(text.clone()) {
        write(&file, &text)?;
    }
    context.ui.out(&format!("Installed {}.", file.display()))?;
    let domain = launchd::domain(scope);
    match Instance::find(&paths) {
        Instance::Running { pid, .. } if own.is_none() || pid != own => {
            context.ui.warn("a gateway runs already, not as this service");
            context.ui.note(&format!(
                "the service starts with the next login or start of the machine; to have it now: \
                 `panorama-gateway stop --wait`, then `launchctl bootstrap {domain} {}`",
                file.display()
            ));
            return Ok(Exit::Done);
        }
        Instance::Running { .. } | Instance::Stopped { .. } => {}
    }
    if loaded.is_some() {
        context.ui.out("The service is loaded; changes count from its next start.")?;
        return Ok(Exit::Done);
    }
    tool::run("launchctl", &["enable", &format!("{domain}/{LABEL}")])?;
    tool::run("launchctl", &["bootstrap", &domain, &file.display().to_string()])?;
    context.ui.out("The service runs.")?;
    Ok(Exit::Done)
}

/// Stops and removes, but only what is ours.
pub(super) fn uninstall(context: &Context, args: &ServiceScopeArgs) -> Outcome {
    let scope = scope_of(args);
    let file = found(launchd::file(&scope, &context.environment))?;
    if look(&file)? == Present::Nothing {
        context.ui.out("The service is not installed.")?;
        return Ok(Exit::Done);
    }
    needs_root(&scope)?;
    if printed(&scope).is_ok() {
        tool::run("launchctl", &["bootout", &target(&scope)])?;
    }
    remove(&file)?;
    context.ui.out(&format!("Stopped and removed {}.", file.display()))?;
    Ok(Exit::Done)
}

/// From the manager, and from the gateway itself.
pub(super) fn status(context: &Context, args: &ServiceScopeArgs) -> Outcome {
    let scope = scope_of(args);
    let file = found(launchd::file(&scope, &context.environment))?;
    context.ui.out(&format!("installed  {}", installed(&file)))?;
    let printed = match printed(&scope) {
        Ok(printed) => Some(printed),
        Err(ToolError::Refused { .. }) => None,
        Err(error) => {
            return Err(Failure::of(&error).context("this system has no launchd"));
        }
    };
    let line = match &printed {
        None => "not loaded".to_owned(),
        Some(text) => {
            let state = launchd::property(text, "state").unwrap_or("unknown").to_owned();
            match launchd::property(text, "last exit code") {
                Some(code) => format!("{state}, last exit code {code}"),
                None => state,
            }
        }
    };
    context.ui.out(&format!("service    {line}"))?;
    let paths = context.paths(Purpose::Look)?;
    say_gateway(context, &Instance::find(&paths), printed.as_deref().and_then(pid))
}

fn target(scope: &Scope) -> String {
    format!("{}/{LABEL}", launchd::domain(scope))
}

fn printed(scope: &Scope) -> Result<String, ToolError> {
    tool::run("launchctl", &["print", &target(scope)])
}

fn pid(printed: &str) -> Option<i32> {
    launchd::property(printed, "pid")?.parse().ok()
}
