//! What the service shall run, from the options of `service install`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::{User, getuid};

use crate::cli::args::ServiceInstallArgs;
use crate::cli::background::{carried_options, env_file_to_read_again};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::config::{Environment, Paths, Purpose};
use crate::service::{self, Description, Scope};

/// Variables whose meaning goes into the service's arguments.
const CARRIED: [&str; 11] = [
    "PANORAMA_GATEWAY_CONFIG_DIR",
    "PANORAMA_GATEWAY_CONFIG_PATH",
    "PANORAMA_GATEWAY_LOG_PATH",
    "PANORAMA_GATEWAY_PID_PATH",
    "PANORAMA_ENV",
    "PANORAMA_ENV_FILE",
    "PANORAMA_ENV_PATH",
    "PANORAMA_CLAUDE_CLI",
    "PANORAMA_CODEX_CLI",
    "PANORAMA_GEMINI_CLI",
    // Saved by `pair`.
    "PANORAMA_GATEWAY_DEVICE_NAME",
];

/// The service, and where its gateway keeps its files.
pub(super) struct Described {
    pub(super) description: Description,
    pub(super) paths: Paths,
    pub(super) is_paired: bool,
}

/// Looks at options, settings and user.
pub(super) fn describe(context: &Context, args: &ServiceInstallArgs) -> Result<Described, Failure> {
    if context.options.anon_key.is_some() {
        return Err(Failure::usage("a service file is no place for a key")
            .hint("pair with it, or name an env file that has it: `--env-file PATH`"));
    }
    warn_of_variables(context);
    let owner = owner(context, args)?;
    match &owner {
        Some(user) if user.uid != getuid() => described_for(context, user),
        _ => described(context, owner.map(|user| user.name)),
    }
}

/// A gateway in the background has the variables of its shell; a service has not.
fn warn_of_variables(context: &Context) {
    let ours = |name: &str| name.starts_with("PANORAMA_") && !CARRIED.contains(&name);
    let names = context.environment.iter().filter_map(|(name, _)| name.to_str());
    let unseen: Vec<_> = names.filter(|name| ours(name)).collect();
    if !unseen.is_empty() {
        context.ui.warn(&format!("the service will not see {}", unseen.join(", ")));
        context.ui.note("put them into an env file, and name it here: `--env-file PATH`");
    }
}

/// Whom a service of the machine runs as; `None` for a user's own.
fn owner(context: &Context, args: &ServiceInstallArgs) -> Result<Option<User>, Failure> {
    let sudo_user = context.environment.get("SUDO_USER").filter(|name| *name != "root");
    if !args.scope.system {
        return match sudo_user {
            Some(_) if getuid().is_root() => {
                Err(Failure::usage("under sudo, this would be a service of root's")
                    .hint("leave out sudo, or add --system for a service of the machine"))
            }
            _ => Ok(None),
        };
    }
    let own = || (!getuid().is_root()).then(|| User::from_uid(getuid()).ok().flatten()).flatten();
    let name = match args.run_as.as_deref().or(sudo_user) {
        Some(name) => name.to_owned(),
        None => own().map(|user| user.name).ok_or_else(|| {
            Failure::usage("whom shall the gateway and its jobs run as?").hint(
                "say `--run-as USER`: best a user of its own; with root, jobs may do anything",
            )
        })?,
    };
    match User::from_name(&name) {
        Ok(Some(user)) => Ok(Some(user)),
        Ok(None) => Err(Failure::usage(format!("there is no user {name}"))),
        Err(error) => {
            Err(Failure::new(format!("could not look up the user {name}")).cause(error.to_string()))
        }
    }
}

/// For whoever calls: all settings can be looked at.
fn described(context: &Context, system_user: Option<String>) -> Result<Described, Failure> {
    let settings = context.settings(Purpose::Look)?;
    if let Some(file) = &settings.env_file
        && env_file_to_read_again(&settings).is_none()
    {
        return Err(no_env_file(file.display()));
    }
    let is_paired = context.saved(&settings)?.is_paired();
    let scope = system_user.map_or(Scope::User, |user| Scope::System { user });
    let path = context.environment.path("PATH").map(PathBuf::into_os_string);
    Ok(Described {
        description: Description {
            scope,
            command: command(context, carried_options(context, &settings)),
            path: path.as_ref().and_then(absolute_only),
            umask: context.caller_umask,
            drain_limit: settings.drain_timeout.value,
        },
        is_paired,
        paths: settings.paths,
    })
}

/// For another user, whose config is not ours to open: the options as they were given, and the
/// places where that user's gateway finds its files.
fn described_for(context: &Context, user: &User) -> Result<Described, Failure> {
    let environment = environment_of(user);
    let options = &context.options;
    if let Some(file) = options.env_file.as_ref().filter(|file| !file.is_file()) {
        return Err(no_env_file(file.display()));
    }
    let mut words: Vec<OsString> = Vec::new();
    for (flag, path) in [
        ("--config-dir", &options.config_dir),
        ("--config-path", &options.config_path),
        ("--log-path", &options.log_path),
        ("--pid-path", &options.pid_path),
        ("--env-file", &options.env_file),
    ] {
        if let Some(path) = path {
            words.extend([flag.into(), absolute(path.as_os_str().to_owned())]);
        }
    }
    for (flag, text) in [
        ("--env", &options.env),
        ("--device-name", &options.device_name),
        ("--supabase-url", &options.supabase_url),
    ] {
        if let Some(text) = text {
            words.extend([flag.into(), text.into()]);
        }
    }
    for (flag, program) in [
        ("--claude-cli", &options.claude_cli),
        ("--codex-cli", &options.codex_cli),
        ("--gemini-cli", &options.gemini_cli),
    ] {
        if let Some(program) = program {
            let is_path = program.contains('/');
            let program = OsString::from(program);
            words.extend([flag.into(), if is_path { absolute(program) } else { program }]);
        }
    }
    if options.verbose {
        words.push("--verbose".into());
    }
    let paths = Paths::resolve(options, environment, Purpose::Look)?;
    Ok(Described {
        description: Description {
            scope: Scope::System { user: user.name.clone() },
            command: command(context, words),
            // What is in root's is not that user's.
            path: None,
            umask: context.caller_umask,
            drain_limit: None::<Duration>,
        },
        is_paired: paths.config_file.exists(),
        paths,
    })
}

/// As a service manager makes it for that user.
fn environment_of(user: &User) -> Environment {
    Environment::from_pairs([("HOME", user.dir.as_os_str())])
}

fn command(context: &Context, options: Vec<OsString>) -> Vec<OsString> {
    let called_as = std::env::args_os().next();
    let path = context.environment.path("PATH").map(PathBuf::into_os_string);
    let program = service::program(called_as.as_ref(), path, &context.executable);
    let mut words: Vec<OsString> = vec![program.into(), "start".into(), "--foreground".into()];
    words.extend(options);
    words
}

fn no_env_file(file: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{file} is no file that a service can read again"))
        .hint("name a regular file")
}

fn absolute(path: OsString) -> OsString {
    std::path::absolute(&path).map_or(path, PathBuf::into_os_string)
}

/// Relative entries would mean something else there.
fn absolute_only(path: &OsString) -> Option<OsString> {
    let entries = std::env::split_paths(path).filter(|entry| entry.is_absolute());
    std::env::join_paths(entries).ok().filter(|path| !path.is_empty())
}
