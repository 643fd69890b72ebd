//! The command line, files and variables of a subagent's run by Gemini CLI.

use serde_json::{Value, json};

use super::super::plan as shared;
use super::super::{Printing, flags};
use crate::providers::agent::{Access, AgentFormat, AgentRequest};
use crate::providers::{FirstSignal, Installed, OutputMode, Plan, PlanError};

/// The plan's own files: `@name` in a prompt must not put them into it, while what the agent writes
/// beside them can be read.
const IGNORE: &str = "/system.md\n/.gemini/\n/.geminiignore\n";

/// How to carry out the run.
pub(super) fn plan(request: &AgentRequest, installed: &Installed) -> Result<Plan, PlanError> {
    let system = system(request);
    let mut files = Vec::new();
    let env = shared::env(system.is_some());
    files.extend(system.map(|system| shared::file(shared::SYSTEM, system)));
    files.push(shared::file(shared::SETTINGS, settings(request).to_string()));
    files.push(shared::file(shared::IGNORED, IGNORE.to_owned()));
    let printing =
        if installed.has(flags::OUTPUT_FORMAT) { printing(request) } else { Printing::Text };
    let output = match printing {
        Printing::Events => OutputMode::Stream,
        Printing::Text | Printing::Json => OutputMode::Stdout,
    };
    Ok(Plan {
        program: installed.command.clone(),
        args: args(request, installed)?,
        env,
        files,
        stdin: request.prompt.clone(),
        output,
        time_limit: request.time_limit,
        stop: FirstSignal::TerminateGroup,
    })
}

/// The flags that let the agent do whatever its user may.
pub(super) fn full_control_flags(installed: &Installed) -> Option<&'static [&'static str]> {
    if installed.has(flags::APPROVAL_MODE) {
        Some(&["--approval-mode", "yolo"])
    } else if installed.has(flags::YOLO) {
        Some(&["--yolo"])
    } else {
        None
    }
}

/// How the CLI is to print, if it has a choice.
fn printing(request: &AgentRequest) -> Printing {
    match request.format {
        AgentFormat::Text => Printing::Text,
        _ if request.streams() => Printing::Events,
        AgentFormat::Unset | AgentFormat::Json | AgentFormat::Stream => Printing::Json,
    }
}

fn args(request: &AgentRequest, installed: &Installed) -> Result<Vec<String>, PlanError> {
    let mut args = Vec::new();
    if installed.has(flags::OUTPUT_FORMAT) {
        args.extend([shared::OUTPUT_FORMAT, printing(request).as_str()].map(str::to_owned));
    }
    args.extend(access(request.access, installed)?.iter().map(|&arg| arg.to_owned()));
    let model = model(request);
    shared::check_model(model)?;
    if let Some(model) = model.filter(|_| installed.has(flags::MODEL)) {
        args.extend(["--model", model].map(str::to_owned));
    }
    if installed.has(flags::EXTENSIONS) {
        for name in extensions(request)? {
            args.extend(["--extensions", name].map(str::to_owned));
        }
    }
    Ok(args)
}

fn model(request: &AgentRequest) -> Option<&str> {
    request.model.as_deref().filter(|model| !model.is_empty())
}

/// Without a flag for it, an agent without a terminal is offered neither a shell nor writing.
fn access(access: Access, installed: &Installed) -> Result<&'static [&'static str], PlanError> {
    match access {
        Access::Full => full_control_flags(installed)
            .ok_or_else(|| PlanError(super::NO_FULL_CONTROL.to_owned())),
        Access::Restricted if installed.has(flags::APPROVAL_MODE) => {
            Ok(&["--approval-mode", "plan"])
        }
        Access::Restricted => Ok(&[]),
    }
}

/// Those that are asked for; else none in a restricted run, and the user's own with full control.
fn extensions(request: &AgentRequest) -> Result<Vec<&str>, PlanError> {
    let names = request.extensions.iter().map(|name| name.trim()).filter(|name| !name.is_empty());
    let mut names: Vec<&str> = names.collect();
    if names.iter().any(|name| name.starts_with('-')) {
        return Err(PlanError("an extension's name does not start with a dash".to_owned()));
    }
    if names.is_empty() && request.access == Access::Restricted {
        names.push("none");
    }
    Ok(names)
}

/// In place of the CLI's own system prompt, which is about its tools and stays when there is no
/// other.
fn system(request: &AgentRequest) -> Option<String> {
    let given = [&request.system_prompt, &request.append_system_prompt].into_iter().flatten();
    let given = given.filter(|text| !text.trim().is_empty()).cloned();
    let parts: Vec<String> = given.chain(json_order(request)).collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

fn json_order(request: &AgentRequest) -> Option<String> {
    match (&request.json_schema, request.format) {
        (Some(schema), AgentFormat::Unset | AgentFormat::Json | AgentFormat::Stream) => {
            Some(shared::json_order(schema))
        }
        (None, AgentFormat::Json) => Some(
            "Answer with strict JSON and with nothing else: no prose, no comments, no code fence."
                .to_owned(),
        ),
        (_, AgentFormat::Text) | (None, AgentFormat::Unset | AgentFormat::Stream) => None,
    }
}

/// `.gemini/settings.json`. A restricted run is kept from the user's servers and hooks, which do
/// whatever they do.
fn settings(request: &AgentRequest) -> Value {
    let mut settings = json!({
        "general": shared::general(model(request), request.time_limit),
        "privacy": shared::privacy(),
        "context": { "fileFiltering": { "respectGeminiIgnore": true } },
    });
    if request.access == Access::Restricted {
        settings["mcp"] = json!({ "allowed": ["none"] });
        settings["hooksConfig"] = json!({ "enabled": false });
    }
    settings
}
