//! `sandbox …`: the embedded control plane and its admin calls.

pub(crate) mod args;
mod cancel;
mod code;
mod conversation;
pub(crate) mod drive;
mod follow;
mod jobs;
mod model_run;
mod outcome;
mod serve;
mod subagent;
mod submit;
mod team;
mod up;
mod vm;

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use self::args::{Common, SandboxCommand, SecretCommand, SubmitCommand};
use super::asynchronous;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use crate::config::Purpose;
use crate::sandbox::{AdminClient, AdminClientError, Server, ServerError};

/// Where a sandbox listens unless told otherwise.
pub(crate) const LISTEN: &str = "127.0.0.1:54321";
/// The exit status of what Ctrl-C ended, or an operator.
const INTERRUPTED: u8 = 130;

/// Runs the command.
pub(crate) fn run(context: &Context, command: &SandboxCommand) -> Outcome {
    match command {
        SandboxCommand::Up(args) => up::run(context, args),
        SandboxCommand::Serve(args) => serve::run(context, args),
        SandboxCommand::Code(args) => asynchronous::short(code::run(context, args))?,
        SandboxCommand::Submit(SubmitCommand::ShellExec(args)) => {
            asynchronous::short(submit::shell_exec(context, args))?
        }
        SandboxCommand::Submit(SubmitCommand::ModelRun(args)) => {
            asynchronous::short(model_run::submit(context, args))?
        }
        SandboxCommand::Submit(SubmitCommand::Subagent(args)) => {
            asynchronous::short(subagent::submit(context, args))?
        }
        SandboxCommand::Submit(SubmitCommand::Diagnostic(args)) => {
            asynchronous::short(submit::diagnostic(context, args))?
        }
        SandboxCommand::Jobs(args) => asynchronous::short(jobs::list(context, args))?,
        SandboxCommand::Job(args) => asynchronous::short(jobs::show(context, args))?,
        SandboxCommand::Cancel(args) => asynchronous::short(cancel::run(context, args))?,
        SandboxCommand::Gateways(args) => asynchronous::short(team::gateways(context, args))?,
        SandboxCommand::Drive(command) => asynchronous::short(drive::run(context, command))?,
        SandboxCommand::FullControl(args) => {
            asynchronous::short(team::full_control(context, args))?
        }
        SandboxCommand::VmToken(args) => asynchronous::short(vm::token(context, args))?,
        SandboxCommand::Secret(SecretCommand::Add(args)) => {
            asynchronous::short(vm::add_secret(context, args))?
        }
        SandboxCommand::Secret(SecretCommand::Rm(args)) => {
            asynchronous::short(vm::remove_secret(context, args))?
        }
        SandboxCommand::Secret(SecretCommand::Ls(args)) => {
            asynchronous::short(vm::secrets(context, args))?
        }
    }
}

/// Absolute.
fn data_dir(context: &Context, common: &Common) -> Result<PathBuf, Failure> {
    match &common.data_dir {
        Some(dir) => std::path::absolute(dir)
            .map_err(|error| Failure::usage("--data-dir is not a path").cause(error.to_string())),
        None => Ok(context.paths(Purpose::Start)?.dir.join("sandbox")),
    }
}

/// The admin API of the sandbox that runs on this data dir.
async fn client(context: &Context, common: &Common) -> Result<AdminClient, Failure> {
    let data_dir = data_dir(context, common)?;
    AdminClient::find(&data_dir).await?.ok_or_else(|| {
        Failure::new(format!("no sandbox runs on {}", data_dir.display()))
            .hint("start one with `panorama-gateway sandbox up`, or name its --data-dir")
    })
}

/// Keeps a server's secrets out of what is printed, and gives its admin API.
fn client_of(context: &Context, server: &Server) -> AdminClient {
    context.redactor.add_secret(server.admin_token().expose_secret());
    AdminClient::new(server.url(), server.admin_token().clone())
}

fn log_filter(context: &Context) -> &str {
    context.environment.get("PANORAMA_GATEWAY_LOG").unwrap_or("info")
}

fn show_path(path: &Path) -> String {
    path.display().to_string()
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let hint = error.hint();
        let already = matches!(error, ServerError::AlreadyRunning { .. });
        Self::of(&error).hint(hint).exit(if already { Exit::AlreadyRunning } else { Exit::Failed })
    }
}

impl From<AdminClientError> for Failure {
    fn from(error: AdminClientError) -> Self {
        let failure = Self::of(&error);
        match &error {
            AdminClientError::Refused { code, .. } if code == "no_gateway" => {
                Self::new("no gateway is paired with this sandbox")
                    .hint("`panorama-gateway sandbox code` makes a code and prints how to use it")
            }
            AdminClientError::Refused { code, .. } => match code.as_str() {
                "job_not_found" => failure.hint("`panorama-gateway sandbox jobs` lists them"),
                "gateway_not_found" => {
                    failure.hint("`panorama-gateway sandbox gateways` lists them")
                }
                "secret_not_found" => {
                    failure.hint("`panorama-gateway sandbox secret ls` lists them")
                }
                "subagent_not_found" => {
                    failure.hint("`panorama-gateway sandbox job` shows which a job is about")
                }
                "subagent_is_running" => {
                    failure.hint("wait for it, or `panorama-gateway sandbox cancel` it")
                }
                "job_is_over" | "run_not_running" => {
                    failure.hint("there is nothing to call off: `panorama-gateway sandbox jobs`")
                }
                "version_conflict" | "not_empty" | "parent_missing" | "drive_not_found" => {
                    failure.hint("`panorama-gateway sandbox drive ls` shows what is there")
                }
                _ => failure.hint("correct the request; the sandbox's log says more"),
            },
            AdminClientError::Client(_) => failure,
            AdminClientError::Unreachable { .. } | AdminClientError::Contract(_) => {
                failure.hint("see whether it still runs: `panorama-gateway sandbox gateways`")
            }
            AdminClientError::Damaged { .. }
            | AdminClientError::Fs(_)
            | AdminClientError::Secrets(_) => {
                failure.hint("repair the file, or start a sandbox on another --data-dir")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        for code in [
            "no_gateway",
            "gateway_not_found",
            "job_not_found",
            "job_is_over",
            "secret_not_found",
            "subagent_not_found",
            "subagent_is_running",
            "run_not_running",
            "other",
        ] {
            let failure = Failure::from(AdminClientError::Refused {
                status: 400,
                code: code.to_owned(),
                message: "refused".to_owned(),
                job: None,
            });
            assert!(failure.hint.is_some(), "{code}");
        }
    }

    #[test]
    fn a_second_server_is_an_error_of_its_own() {
        let error = ServerError::AlreadyRunning { data_dir: "/data".into() };
        assert_eq!(Failure::from(error).exit, Exit::AlreadyRunning);
    }
}
