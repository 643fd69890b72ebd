//! `model_run`: one answer of a model, through fake CLIs that print what real ones printed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::agents::{Agent, RECORDED};
use crate::common::{ControlPlane, Machine, Paired, ProcessName, wait_until};

/// A machine with one agent CLI, its gateway, and a control plane.
struct Scene {
    control: ControlPlane,
    paired: Paired,
    agent: Agent,
}

impl Scene {
    async fn new(command: &'static str) -> Self {
        Self::on(Machine::new(), command).await
    }

    /// The gateway is up and has made up its mind about the CLI.
    async fn on(machine: Machine, command: &'static str) -> Self {
        let (machine, agent) = Agent::install(machine, command, &Agent::structured(command));
        let control = ControlPlane::start().await;
        let paired = Paired::start_on(machine, &control).await;
        let scene = Self { control, paired, agent };
        let row = scene.run(&schema()).await;
        assert_eq!(row["status"], "completed", "{row}");
        scene
    }

    /// Queues a run with these fields over the usual ones.
    async fn submit(&self, fields: &Value) -> String {
        let mut payload = json!({
            "prompt": "Is it so?", "model": "__default__", "provider": self.agent.provider(),
        });
        for (name, value) in fields.as_object().unwrap() {
            payload[name] = value.clone();
        }
        self.control.submit(&self.paired.gateway_id, "model_run", payload).await
    }

    async fn run(&self, fields: &Value) -> Value {
        self.control.ended(&self.submit(fields).await).await
    }

    /// A run of a CLI that does this.
    async fn act(&self, act: &str, fields: &Value) -> Value {
        self.agent.acts(act);
        self.run(fields).await
    }

    /// The processes that a run has named in this file, one pid a line.
    async fn named(&self, file: &str, count: usize) -> Vec<ProcessName> {
        wait_until("the CLI's processes", || async {
            let text = std::fs::read_to_string(self.agent.path(file)).ok()?;
            let named: Vec<_> =
                text.lines().filter_map(|pid| ProcessName::of(pid.parse().ok()?)).collect();
            (named.len() == count).then_some(named)
        })
        .await
    }

    fn has_work_dirs(&self) -> bool {
        self.paired.machine.dir().join("work/model").exists()
    }
}

fn schema() -> Value {
    json!({"json_schema": {
        "type": "object",
        "properties": {"answer": {"type": "string"}, "score": {"type": "integer"}},
        "required": ["answer", "score"],
        "additionalProperties": false,
    }})
}

async fn all_gone(processes: &[ProcessName]) {
    wait_until("the processes to be gone", || async {
        processes.iter().all(|process| !process.is_alive()).then_some(())
    })
    .await;
}

async fn recorded(command: &'static str, model: &str) {
    let scene = Scene::new(command).await;
    let mut fields = schema();
    fields["append_system_prompt"] = json!("The system text.");
    let row = scene.run(&fields).await;
    let result = &row["result"];
    assert_eq!((&row["status"], &row["error"]), (&json!("completed"), &Value::Null), "{row}");
    assert_eq!(result["output"], json!({"answer": "yes", "score": 3}), "{row}");
    assert!(result["raw"].is_object(), "{row}");
    assert!(result["usage"].is_object(), "{row}");
    assert_eq!(result.get("schema_errors"), None, "{row}");
    assert_eq!((&result["exit_code"], &result["stdout_truncated"]), (&json!(0), &json!(false)));
    if !model.is_empty() {
        assert_eq!(result["model"], model, "{row}");
    }
    let debug = &row["debug"];
    assert_eq!(debug["provider_id"], scene.agent.provider(), "{row}");
    assert_eq!((&debug["exit_code"], &debug["timed_out"]), (&json!(0), &json!(false)));
    assert_eq!(debug["prompt_chars"], 9);
    let text = format!("{debug}{}", result["command"]);
    assert!(!text.contains("Is it so?") && !text.contains("The system text."), "{text}");
    assert!(!scene.agent.calls().join(" ").contains("Is it so?"), "the prompt is no argument");
    assert!(!scene.has_work_dirs());
    // An answer that is none of the caller's schema is still told, with what is wrong with it.
    let other = json!({"json_schema": {
        "type": "object", "properties": {"score": {"type": "string"}}, "required": ["score"],
    }});
    let row = scene.run(&other).await;
    assert_eq!(row["status"], "completed", "{row}");
    assert_eq!(row["result"]["schema_errors"][0]["path"], "/score", "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_claude_printed_is_an_answer() {
    recorded("claude", "claude-sonnet-5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_codex_printed_is_an_answer() {
    recorded("codex", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gemini_printed_is_an_answer() {
    recorded("gemini", "gemini-2.5-pro").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_an_answer_and_the_prompt_comes_on_stdin() {
    let scene = Scene::new("claude").await;
    let said = scene.agent.path("said");
    let act = format!("cat > {}; cat {RECORDED}/claude/plain-json/stdout.txt", said.display());
    let prompt = "x".repeat(300_000);
    let row = scene.act(&act, &json!({"output_format": "text", "prompt": prompt})).await;
    assert_eq!(row["result"]["output"], json!({"text": "echo: hello there"}), "{row:.2000}");
    assert_eq!(std::fs::read_to_string(said).unwrap(), prompt);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_a_failure_with_its_kind() {
    let scene = Scene::new("claude").await;
    let garbage = scene.act("echo '{{{ garbage'", &schema()).await;
    let nothing = scene.act("exit 0", &schema()).await;
    for row in [&garbage, &nothing] {
        assert_eq!(row["status"], "failed", "{row}");
        assert_eq!(row["result"]["error_code"], "provider_output_invalid", "{row}");
        assert_eq!(row["result"].get("exit_code"), None, "{row}");
    }
    assert_eq!(garbage["result"]["stdout"], "{{{ garbage\n");

    let crash = scene.act("echo 'token=hunter22hunter22' >&2; exit 9", &schema()).await;
    assert_eq!((&crash["status"], &crash["result"]["exit_code"]), (&json!("failed"), &json!(9)));
    assert_eq!(crash["result"]["stderr"], "token=[REDACTED]\n", "{crash}");

    let act = format!("cat {RECORDED}/claude/error-401-noretry/stdout.txt; exit 1");
    let login = scene.act(&act, &schema()).await;
    assert_eq!(login["result"]["error_code"], "provider_auth", "{login}");

    let flood = scene.act("head -c 1000000000 /dev/zero", &schema()).await;
    assert_eq!(
        flood["result"],
        json!({
            "message": "The output is longer than 5000000 bytes",
            "error_code": "GATEWAY_MODEL_OUTPUT_LIMIT", "boundary": "stdout",
            "output_limit_bytes": 5_000_000,
        })
    );
    assert_eq!(flood["debug"]["stdout_bytes"], 1_000_000_000, "{:.500}", flood["debug"]);
    assert_eq!(flood["debug"]["stdout_truncated"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cli_that_never_ends_is_a_timeout_and_leaves_nobody() {
    let scene = Scene::new("claude").await;
    let pids = scene.agent.path("pids");
    let act = format!(
        "trap '' INT TERM; setsid sh -c 'trap \"\" INT TERM; echo $$ >> {0}; sleep 300' & \
         echo $$ >> {0}; while :; do sleep 300; done",
        pids.display()
    );
    let began = Instant::now();
    scene.agent.acts(&act);
    let mut fields = schema();
    fields["timeout_ms"] = json!(2_000);
    let job = scene.submit(&fields).await;
    let processes = scene.named("pids", 2).await;
    let row = scene.control.ended(&job).await;
    assert_eq!(row["result"]["error_code"], "provider_timeout", "{row}");
    assert_eq!(row["debug"]["timed_out"], true, "{row}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    all_gone(&processes).await;
    assert!(!scene.has_work_dirs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cli_that_forks_and_leaves_has_answered_and_leaves_nobody() {
    let scene = Scene::new("claude").await;
    let pid = scene.agent.path("pid");
    let act = format!(
        "(setsid sleep 300 & echo $! > {}); {}",
        pid.display(),
        Agent::structured("claude")
    );
    let row = scene.act(&act, &schema()).await;
    assert_eq!(row["status"], "completed", "{row}");
    let pid = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    assert_eq!(ProcessName::of(pid), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_file_that_is_something_else_is_refused() {
    let scene = Scene::new("codex").await;
    let events = format!("cat {RECORDED}/codex/structured-json/stdout.txt");
    for put in ["ln -s /etc/passwd output.json", "mkfifo output.json", "mkdir output.json"] {
        let row = scene.act(&format!("{put}; {events}"), &schema()).await;
        assert_eq!(row["status"], "failed", "{put}: {row}");
        assert_eq!(row["result"]["error_code"], "provider_output_invalid", "{put}: {row}");
        let message = row["result"]["message"].as_str().unwrap();
        assert!(message.contains("output file cannot be used"), "{put}: {message}");
    }
    let row = scene.act(&format!("truncate -s 1T output.json; {events}"), &schema()).await;
    assert_eq!(row["result"]["boundary"], "output_file", "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_payload_and_a_missing_cli_have_a_reason() {
    let scene = Scene::new("claude").await;
    for (fields, word) in [
        (json!({"prompt": null}), "prompt is missing"),
        (json!({"model": null}), "model is missing"),
        (json!({}), "json_schema is missing"),
        (json!({"json_schema": {"type": "string"}}), "object"),
    ] {
        let row = scene.run(&fields).await;
        assert_eq!(row["status"], "failed", "{fields}: {row}");
        assert_eq!(row["result"]["error_code"], "invalid_request", "{fields}: {row}");
        assert!(row["error"].as_str().unwrap().contains(word), "{fields}: {row}");
    }
    let mut fields = schema();
    fields["provider"] = json!("codex");
    let row = scene.run(&fields).await;
    assert_eq!(row["result"]["error_code"], "provider_unavailable", "{row}");
    assert!(row["error"].as_str().unwrap().contains("Codex CLI"), "{row}");
    fields["provider"] = json!("nobody");
    let row = scene.run(&fields).await;
    assert_eq!(row["status"], "completed", "the model's name decides: {row}");
}

/// Runs until it is stopped; its command has a session of its own.
fn endless(scene: &Scene) -> String {
    let pids = scene.agent.path("pids");
    format!("setsid sleep 300 & echo $! >> {0}; echo $$ >> {0}; wait", pids.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_called_off_ends_with_all_that_it_started() {
    let scene = Scene::new("claude").await;
    scene.agent.acts(&endless(&scene));
    let job = scene.submit(&schema()).await;
    let processes = scene.named("pids", 2).await;
    scene.control.admin.cancel_job(&job).await.unwrap();
    all_gone(&processes).await;
    wait_until("the work dir to be gone", || async { (!scene.has_work_dirs()).then_some(()) })
        .await;
    assert_eq!(scene.control.admin.job(&job).await.unwrap()["result"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_leaves_no_cli_and_the_next_one_no_work_dir() {
    let mut scene = Scene::new("claude").await;
    scene.agent.acts(&endless(&scene));
    let job = scene.submit(&schema()).await;
    let processes = scene.named("pids", 2).await;
    scene.paired.gateway.signal(Signal::SIGKILL);
    all_gone(&processes).await;
    scene.paired.gateway.ended().await;
    assert!(scene.has_work_dirs());
    scene.agent.acts(&Agent::structured("claude"));
    let _gateway = scene.paired.machine.start().await;
    assert!(!scene.has_work_dirs());
    let row = scene.control.ended(&job).await;
    assert_eq!(row["result"]["error_code"], "gateway_restarted", "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_wait_for_memory_while_others_overtake_them() {
    let machine = Machine::new().with("PANORAMA_GATEWAY_AGENT_CONCURRENCY", "1");
    let scene = Scene::on(machine, "claude").await;
    let go = scene.agent.path("go");
    let act = format!(
        "echo $$ >> {}; until [ -e {} ]; do sleep 0.05; done; {}",
        scene.agent.path("pids").display(),
        go.display(),
        Agent::structured("claude")
    );
    scene.agent.acts(&act);
    let first = scene.submit(&schema()).await;
    scene.named("pids", 1).await;
    let second = scene.submit(&schema()).await;
    let third = scene.submit(&schema()).await;
    let row = scene.paired.shell(&scene.control, "echo overtaken").await;
    assert_eq!(row["result"]["stdout"], "overtaken\n", "{row}");
    for waiting in [&second, &third] {
        assert_eq!(scene.control.admin.job(waiting).await.unwrap()["status"], "queued");
    }
    scene.control.admin.cancel_job(&second).await.unwrap();
    std::fs::write(go, "").unwrap();
    assert_eq!(scene.control.ended(&first).await["status"], "completed");
    assert_eq!(scene.control.ended(&third).await["status"], "completed");
    assert_eq!(scene.control.ended(&second).await["status"], "cancelled");
    let pids = std::fs::read_to_string(scene.agent.path("pids")).unwrap();
    assert_eq!(pids.lines().count(), 2, "the one that was called off never ran: {pids}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandboxs_command_line_prints_the_answer() {
    let scene = Scene::new("claude").await;
    let data_dir = scene.control.data_dir().display().to_string();
    let submit = async |words: &[&str]| {
        let line = ["sandbox", "submit", "model-run", "--data-dir", &data_dir, "--wait"];
        scene.paired.machine.run_async(&[&line, words].concat()).await
    };
    let schema = schema()["json_schema"].to_string();
    let ran = submit(&["--schema", &schema, "Is it so?"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(answer, json!({"answer": "yes", "score": 3}));
    scene.agent.acts(&format!("cat {RECORDED}/claude/plain-json/stdout.txt"));
    let ran = submit(&["--model", "sonnet", "hello there"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "echo: hello there\n"), "{ran:?}");
    let ran = submit(&["--json", "hello there"]).await;
    let row: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &row["job_type"]), (0, &json!("model_run")), "{ran:?}");
    scene.agent.acts("echo no; exit 3");
    let ran = submit(&["hello there"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("failed"), "{ran:?}");
    let ran = submit(&[]).await;
    assert_eq!(ran.code, 2, "stdin is empty: {ran:?}");
}
