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
        Some(_) => append(&mut prompt, &order(&request.format)),
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

fn stdout_mode(installed: &Installed) -> OutputMode {
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
    if installed.has(flags::SKIP_GIT) {
        args.push("--skip-git-repo-check".into());
    }
    if installed.has(flags::EPHEMERAL) {
        args.push("--ephemeral".into());
    }
    if let Some(model) = request.model.as_ref().filter(|_| installed.has(flags::MODEL)) {
        if model.starts_with('-') {
            return Err(PlanError("the model's name begins with a dash".into()));
        }
        args.extend(["--model".into(), model.clone()]);
    }
    if installed.has(flags::CONFIG) {
        let keys = config(request, installed);
        args.extend(keys.into_iter().flat_map(|key| ["-c".to_owned(), key]));
    }
    if installed.has(flags::JSON) {
        args.push("--json".into());
    }
    Ok(args)
}

/// Settings of this run. An unknown key is warned about by Codex and has no effect.
fn config(request: &ModelRequest, installed: &Installed) -> Vec<String> {
    let mut keys = Vec::new();
    if let Some(effort) = request.effort {
        keys.push(format!("model_reasoning_effort=\"{}\"", effort.as_str()));
    }
    if !installed.has(flags::SANDBOX) {
        keys.push("sandbox_mode=\"read-only\"".into());
    }
    keys.push("features.shell_tool=false".into());
    keys.push(web_search_off(installed).into());
    keys.push("features.plugins=false".into());
    keys.push("check_for_update_on_startup=false".into());
    keys.push("analytics.enabled=false".into());
    // Without it a run that finds no network waits for one until it is stopped.
    keys.push("features.unbounded_connection_retries=false".into());
    keys
}

/// Each key is of no effect in versions that want the other.
fn web_search_off(installed: &Installed) -> &'static str {
    match minor_of_zero(installed.version.as_deref()) {
        Some(minor) if minor < WEB_SEARCH_KEY_SINCE => "features.web_search_request=false",
        Some(_) | None => "web_search=\"disabled\"",
    }
}

/// 169 of `codex-cli 0.169.0`; `None` of what is no 0.x.
fn minor_of_zero(version: Option<&str>) -> Option<u64> {
    let number = version?.split_whitespace().last()?;
    let (minor, _patch) = number.strip_prefix("0.")?.split_once('.')?;
    minor.parse().ok()
}

/// What to answer, for a Codex that takes no schema.
fn order(format: &Format) -> String {
    match format {
        Format::Text => String::new(),
        Format::Json { schema } => format!(
            "Answer with one JSON object and nothing else: no prose, no code fence. \
             It must be valid under this JSON Schema:\n{}",
            Value::Object(schema.clone())
        ),
    }
}

fn append(prompt: &mut String, text: &str) {
    prompt.push_str("\n\n");
    prompt.push_str(text);
}
