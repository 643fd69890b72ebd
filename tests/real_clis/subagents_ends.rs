//! Runs of subagents that are ended from outside, in the middle of a command of their agent.

use std::time::{Duration, Instant};

use panorama_gateway::providers::ProviderId;
use serde_json::json;
use tempfile::TempDir;

use crate::common::wait_until;
use crate::hard_ends::none_left;
use crate::scene::{Process, Scene};
use crate::subagents::{Begun, begin};
use crate::subagents_answers::{controlled, open_dir};

/// The grace of five seconds, and one for the rest.
const GONE_WITHIN: Duration = Duration::from_secs(6);

/// A run in the middle of a command of a minute, which has a child in a session of its own; and
/// the processes of it all.
struct Busy<'a> {
    begun: Begun<'a>,
    processes: Vec<Process>,
    /// Where the command works.
    _dir: TempDir,
}

async fn busy<'a>(scene: &'a Scene, cli: ProviderId, story: &str) -> Busy<'a> {
    let site = controlled(scene, cli).await;
    let dir = open_dir();
    let path = dir.path().display();
    let marker = format!("{story} subagent {}", cli.as_str());
    let prompt =
        format!("{marker} [[tool bash setsid sleep 61 & touch {path}/began; sleep 60; echo over]]");
    let begun = begin(scene, site, cli, &prompt, json!({"full_control": true})).await;
    let processes = wait_until(&format!("the command of {marker}"), || async {
        let processes = site.processes();
        let runs =
            |command: &str| processes.iter().any(|process| process.command.starts_with(command));
        let is_there = dir.path().join("began").exists() && runs("sleep 60") && runs("sleep 61");
        is_there.then_some(processes)
    })
    .await;
    let is_there = processes.iter().any(|process| process.command.contains(cli.command()));
    assert!(is_there, "the CLI is not among {processes:?}");
    begun.event("tool_call").await;
    Busy { begun, processes, _dir: dir }
}

/// The run is called off.
pub(crate) async fn cancel(scene: &Scene, cli: ProviderId) {
    let busy = busy(scene, cli, "cancelled").await;
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
}

/// The gateway dies by SIGKILL; the next one tells what became of the run, and works.
pub(crate) async fn gateway_killed(scene: &Scene, cli: ProviderId) {
    let busy = busy(scene, cli, "killed").await;
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
