//! The commands, as a process beside the server.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{PATIENCE, Scene, id};

fn command(scene: &Scene, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_panorama-gateway"));
    command
        .arg("sandbox")
        .args(words)
        .arg("--data-dir")
        .arg(scene.context.data_dir())
        .env_clear()
        .env("HOME", scene.context.dir.path())
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(scene: &Scene, words: &[&str]) -> (i32, String, String) {
    let output = tokio::time::timeout(PATIENCE, command(scene, words).output()).await;
    ended(&output.unwrap().unwrap())
}

fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// A command whose lines are read while it runs.
struct Live {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Live {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that is not empty; none at the end.
    async fn line(&mut self) -> Option<String> {
        let next = async {
            loop {
                match self.lines.next_line().await.unwrap() {
                    Some(line) if line.is_empty() => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.unwrap()
    }

    /// Exit code, the rest of stdout and all of stderr.
    async fn end(mut self) -> (i32, Vec<String>, String) {
        let mut rest = Vec::new();
        while let Some(line) = self.line().await {
            rest.push(line);
        }
        let (code, _, stderr) = ended(&self.child.wait_with_output().await.unwrap());
        (code, rest, stderr)
    }
}

#[tokio::test]
async fn a_conversation_is_shown_while_it_happens() {
    let scene = Scene::new().await;
    let mut live = Live::start(command(
        &scene,
        &["submit", "subagent", "--follow", "--type", "codex", "--model", "m", "Fix the test."],
    ));
    let job = scene.claim("subagent_run").await;
    let subagent = scene.context.admin().subagents(None).await.unwrap().remove(0);
    assert_eq!(subagent["subagent_type"], "codex_gateway");
    assert_eq!(subagent["config"], json!({"model": "m"}));
    assert_eq!(subagent["input"]["prompt"], "Fix the test.");
    let long: Vec<_> = (1..=30).map(|n| format!("test {n} ... ok")).collect();
    let started = json!({"adapter_id": "codex", "run_sequence": 1});
    // Each line is read before the next event is written: it was shown while the run went on.
    for (sequence, kind, payload, lines) in [
        (0, "run_started", started, vec!["▶ run 1 started: Codex CLI"]),
        (
            1,
            "message",
            json!({"role": "assistant", "content": "I look.\nThen I act."}),
            vec!["I look.", "Then I act."],
        ),
        (
            2,
            "tool_call",
            json!({"tool_name": "Bash", "tool_input": {"command": "cargo test"}}),
            vec!["● Bash: cargo test"],
        ),
        (
            3,
            "tool_result",
            json!({"content": long.join("\n")}),
            vec![
                "  └ test 1 ... ok",
                "    test 2 ... ok",
                "    test 3 ... ok",
                "    test 4 ... ok",
                "    test 5 ... ok",
                "    … 25 more lines",
            ],
        ),
        (4, "message", json!({"content": "\u{1b}[2Jx\u{202e}y"}), vec!["\\u{1b}[2Jx\\u{202e}y"]),
    ] {
        scene.event(&job, sequence, kind, payload).await;
        for line in lines {
            assert_eq!(live.line().await.as_deref(), Some(line));
        }
    }
    scene.finalize(&job, "completed").await;
    scene.event(&job, 5, "run_completed", json!({"duration_ms": 1500})).await;
    assert_eq!(live.line().await.as_deref(), Some("✓ completed after 1 s"));
    scene.end_job(&job, "completed", json!({"status": "completed"})).await;
    let (code, rest, stderr) = live.end().await;
    assert_eq!((code, rest), (0, Vec::new()), "{stderr}");
    assert!(stderr.contains(&format!("Subagent {}, run 1.", id(&subagent))), "{stderr}");
    let (code, stdout, _) = run(&scene, &["job", id(&job), "--follow"]).await;
    assert_eq!(code, 0);
    assert!(stdout.starts_with("▶ run 1") && stdout.ends_with("after 1 s\n"), "{stdout}");
}

#[tokio::test]
async fn json_is_one_event_a_line() {
    let scene = Scene::new().await;
    let started = scene.started().await;
    let mut live = Live::start(command(&scene, &["job", id(&started.job), "--follow", "--json"]));
    let job = scene.claim("subagent_run").await;
    let evil = "a\u{1b}[2J\u{9b}\u{7f}\u{202e}\nb";
    scene.event(&job, 0, "message", json!({"content": evil})).await;
    let told = live.line().await.unwrap();
    assert!(told.is_ascii() && !told.chars().any(char::is_control), "{told}");
    let event: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&event["event_type"], &event["payload"]["content"]),
        (&json!("message"), &json!(evil))
    );
    assert_eq!((&event["sequence"], &event["run_id"]), (&json!(0), &started.run["id"]));
    scene.finalize(&job, "failed").await;
    scene.event(&job, 1, "run_failed", json!({"reason": "it broke"})).await;
    scene.end_job(&job, "failed", json!({"message": "it broke"})).await;
    let (code, rest, stderr) = live.end().await;
    assert_eq!((code, rest.len()), (1, 1), "{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&rest[0]).unwrap()["event_type"], "run_failed");
}

#[tokio::test]
async fn exits_as_the_run_ended() {
    let scene = Scene::new().await;
    for (status, code, word) in [
        ("completed", 0, "✓ completed"),
        ("failed", 1, "✗ failed: it broke"),
        ("cancelled", 130, "■"),
    ] {
        let words = ["submit", "subagent", "--follow", "x"];
        let (ran, _) = tokio::join!(run(&scene, &words), scene.play(status));
        assert_eq!(ran.0, code, "{status}: {ran:?}");
        assert!(ran.1.contains(word), "{status}: {ran:?}");
        let words = ["submit", "subagent", "--wait", "x"];
        let (ran, _) = tokio::join!(run(&scene, &words), scene.play(status));
        assert_eq!(ran.0, code, "{status}: {ran:?}");
        assert_eq!(ran.1, if code == 0 { "done\n" } else { "" }, "{status}: {ran:?}");
    }
}

#[tokio::test]
async fn the_end_of_a_run_may_come_after_that_of_its_job() {
    let scene = Scene::new().await;
    let started = scene.started().await;
    let mut live = Live::start(command(&scene, &["job", id(&started.job), "--follow"]));
    let job = scene.claim("subagent_run").await;
    scene.event(&job, 0, "message", json!({"content": "hi"})).await;
    assert_eq!(live.line().await.as_deref(), Some("hi"));
    scene.end_job(&job, "failed", json!({"message": "it broke"})).await;
    let early = tokio::time::timeout(Duration::from_millis(500), live.child.wait()).await;
    assert!(early.is_err(), "it waits for the run's end");
    scene.event(&job, 1, "run_failed", json!({"reason": "told late"})).await;
    let (code, rest, stderr) = live.end().await;
    assert_eq!((code, rest), (1, vec!["✗ failed: told late".to_owned()]), "{stderr}");
}

#[tokio::test]
async fn a_job_that_ends_without_a_word_has_its_reason_told() {
    let scene = Scene::new().await;
    let started = scene.started().await;
    let job = scene.claim("subagent_run").await;
    scene.end_job(&job, "cancelled", json!({"message": "no \u{1b}[2J such subagent"})).await;
    let (code, stdout, stderr) = run(&scene, &["job", id(&started.job), "--follow"]).await;
    assert_eq!((code, stdout.as_str()), (130, ""), "{stderr}");
    assert!(stderr.contains("was cancelled: no \\u{1b}[2J such subagent"), "{stderr}");
}

#[tokio::test]
async fn ctrl_c_stops_following_and_not_the_run() {
    let scene = Scene::new().await;
    let started = scene.started().await;
    let mut live = Live::start(command(&scene, &["job", id(&started.job), "--follow"]));
    let job = scene.claim("subagent_run").await;
    scene.event(&job, 0, "message", json!({"content": "hi"})).await;
    assert_eq!(live.line().await.as_deref(), Some("hi"));
    let pid = i32::try_from(live.child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (code, _, stderr) = live.end().await;
    assert_eq!(code, 130, "{stderr}");
    let how = format!("panorama-gateway sandbox cancel {}", id(&job));
    assert!(stderr.contains("The run goes on") && stderr.contains(&how), "{stderr}");
    let admin = scene.context.admin();
    assert_eq!(admin.job(id(&job)).await.unwrap()["status"], "running");
    assert_eq!(scene.context.count("gateway_jobs"), 1, "nothing was called off");
}

/// What a gateway says of a cancel that it has begun.
fn accepted(job: &Value) -> Value {
    json!({"subagent_id": job["payload"]["subagent_id"], "run_id": job["payload"]["run_id"],
           "cancel_result": "accepted", "cancel_state": "requested",
           "message": "The run is being cancelled"})
}

#[tokio::test]
async fn a_subagents_run_is_called_off_through_its_gateway() {
    let scene = Scene::new().await;
    let started = scene.started().await;
    let (job, subagent) = (id(&started.job), id(&started.subagent));
    // Queued, running, and by the subagent's id.
    for (named, claimed) in [(job, false), (job, true), (subagent, false)] {
        if claimed {
            scene.claim("subagent_run").await;
        }
        let words = ["cancel", named];
        let (ran, ()) = tokio::join!(run(&scene, &words), async {
            let cancel = scene.claim("subagent_cancel").await;
            assert_eq!(cancel["payload"]["run_id"], started.run["id"]);
            scene.end_job(&cancel, "completed", accepted(&cancel)).await;
        });
        let told = format!("Run {}: accepted (The run is being cancelled).\n", id(&started.run));
        assert_eq!((ran.0, ran.1), (0, told), "{}", ran.2);
        let row = scene.context.admin().job(job).await.unwrap();
        let still = if claimed || named == subagent { "running" } else { "queued" };
        assert_eq!(row["status"], still, "the row is the gateway's");
    }
    let words = ["cancel", job, "--json"];
    let (ran, ()) = tokio::join!(run(&scene, &words), async {
        let cancel = scene.claim("subagent_cancel").await;
        let result = json!({"cancel_result": "already_terminal", "message": "It is over"});
        scene.end_job(&cancel, "completed", result).await;
    });
    assert_eq!(ran.0, 1, "{ran:?}");
    let row: Value = serde_json::from_str(&ran.1).unwrap();
    assert_eq!(row["result"]["cancel_result"], "already_terminal");
    let (code, _, stderr) = run(&scene, &["cancel", "nothing"]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("there is no job \"nothing\""), "{stderr}");
}

#[tokio::test]
async fn other_jobs_are_called_off_as_ever() {
    let scene = Scene::new().await;
    let (code, stdout, _) = run(&scene, &["submit", "diagnostic", "--json"]).await;
    assert_eq!(code, 0);
    let job: Value = serde_json::from_str(&stdout).unwrap();
    let (code, stdout, stderr) = run(&scene, &["cancel", id(&job)]).await;
    assert_eq!((code, stdout), (0, format!("Job {} is cancelled.\n", id(&job))), "{stderr}");
}

#[tokio::test]
async fn a_diagnostic_asks_for_answers_of_models_only_when_told() {
    let scene = Scene::new().await;
    for (words, payload) in [
        (&["submit", "diagnostic", "--json"][..], json!({})),
        (&["submit", "diagnostic", "--validate", "--json"], json!({"validate": true})),
    ] {
        let (code, stdout, stderr) = run(&scene, words).await;
        assert_eq!(code, 0, "{stderr}");
        let job: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(job["payload"], payload);
    }
}

#[tokio::test]
async fn a_subagent_goes_on_with_a_prompt_from_stdin() {
    let scene = Scene::new().await;
    let started = scene.started().await;
    let subagent = id(&started.subagent);
    let words = ["submit", "subagent", "--continue", subagent, "--json", "-"];
    let (code, _, stderr) = run(&scene, &[&words[..5], &["x"]].concat()).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("has not ended yet") && stderr.contains("hint:"), "{stderr}");
    scene.play("completed").await;
    let mut child = command(&scene, &words).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"And now?").await.unwrap();
    drop(stdin);
    let (code, stdout, stderr) = ended(&child.wait_with_output().await.unwrap());
    assert_eq!(code, 0, "{stderr}");
    let job: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&job["job_type"], &job["status"]), (&json!("subagent_run"), &json!("queued")));
    let run = &scene.context.admin().subagent_runs(subagent).await.unwrap()[0];
    assert_eq!((&run["run_sequence"], &run["prompt"]), (&json!(2), &json!("And now?")));
    assert_eq!(job["payload"]["run_id"], run["id"]);
}
