//! Runs that are ended from outside, and what is left of them: nothing.

use std::time::{Duration, Instant};

use panorama_gateway::providers::ProviderId;
use serde_json::json;

use crate::common::tree::{Member, all_gone};
use crate::scene::{Process, Scene, Site};

/// How long a process of a run may outlive what ends the run.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// A run that waits for its model, alone on the machine: its job, and its processes.
async fn waiting(scene: &Scene, cli: ProviderId, story: &str) -> (String, Vec<Process>) {
    let marker = format!("{story} {}", cli.as_str());
    let job = scene.submit(cli, &format!("{marker} [[hang]]"), &json!({})).await;
    let asked = scene.until(&job, || (!scene.fake.asked(&marker).is_empty()).then_some(())).await;
    asked.unwrap_or_else(|row| panic!("in vain for the request of {marker}: {row:#}"));
    let processes = scene.own.processes();
    let is_there = processes.iter().any(|process| process.command.contains(cli.command()));
    assert!(is_there, "the CLI is not among {processes:?}");
    (job, processes)
}

/// Waits until none of them is left, nor any other of a run.
pub(crate) async fn none_left(
    site: &Site,
    what: &str,
    processes: &[Process],
    since: Instant,
    within: Duration,
) {
    let member = |process: &Process| Member {
        label: process.command.chars().take(14).collect(),
        process: process.name.clone(),
    };
    let members: Vec<Member> = processes.iter().map(member).collect();
    all_gone(what, &members, since, within).await;
    let left = site.processes();
    assert!(left.is_empty(), "left: {left:?}");
}

/// The row is cancelled while the CLI waits for its model.
pub(crate) async fn cancel(scene: &Scene, cli: ProviderId) {
    let (job, processes) = waiting(scene, cli, "cancel").await;
    scene.control.admin.cancel_job(&job).await.unwrap();
    let what = format!("{}: cancelled in mid-run", cli.as_str());
    none_left(&scene.own, &what, &processes, Instant::now(), GONE_WITHIN).await;
    let row = scene.ended(&job).await;
    assert_eq!(row["status"], "cancelled", "{row}");
}

/// The gateway dies by SIGKILL while the CLI waits for its model; the next one tells what became
/// of the job, and works.
pub(crate) async fn gateway_killed(scene: &Scene, cli: ProviderId) {
    let (job, processes) = waiting(scene, cli, "killed").await;
    let mut gateway = scene.own.gateway.lock().await;
    let since = Instant::now();
    gateway.kill().await;
    let what = format!("{}: gateway killed in mid-run", cli.as_str());
    none_left(&scene.own, &what, &processes, since, GONE_WITHIN).await;
    scene.own.start_again(&mut gateway).await;
    let row = scene.ended(&job).await;
    let told = (&row["status"], &row["result"]["error_code"]);
    assert_eq!(told, (&json!("failed"), &json!("gateway_restarted")), "{row}");
    let row = scene.run(cli, "after the kill [[say alive]]", &json!({})).await;
    assert_eq!(row["result"]["output"], json!({"text": "alive"}), "{row}");
}
