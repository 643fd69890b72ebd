//! The stories: a `model_run` each, by the result that the wire promises.

use std::time::{Duration, Instant};

use panorama_gateway::providers::ProviderId;
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{direct, hard_ends};

/// What a story needs of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Company {
    /// Others may run beside it.
    Any,
    /// Only stories without an API to reach.
    WithoutApi,
    /// None.
    Alone,
}

/// A story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Story {
    Direct,
    DirectAtFile,
    Plain,
    Structured,
    ToolCall,
    SchemaViolated,
    Recovers,
    AnswerCut,
    Unauthorized,
    RateLimited,
    ServerError,
    TimeLimit,
    BigPrompt,
    DashPrompt,
    SlashPrompt,
    AtFilePrompt,
    Refused,
    Cancel,
    GatewayKilled,
}

impl Story {
    pub(crate) const ALL: [Self; 19] = [
        Self::Direct,
        Self::DirectAtFile,
        Self::Plain,
        Self::Structured,
        Self::ToolCall,
        Self::SchemaViolated,
        Self::Recovers,
        Self::AnswerCut,
        Self::Unauthorized,
        Self::RateLimited,
        Self::ServerError,
        Self::TimeLimit,
        Self::BigPrompt,
        Self::DashPrompt,
        Self::SlashPrompt,
        Self::AtFilePrompt,
        Self::Refused,
        Self::Cancel,
        Self::GatewayKilled,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::DirectAtFile => "direct-at-file",
            Self::Plain => "plain",
            Self::Structured => "structured",
            Self::ToolCall => "structured-tool-call",
            Self::SchemaViolated => "schema-violated",
            Self::Recovers => "error-500-once",
            Self::AnswerCut => "answer-cut",
            Self::Unauthorized => "error-401",
            Self::RateLimited => "error-429",
            Self::ServerError => "error-500",
            Self::TimeLimit => "time-limit",
            Self::BigPrompt => "prompt-200-kb",
            Self::DashPrompt => "prompt-dash",
            Self::SlashPrompt => "prompt-slash",
            Self::AtFilePrompt => "prompt-at-file",
            Self::Refused => "refused-connection",
            Self::Cancel => "cancel",
            Self::GatewayKilled => "gateway-killed",
        }
    }

    pub(crate) fn company(self) -> Company {
        if self == Self::Refused {
            Company::WithoutApi
        } else if matches!(self, Self::Cancel | Self::GatewayKilled) {
            Company::Alone
        } else {
            Company::Any
        }
    }

    pub(crate) async fn tell(self, scene: &Scene, cli: ProviderId) {
        match self {
            Self::Direct => direct::plain(scene, cli).await,
            Self::DirectAtFile => direct::at_file(scene, cli).await,
            Self::Plain => plain(scene, cli).await,
            Self::Structured => structured(scene, cli).await,
            Self::ToolCall => tool_call(scene, cli).await,
            Self::SchemaViolated => schema_violated(scene, cli).await,
            Self::Recovers => recovers(scene, cli).await,
            Self::AnswerCut => answer_cut(scene, cli).await,
            Self::Unauthorized => fails(scene, cli, "[[error 401]]", "provider_auth").await,
            Self::RateLimited => fails(scene, cli, "[[error 429]]", "provider_rate_limited").await,
            Self::ServerError => fails(scene, cli, "[[error 500]]", "provider_unavailable").await,
            Self::Refused => fails(scene, cli, "refused", "provider_unavailable").await,
            Self::TimeLimit => time_limit(scene, cli).await,
            Self::BigPrompt => big_prompt(scene, cli).await,
            Self::DashPrompt => is_data(scene, cli, "--version -h dash").await,
            Self::SlashPrompt => is_data(scene, cli, "/help slash").await,
            Self::AtFilePrompt => at_file_prompt(scene, cli).await,
            Self::Cancel => hard_ends::cancel(scene, cli).await,
            Self::GatewayKilled => hard_ends::gateway_killed(scene, cli).await,
        }
    }
}

fn has_keys(object: &Value, names: &[&str]) {
    for name in names {
        assert!(object.get(name).is_some(), "no {name} in {object}");
    }
}

/// The result of a completed run, all its fields there.
fn completed(row: &Value) -> &Value {
    assert_eq!((&row["status"], &row["error"]), (&json!("completed"), &Value::Null), "{row}");
    let result = &row["result"];
    let fields = [
        "output",
        "raw",
        "usage",
        "model",
        "duration_ms",
        "exit_code",
        "stdout_truncated",
        "stderr_truncated",
        "command",
    ];
    has_keys(result, &fields);
    assert_eq!((&result["exit_code"], &result["stdout_truncated"]), (&json!(0), &json!(false)));
    result
}

/// The fields of `debug`, and no other.
const DEBUG: [&str; 20] = [
    "provider_id",
    "command",
    "args",
    "command_line",
    "work_dir",
    "prompt_chars",
    "json_schema_chars",
    "timeout_ms",
    "output_mode",
    "output_path",
    "files",
    "stdout",
    "stdout_truncated",
    "stdout_bytes",
    "stderr",
    "stderr_truncated",
    "stderr_bytes",
    "exit_code",
    "duration_ms",
    "timed_out",
];

async fn plain(scene: &Scene, cli: ProviderId) {
    let prompt = format!("plain of {}", cli.as_str());
    let system = format!("You are the test {}.", fastrand::u64(..));
    let row = scene.run(cli, &prompt, &json!({"append_system_prompt": system})).await;
    let result = completed(&row);
    let text = result["output"]["text"].as_str().unwrap_or_default();
    assert!(text.starts_with(&format!("echo: {prompt}")), "{row}");
    assert!(result["raw"].is_object() && result.get("schema_errors").is_none(), "{row}");
    assert!(scene.fake.was_told(&system), "the system text did not reach the model");
    let command = result["command"].as_str().unwrap();
    assert!(command.contains(cli.command()), "{command}");

    let debug = &row["debug"];
    has_keys(debug, &DEBUG);
    let known = |name: &&String| DEBUG.contains(&name.as_str()) || *name == "error_summary";
    let more: Vec<_> = debug.as_object().unwrap().keys().filter(|name| !known(name)).collect();
    assert!(more.is_empty(), "debug has {more:?} as well");
    assert_eq!(debug["provider_id"], cli.as_str());
    for shown in [command, debug["command_line"].as_str().unwrap()] {
        assert!(!shown.contains(&prompt) && !shown.contains(&system), "{shown}");
    }
    let work_dir = debug["work_dir"].as_str().unwrap();
    assert!(!std::path::Path::new(work_dir).exists(), "{work_dir} is still there");
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "answer": {"type": "string"},
            "score": {"type": "integer"},
            "note": {"type": "string"},
        },
        "required": ["answer", "score"],
    })
}

fn json_run() -> Value {
    json!({"output_format": "json", "json_schema": schema()})
}

async fn structured(scene: &Scene, cli: ProviderId) {
    let answer = json!({"answer": "forty-two", "score": 42});
    let prompt = format!("structured of {} [[json {answer}]]", cli.as_str());
    let row = scene.run(cli, &prompt, &json_run()).await;
    let result = completed(&row);
    assert_eq!(result["output"], answer, "{row}");
    assert!(result.get("schema_errors").is_none(), "{row}");
    assert!(result["raw"].is_object() && result["usage"].is_object(), "{row}");
}

/// Arguments of any form, which Codex's API does not take in a schema.
async fn tool_call(scene: &Scene, cli: ProviderId) {
    let answer = json!({"name": "search", "args": {"query": "owls", "limit": 3}});
    let said = match cli {
        ProviderId::Codex => json!({"name": "search", "args_json": answer["args"].to_string()}),
        ProviderId::ClaudeCode | ProviderId::Gemini => answer.clone(),
    };
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "args": {"type": "object"}},
        "required": ["name", "args"],
    });
    let prompt = format!("tool call of {} [[json {said}]]", cli.as_str());
    let run = json!({"output_format": "json", "json_schema": schema});
    let row = scene.run(cli, &prompt, &run).await;
    let result = completed(&row);
    assert_eq!(result["output"], answer, "{row}");
    assert!(result.get("schema_errors").is_none(), "{row}");
}

/// An API that fails once and then takes its time costs nothing but that.
async fn recovers(scene: &Scene, cli: ProviderId) {
    let prompt = format!("recovery of {} [[error 500 1]] [[sleep 1]] [[say well]]", cli.as_str());
    let row = scene.run(cli, &prompt, &json!({})).await;
    assert_eq!(completed(&row)["output"], json!({"text": "well"}), "{row}");
    assert_eq!(scene.fake.asked(&prompt).len(), 2);
}

/// A stream that is cut in the middle: Claude Code asks again without one, the others give up,
/// and half an answer is none.
async fn answer_cut(scene: &Scene, cli: ProviderId) {
    let prompt = format!("cut of {} [[drop]] [[say whole and well]]", cli.as_str());
    let row = scene.run(cli, &prompt, &json!({})).await;
    if cli == ProviderId::ClaudeCode {
        assert_eq!(completed(&row)["output"], json!({"text": "whole and well"}), "{row}");
    } else {
        assert_eq!(failed(&row)["error_code"], "provider_unavailable", "{row}");
    }
}

/// A model that keeps to its own form: the caller gets it, and is told what is wrong with it.
async fn schema_violated(scene: &Scene, cli: ProviderId) {
    let answer = json!({"answer": 7});
    let prompt = format!("[[sticky]] violation of {} [[jsontext {answer}]]", cli.as_str());
    let row = scene.run(cli, &prompt, &json_run()).await;
    let result = completed(&row);
    assert_eq!(result["output"], answer, "{row}");
    let errors = result["schema_errors"].as_array().unwrap_or_else(|| panic!("none: {row}"));
    assert!(!errors.is_empty(), "{row}");
    for error in errors {
        assert!(error["path"].is_string() && error["message"].is_string(), "{error}");
    }
}

/// A run that fails, with the usual time: the CLI itself tells why before the time limit.
async fn fails(scene: &Scene, cli: ProviderId, prompt: &str, code: &str) {
    let prompt = format!("{prompt} of {}", cli.as_str());
    let row = scene.run(cli, &prompt, &json!({})).await;
    let result = failed(&row);
    assert_eq!(result["error_code"], code, "{row}");
    assert_eq!(row["debug"]["timed_out"], false, "our limit ended it: {row}");
    assert!(scene.fake.outside().is_empty(), "{:?}", scene.fake.outside());
}

/// The result of a failed run, all its fields there.
fn failed(row: &Value) -> &Value {
    assert_eq!(row["status"], "failed", "{row}");
    assert!(row["error"].is_string(), "{row}");
    let result = &row["result"];
    let fields = ["message", "error_code", "exit_code", "stderr", "stdout", "command"];
    has_keys(result, &fields);
    has_keys(result, &["error_summary"]);
    result
}

async fn time_limit(scene: &Scene, cli: ProviderId) {
    let prompt = format!("time limit of {} [[hang]]", cli.as_str());
    let job = scene.submit(cli, &prompt, &json!({"timeout_ms": 12_000})).await;
    let row = scene.ended(&job).await;
    let result = failed(&row);
    assert_eq!(result["error_code"], "provider_timeout", "{row}");
    assert_eq!(row["debug"]["timed_out"], true, "{row}");
    let took = row["debug"]["duration_ms"].as_u64().unwrap();
    assert!((12_000..17_000).contains(&took), "it took {took} ms");
    assert!(!scene.fake.asked(&prompt).is_empty(), "the model was never asked");
}

async fn big_prompt(scene: &Scene, cli: ProviderId) {
    let began = Instant::now();
    let marker = format!("big of {}", cli.as_str());
    let filler = "all work and no play ".repeat(200_000 / 21);
    let prompt = format!("{marker} {filler} [[say all of it]] the very end of it");
    let row = scene.run(cli, &prompt, &json!({})).await;
    assert_eq!(completed(&row)["output"], json!({"text": "all of it"}), "{row}");
    let asked = scene.fake.asked(&marker);
    assert!(asked.iter().any(|seen| seen.prompt.contains(&prompt)), "it was cut");
    assert!(began.elapsed() < Duration::from_mins(2));
}

/// A prompt that looks like something else reaches the model as it came.
async fn is_data(scene: &Scene, cli: ProviderId, prompt: &str) {
    let prompt = format!("{prompt} of {}", cli.as_str());
    let row = scene.run(cli, &prompt, &json!({})).await;
    let text = completed(&row)["output"]["text"].as_str().unwrap_or_default();
    assert!(text.starts_with(&format!("echo: {prompt}")), "{row}");
    let asked = scene.fake.asked(&prompt);
    assert!(asked[0].prompt.trim().starts_with(&prompt), "{:?}", asked[0].prompt);
}

/// Files that a prompt names are not read.
async fn at_file_prompt(scene: &Scene, cli: ProviderId) {
    let secret = format!("a secret of {}", fastrand::u64(..));
    let file = scene.machine.home().join(format!("notes-{}.txt", cli.as_str()));
    std::fs::write(&file, &secret).unwrap();
    let prompt = format!("@/etc/hostname @{} what do they say?", file.display());
    let row = scene.run(cli, &prompt, &json!({})).await;
    let text = completed(&row)["output"]["text"].as_str().unwrap_or_default();
    assert!(text.starts_with("echo: "), "{row}");
    assert!(!scene.fake.was_told(&secret), "the file was read");
    let asked = scene.fake.asked(&prompt);
    assert!(!asked.is_empty(), "the prompt was changed: {:?}", scene.fake.asked("@/etc/hostname"));
    // The host's name is too short to search for; a file that is read is announced.
    let hostname = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    for seen in &asked {
        let told = seen.body.matches("/etc/hostname").count();
        assert_eq!(told, 1, "/etc/hostname is named {told} times: {}", seen.body);
        let is_long = hostname.trim().len() > 6;
        assert!(!is_long || !seen.body.contains(hostname.trim()), "{}", seen.body);
    }
}
