//! `service`: has systemd or launchd start the gateway and keep it running.

mod describe;
mod launchd;
mod systemd;

use std::path::{Path, PathBuf};

use super::args::{Manager, ServiceCommand, ServiceScopeArgs};
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::guest;
use super::instance::Instance;
use crate::service::tool::ToolError;
use crate::service::{self, Present, Scope, Unsayable};

/// Runs the command.
pub(crate) fn run(context: &Context, command: &ServiceCommand) -> Outcome {
    guest::refuse(context, "`service`", "the VM's own supervisor keeps the gateway running")?;
    let scope = match command {
        ServiceCommand::Install(args) => &args.scope,
        ServiceCommand::Uninstall(scope) | ServiceCommand::Status(scope) => scope,
    };
    match (manager(scope), command) {
        (Manager::Systemd, ServiceCommand::Install(args)) => systemd::install(context, args),
        (Manager::Systemd, ServiceCommand::Uninstall(scope)) => systemd::uninstall(context, scope),
        (Manager::Systemd, ServiceCommand::Status(scope)) => systemd::status(context, scope),
        (Manager::Launchd, ServiceCommand::Install(args)) => launchd::install(context, args),
        (Manager::Launchd, ServiceCommand::Uninstall(scope)) => launchd::uninstall(context, scope),
        (Manager::Launchd, ServiceCommand::Status(scope)) => launchd::status(context, scope),
    }
}

fn manager(scope: &ServiceScopeArgs) -> Manager {
    let own = if cfg!(target_os = "macos") { Manager::Launchd } else { Manager::Systemd };
    scope.manager.unwrap_or(own)
}

/// For commands that need no more than the place of the file.
fn scope_of(args: &ServiceScopeArgs) -> Scope {
    if args.system { Scope::System { user: String::new() } } else { Scope::User }
}

fn found(file: Option<PathBuf>) -> Result<PathBuf, Failure> {
    file.ok_or_else(|| {
        Failure::new("this user's home directory is not known").hint("set HOME, or use --system")
    })
}

/// The file of another's making at our place stays as it is.
fn look(path: &Path) -> Result<Present, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(format!("could not read {}", path.display())).cause(error.to_string())
    };
    match service::look(path).map_err(unreadable)? {
        Present::Foreign => Err(Failure::new(format!(
            "{} was not made by this program, and stays as it is",
            path.display()
        ))
        .hint("move it away, then try again")),
        present @ (Present::Nothing | Present::Ours(_)) => Ok(present),
    }
}

/// What `service status` says of the file.
fn installed(path: &Path) -> String {
    match look(path) {
        Ok(Present::Nothing) => "no".to_owned(),
        Ok(_) => path.display().to_string(),
        Err(_) => format!("{}, not made by this program", path.display()),
    }
}

/// Everything of the machine's is root's to change.
fn needs_root(scope: &Scope) -> Result<(), Failure> {
    match scope {
        Scope::System { .. } if !nix::unistd::getuid().is_root() => {
            Err(Failure::new("a service of the machine is root's to change")
                .hint("call it with sudo, or leave out --system for a service of your own"))
        }
        Scope::System { .. } | Scope::User => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    service::write(path, text).map_err(Into::into)
}

fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("could not remove {}", path.display()))
                .cause(error.to_string()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What the gateway itself says, for `service status`.
fn say_gateway(context: &Context, instance: &Instance, main_pid: Option<i32>) -> Outcome {
    let line = match instance {
        Instance::Stopped { .. } => "not running".to_owned(),
        Instance::Running { pid, live } => {
            let who = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            let phase = live.as_ref().map(|live| format!("{:?}", live.phase).to_lowercase());
            let whose = match (pid, main_pid) {
                (Some(pid), Some(main)) if *pid == main => "",
                _ => ", but not as this service",
            };
            format!("{}{who}{whose}", phase.unwrap_or_else(|| "running".to_owned()))
        }
    };
    context.ui.out(&format!("gateway    {line}"))?;
    Ok(Exit::Done)
}

impl From<Unsayable> for Failure {
    fn from(error: Unsayable) -> Self {
        let hint = match error {
            Unsayable::Program(_) => "install the program at a plain path, e.g. /usr/local/bin",
            Unsayable::Text(_) => "use a plain path or name for it",
        };
        Self::of(&error).hint(hint)
    }
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        Self::of(&error)
    }
}
