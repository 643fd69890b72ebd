//! The grammar of `sandbox …`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::drive::args::DriveCommand;
use crate::model::JobStatus;
use crate::providers::ProviderId;

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// A backend and a paired gateway, running in this terminal
    Up(UpArgs),
    /// The backend alone; other gateways pair with it
    Serve(ServeArgs),
    /// Make a pairing code
    Code(CodeArgs),
    /// Submit a job
    #[command(subcommand, arg_required_else_help = true)]
    Submit(SubmitCommand),
    /// List jobs, newest first
    Jobs(JobsArgs),
    /// Show a job
    Job(JobArgs),
    /// Call a job or a subagent's run off
    Cancel(CancelArgs),
    /// List gateways
    Gateways(GatewaysArgs),
    /// Files that the team's VMs mirror
    #[command(subcommand, arg_required_else_help = true)]
    Drive(DriveCommand),
    /// The team's toggle of machine control
    FullControl(FullControlArgs),
    /// Make a bootstrap token for a managed VM
    VmToken(VmTokenArgs),
    /// Secrets that jobs in managed VMs may name
    #[command(subcommand, arg_required_else_help = true)]
    Secret(SecretCommand),
}

/// Which sandbox, and how to answer.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Where the sandbox keeps its data [default: sandbox in the config dir]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Answer in JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub common: Common,
    /// Run this command as a job, exit as it did, and stop everything
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
    /// Where to listen; port 0 takes any [default: 127.0.0.1:54321, with --exec 127.0.0.1:0]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Mirror the sandbox's drives into this folder, to try drive sync; a drive is made if there is
    /// none
    #[arg(long, value_name = "DIR", conflicts_with = "exec")]
    pub drive_sync: Option<PathBuf>,
    /// Keep everything in a temporary directory that is removed at the end
    #[arg(long, conflicts_with = "data_dir")]
    pub ephemeral: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub common: Common,
    /// Where to listen; port 0 takes any
    #[arg(long, value_name = "ADDRESS", default_value = super::LISTEN)]
    pub listen: SocketAddr,
    /// Listen where other machines reach it
    #[arg(long)]
    pub allow_remote: bool,
    /// Delete jobs, runs and events that are so many days old; 0 keeps all
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub keep_jobs: u16,
}

#[derive(Debug, Args)]
pub(crate) struct CodeArgs {
    // `--device-name` is one of the global options: it names the gateway that will use the code.
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SubmitCommand {
    /// A shell command on the gateway's machine
    ShellExec(ShellExecArgs),
    /// One answer of a model, by an agent CLI on the gateway's machine
    ModelRun(ModelRunArgs),
    /// A coding agent on the gateway's machine: a new one, or another prompt for one
    Subagent(SubagentArgs),
    /// A check of the gateway
    Diagnostic(DiagnosticArgs),
}

/// What all kinds of jobs take.
#[derive(Debug, Clone, Args)]
pub(crate) struct SubmitCommon {
    #[command(flatten)]
    pub common: Common,
    /// The gateway that is to run it [default: the one that was seen last]
    #[arg(long, value_name = "ID")]
    pub gateway: Option<String>,
    /// Wait for the end, print the command's output, exit as it did
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShellExecArgs {
    #[command(flatten)]
    pub submit: SubmitCommon,
    /// The remote-shell resource [default: the gateway's, made when there is none]
    #[arg(long, value_name = "ID")]
    pub resource_id: Option<String>,
    /// The time limit in milliseconds [default: 30000]
    #[arg(long, value_name = "N")]
    pub timeout_ms: Option<u64>,
    /// In a managed VM, set this variable to the placeholder of a secret; may be repeated
    #[arg(long, value_name = "VARIABLE=SECRET", value_parser = secret_env)]
    pub secret_env: Vec<(String, String)>,
    /// One word is a line of shell; several are a command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ModelRunArgs {
    #[command(flatten)]
    pub submit: SubmitCommon,
    /// The model [default: the provider's own]
    #[arg(long, value_name = "NAME", default_value = "__default__", hide_default_value = true)]
    pub model: String,
    /// Who answers [default: by the model's name]
    #[arg(long, value_name = "PROVIDER", value_parser = provider)]
    pub provider: Option<ProviderId>,
    /// Answer in plain text [default, unless there is a schema]
    #[arg(long, conflicts_with = "schema")]
    pub text: bool,
    /// Answer with a JSON object under this schema
    #[arg(long, value_name = "FILE|JSON")]
    pub schema: Option<String>,
    /// A system text
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// How hard to think: low, medium or high
    #[arg(long, value_name = "EFFORT", value_parser = ["low", "medium", "high"],
          hide_possible_values = true)]
    pub effort: Option<String>,
    /// The time limit in milliseconds [default: 110000]
    #[arg(long = "timeout", visible_alias = "timeout-ms", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout_ms: Option<u64>,
    /// The prompt; without one, or with `-`, it is read from stdin
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SubagentArgs {
    #[command(flatten)]
    pub submit: SubmitCommon,
    /// Show the conversation as it happens; exit 0, 1 (failed) or 130 (cancelled)
    #[arg(long, conflicts_with = "wait")]
    pub follow: bool,
    /// Which agent: claude, codex or gemini [default: claude]
    #[arg(long = "type", value_name = "AGENT", value_parser = provider)]
    pub kind: Option<ProviderId>,
    /// Go on with this subagent; options that are left out stay as they were
    #[arg(long = "continue", value_name = "SUBAGENT_ID", conflicts_with_all = ["kind", "gateway"])]
    pub continued: Option<String>,
    /// The model [default: the agent's own]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Ask for machine control; host and team must allow it
    #[arg(long)]
    pub full_control: bool,
    /// The form of the answer: text, json or stream-json
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json", "stream-json"],
          hide_possible_values = true)]
    pub output_format: Option<String>,
    /// The tools that it may use, e.g. Read,WebSearch
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    pub allowed_tools: Vec<String>,
    /// A system text
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// The time limit in milliseconds [default: 30 minutes]
    #[arg(long = "timeout", visible_alias = "timeout-ms", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout_ms: Option<u64>,
    /// The prompt; without one, or with `-`, it is read from stdin
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DiagnosticArgs {
    #[command(flatten)]
    pub submit: SubmitCommon,
    /// Have every agent CLI answer a prompt, too
    #[arg(long)]
    pub validate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    pub common: Common,
    /// Only jobs with this status
    #[arg(long, value_name = "STATUS", value_parser = job_status)]
    pub status: Option<JobStatus>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    pub common: Common,
    /// The job
    pub id: String,
    /// Wait for its end; of a subagent's run show the conversation
    #[arg(long)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub common: Common,
    /// The job, or the subagent
    pub id: String,
}

#[derive(Debug, Args)]
pub(crate) struct GatewaysArgs {
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct FullControlArgs {
    #[command(flatten)]
    pub common: Common,
    /// The gateway [default: the one that was seen last]
    #[arg(long, value_name = "ID")]
    pub gateway: Option<String>,
    /// Allow or forbid
    #[arg(value_enum, value_name = "ACTION")]
    pub action: TeamToggle,
}

#[derive(Debug, Args)]
pub(crate) struct VmTokenArgs {
    #[command(flatten)]
    pub common: Common,
    /// The VM, made when there is none of that id [default: a new one]
    #[arg(long, value_name = "ID")]
    pub vm: Option<String>,
    /// How long the token can be used, e.g. 10m, 2h, 1d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = crate::cli::args::age)]
    pub expires_in: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Let jobs ask for a placeholder for this secret; its value is not kept here
    Add(SecretNameArgs),
    /// Forget a secret
    #[command(visible_alias = "remove")]
    Rm(SecretNameArgs),
    /// List the names
    #[command(visible_alias = "list")]
    Ls(SecretsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SecretNameArgs {
    #[command(flatten)]
    pub common: Common,
    /// The secret's name
    pub name: String,
}

#[derive(Debug, Args)]
pub(crate) struct SecretsArgs {
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TeamToggle {
    #[value(alias = "enable", alias = "true")]
    On,
    #[value(alias = "disable", alias = "false")]
    Off,
}

fn provider(word: &str) -> Result<ProviderId, String> {
    let of_command = || ProviderId::ALL.into_iter().find(|id| id.command() == word);
    ProviderId::parse(word)
        .or_else(of_command)
        .ok_or_else(|| "use claude_code, codex or gemini".to_owned())
}

fn job_status(word: &str) -> Result<JobStatus, String> {
    JobStatus::parse(word)
        .ok_or_else(|| "use queued, running, completed, failed or cancelled".to_owned())
}

/// `VARIABLE=SECRET`, a job's variable and the name of the secret whose placeholder it is to hold.
fn secret_env(word: &str) -> Result<(String, String), String> {
    match word.split_once('=') {
        Some((variable, secret)) if !variable.is_empty() && !secret.is_empty() => {
            Ok((variable.to_owned(), secret.to_owned()))
        }
        _ => Err("use VARIABLE=SECRET, like TOKEN=deploy-key".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_and_its_secret() {
        assert_eq!(secret_env("KEY=a=b"), Ok(("KEY".to_owned(), "a=b".to_owned())));
        for word in ["KEY", "KEY=", "=deploy-key", ""] {
            assert!(secret_env(word).is_err(), "{word}");
        }
    }
}
