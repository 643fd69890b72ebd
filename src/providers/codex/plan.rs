//! How Codex is called for one answer.

use serde_json::{Map, Value};

use super::super::schema::{self, Reshaped};
use super::super::{
    FirstSignal, Format, Installed, ModelRequest, OutputMode, Plan, PlanError, PlanFile,
};
use super::flags;

/// Where the schema stands in the work dir.
const SCHEMA_FILE: &str = "schema.json";
/// Where the answer is to be written.
const ANSWER_FILE: &str = "output.json";
/// From this minor version on, 0.x knows the top-level key `web_search`.
const WEB_SEARCH_KEY_SINCE: u64 = 92;

/// The sandbox, for a Codex without a flag for it.
pub(super) const READ_ONLY: &str = "sandbox_mode=\"read-only\"";
/// Nothing but the API is asked, and that not for ever.
pub(super) const QUIET: [&str; 4] = [
    "features.plugins=false",
    "check_for_update_on_startup=false",
    "analytics.enabled=false",
    // Without it a run that finds no network waits for one until it is stopped.
    "features.unbounded_connection_retries=false",
];

/// The command line, the files and the prompt of a request.
pub(super) fn plan(request: &ModelRequest, installed: &Installed) -> Result<Plan, PlanError> {
    let schema = match &request.format {
        Format::Text => None,
        Format::Json { schema } => Some(checked(schema)?),
    };
    let by_file = installed.has(flags::OUTPUT_SCHEMA) && installed.has(flags::LAST_MESSAGE);
    let mut args = first_args(request, installed)?;
    let mut files = Vec::new();
    let mut output = stdout_mode(installed);
    let mut prompt = request.prompt.clone();
    if let Some(system) = &request.system {
        append(&mut prompt, system);
    }
    match schema {
        Some(reshaped) if by_file => {
            let strict = schema::strict(&reshaped.schema).map_err(refusal)?;
            files.push(PlanFile { path: SCHEMA_FILE.into(), contents: strict.to_string() });
            args.extend(["--output-schema", SCHEMA_FILE, "-o", ANSWER_FILE].map(String::from));
            output = OutputMode::File(ANSWER_FILE.into());
            if let Some(note) = reshaped.note {
                append(&mut prompt, note);
            }
        }
        Some(_) => {
            if let Format::Json { schema } = &request.format {
                append(&mut prompt, &order(schema));
            }
        }
        None => {}
    }
    args.push("-".into());
    Ok(Plan {
        program: installed.command.clone(),
        args,
        env: Vec::new(),
        files,
        stdin: prompt,
        output,
        time_limit: request.time_limit,
        stop: FirstSignal::Interrupt,
    })
}

/// Whether the plan prints events on stdout.
pub(super) fn prints_events(plan: &Plan) -> bool {
    plan.args.iter().any(|arg| arg == "--json")
}

/// Whether the plan gives Codex a schema of its own making.
pub(super) fn has_schema(plan: &Plan) -> bool {
    plan.files.iter().any(|file| file.path == SCHEMA_FILE)
}

/// What stdout holds when events are asked for.
pub(super) fn stdout_mode(installed: &Installed) -> OutputMode {
    if installed.has(flags::JSON) { OutputMode::Stream } else { OutputMode::Stdout }
}

fn checked(schema: &Map<String, Value>) -> Result<Reshaped, PlanError> {
    let schema = Value::Object(schema.clone());
    schema::check(&schema).map_err(refusal)?;
    Ok(schema::reshaped(&schema))
}

#[expect(clippy::needless_pass_by_value, reason = "it is for map_err")]
fn refusal(error: schema::SchemaError) -> PlanError {
    PlanError(error.to_string())
}

/// Everything but what the answer's form asks for.
fn first_args(request: &ModelRequest, installed: &Installed) -> Result<Vec<String>, PlanError> {
    let mut args = vec!["exec".to_owned()];
    if installed.has(flags::SANDBOX) {
        args.extend(["--sandbox", "read-only"].map(String::from));
    }
    args.extend(session_args(installed));
    args.extend(model_args(request.model.as_deref(), installed)?);
    if installed.has(flags::CONFIG) {
        args.extend(config_args(config(request, installed)));
    }
    if installed.has(flags::JSON) {
        args.push("--json".into());
    }
    Ok(args)
}

/// It runs in any folder, and leaves no session.
pub(super) fn session_args(installed: &Installed) -> impl Iterator<Item = String> {
    let flags = [(flags::SKIP_GIT, "--skip-git-repo-check"), (flags::EPHEMERAL, "--ephemeral")];
    flags.into_iter().filter(|(key, _)| installed.has(key)).map(|(_, flag)| flag.to_owned())
}

/// The model by its flag, when both are there.
pub(super) fn model_args(
    model: Option<&str>,
    installed: &Installed,
) -> Result<Vec<String>, PlanError> {
    match model.filter(|_| installed.has(flags::MODEL)) {
        Some(model) if model.starts_with('-') => {
            Err(PlanError("the model's name begins with a dash".into()))
        }
        Some(model) => Ok(vec!["--model".into(), model.into()]),
        None => Ok(Vec::new()),
    }
}

/// Each key behind its flag.
pub(super) fn config_args(keys: Vec<String>) -> impl Iterator<Item = String> {
    keys.into_iter().flat_map(|key| ["-c".to_owned(), key])
}

/// Settings of this run. An unknown key is warned about by Codex and has no effect.
fn config(request: &ModelRequest, installed: &Installed) -> Vec<String> {
    let mut keys = Vec::new();
    if let Some(effort) = request.effort {
        keys.push(format!("model_reasoning_effort=\"{}\"", effort.as_str()));
    }
    if !installed.has(flags::SANDBOX) {
        keys.push(READ_ONLY.into());
    }
    keys.extend(tools(false, false, installed).map(String::from));
    keys.extend(QUIET.map(String::from));
    keys
}

/// Whether it has a shell and web search. Each key of the latter is of no effect in versions that
/// want the other.
pub(super) fn tools(shell: bool, web_search: bool, installed: &Installed) -> [&'static str; 2] {
    let old = minor_of_zero(installed.version.as_deref())
        .is_some_and(|minor| minor < WEB_SEARCH_KEY_SINCE);
    let web_search = match (old, web_search) {
        (true, true) => "features.web_search_request=true",
        (true, false) => "features.web_search_request=false",
        (false, true) => "web_search=\"live\"",
        (false, false) => "web_search=\"disabled\"",
    };
    [if shell { "features.shell_tool=true" } else { "features.shell_tool=false" }, web_search]
}

/// 169 of `codex-cli 0.169.0`; `None` of what is no 0.x.
fn minor_of_zero(version: Option<&str>) -> Option<u64> {
    let number = version?.split_whitespace().last()?;
    let (minor, _patch) = number.strip_prefix("0.")?.split_once('.')?;
    minor.parse().ok()
}

/// What to answer, where no schema is given to Codex itself.
pub(super) fn order(schema: &Map<String, Value>) -> String {
    format!(
        "Answer with one JSON object and nothing else: no prose, no code fence. \
         It must be valid under this JSON Schema:\n{}",
        Value::Object(schema.clone())
    )
}

/// A further part of a prompt.
pub(super) fn append(prompt: &mut String, text: &str) {
    prompt.push_str("\n\n");
    prompt.push_str(text);
}
