//! Restart on upgrade, as far as the command line goes: how a gateway is started once more, and how
//! one that was started so takes over.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::background;
use super::context::Context;
use super::start::is_run_by_cargo;
use crate::config::{Environment, Settings, Source};
use crate::observe::logging::LogHandle;
use crate::runtime::upgrade::{Installation, Relaunch, TAKES_OVER, standby};
use crate::runtime::{Gateway, GatewayOptions, StartError};

/// Takes the marker out of a command line; the umask that it carries.
pub(crate) fn take_marker(words: &mut Vec<OsString>) -> Option<u32> {
    background::take_umask(words, TAKES_OVER)
}

/// The line to the old process, which came as our standard input; nobody else gets it.
pub(crate) fn line() -> Option<Arc<OwnedFd>> {
    let line = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    let null = std::fs::File::open("/dev/null").ok()?;
    nix::unistd::dup2_stdin(null.as_fd()).ok()?;
    Some(Arc::new(line))
}

/// Where this program is installed.
pub(crate) fn installation(
    words: &[OsString],
    executable: &Path,
    environment: &Environment,
) -> Option<Installation> {
    let called = words.first().map_or(executable.as_os_str(), OsString::as_os_str);
    Installation::find(called, executable, environment.get("PATH").map(OsStr::new)).ok()
}

/// How this gateway is started once more; `None` where it is not to be.
pub(crate) fn relaunch(context: &Context, settings: &Settings) -> Option<Arc<Relaunch>> {
    let manifest_dir = context.environment.get("CARGO_MANIFEST_DIR").map(Path::new);
    let by_cargo = is_run_by_cargo(&context.executable, manifest_dir);
    if !is_on(settings, by_cargo) {
        return None;
    }
    Some(Arc::new(Relaunch {
        installation: context.installation.clone()?,
        args: arguments(context, settings),
        variables: variables(context, settings),
        umask: context.caller_umask,
        is_daemon: context.detached,
    }))
}

/// A binary that is being developed changes all the time.
fn is_on(settings: &Settings, by_cargo: bool) -> bool {
    settings.auto_restart.value && (!by_cargo || settings.auto_restart.source != Source::Default)
}

/// Those of `start`; a `pair` that went on as a gateway cannot be repeated.
fn arguments(context: &Context, settings: &Settings) -> Vec<OsString> {
    if context.detached {
        return background::child_arguments(context, settings);
    }
    let mut words = vec!["start".into(), "--foreground".into()];
    words.extend(background::carried_options(context, settings));
    words
}

/// What an env file gave that cannot be read twice, and a key that was given as an argument.
fn variables(context: &Context, settings: &Settings) -> Vec<(OsString, OsString)> {
    let mut variables = Vec::new();
    if settings.env_file.is_some() && background::env_file_to_read_again(settings).is_none() {
        let all = settings.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
        variables.extend(all);
        // Empty is unset.
        variables.extend(background::ASK_FOR_ENV_FILE.map(|name| (name.into(), "".into())));
    }
    if let Some(key) = &context.options.anon_key {
        variables.push(("PANORAMA_SUPABASE_ANON_KEY".into(), key.into()));
    }
    variables
}

/// A gateway that may begin: at once, or when the old one hands over. `None`: another one runs.
pub(crate) async fn prepare(
    context: &Context,
    options: GatewayOptions,
    log: &LogHandle,
) -> Result<Option<Gateway>, StartError> {
    let Some(line) = &context.takes_over else { return Gateway::prepare(options).map(Some) };
    let line = line.try_clone().context("use the line to the old process")?;
    let gateway = standby::wait(options, UnixStream::from(line)).await;
    // The old process may have rotated it meanwhile.
    log.reopen();
    gateway
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GlobalOptions, Purpose};

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let dir = tempfile::tempdir().unwrap();
        let options =
            GlobalOptions { config_dir: Some(dir.path().join("g")), ..GlobalOptions::default() };
        let environment = Environment::from_pairs(pairs.iter().copied());
        Settings::resolve(&options, environment, Purpose::Start).unwrap()
    }

    #[test]
    fn it_is_on_unless_switched_off_or_under_cargo() {
        for (pairs, by_cargo, on) in [
            (&[][..], false, true),
            (&[], true, false),
            (&[("PANORAMA_GATEWAY_AUTO_RESTART", "1")], true, true),
            (&[("PANORAMA_GATEWAY_AUTO_RESTART", "0")], false, false),
            (&[("PANORAMA_GATEWAY_AUTO_RESTART", "0")], true, false),
        ] {
            assert_eq!(is_on(&settings(pairs), by_cargo), on, "{pairs:?} {by_cargo}");
        }
    }

    #[test]
    fn the_marker_carries_the_umask() {
        let mut words: Vec<OsString> =
            ["x", "start", "--taking-over=022", "--detached-child=027"].map(Into::into).to_vec();
        assert_eq!(take_marker(&mut words), Some(0o22));
        assert_eq!(background::take_marker(&mut words), Some(0o27));
        assert_eq!(words, ["x", "start"].map(OsString::from));
    }
}
