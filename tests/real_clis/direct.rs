//! The CLIs without a gateway: that the stand-in is one, and that its record proves something.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use panorama_gateway::providers::ProviderId;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::install;
use crate::scene::Scene;

/// Each CLI by hand gets its answer from the stand-in.
pub(crate) async fn plain(scene: &Scene, cli: ProviderId) {
    let output = by_hand(scene, cli, "direct [[say by hand]]", &[], &[]).await;
    assert_eq!(answer(cli, &output), "by hand", "{output:?}");
}

/// A CLI that may do anything executes what the model asks for, and tells it what came of it; and
/// it takes an answer that comes in many pieces.
pub(crate) async fn tool(scene: &Scene, cli: ProviderId) {
    let allowed: &[&str] = match cli {
        // Neither of its modes for everything works as root.
        ProviderId::ClaudeCode => &["--allowedTools", "Bash"],
        ProviderId::Codex => &["--sandbox", "danger-full-access"],
        ProviderId::Gemini => &["--approval-mode", "yolo"],
    };
    let secret = format!("a secret of {}", fastrand::u64(..));
    let prompt = "direct-tool [[tool bash cat notes.txt]] [[slow 20]]";
    let began = Instant::now();
    let output = by_hand(scene, cli, prompt, &[("notes.txt", &secret)], allowed).await;
    let text = answer(cli, &output);
    assert!(text.starts_with("tool said: ") && text.contains(&secret), "{output:?}");
    assert!(scene.fake.was_told(&secret), "the command was not executed: {output:?}");
    assert!(began.elapsed() > Duration::from_secs(2), "it took {:?}", began.elapsed());
}

/// What a CLI that succeeded answered.
fn answer(cli: ProviderId, output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = match cli {
        ProviderId::ClaudeCode => parsed(&text)["result"].clone(),
        ProviderId::Codex => {
            let mut events = text.lines().map(parsed);
            events.find(|event| event["item"]["type"] == "agent_message").unwrap()["item"]["text"]
                .clone()
        }
        ProviderId::Gemini => parsed(&text)["response"].clone(),
    };
    answer.as_str().unwrap_or_else(|| panic!("no answer: {text}")).to_owned()
}

/// A CLI that is not told otherwise sends the file that a prompt names: the record shows it.
pub(crate) async fn at_file(scene: &Scene, cli: ProviderId) {
    let secret = format!("a secret of {}", fastrand::u64(..));
    let prompt = "direct-at @notes.txt [[say seen]]";
    let output = by_hand(scene, cli, prompt, &[("notes.txt", &secret)], &[]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(scene.fake.was_told(&secret), "the file was not read: {output:?}");
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Runs a CLI in a work dir with these files and more flags, the prompt on its stdin.
async fn by_hand(
    scene: &Scene,
    cli: ProviderId,
    prompt: &str,
    files: &[(&str, &str)],
    flags: &[&str],
) -> Output {
    let home = tempfile::tempdir().unwrap();
    let work = tempfile::tempdir().unwrap();
    install::log_in(home.path(), &scene.fake.url());
    for (name, text) in files {
        std::fs::write(work.path().join(name), text).unwrap();
    }
    let mut command = tokio::process::Command::new(scene.clis.command(cli));
    command
        .args(args(cli))
        .args(flags)
        .env_clear()
        .envs(install::environment(&scene.clis, &scene.fake.url()))
        .envs(quiet(home.path()))
        .current_dir(work.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(prompt.as_bytes()).await.unwrap();
    drop(stdin);
    let ended = tokio::time::timeout(Duration::from_mins(2), child.wait_with_output()).await;
    ended.expect("it answers").unwrap()
}

fn args(cli: ProviderId) -> &'static [&'static str] {
    match cli {
        ProviderId::ClaudeCode => &["--print", "--output-format", "json"],
        ProviderId::Codex => {
            &["exec", "--skip-git-repo-check", "--json", "-c", "features.plugins=false"]
        }
        ProviderId::Gemini => &["--output-format", "json", "--model", "gemini-2.5-pro"],
    }
}

/// What keeps them from asking outside, and lets Gemini run in any folder.
fn quiet(home: &Path) -> Vec<(&'static str, String)> {
    let settings = home.join(".gemini/settings.json");
    let text = r#"{"security":{"auth":{"selectedType":"gemini-api-key"}},
        "privacy":{"usageStatisticsEnabled":false},
        "general":{"enableAutoUpdate":false,"enableAutoUpdateNotification":false}}"#;
    std::fs::write(settings, text).unwrap();
    vec![
        ("HOME", home.display().to_string()),
        ("TERM", "xterm-256color".to_owned()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ("GEMINI_CLI_TRUST_WORKSPACE", "true".to_owned()),
    ]
}
