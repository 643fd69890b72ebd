//! What agent CLIs cost the gateway, measured and printed; nothing here passes or fails.
//! `cargo bench --bench agents`. An argument picks sections by name; `events` takes a minute, or so
//! many seconds as `PANORAMA_BENCH_SECONDS` says.
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
#[expect(dead_code, reason = "the other benches use the rest")]
mod measured;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use panorama_gateway::config::{Environment, GlobalOptions, Purpose, Settings};
use panorama_gateway::observe::Redactor;
use panorama_gateway::process::{Ended, Exit, set_shim_binary};
use panorama_gateway::providers::{
    self, Asker, Attendant, Format, Installed, Left, ModelRequest, Outcome, Provider, ProviderId,
    Roster,
};
use panorama_gateway::sandbox::client::NewSubagent;

use common::agents::{Agent, RECORDED};
use common::{BINARY, ControlPlane, Machine, Paired, wait_until};
use measured::{median, megabytes, memory, millis, row};

/// This program is also the CLI of section `events`: `--speak <events> <seconds>`.
const SPEAK: &str = "--speak";

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [speak, events, seconds] = args.as_slice()
        && speak == SPEAK
    {
        return speak_for(events.parse().unwrap(), seconds.parse().unwrap());
    }
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
    if wanted("events") {
        live_events().await;
    }
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

/// The act of a recorded run, with an answer that also passes the gateway's own question.
fn checked(command: &str) -> String {
    let answer = r#"sed 's/answer/message/g; s/,[\]*"score[\]*":3//g'"#;
    Agent::structured(command)
        .replace("; cat /", &format!("; {answer} /"))
        .replace("; cp ", &format!("; {answer} "))
        .replace(" output.json; ", " > output.json; ")
}

async fn scene() -> (ControlPlane, Paired) {
    let machine = Machine::new().with("PANORAMA_GATEWAY_CONCURRENCY", "1");
    let (machine, _claude) = Agent::install(machine, "claude", &checked("claude"));
    let (machine, _codex) = Agent::install(machine, "codex", &checked("codex"));
    let (machine, _gemini) = Agent::install(machine, "gemini", &checked("gemini"));
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

/// What a heartbeat, with the light checks of three CLIs, takes of CPU over what an idle gateway takes
/// in the same time without one (polls, the realtime channel).
async fn heartbeat() {
    const HEARTBEATS: usize = 5;
    const WINDOW: Duration = Duration::from_millis(750);
    let (control, paired) = scene().await;
    let seen = async || control.gateways().await[0]["last_seen_at"].clone();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let (mut last, mut before) = (seen().await, cpu(paired.gateway.pid()));
    while with.len() < HEARTBEATS {
        tokio::time::sleep(WINDOW).await;
        let (now, used) = (seen().await, cpu(paired.gateway.pid()));
        let window = used.saturating_sub(before);
        if now == last {
            without.push(window);
        } else {
            with.push(window);
        }
        (last, before) = (now, used);
    }
    let windows = u32::try_from(without.len().max(1)).unwrap();
    let idle = without.iter().sum::<Duration>() / windows;
    row("idle CPU in 750 ms, mean", &millis(idle), "");
    let tick = median(with).saturating_sub(idle);
    row("heartbeat of an idle gateway, CPU, p50 of 5", &millis(tick), "< 2 ms");
}

/// So many lines as Claude Code prints them, evenly over this time, each with the time it is printed
/// at in its text.
fn speak_for(events: u32, seconds: u32) {
    let mut prompt = String::new();
    std::io::stdin().read_to_string(&mut prompt).unwrap();
    let mut stdout = std::io::stdout().lock();
    let began = Instant::now();
    for number in 0..events {
        let due = began + Duration::from_secs(seconds.into()) * number / events;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let text = format!("{} {}", Timestamp::now().as_microsecond(), "words ".repeat(50));
        // Text is told when the next block comes: that is in its latency.
        let block = if number % 2 == 0 {
            json!({"type": "text", "text": text})
        } else {
            json!({"type": "tool_use", "id": format!("t{number}"), "name": "Read", "input": {"query": text}})
        };
        let message = json!({"id": format!("msg_{number}"), "content": [block]});
        writeln!(stdout, "{}", json!({"type": "assistant", "message": message})).unwrap();
        stdout.flush().unwrap();
    }
    let end = json!({"type": "result", "subtype": "success", "is_error": false, "num_turns": 1,
                     "result": "done", "session_id": "s", "modelUsage": {}});
    writeln!(stdout, "{end}").unwrap();
}

/// Ten subagents that talk at the same time: from the CLI's line to the table's row, by the clock of
/// this machine, and the gateway's memory.
async fn live_events() {
    const AGENTS: usize = 10;
    const PER_SECOND: u32 = 167;
    let setting = common::setting("PANORAMA_BENCH_SECONDS").unwrap_or(60);
    let seconds = u32::try_from(setting).unwrap();
    let lines = PER_SECOND * seconds;
    let machine = Machine::new()
        .with("PANORAMA_GATEWAY_CONCURRENCY", AGENTS.to_string())
        .with("PANORAMA_GATEWAY_AGENT_CONCURRENCY", AGENTS.to_string());
    let (machine, claude) = Agent::install(machine, "claude", &checked("claude"));
    let control = ControlPlane::start().await;
    let paired = Paired::start_on(machine, &control).await;
    wait_until("the team to know that agents can run", || async {
        let gateways = control.gateways().await;
        let ready = gateways[0].pointer("/capabilities/services/model_execution/ready");
        (ready == Some(&json!(true))).then_some(())
    })
    .await;
    let program = std::env::current_exe().unwrap();
    claude.acts(&format!("exec {} {SPEAK} {lines} {seconds}", program.display()));
    let pid = paired.gateway.pid();
    row("RSS before", &megabytes(memory(pid, "VmRSS")), "");
    row("VmHWM before", &megabytes(memory(pid, "VmHWM")), "");
    let used = cpu(pid);
    let mut jobs = Vec::new();
    for _ in 0..AGENTS {
        let new = NewSubagent {
            gateway_id: Some(paired.gateway_id.clone()),
            subagent_type: "claude_code_gateway".to_owned(),
            prompt: "Talk".to_owned(),
            config: common::fields(json!({})),
        };
        let queued = control.admin.create_subagent(&new).await.unwrap();
        jobs.push(queued.job["id"].as_str().unwrap().to_owned());
    }
    let ran = Duration::from_secs(seconds.into());
    let began = Instant::now();
    let mut seen = Vec::new();
    while began.elapsed() < ran {
        tokio::time::sleep(Duration::from_millis(250)).await;
        seen.push(memory(pid, "VmRSS"));
    }
    for job in &jobs {
        let ended = control.ended(job).await;
        assert_eq!(ended["status"], "completed", "{ended}");
    }
    let mut latencies = latencies(&control.data_dir().join("sandbox.db"));
    assert_eq!(latencies.len(), AGENTS * lines as usize, "not every event arrived");
    latencies.sort_unstable();
    let at = |percent: usize| latencies[latencies.len() * percent / 100];
    row(&format!("line to row, {} events, p50", latencies.len()), &millis(at(50)), "");
    row("line to row, p99", &millis(at(99)), "< 1000 ms");
    row("line to row, most", &millis(latencies[latencies.len() - 1]), "");
    let average = seen.iter().sum::<u64>() / seen.len() as u64;
    row("RSS while they talk, average", &megabytes(average), "");
    row("RSS while they talk, VmHWM", &megabytes(memory(pid, "VmHWM")), "< 24 MB");
    let share = cpu(pid).saturating_sub(used).as_secs_f64() / began.elapsed().as_secs_f64();
    row("own CPU, of one core", &format!("{:.1} %", share * 100.0), "");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    row("load average at the end", load.split(' ').next().unwrap_or_default(), "");
}

/// From the time in each event's text to when its row was made.
fn latencies(database: &Path) -> Vec<Duration> {
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    let sql = "SELECT coalesce(payload ->> 'content', payload ->> '$.tool_input.query'), created_at
               FROM subagent_run_events WHERE event_type IN ('message', 'tool_call')";
    let mut query = connection.prepare(sql).unwrap();
    let both = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
    let rows = query.query_map([], both).unwrap().map(Result::unwrap);
    rows.map(|(text, made)| {
        let printed: i64 = text.split(' ').next().unwrap().parse().unwrap();
        Duration::from_micros(u64::try_from(made - printed).unwrap_or(0))
    })
    .collect()
}
