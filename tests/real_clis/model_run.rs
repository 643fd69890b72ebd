//! Runs of a model: one `model_run` each, by the result that the wire promises.

use std::time::{Duration, Instant};

use panorama_gateway::providers::ProviderId;
use serde_json::{Value, json};

use crate::scene::Scene;

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

pub(crate) async fn plain(scene: &Scene, cli: ProviderId) {
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

pub(crate) async fn structured(scene: &Scene, cli: ProviderId) {
    let answer = json!({"answer": "forty-two", "score": 42});
    let prompt = format!("structured of {} [[json {answer}]]", cli.as_str());
    let row = scene.run(cli, &prompt, &json_run()).await;
    let result = completed(&row);
    assert_eq!(result["output"], answer, "{row}");
    assert!(result.get("schema_errors").is_none(), "{row}");
    assert!(result["raw"].is_object() && result["usage"].is_object(), "{row}");
}

/// Arguments of any form, which Codex's API does not take in a schema.
pub(crate) async fn tool_call(scene: &Scene, cli: ProviderId) {
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
pub(crate) async fn recovers(scene: &Scene, cli: ProviderId) {
    let prompt = format!("recovery of {} [[error 500 1]] [[sleep 1]] [[say well]]", cli.as_str());
    let row = scene.run(cli, &prompt, &json!({})).await;
    assert_eq!(completed(&row)["output"], json!({"text": "well"}), "{row}");
    assert_eq!(scene.fake.asked(&prompt).len(), 2);
}

/// A stream that is cut in the middle: Claude Code asks again without one, the others give up,
/// and half an answer is none.
pub(crate) async fn answer_cut(scene: &Scene, cli: ProviderId) {
    let prompt = format!("cut of {} [[drop]] [[say whole and well]]", cli.as_str());
    let row = scene.run(cli, &prompt, &json!({})).await;
    if cli == ProviderId::ClaudeCode {
        assert_eq!(completed(&row)["output"], json!({"text": "whole and well"}), "{row}");
    } else {
        assert_eq!(failed(&row)["error_code"], "provider_unavailable", "{row}");
    }
}

/// A model that keeps to its own form: the caller gets it, and is told what is wrong with it.
pub(crate) async fn schema_violated(scene: &Scene, cli: ProviderId) {
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
pub(crate) async fn fails(scene: &Scene, cli: ProviderId, prompt: &str, code: &str) {
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

pub(crate) async fn time_limit(scene: &Scene, cli: ProviderId) {
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

pub(crate) async fn big_prompt(scene: &Scene, cli: ProviderId) {
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
pub(crate) async fn is_data(scene: &Scene, cli: ProviderId, prompt: &str) {
    let prompt = format!("{prompt} of {}", cli.as_str());
    let row = scene.run(cli, &prompt, &json!({})).await;
    let text = completed(&row)["output"]["text"].as_str().unwrap_or_default();
    assert!(text.starts_with(&format!("echo: {prompt}")), "{row}");
    let asked = scene.fake.asked(&prompt);
    assert!(asked[0].prompt.trim().starts_with(&prompt), "{:?}", asked[0].prompt);
}

/// Files that a prompt names are not read.
pub(crate) async fn at_file_prompt(scene: &Scene, cli: ProviderId) {
    let secret = format!("a secret of {}", fastrand::u64(..));
    let file = scene.own.machine.home().join(format!("notes-{}.txt", cli.as_str()));
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

/// A model that calls a shell although none is offered: nothing is executed, and it is told so.
pub(crate) async fn tool_refused(scene: &Scene, cli: ProviderId) {
    let file = scene.own.machine.home().join(format!("touched-by-{}", cli.as_str()));
    let marker = format!("refused tool of {}", cli.as_str());
    let prompt = format!("{marker} [[forcetool bash touch {}]]", file.display());
    let row = scene.run(cli, &prompt, &json!({})).await;
    let text = completed(&row)["output"]["text"].as_str().unwrap_or_default();
    assert!(text.starts_with("tool said: "), "{row}");
    let refusal = match cli {
        ProviderId::ClaudeCode => "No such tool available: Bash",
        ProviderId::Codex => "unsupported call: exec_command",
        ProviderId::Gemini => "\"run_shell_command\" not found",
    };
    assert!(text.contains(refusal), "{row}");
    assert_eq!(scene.fake.asked(&marker).len(), 2);
    assert!(!file.exists(), "the command was executed");
}
