//! Runs of subagents that leave something running, or are ended in the middle of a command.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use panorama_gateway::process::SHIM_WORD;
use panorama_gateway::providers::ProviderId;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::tree::parent;
use crate::common::{fields, wait_until};
use crate::hard_ends::none_left;
use crate::scene::{Process, Scene};
use crate::subagents::{Begun, begin};
use crate::subagents_answers::{controlled, open_dir};

/// The grace of five seconds, and as much again on a machine that is busy.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// What an agent left running ends with its run.
pub(crate) async fn leftover(scene: &Scene, cli: ProviderId) {
    let site = controlled(scene, cli).await;
    let dir = open_dir();
    let path = dir.path().display();
    let sleep = a_minute();
    let prompt = format!(
        "leftover of subagent {} [[tool bash setsid {sleep} < /dev/null > /dev/null 2>&1 & \
         until [ -e {path}/seen ]; do sleep 0.1; done]]",
        cli.as_str()
    );
    let begun = begin(scene, site, cli, &prompt, json!({"full_control": true})).await;
    let left = begun
        .until("what the agent leaves", || {
            site.processes().into_iter().find(|process| process.command.starts_with(&sleep))
        })
        .await;
    std::fs::write(dir.path().join("seen"), "").unwrap();
    let end = begun.end().await;
    end.completed();
    assert!(!left.name.is_alive(), "{left:?} outlives its run: {end:#?}");
}

/// A command that no other story runs.
fn a_minute() -> String {
    format!("sleep 60.{}", fastrand::u32(100_000..1_000_000))
}

/// The run takes longer than it may.
pub(crate) async fn time_limit(scene: &Scene, cli: ProviderId) {
    let config = json!({"timeout_ms": 10_000});
    let busy = busy(scene, cli, "late", config).await;
    let end = busy.begun.end().await;
    let is_shim = |process: &&Process| process.command.contains(SHIM_WORD);
    for process in busy.processes.iter().filter(|process| !is_shim(process)) {
        assert!(!process.name.is_alive(), "{process:?} outlives its run");
    }
    // The shim tells the end, and then goes itself.
    let since = Instant::now();
    wait_until("the shim to be gone", || async {
        busy.processes.iter().all(|process| !process.name.is_alive()).then_some(())
    })
    .await;
    assert!(since.elapsed() < GONE_WITHIN, "the shim went after {:?}", since.elapsed());
    assert!(!end.failed().is_empty());
    end.told_all();
    let metadata = &end.run["metadata"];
    assert_eq!(metadata["timed_out"], true, "{metadata:#}");
    let took = metadata["duration_ms"].as_u64().unwrap();
    assert!((10_000..16_000).contains(&took), "it took {took} ms");
}

/// The gateway is told twice to stop, and does not wait for the run any longer.
pub(crate) async fn gateway_stopped(scene: &Scene, cli: ProviderId) {
    let busy = busy(scene, cli, "stopped", json!({})).await;
    let begun = &busy.begun;
    let mut gateway = begun.site.gateway.lock().await;
    gateway.signal(Signal::SIGTERM);
    // Signals within a second count as one.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let is_there = |process: &Process| process.name.is_alive();
    assert!(busy.processes.iter().all(is_there), "a drain ends what it is to wait for");
    let since = Instant::now();
    gateway.signal(Signal::SIGTERM);
    let what = format!("{}: gateway stopped while a subagent's command ran", cli.as_str());
    none_left(begun.site, &what, &busy.processes, since, GONE_WITHIN).await;
    assert!(gateway.ended().await.success());
    let end = begun.end().await;
    assert_eq!(end.job["status"], "cancelled", "{end:#?}");
    assert_eq!(end.run["status"], "cancelled", "{end:#?}");
    assert!(end.kinds().ends_with(&["cancellation_acknowledged", "run_cancelled"]), "{end:#?}");
    assert_eq!(end.last()["source"], "gateway_shutdown", "{end:#?}");
    begun.site.start_again(&mut gateway).await;
}

/// A run in the middle of a command of a minute, which has a child in a session of its own; and
/// the processes of it all.
struct Busy<'a> {
    begun: Begun<'a>,
    processes: Vec<Process>,
    /// Where the command works.
    _dir: TempDir,
}

async fn busy<'a>(scene: &'a Scene, cli: ProviderId, story: &str, config: Value) -> Busy<'a> {
    let site = controlled(scene, cli).await;
    let dir = open_dir();
    let path = dir.path().display();
    let (command, child) = (a_minute(), a_minute());
    let marker = format!("{story} subagent {}", cli.as_str());
    let prompt =
        format!("{marker} [[tool bash setsid {child} & touch {path}/began; {command}; echo over]]");
    let mut all = fields(json!({"full_control": true}));
    all.extend(fields(config));
    let begun = begin(scene, site, cli, &prompt, all.into()).await;
    let command_runs = || {
        let processes = site.processes();
        let runs =
            |command: &str| processes.iter().any(|process| process.command.starts_with(command));
        let is_there = dir.path().join("began").exists() && runs(&command) && runs(&child);
        if is_there { of_the_run(processes, &command) } else { None }
    };
    let processes = begun.until(&format!("the command of {marker}"), command_runs).await;
    let is_there = processes.iter().any(|process| process.command.contains(cli.command()));
    assert!(is_there, "the CLI is not among {processes:?}");
    begun.event("tool_call").await;
    Busy { begun, processes, _dir: dir }
}

/// Those of the run that this command belongs to: other stories may have theirs beside them.
fn of_the_run(mut processes: Vec<Process>, command: &str) -> Option<Vec<Process>> {
    let shim_of = |process: &Process| {
        let mut process = process;
        while !process.command.contains(SHIM_WORD) {
            let parent = parent(process.name.pid)?;
            process = processes.iter().find(|other| other.name.pid == parent)?;
        }
        Some(process.name.pid)
    };
    let own = processes.iter().find(|process| process.command.starts_with(command))?;
    let shim = Some(shim_of(own)?);
    let members = processes.iter().filter(|process| shim_of(process) == shim);
    let members: BTreeSet<i32> = members.map(|process| process.name.pid).collect();
    processes.retain(|process| members.contains(&process.name.pid));
    Some(processes)
}

/// The run is called off.
pub(crate) async fn cancel(scene: &Scene, cli: ProviderId) {
    let busy = busy(scene, cli, "cancelled", json!({})).await;
    let (begun, admin) = (&busy.begun, &scene.control.admin);
    let reason = "it takes too long";
    let since = Instant::now();
    let cancel =
        admin.cancel_subagent(&begun.subagent, Some(&begun.run), Some(reason)).await.unwrap();
    let what = format!("{}: subagent cancelled in the middle of a command", cli.as_str());
    none_left(begun.site, &what, &busy.processes, since, GONE_WITHIN).await;
    let answer = scene.ended(cancel["id"].as_str().unwrap()).await;
    let end = begun.end().await;

    let result = &answer["result"];
    assert_eq!(answer["status"], "completed", "{answer:#}");
    assert_eq!(result["cancel_result"], "accepted", "{answer:#}");
    assert_eq!(result["cancelled_active_run"], true, "{answer:#}");
    assert_eq!(end.job["status"], "completed", "{end:#?}");
    assert_eq!(end.job["result"]["status"], "cancelled", "{end:#?}");
    assert_eq!(end.run["status"], "cancelled", "{end:#?}");
    let kinds = end.kinds();
    let called_off = ["cancellation_requested", "cancellation_acknowledged", "run_cancelled"];
    for kind in called_off {
        let count = kinds.iter().filter(|other| **other == kind).count();
        assert_eq!(count, 1, "{kind} in {end:#?}");
    }
    let tail: Vec<_> = kinds.iter().filter(|kind| called_off.contains(kind)).copied().collect();
    assert_eq!(tail, called_off, "{end:#?}");
    assert!(kinds.ends_with(&["cancellation_acknowledged", "run_cancelled"]), "{end:#?}");
    let told = end.last();
    assert_eq!((&told["reason"], &told["source"]), (&json!(reason), &json!("gateway")), "{end:#?}");
    let metadata = &end.run["metadata"];
    assert_eq!(
        (&metadata["cancelled"], &metadata["cancel_reason"]),
        (&json!(true), &json!(reason))
    );
    assert_eq!(metadata["cancel_state"], "acknowledged", "{end:#?}");
    end.told_all();
    let again = begun.go_on("after the cancel [[say alive]]").await.end().await;
    assert_eq!(again.completed(), "alive", "{again:#?}");
}

/// The gateway dies by SIGKILL; the next one tells what became of the run, and works.
pub(crate) async fn gateway_killed(scene: &Scene, cli: ProviderId) {
    let busy = busy(scene, cli, "killed", json!({})).await;
    let begun = &busy.begun;
    let mut gateway = begun.site.gateway.lock().await;
    let since = Instant::now();
    gateway.kill().await;
    let what = format!("{}: gateway killed while a subagent's command ran", cli.as_str());
    none_left(begun.site, &what, &busy.processes, since, GONE_WITHIN).await;
    begun.site.start_again(&mut gateway).await;
    let end = begun.end().await;
    assert!(!end.failed().is_empty());
    assert_eq!(end.job["result"]["error_code"], "gateway_restarted", "{end:#?}");
    assert_eq!(end.last()["source"], "gateway_job_failure", "{end:#?}");
    assert!(end.last()["reason"].is_string(), "{end:#?}");
    assert_eq!(end.kinds().iter().filter(|kind| **kind == "tool_call").count(), 1, "{end:#?}");
    let again = begun.go_on("after the kill [[say alive]]").await.end().await;
    assert_eq!(again.completed(), "alive", "{again:#?}");
}
