//! `start`: decides where the gateway runs, and sends it there.

use std::path::Path;

use super::args::StartArgs;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::guest::{self, Kind};
use super::instance::Instance;
use super::{background, foreground};
use crate::config::Purpose;
use crate::runtime::StartError;
use crate::runtime::notify::ServiceManager;

/// Where a gateway runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this process.
    Foreground,
    /// In a process of its own.
    Background,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &StartArgs) -> Outcome {
    if context.detached {
        return background::child(context);
    }
    let settings = context.settings(Purpose::Start)?;
    if context.takes_over.is_some() {
        return foreground::run(context, settings);
    }
    let (kind, running) = guest::prepare(context, &settings, args)?;
    if let Some(Instance::Running { pid, .. }) = running {
        return already_running(context, pid);
    }
    if !context.saved(&settings)?.is_paired() {
        return Err(Failure::not_paired());
    }
    settings.backend(Purpose::Start)?;
    if let Instance::Running { pid, .. } = Instance::find(&settings.paths) {
        return already_running(context, pid);
    }
    let manifest_dir = context.environment.get("CARGO_MANIFEST_DIR").map(Path::new);
    if kind == Kind::Guest {
        return foreground::run(context, settings);
    }
    match place(args, &context.executable, manifest_dir) {
        Place::Foreground => foreground::run(context, settings),
        Place::Background => background::run(context, &settings),
    }
}

/// That one runs already is what `start` is for, unless a service manager wants one of its own: it
/// must see that it has none, and try again.
pub(crate) fn already_running(context: &Context, pid: Option<i32>) -> Outcome {
    if ServiceManager::from_environment(&context.environment).is_there() {
        return Err(StartError::AlreadyRunning { pid }.into());
    }
    let who = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    context.ui.out(&format!("The gateway is already running{who}."))?;
    Ok(Exit::Done)
}

/// `cargo run` has built it: it lies in the `target/` of the manifest's directory.
pub(crate) fn is_run_by_cargo(executable: &Path, manifest_dir: Option<&Path>) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    manifest_dir.is_some_and(|dir| real(executable).starts_with(real(dir).join("target")))
}

/// Flags decide; else a binary that `cargo run` built stays in the foreground.
pub(crate) fn place(args: &StartArgs, executable: &Path, manifest_dir: Option<&Path>) -> Place {
    let by_cargo = is_run_by_cargo(executable, manifest_dir);
    match (args.foreground, args.daemon) {
        (true, _) => Place::Foreground,
        (_, true) => Place::Background,
        _ if by_cargo => Place::Foreground,
        _ => Place::Background,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_gateway() {
        let flags = |foreground, daemon| StartArgs { foreground, daemon, ..StartArgs::default() };
        let built = Path::new("/src/target/debug/panorama-gateway");
        let cargo = Some(Path::new("/src"));
        for (args, executable, manifest_dir, wanted) in [
            (flags(false, false), built, cargo, Place::Foreground),
            (flags(false, true), built, cargo, Place::Background),
            (flags(true, false), Path::new("/usr/bin/x"), None, Place::Foreground),
            (flags(false, false), Path::new("/usr/bin/x"), None, Place::Background),
            (flags(false, false), Path::new("/usr/bin/x"), cargo, Place::Background),
            (flags(false, false), Path::new("/src/target2/x"), cargo, Place::Background),
            (flags(false, false), built, None, Place::Background),
        ] {
            assert_eq!(place(&args, executable, manifest_dir), wanted, "{executable:?}");
        }
    }
}
