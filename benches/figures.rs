//! The figures that this gateway wants to reach, measured and printed; nothing here passes or
//! fails. `cargo bench --bench figures`. An argument picks sections by name.
//!
//! The control plane runs in this process, the gateway is the real binary with an empty HOME and
//! no provider installed.
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
mod measured;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use panorama_gateway::backend::Completion;
use panorama_gateway::jobs::journal::{Journal, Record};
use panorama_gateway::model::time::now_wire;
use panorama_gateway::model::{GatewayId, JobId, JobStatus};
use panorama_gateway::process::RunIds;

use common::{BINARY, ControlPlane, Machine, Paired};
use measured::{cpu_ticks, median, megabytes, memory, millis, row};

const PEAK_OF: &str = "--peak-of";

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == PEAK_OF) {
        return print_peak(&args[1..]);
    }
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    println!("{:<52} {:>14}   goal", "figure", "measured");
    binary();
    if wanted("status") {
        status().await;
    }
    if wanted("start") {
        start().await;
    }
    if wanted("drain") {
        drain().await;
    }
    if wanted("idle") {
        idle().await;
    }
    if wanted("claim") {
        claim().await;
    }
    if wanted("share") {
        own_share().await;
    }
    if wanted("throughput") {
        throughput().await;
    }
    if wanted("output") {
        big_output().await;
    }
    if wanted("journal") {
        journal().await;
    }
    if wanted("growth") {
        growth().await;
    }
}

fn binary() {
    let bytes = std::fs::metadata(BINARY).unwrap().len();
    row("binary", &megabytes(bytes), "< 20 MB");
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Runs a command and prints the peak RSS of it, kB: `getrusage` of waited children, so it needs a
/// process of its own.
fn print_peak(command: &[String]) {
    let status = Command::new(&command[0]).args(&command[1..]).stdout(Stdio::null()).status();
    assert!(status.unwrap().success());
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    println!("{}", usage.unwrap().max_rss());
}

async fn status() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let _gateway = machine.start().await;
    let mut runs = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        let mut command = machine.command(&["status", "--json"]);
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
        runs.push(began.elapsed());
    }
    row("status, wall, p50 of 50", &millis(median(runs)), "< 10 ms");
    let output = Command::new(std::env::current_exe().unwrap())
        .args([PEAK_OF, BINARY, "status", "--json"])
        .env_clear()
        .env("HOME", machine.home())
        .output()
        .unwrap();
    let kb: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    row("status, peak RSS", &megabytes(kb * 1024), "< 10 MB");
    busy_status(&control).await;
}

/// The same while ten jobs print as fast as they can.
async fn busy_status(control: &ControlPlane) {
    const JOBS: usize = 10;
    const LOOKS: usize = 100;
    let machine = Machine::new().with("PANORAMA_GATEWAY_METRICS_LISTEN", "127.0.0.1:0");
    let paired = Paired::start_on(machine, control).await;
    for _ in 0..JOBS {
        paired.submit_shell(control, "yes", json!({"timeout_ms": 600_000})).await;
    }
    common::wait_until("all jobs to run", || async {
        let status = paired.machine.status().await?;
        (status["active_jobs"].as_array()?.len() == JOBS).then_some(())
    })
    .await;
    let (mut commands, mut asked, mut scraped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        let began = Instant::now();
        let mut command = paired.machine.command(&["status", "--json"]);
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
        commands.push(began.elapsed());
        let began = Instant::now();
        assert!(paired.machine.status().await.is_some());
        asked.push(began.elapsed());
        let began = Instant::now();
        assert!(paired.machine.ask("metrics").await.is_some());
        scraped.push(began.elapsed());
    }
    for (figure, mut runs, goal) in [
        ("status, 10 jobs print", commands, "< 20 ms"),
        ("status over the socket, the same", asked, ""),
        ("metrics over the socket, the same", scraped, ""),
    ] {
        runs.sort_unstable();
        row(&format!("{figure}, p50 of {LOOKS}"), &millis(runs[LOOKS / 2]), goal);
        row(&format!("{figure}, p99"), &millis(runs[LOOKS * 99 / 100]), "");
    }
    let status = paired.machine.status().await.unwrap();
    assert_eq!(status["active_jobs"].as_array().unwrap().len(), JOBS, "they printed all the time");
}

async fn start() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let mut gateway = machine.spawn(&[]);
        loop {
            if machine.status().await.is_some_and(|status| status["phase"] == "up") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        runs.push(began.elapsed());
        gateway.signal(nix::sys::signal::Signal::SIGTERM);
        gateway.ended().await;
    }
    row("start to up, p50 of 20", &millis(median(runs)), "< 150 ms");
}

/// From SIGTERM to the end of an idle gateway.
async fn drain() {
    const TIMES: usize = 20;
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let mut runs = Vec::new();
    for _ in 0..TIMES {
        let mut gateway = machine.start().await;
        let began = Instant::now();
        gateway.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(gateway.ended().await.success());
        runs.push(began.elapsed());
    }
    row(&format!("drain of an idle gateway, p50 of {TIMES}"), &millis(median(runs)), "< 100 ms");
}

async fn idle() {
    const WATCHED: Duration = Duration::from_mins(1);
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let gateway = machine.start().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = cpu_ticks(gateway.pid());
    tokio::time::sleep(WATCHED).await;
    let ticks = cpu_ticks(gateway.pid()) - before;
    row("idle RSS", &megabytes(memory(gateway.pid(), "VmRSS")), "< 16 MB");
    // 100 ticks a second on every Linux that this runs on.
    let share = ticks as f64 / WATCHED.as_secs_f64();
    row("idle CPU over 60 s", &format!("{share:.3} %"), "< 0.1 %");
}

fn at(row: &Value, field: &str) -> Timestamp {
    row[field].as_str().unwrap().parse().unwrap()
}

async fn own_share() {
    const JOBS: usize = 200;
    let control = ControlPlane::start().await;
    let machine = Machine::new().with("PANORAMA_GATEWAY_CONCURRENCY", "1");
    let paired = Paired::start_on(machine, &control).await;
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(paired.submit_shell(&control, "true", json!({})).await);
    }
    let mut runs = Vec::new();
    for id in jobs {
        let row = control.ended(&id).await;
        // `started_at` is ours, just before the claim; `updated_at` the server's, at the end.
        let took = at(&row, "updated_at").duration_since(at(&row, "started_at"));
        runs.push(took.unsigned_abs());
    }
    let mut bare = Vec::new();
    for _ in 0..JOBS {
        let began = Instant::now();
        let mut command = Command::new("/bin/bash");
        command.args(["-lc", "true"]).env_clear().env("HOME", paired.machine.home());
        assert!(command.stdin(Stdio::null()).status().unwrap().success());
        bare.push(began.elapsed());
    }
    let (job, bare) = (median(runs), median(bare));
    row("shell_exec true, claim to end, p50", &millis(job), "");
    row("bash -lc true, bare, p50", &millis(bare), "");
    row("the gateway's own share, p50", &millis(job.saturating_sub(bare)), "<= 8 ms");
}

/// From the insert of a job to its claim, with realtime, by the server's clock.
async fn claim() {
    const JOBS: usize = 100;
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    common::wait_until("realtime to be ready", || async {
        let status = paired.machine.status().await?;
        (status["realtime"]["state"] == "ready").then_some(())
    })
    .await;
    let mut claims = Vec::new();
    for _ in 0..JOBS {
        let job = paired.submit_shell(&control, "sleep 60", json!({})).await;
        let running = common::wait_until("the claim", || async {
            let row = control.admin.job(&job).await.unwrap();
            (row["status"] == "running").then_some(row)
        })
        .await;
        let took = at(&running, "updated_at").duration_since(at(&running, "created_at"));
        claims.push(took.unsigned_abs());
        control.admin.cancel_job(&job).await.unwrap();
    }
    claims.sort_unstable();
    row("insert to claim with realtime, p50 of 100", &millis(claims[JOBS / 2]), "< 5 ms");
    row("the same, p99", &millis(claims[JOBS * 99 / 100]), "");
}

async fn throughput() {
    const JOBS: usize = 500;
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let gateway_id = machine.pair(&control).await;
    machine.allow_control().await;
    let resource_id = control.allow_shell(&gateway_id).await;
    let payload = json!({"command": "true", "resource_id": resource_id});
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(control.submit(&gateway_id, "shell_exec", payload.clone()).await);
    }
    let _gateway = machine.start().await;
    let mut rows = Vec::new();
    for id in jobs {
        let row = control.ended(&id).await;
        assert_eq!(row["status"], "completed", "{row}");
        rows.push(row);
    }
    let first = rows.iter().map(|row| at(row, "started_at")).min().unwrap();
    let last = rows.iter().map(|row| at(row, "updated_at")).max().unwrap();
    let seconds = last.duration_since(first).as_secs_f64();
    let rate = JOBS as f64 / seconds;
    row("500 queued shell_exec true", &format!("{rate:.0} jobs/s"), ">= 200 jobs/s");
}

/// What the journal costs a job: intent, processes, result, removal, on a tmpfs where there is one.
async fn journal() {
    const JOBS: u32 = 1_000;
    let tmpfs = std::path::Path::new("/dev/shm");
    let dir = if tmpfs.is_dir() {
        tempfile::tempdir_in(tmpfs).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let journal = Journal::open(&dir.path().join("jobs")).unwrap();
    let began = Instant::now();
    for n in 0..JOBS {
        let id = JobId::new(format!("job-{n}"));
        let gateway = GatewayId::new("gateway");
        let mut record = Record::intent(id, gateway, "shell_exec".to_owned(), now_wire());
        journal.intend(&record).await.unwrap();
        record.run = Some(RunIds { run_id: "run".to_owned(), shim_pid: 1, shim_start: 1 });
        journal.save_for_this_boot(&record).await.unwrap();
        record.completion = Some(Completion {
            status: JobStatus::Completed,
            result: json!({"stdout": "x".repeat(200), "exit_code": 0}),
            error: None,
            completed_at: now_wire(),
        });
        journal.save(&record).await.unwrap();
        journal.remove(&record.id).await;
    }
    let each = began.elapsed() / JOBS;
    row("journal, a job, on tmpfs", &millis(each), "< 1 ms");
}

/// Memory after many jobs beside memory after some.
async fn growth() {
    const SOME: usize = 1_000;
    const MANY: usize = 20_000;
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let mut done = 0;
    let mut after_some = 0;
    for total in [SOME, MANY] {
        let mut last = String::new();
        while done < total {
            last = paired.submit_shell(&control, "true", json!({})).await;
            done += 1;
            if done % 1_000 == 0 {
                control.ended(&last).await;
            }
        }
        control.ended(&last).await;
        let now = memory(paired.gateway.pid(), "VmRSS");
        row(&format!("RSS after {total} jobs"), &megabytes(now), "");
        if total == SOME {
            after_some = now;
        } else {
            let growth = (mb(now) / mb(after_some) - 1.0) * 100.0;
            row("growth", &format!("{growth:.1} %"), "< 10 %");
        }
    }
}

async fn big_output() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    paired.shell(&control, "true").await;
    let before = memory(paired.gateway.pid(), "VmHWM");
    let ended = paired.shell(&control, "head -c 200000000 /dev/zero | tr '\\0' x").await;
    assert_eq!(ended["result"]["stdout_truncated"], true, "{}", ended["status"]);
    let after = memory(paired.gateway.pid(), "VmHWM");
    row("VmHWM before 200 MB of output", &megabytes(before), "");
    row("VmHWM after", &megabytes(after), "");
    row("difference", &megabytes(after - before), "< 16 MB");
}
