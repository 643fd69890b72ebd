//! Runs of subagents that end by themselves.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use panorama_gateway::providers::ProviderId;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::say;
use crate::scene::{Scene, Site, is_root};
use crate::subagents::begin;

/// How long after a tool was called its event may come: a second, and the load.
const LIVE_WITHIN: Duration = Duration::from_secs(2);

/// Where an agent of this CLI may have full control.
pub(crate) async fn controlled(scene: &Scene, cli: ProviderId) -> &Site {
    match cli {
        ProviderId::ClaudeCode => scene.unprivileged().await,
        ProviderId::Codex | ProviderId::Gemini => &scene.own,
    }
}

/// A folder in which everybody may write.
pub(crate) fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    dir
}

/// A text, and every row that tells of it.
pub(crate) async fn plain(scene: &Scene, cli: ProviderId) {
    let prompt = format!("plain subagent of {} [[say # All *is* well]]", cli.as_str());
    let end = begin(scene, &scene.own, cli, &prompt, json!({})).await.end().await;
    assert_eq!(end.completed(), "# All *is* well", "{end:#?}");
    assert_eq!(
        end.kinds(),
        ["run_started", "run_progress", "message", "run_completed"],
        "{end:#?}"
    );
    let adapter = cli.as_str();
    let started = &end.events[0]["payload"];
    let context = [
        ("runner", "gateway"),
        ("adapter_id", adapter),
        ("subagent_type", end.subagent["subagent_type"].as_str().unwrap()),
        ("execution_lane", "cloud"),
        ("execution_bridge", "gateway"),
        ("execution_substrate", "gateway_host"),
        ("trust_zone", "user_delegated_host"),
        ("delegate_kind", "gateway_cli"),
    ];
    for (name, value) in context {
        for told in [started, &end.run["metadata"], &end.subagent["metadata"]] {
            assert_eq!(told[name], value, "{name} in {told:#}");
        }
    }
    let progress = json!({"phase": "attempt_started", "attempt": 1, "max_attempts": 1});
    assert_eq!(end.events[1]["payload"], progress);
    let message = &end.events[2]["payload"];
    assert_eq!(
        (&message["role"], &message["content"]),
        (&json!("assistant"), &json!("# All *is* well")),
        "{message:#}"
    );
    let metadata = &end.run["metadata"];
    assert_eq!((&metadata["exit_code"], &metadata["cancel_state"]), (&json!(0), &json!("none")));
    assert_eq!(metadata["full_control_effective"], false, "{metadata:#}");
    assert_eq!(metadata["output_format"], "json", "{metadata:#}");
    let command = metadata["command"].as_str().unwrap();
    assert!(command.contains(cli.command()) && !command.contains("plain subagent"), "{command}");
}

/// An agent that may do anything does what its model asks, and is watched while it does: the call
/// is told before the command ends, its result before the run does.
pub(crate) async fn tool(scene: &Scene, cli: ProviderId) {
    let site = controlled(scene, cli).await;
    let (dir, secret) = (open_dir(), format!("a secret of {}", fastrand::u64(..)));
    let path = dir.path().display();
    let prompt = format!(
        "tool of subagent {} [[tool bash touch {path}/began; \
         until [ -e {path}/go ]; do sleep 0.1; done; echo '{secret}']] [[slow 30]]",
        cli.as_str()
    );
    let begun = begin(scene, site, cli, &prompt, json!({"full_control": true})).await;
    let sign = dir.path().join("began");
    begun.until(&format!("the command of {}", cli.as_str()), || sign.exists().then_some(())).await;
    let since = Instant::now();
    let call = begun.event("tool_call").await;
    let lag = since.elapsed();
    assert!(call["payload"]["tool_input"].to_string().contains("began"), "{call:#}");
    std::fs::write(dir.path().join("go"), "").unwrap();
    let result = begun.event("tool_result").await;
    let row = begun.row().await;
    assert_eq!(row["status"], "running", "the result was told after the end: {row:#}");
    say(&format!("{}: a call was told {} ms after it began", cli.as_str(), lag.as_millis()));
    assert!(lag < LIVE_WITHIN, "it was told {lag:?} after it began");

    let payload = &result["payload"];
    assert!(payload["content"].as_str().unwrap().contains(&secret), "{result:#}");
    assert_eq!(payload["is_error"], false, "{result:#}");
    for name in ["tool_use_id", "tool_name"] {
        assert!(payload[name].is_string(), "{result:#}");
        assert_eq!(payload[name], call["payload"][name], "{result:#}");
    }
    let end = begun.end().await;
    assert!(end.completed().contains(&secret), "{end:#?}");
    let kinds =
        ["run_started", "run_progress", "tool_call", "tool_result", "message", "run_completed"];
    assert_eq!(end.kinds(), kinds, "{end:#?}");
    assert_eq!(end.run["metadata"]["full_control_effective"], true, "{end:#?}");
}

/// One that may only read does not write, whatever its model asks.
pub(crate) async fn restricted(scene: &Scene, cli: ProviderId) {
    let dir = open_dir();
    let file = dir.path().join("touched");
    let marker = format!("restricted subagent of {}", cli.as_str());
    let prompt = format!("{marker} [[forcetool bash touch {}]]", file.display());
    let end = begin(scene, &scene.own, cli, &prompt, json!({})).await.end().await;
    assert!(end.completed().starts_with("tool said: "), "{end:#?}");
    assert!(!file.exists(), "the command was executed: {end:#?}");
    assert_eq!(scene.fake.asked(&marker).len(), 2);
    let refused = end.events.iter().filter(|event| event["payload"]["is_error"] == true).count();
    // Codex prints nothing of it.
    assert_eq!(refused, usize::from(cli != ProviderId::Codex), "{end:#?}");
}

/// Claude Code refuses full control to root: the run fails before anything is started.
pub(crate) async fn denied_to_root(scene: &Scene, cli: ProviderId) {
    if !is_root() {
        say("full control is denied to root: not seen, for this is not root");
        return;
    }
    let prompt = format!("root subagent of {}", cli.as_str());
    let end = begin(scene, &scene.own, cli, &prompt, json!({"full_control": true})).await;
    let end = end.end().await;
    assert!(end.failed().contains("root"), "{end:#?}");
    assert_eq!(end.kinds(), ["run_started", "run_failed"], "{end:#?}");
    let told = end.last();
    assert_eq!((&told["source"], &told["stage"]), (&json!("gateway"), &json!("pre_execution")));
    assert!(told["reason"].as_str().unwrap().contains("root"), "{end:#?}");
    let metadata = &end.run["metadata"];
    assert_eq!(metadata["full_control_requested"], true, "{metadata:#}");
    assert_eq!(metadata["full_control_effective"], false, "{metadata:#}");
    assert!(metadata["full_control_denied_reason"].as_str().unwrap().contains("root"));
    assert!(scene.fake.asked(&prompt).is_empty(), "the model was asked");
}

/// A second run of a subagent goes on where the first one ended.
pub(crate) async fn resumes(scene: &Scene, cli: ProviderId) {
    let secret = format!("a secret of {}", fastrand::u64(..));
    let first = format!("first: keep {secret} [[say it is kept]]");
    let begun = begin(scene, &scene.own, cli, &first, json!({})).await;
    let first = begun.end().await;
    assert_eq!(first.completed(), "it is kept");
    let marker = format!("second run of {}", cli.as_str());
    let second = begun.go_on(&format!("{marker} [[say here it is]]")).await.end().await;
    assert_eq!(second.completed(), "here it is", "{second:#?}");
    let asked = scene.fake.asked(&marker);
    let is_told = |seen: &crate::fake_llm::Seen| {
        seen.body.contains(&secret) && seen.body.contains("it is kept")
    };
    assert!(asked.len() == 1 && is_told(&asked[0]), "{asked:#?}");
    let session = |row: &Value| row["metadata"]["session_id"].clone();
    assert!(session(&first.run).is_string(), "{first:#?}");
    for row in [&second.run, &second.subagent] {
        assert_eq!(session(row), session(&first.run), "{second:#?}");
    }
    assert_eq!(second.run["run_sequence"], 2);
}

/// An API that does not know us: the run tells so, and what to do. The next run shows that the CLI
/// is well.
pub(crate) async fn unauthorized(scene: &Scene, cli: ProviderId) {
    let prompt = format!("unauthorized subagent of {} [[error 401]]", cli.as_str());
    // Claude Code asks again and again, as long as it has time.
    let config = json!({"timeout_ms": 12_000});
    let begun = begin(scene, &scene.own, cli, &prompt, config).await;
    let end = begun.end().await;
    let error = end.failed();
    assert!(error.contains("401") && error.contains("panorama-gateway doctor"), "{error}");
    end.told_all();
    assert_eq!(end.run["metadata"]["timed_out"], false, "our limit ended it: {end:#?}");
    assert!(end.last()["reason"].is_string() && end.last()["duration_ms"].is_u64(), "{end:#?}");
    let again = begun.go_on("known again [[say hello]]").await.end().await;
    assert_eq!(again.completed(), "hello", "{again:#?}");
}

/// An API that asks for patience once.
pub(crate) async fn limited_once(scene: &Scene, cli: ProviderId) {
    let prompt = format!("limited subagent of {} [[error 429 1 1]] [[say well]]", cli.as_str());
    let end = begin(scene, &scene.own, cli, &prompt, json!({})).await.end().await;
    assert_eq!(end.completed(), "well", "{end:#?}");
    assert_eq!(scene.fake.asked(&prompt).len(), 2);
    assert_eq!(
        end.kinds(),
        ["run_started", "run_progress", "message", "run_completed"],
        "{end:#?}"
    );
}

/// A stream that is cut in the middle: Claude Code asks again without one, the others give up.
pub(crate) async fn cut(scene: &Scene, cli: ProviderId) {
    let prompt = format!("cut subagent of {} [[drop]] [[say whole and well]]", cli.as_str());
    let end = begin(scene, &scene.own, cli, &prompt, json!({})).await.end().await;
    if cli == ProviderId::ClaudeCode {
        assert_eq!(end.completed(), "whole and well", "{end:#?}");
    } else {
        assert!(!end.failed().is_empty());
        end.told_all();
    }
}

/// An object by a schema, which Claude Code and Codex take as such.
pub(crate) async fn structured(scene: &Scene, cli: ProviderId) {
    let answer = json!({"answer": "forty-two", "score": 42});
    let prompt = format!("structured subagent of {} [[json {answer}]]", cli.as_str());
    let schema = json!({
        "type": "object",
        "properties": {"answer": {"type": "string"}, "score": {"type": "integer"}},
        "required": ["answer", "score"],
        "additionalProperties": false,
    });
    let config = json!({"output_format": "json", "json_schema": schema});
    let end = begin(scene, &scene.own, cli, &prompt, config).await.end().await;
    assert_eq!(end.completed_as("json"), &answer, "{end:#?}");
    assert_eq!(end.run["metadata"]["output_format"], "json", "{end:#?}");
}

/// A prompt that looks like something else reaches the model as it came, and files that it names
/// do not.
pub(crate) async fn prompt_is_data(scene: &Scene, cli: ProviderId) {
    let secret = format!("a secret of {}", fastrand::u64(..));
    let dir = open_dir();
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, &secret).unwrap();
    let prompt = format!("/help -h subagent of {}: read @{}", cli.as_str(), file.display());
    let end = begin(scene, &scene.own, cli, &prompt, json!({})).await.end().await;
    assert!(end.completed().starts_with(&format!("echo: {prompt}")), "{end:#?}");
    let asked = scene.fake.asked(&prompt);
    assert!(asked[0].prompt.trim().starts_with(&prompt), "{:?}", asked[0].prompt);
    assert!(!scene.fake.was_told(&secret), "the file was read");
}
