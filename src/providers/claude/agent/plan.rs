//! How Claude Code is called for a run of a subagent.

use std::time::Duration;

use serde_json::json;

use crate::providers::agent::{Access, AgentFormat, AgentRequest, means_web_search};
use crate::providers::claude::call::{Draft, environment, fits, without_command};
use crate::providers::{FirstSignal, Installed, OutputMode, Plan, PlanError};

/// An agent makes many requests: none gets more of the run's time than this.
const REQUEST_TIME: Duration = Duration::from_mins(10);
const APPEND: &str = "--append-system-prompt";
const WEB_SEARCH: &str = "WebSearch";
const SHELL: &str = "Bash";
const BYPASS: &str = "bypassPermissions";

/// Whether permissions can be bypassed here.
pub(in crate::providers::claude) fn full_control(
    installed: &Installed,
    root: bool,
    guest: bool,
) -> Result<(), String> {
    let flags = ["permissionModeFlag", "dangerouslySkipPermissionsFlag"];
    if !flags.into_iter().any(|flag| installed.has(flag)) {
        return Err("this version of Claude Code has no flag for full control".to_owned());
    }
    // In a guest it is told that it is in a sandbox.
    if root && !guest {
        return Err(
            "Claude Code refuses full control to root: run the gateway as another user".to_owned()
        );
    }
    Ok(())
}

/// The call; the prompt goes by stdin.
pub(in crate::providers::claude) fn plan(
    request: &AgentRequest,
    installed: &Installed,
) -> Result<Plan, PlanError> {
    let mut draft = Draft::new(installed);
    let mut prompt = request.prompt.clone();
    let output = output(request, &mut draft);
    draft.optional("modelFlag", "--model", request.model.as_deref(), "model")?;
    tools(request, &mut draft)?;
    texts(request, &mut draft, &mut prompt)?;
    permissions(request, &mut draft)?;
    let budget = request.max_budget_usd.as_deref();
    draft.optional("maxBudgetFlag", "--max-budget-usd", budget, "max_budget_usd")?;
    draft.optional("betasFlag", "--betas", Some(&request.betas.join(",")), "betas")?;
    session(request, &mut draft)?;
    let stdin = input(request, &mut draft, &output, without_command(prompt))?;
    let mut env = environment(request.time_limit.min(REQUEST_TIME));
    if request.guest {
        // Else it refuses to bypass permissions as root.
        env.push(("IS_SANDBOX".to_owned(), "1".to_owned()));
    }
    Ok(Plan {
        program: installed.command.clone(),
        args: draft.args,
        env,
        files: draft.files,
        stdin,
        output,
        time_limit: request.time_limit,
        stop: FirstSignal::Interrupt,
    })
}

/// Events when they are wanted and known; what needs them to be whole lines needs `--verbose` too.
fn output(request: &AgentRequest, draft: &mut Draft<'_>) -> OutputMode {
    let word = if request.format == AgentFormat::Text {
        "text"
    } else if request.streams() && draft.installed.has("streamJsonFlag") {
        "stream-json"
    } else {
        "json"
    };
    draft.option("outputFormatFlag", "--output-format", word);
    if word == "stream-json" && draft.installed.has("outputFormatFlag") {
        draft.switch("verboseFlag", "--verbose");
        return OutputMode::Stream;
    }
    OutputMode::Stdout
}

fn tools(request: &AgentRequest, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    let mut allowed = named(request.allowed_tools.iter().flatten());
    let mut denied = named(&request.disallowed_tools);
    match request.access {
        Access::Restricted => {
            if allowed.is_empty() {
                allowed.push(WEB_SEARCH.to_owned());
            }
            // By itself it runs commands that it takes for harmless, and a command sees every
            // variable, keys included.
            let wanted = allowed.iter().any(|tool| tool.split('(').next() == Some(SHELL));
            if !wanted && !denied.iter().any(|tool| tool == SHELL) {
                denied.push(SHELL.to_owned());
            }
        }
        // The list of a restricted agent, not one that was chosen for this.
        Access::Full if allowed == [WEB_SEARCH] => allowed.clear(),
        Access::Full => {}
    }
    let (allowed, denied) = (allowed.join(","), denied.join(","));
    draft.optional("allowedToolsFlag", "--allowedTools", Some(&allowed), "allowed_tools")?;
    draft.optional("disallowedToolsFlag", "--disallowedTools", Some(&denied), "disallowed_tools")
}

/// Each tool once, by the CLI's name where it has another.
fn named<'a>(tools: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut named = Vec::new();
    for tool in tools.into_iter().map(|tool| tool.trim()).filter(|tool| !tool.is_empty()) {
        let tool = if means_web_search(tool) { WEB_SEARCH } else { tool };
        if !named.iter().any(|there| there == tool) {
            named.push(tool.to_owned());
        }
    }
    named
}

fn texts(
    request: &AgentRequest,
    draft: &mut Draft<'_>,
    prompt: &mut String,
) -> Result<(), PlanError> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let mut append = text(&request.append_system_prompt);
    if let Some(system) = text(&request.system_prompt) {
        let has = |flag| draft.installed.has(flag);
        match append.take() {
            // Two texts for one flag: it takes the last only.
            Some(more) if !has("systemPromptFlag") && has("appendSystemPromptFlag") => {
                append = Some(format!("{system}\n\n{more}"));
            }
            more => {
                draft.system(&system, prompt, "system_prompt")?;
                append = more;
            }
        }
    }
    if let Some(append) = append {
        if draft.installed.has("appendSystemPromptFlag") && fits(APPEND, &append) {
            draft.argument(APPEND, &append, "append_system_prompt")?;
        } else {
            *prompt = format!("{prompt}\n\n{append}");
        }
    }
    match &request.json_schema {
        Some(schema) => draft.schema(schema, prompt),
        None => Ok(()),
    }
}

fn permissions(request: &AgentRequest, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    let wanted = request.permission_mode.as_deref().map(str::trim);
    let mode = match request.access {
        Access::Restricted if wanted == Some(BYPASS) => {
            return Err(PlanError(format!("permission_mode {BYPASS} needs full control")));
        }
        Access::Full if wanted.is_none_or(|mode| matches!(mode, "" | "dontAsk")) => Some(BYPASS),
        Access::Restricted | Access::Full => wanted,
    };
    draft.optional("permissionModeFlag", "--permission-mode", mode, "permission_mode")?;
    match request.access {
        Access::Restricted => {
            draft.option("settingSourcesFlag", "--setting-sources", "local");
            draft.switch("disableSlashCommandsFlag", "--disable-slash-commands");
        }
        Access::Full => {
            draft.switch("dangerouslySkipPermissionsFlag", "--dangerously-skip-permissions");
        }
    }
    Ok(())
}

fn session(request: &AgentRequest, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    if request.no_session_persistence {
        draft.switch("noSessionPersistenceFlag", "--no-session-persistence");
    }
    match &request.resume {
        Some(_) if !draft.installed.has("resumeFlag") => Err(PlanError(
            "this version of Claude Code cannot continue a session: it has no --resume".to_owned(),
        )),
        // A session that goes on keeps its id.
        Some(id) => draft.argument("--resume", id, "resume_session_id"),
        None => {
            let id = request.session_id.as_deref();
            draft.optional("sessionIdFlag", "--session-id", id, "session_id")
        }
    }
}

/// What stands on stdin, in the form that `input_format` names.
fn input(
    request: &AgentRequest,
    draft: &mut Draft<'_>,
    output: &OutputMode,
    prompt: String,
) -> Result<String, PlanError> {
    match (request.input_format.as_deref(), AgentFormat::of(request.input_format.as_deref())) {
        (None | Some("text"), _) => {
            let format = request.input_format.as_deref();
            draft.optional("inputFormatFlag", "--input-format", format, "input_format")?;
            Ok(prompt)
        }
        (Some(_), AgentFormat::Stream) if !draft.installed.has("inputFormatFlag") => Ok(prompt),
        (Some(_), AgentFormat::Stream) if *output == OutputMode::Stream => {
            draft.option("inputFormatFlag", "--input-format", "stream-json");
            let message = json!({"role": "user", "content": prompt});
            Ok(format!("{}\n", json!({"type": "user", "message": message})))
        }
        (Some(_), AgentFormat::Stream) => {
            Err(PlanError("input_format stream-json needs output_format stream-json".to_owned()))
        }
        (Some(other), _) => {
            Err(PlanError(format!("input_format is {other:?}, not text or stream-json")))
        }
    }
}
