//! How Codex is called for a subagent.

use super::super::plan as shared;
use super::flags;
use crate::providers::agent::{Access, AgentFormat, AgentRequest};
use crate::providers::{FirstSignal, Installed, OutputMode, Plan, PlanError};

/// How hard to think when nothing is said.
const EFFORT: &str = "high";
/// Commands of the agent see no variable that looks like a key.
const NO_KEYS: &str = "shell_environment_policy.ignore_default_excludes=false";

/// The command line and the prompt of a request.
pub(super) fn plan(request: &AgentRequest, installed: &Installed) -> Result<Plan, PlanError> {
    let mut args = vec!["exec".to_owned()];
    args.extend(access(request.access, installed)?.map(str::to_owned));
    args.extend(shared::session_args(installed));
    let model = request.model.as_deref().filter(|model| !model.is_empty());
    args.extend(shared::model_args(model, installed)?);
    let keys = config(request, installed)?;
    if installed.has(flags::CONFIG) {
        args.extend(shared::config_args(keys));
    }
    let mut output = OutputMode::Stdout;
    if request.format != AgentFormat::Text {
        output = shared::stdout_mode(installed);
        args.extend(installed.has(flags::JSON).then(|| "--json".to_owned()));
    }
    args.push("-".to_owned());
    Ok(Plan {
        program: installed.command.clone(),
        args,
        env: Vec::new(),
        files: Vec::new(),
        stdin: prompt(request),
        output,
        time_limit: request.time_limit,
        stop: FirstSignal::Interrupt,
    })
}

/// The flags that let the agent do whatever its user may.
pub(super) fn full_control_flags(installed: &Installed) -> Option<&'static [&'static str]> {
    if installed.has(flags::BYPASS) {
        Some(&["--dangerously-bypass-approvals-and-sandbox"])
    } else if installed.has(flags::SANDBOX) {
        Some(&["--sandbox", "danger-full-access"])
    } else {
        None
    }
}

/// Flags for what the agent may do. One that cannot be kept from writing is not started.
fn access(
    access: Access,
    installed: &Installed,
) -> Result<impl Iterator<Item = &'static str> + use<>, PlanError> {
    let flags: Option<&[&str]> = match access {
        Access::Full => full_control_flags(installed),
        Access::Restricted if installed.has(flags::SANDBOX) => Some(&["--sandbox", "read-only"]),
        Access::Restricted if installed.has(flags::CONFIG) => Some(&[]),
        Access::Restricted => None,
    };
    let refusal = match access {
        Access::Full => super::NO_FULL_CONTROL,
        Access::Restricted => "this Codex CLI has neither --sandbox nor --config to restrict it by",
    };
    flags.map(|flags| flags.iter().copied()).ok_or_else(|| PlanError(refusal.to_owned()))
}

/// Settings of this run. An unknown key is warned about by Codex and has no effect.
fn config(request: &AgentRequest, installed: &Installed) -> Result<Vec<String>, PlanError> {
    let mut keys = vec![format!("model_reasoning_effort=\"{}\"", effort(request)?)];
    let full = request.access == Access::Full;
    if !full && !installed.has(flags::SANDBOX) {
        keys.push(shared::READ_ONLY.to_owned());
    }
    let search = full || request.allows_web_search();
    keys.extend(shared::tools(full, search, installed).map(str::to_owned));
    keys.extend(shared::QUIET.map(str::to_owned));
    keys.push(NO_KEYS.to_owned());
    Ok(keys)
}

/// The API decides which words there are; what is no word must not become a setting.
fn effort(request: &AgentRequest) -> Result<&str, PlanError> {
    let effort = request.effort.as_deref().map(str::trim).filter(|effort| !effort.is_empty());
    let effort = effort.unwrap_or(EFFORT);
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    if effort.chars().all(is_word) {
        Ok(effort)
    } else {
        Err(PlanError("the reasoning effort is no single word".to_owned()))
    }
}

/// What the agent is told, after what it is asked; and the answer's schema, since the one that
/// Codex takes by file must be strict, which is not asked of a caller.
fn prompt(request: &AgentRequest) -> String {
    let mut prompt = request.prompt.clone();
    let parts = [&request.system_prompt, &request.append_system_prompt].into_iter().flatten();
    for part in parts.filter(|part| !part.trim().is_empty()) {
        shared::append(&mut prompt, part);
    }
    if let Some(schema) =
        request.json_schema.as_ref().filter(|_| request.format != AgentFormat::Text)
    {
        shared::append(&mut prompt, &shared::order(schema));
    }
    prompt
}
