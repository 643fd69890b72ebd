//! The command line, files and variables of a model run with Gemini CLI.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Printing, flags};
use crate::providers::{
    FirstSignal, Format, Installed, ModelRequest, OutputMode, Plan, PlanError, PlanFile,
};

pub(super) const OUTPUT_FORMAT: &str = "--output-format";
/// Without it there are two node processes, of which the outer one is deaf to SIGTERM.
pub(super) const NO_RELAUNCH: (&str, &str) = ("GEMINI_CLI_NO_RELAUNCH", "true");

/// It stands in place of the CLI's own system prompt.
pub(super) const SYSTEM: &str = "system.md";
/// `@name` in a prompt puts the file of that name into it, unless it is ignored. All are: the
/// plan's own files are the only ones, and a prompt must reach the model as it is.
const IGNORE: (&str, &str) = (IGNORED, "*\n");
/// Patterns of files that the CLI leaves out.
pub(super) const IGNORED: &str = ".geminiignore";
pub(super) const SETTINGS: &str = ".gemini/settings.json";

/// In place of the CLI's own system prompt, which is about tools and a repository.
const PLAIN: &str = "Answer the request. You have no tools and no files.";

/// The CLI never tries more often.
const MOST_ATTEMPTS: u32 = 10;
/// Its pauses between attempts, in seconds: the first, and the longest.
const PAUSE: (u64, u64) = (5, 30);
/// How long the router, which chooses the model when none is named, tries before the first attempt;
/// it has no switch.
const ROUTER: Duration = Duration::from_secs(85);

/// How to get one answer.
pub(super) fn plan(request: &ModelRequest, installed: &Installed) -> Result<Plan, PlanError> {
    let model = request.model.as_deref();
    check_model(model)?;
    Ok(Plan {
        program: installed.command.clone(),
        args: args(request, installed),
        env: env(true),
        files: vec![
            file(SYSTEM, system(request)),
            file(SETTINGS, settings(model, request.time_limit).to_string()),
            file(IGNORE.0, IGNORE.1.into()),
        ],
        stdin: request.prompt.clone(),
        output: OutputMode::Stdout,
        time_limit: request.time_limit,
        stop: FirstSignal::TerminateGroup,
    })
}

pub(super) fn file(path: &str, contents: String) -> PlanFile {
    PlanFile { path: path.into(), contents }
}

pub(super) fn check_model(model: Option<&str>) -> Result<(), PlanError> {
    if model.is_some_and(|model| model.starts_with('-')) {
        return Err(PlanError("a model's name does not start with a dash".into()));
    }
    Ok(())
}

fn args(request: &ModelRequest, installed: &Installed) -> Vec<String> {
    let printing = match request.format {
        Format::Text => Printing::Text,
        Format::Json { .. } => Printing::Json,
    };
    let flags = [
        (flags::OUTPUT_FORMAT, OUTPUT_FORMAT, Some(printing.as_str())),
        (flags::MODEL, "--model", request.model.as_deref()),
        // Their tools and texts are no part of a model run.
        (flags::EXTENSIONS, "--extensions", Some("none")),
    ];
    let passed = flags.into_iter().filter(|(key, ..)| installed.has(key));
    passed.filter_map(|(_, flag, value)| Some([flag.into(), value?.into()])).flatten().collect()
}

/// With a system prompt of ours, or the CLI's own.
///
/// `PATH` is not among them: whoever runs a plan puts the program's own directory first in it, so
/// that its `node` is found.
pub(super) fn env(system: bool) -> Vec<(String, String)> {
    let variables = [
        // A folder that is not trusted ends the run with exit code 55.
        ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
        NO_RELAUNCH,
        // Other terminals get warnings on stderr.
        ("TERM", "xterm-256color"),
        ("COLORTERM", "truecolor"),
    ];
    let system = system.then_some(("GEMINI_SYSTEM_MD", SYSTEM));
    let all = system.into_iter().chain(variables);
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The caller's system text and, for JSON, the order to answer by the schema.
fn system(request: &ModelRequest) -> String {
    let order = match &request.format {
        Format::Text => None,
        Format::Json { schema } => Some(json_order(schema)),
    };
    let parts: Vec<String> = request.system.clone().into_iter().chain(order).collect();
    if parts.is_empty() { PLAIN.into() } else { parts.join("\n\n") }
}

pub(super) fn json_order(schema: &Map<String, Value>) -> String {
    let schema = Value::Object(schema.clone());
    format!(
        "Answer with one strict JSON object that is valid under this JSON schema, and with nothing \
         else: no prose, no comments, no code fence.\n\n{schema}"
    )
}

/// `.gemini/settings.json`, which wins over the user's own. How to log in is not in it: that is the
/// user's choice, whether made in their settings or by a variable.
fn settings(model: Option<&str>, time_limit: Duration) -> Value {
    json!({
        "general": general(model, time_limit),
        "privacy": privacy(),
        "tools": { "core": [] },
        // The user's servers would be started first, and one that is silent is waited for.
        "mcp": { "allowed": ["none"] },
        "hooksConfig": { "enabled": false },
        "context": {
            "includeDirectoryTree": false,
            "fileFiltering": { "respectGeminiIgnore": true, "enableRecursiveFileSearch": false },
        },
    })
}

/// Settings of every run: no updates, and attempts that end in time.
pub(super) fn general(model: Option<&str>, time_limit: Duration) -> Value {
    json!({
        "enableAutoUpdate": false,
        "enableAutoUpdateNotification": false,
        "maxAttempts": max_attempts(model, time_limit),
    })
}

/// Settings of every run: nothing is told to anyone else.
pub(super) fn privacy() -> Value {
    json!({ "usageStatisticsEnabled": false })
}

/// As many attempts as leave at least half of the time to the attempts themselves, so that the CLI
/// gives up, and says why, before it is stopped.
fn max_attempts(model: Option<&str>, time_limit: Duration) -> u32 {
    let routing = if model.is_none() { ROUTER } else { Duration::ZERO };
    let time = time_limit.saturating_sub(routing) / 2;
    (2..=MOST_ATTEMPTS).take_while(|attempts| longest_pauses(*attempts) <= time).last().unwrap_or(1)
}

/// The pauses between so many attempts together. They double, and vary by up to 30 percent.
fn longest_pauses(attempts: u32) -> Duration {
    let pauses = (0..attempts.saturating_sub(1)).map(|pause| (PAUSE.0 << pause).min(PAUSE.1));
    Duration::from_millis(pauses.sum::<u64>() * 1300)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_bounded_by_the_time_limit() {
        let attempts = |model, seconds| max_attempts(model, Duration::from_secs(seconds));
        let named = [1, 12, 13, 30, 39, 110, 3600].map(|seconds| attempts(Some("m"), seconds));
        assert_eq!(named, [1, 1, 2, 2, 3, 4, 10]);
        let routed = [30, 85, 110, 3600].map(|seconds| attempts(None, seconds));
        assert_eq!(routed, [1, 1, 2, 10]);
    }
}
