//! What agent CLIs cost the gateway, measured and printed; nothing here passes or fails.
//! `cargo bench --bench agents`. An argument picks sections by name.
//!
//! `probe` is about the real CLIs and needs a folder of them (`PANORAMA_BENCH_CLIS`, with a `node`
//! that runs them); the rest makes do with scripts that print what real ones printed.
#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "prints figures, measures real time, and has nobody to return errors to"
)]

#[path = "../tests/common/mod.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use panorama_gateway::config::{Environment, GlobalOptions, Purpose, Settings};
use panorama_gateway::observe::Redactor;
use panorama_gateway::process::{Ended, Exit, set_shim_binary};
use panorama_gateway::providers::{
    self, Asker, Attendant, Format, Installed, Left, ModelRequest, Outcome, Provider, ProviderId,
    Roster,
};

use common::agents::{Agent, RECORDED};
use common::{BINARY, ControlPlane, Machine, Paired, wait_until};

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    println!("{:<52} {:>14}   goal", "figure", "measured");
    if wanted("decode") {
        decode();
    }
    if wanted("probe") {
        probe().await;
    }
    if wanted("run") {
        model_run().await;
    }
    if wanted("heartbeat") {
        heartbeat().await;
    }
}

fn row(figure: &str, measured: &str, goal: &str) {
    println!("{figure:<52} {measured:>14}   {goal}");
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

fn recorded(path: &str) -> String {
    std::fs::read_to_string(Path::new(RECORDED).join(path)).unwrap()
}

fn installed(provider: &dyn Provider) -> Installed {
    let help = match provider.id() {
        ProviderId::ClaudeCode => "claude/help.txt",
        ProviderId::Codex => "codex/exec-help.txt",
        ProviderId::Gemini => "gemini/help.txt",
    };
    let flags = provider.flags(Some(&recorded(help)));
    Installed { command: "/bin/cli".into(), version: None, flags, extensions: Vec::new() }
}

/// An answer of just under 5,000,000 bytes as each CLI would print it.
fn decode() {
    const BYTES: usize = 4_900_000;
    for provider in providers::all() {
        let request = ModelRequest {
            prompt: "q".to_owned(),
            model: None,
            format: Format::Json { schema: common::fields(json!({"type": "object"})) },
            system: None,
            effort: None,
            time_limit: Duration::from_secs(110),
        };
        let plan = provider.plan(&request, &installed(provider)).unwrap();
        // Half of it is characters that JSON escapes twice.
        let items = "a\"b\n".repeat(BYTES / 9);
        let answer = json!({ "items": items }).to_string();
        let (stdout, file) = match provider.id() {
            ProviderId::ClaudeCode => (
                json!({"type": "result", "is_error": false, "num_turns": 1,
                       "structured_output": {"items": "x".repeat(BYTES - 200)}})
                .to_string(),
                None,
            ),
            ProviderId::Codex => {
                let event = json!({"type": "item.completed",
                                   "item": {"id": "i", "type": "agent_message", "text": answer}});
                let end = json!({"type": "turn.completed", "usage": {}});
                (format!("{event}\n{end}\n"), Some(answer))
            }
            ProviderId::Gemini => (json!({"response": answer, "stats": {}}).to_string(), None),
        };
        let bytes = stdout.len() as f64 / 1e6;
        let left = Left {
            stdout,
            stdout_truncated: false,
            stderr: String::new(),
            exit: Exit::Code(0),
            ended: Ended::ByItself,
            file,
        };
        let mut runs = Vec::new();
        for _ in 0..20 {
            let began = Instant::now();
            let outcome = provider.decode(&request, &plan, &left);
            runs.push(began.elapsed());
            assert!(matches!(outcome, Outcome::Answer(_)), "no answer");
        }
        let figure =
            format!("{}: {bytes:.1} MB of stdout decoded, p50 of 20", provider.id().title());
        row(&figure, &millis(median(runs)), "< 50 ms");
    }
}

/// All three real CLIs, found and probed at the same time, beside what the slowest takes for its
/// own `--version` and help, one after the other.
async fn probe() {
    let Some(folder) = std::env::var_os("PANORAMA_BENCH_CLIS").map(PathBuf::from) else {
        println!("probe: skipped, PANORAMA_BENCH_CLIS names no folder");
        return;
    };
    set_shim_binary(BINARY);
    let home = tempfile::tempdir().unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display());
    let variables = BTreeMap::from([
        ("HOME", home.path().display().to_string()),
        ("PATH", path.clone()),
        ("SHELL", "/bin/false".to_owned()),
    ]);
    let environment = Environment::from_pairs(variables);
    let settings =
        Settings::resolve(&GlobalOptions::default(), environment.clone(), Purpose::Look).unwrap();
    let (mut ours, mut slowest) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let alone = providers::all().map(|provider| {
            let began = Instant::now();
            for args in [&["--version"][..], provider.help_args()] {
                let mut command = Command::new(folder.join(provider.id().command()));
                command.args(args).env_clear().env("HOME", home.path()).env("PATH", &path);
                command.envs(provider.probe_env().iter().copied());
                let quiet =
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                assert!(quiet.status().unwrap().success());
            }
            began.elapsed()
        });
        slowest.push(alone.max().unwrap());
        let roster = Arc::new(Roster::new(Redactor::default()));
        let attendants = providers::all().map(|provider| {
            let asker = Asker::new(&environment, home.path(), 0o022);
            Attendant::new(provider, &settings, asker, Arc::clone(&roster))
        });
        let began = Instant::now();
        let looks = attendants.map(|mut attendant| async move { attendant.light().await });
        futures_util::future::join_all(looks).await;
        ours.push(began.elapsed());
        for id in ProviderId::ALL {
            assert!(roster.standing(id).installed.is_some(), "{id:?} is not found");
        }
    }
    let (ours, slowest) = (median(ours), median(slowest));
    row("slowest CLI: --version and help, p50 of 5", &millis(slowest), "");
    row("all three found and probed, p50 of 5", &millis(ours), "");
    let ratio = ours.as_secs_f64() / slowest.as_secs_f64();
    row("ratio", &format!("{ratio:.2}"), "<= 1.3");
}

/// CPU time that a process has used itself, to the nanosecond: the sum over its threads.
fn cpu(pid: i32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let used = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}

async fn scene() -> (ControlPlane, Paired) {
    let machine = Machine::new().with("PANORAMA_GATEWAY_CONCURRENCY", "1");
    let (machine, _claude) = Agent::install(machine, "claude", &Agent::structured("claude"));
    let (machine, _codex) = Agent::install(machine, "codex", &Agent::structured("codex"));
    let (machine, _gemini) = Agent::install(machine, "gemini", &Agent::structured("gemini"));
    let control = ControlPlane::start().await;
    let paired = Paired::start_on(machine, &control).await;
    wait_until("every provider's verdict", || async {
        let status = paired.machine.status().await?;
        let decided = |provider: &Value| provider["available"] == true;
        let providers = status["providers"].as_array()?;
        (providers.len() == 3 && providers.iter().all(decided)).then_some(())
    })
    .await;
    (control, paired)
}

/// The gateway's own CPU time for a run of a CLI that answers at once; the shim's and the CLI's are
/// not in it, those of its polls meanwhile are.
async fn model_run() {
    const RUNS: u32 = 50;
    let (control, paired) = scene().await;
    for provider in ["claude_code", "codex", "gemini"] {
        let payload = json!({
            "prompt": "Is it so?", "model": "__default__", "provider": provider,
            "json_schema": {"type": "object"},
        });
        let before = cpu(paired.gateway.pid());
        for _ in 0..RUNS {
            let id = control.submit(&paired.gateway_id, "model_run", payload.clone()).await;
            let row = control.ended(&id).await;
            assert_eq!(row["status"], "completed", "{row}");
        }
        let each = cpu(paired.gateway.pid()).saturating_sub(before) / RUNS;
        row(&format!("own CPU of a model run, {provider}"), &millis(each), "< 15 ms");
    }
}

/// The CPU time of an idle gateway in the second around each heartbeat, which has the light checks
/// of three CLIs in it, and now and then a poll.
async fn heartbeat() {
    const HEARTBEATS: usize = 5;
    let (control, paired) = scene().await;
    let seen = async || control.gateways().await[0]["last_seen_at"].clone();
    let mut ticks = Vec::new();
    let mut last = seen().await;
    let mut before = cpu(paired.gateway.pid());
    while ticks.len() < HEARTBEATS {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (now, used) = (seen().await, cpu(paired.gateway.pid()));
        if now != last {
            tokio::time::sleep(Duration::from_millis(250)).await;
            ticks.push(cpu(paired.gateway.pid()).saturating_sub(before));
            last = now;
        }
        before = used;
    }
    row("heartbeat of an idle gateway, CPU, p50 of 5", &millis(median(ticks)), "< 2 ms");
}
