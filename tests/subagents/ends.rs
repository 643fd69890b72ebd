//! Ends that are hard to bring to the backend, and runs that do not end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::backend::Fault;
use crate::common::wait_until;
use crate::scene::Scene;

const FINALIZE: &str = "POST /finalize-gateway-subagent-run";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_past_its_time_is_ended_and_has_failed() {
    let scene = Scene::new().await;
    scene.acts_for_ever();
    let one = scene.subagent(&json!({"config": {"timeoutMs": 2_000}})).await;
    let began = Instant::now();
    let job = scene.submit(&one).await;
    let processes = scene.named("pids", 2).await;
    let job = scene.control.ended(&job).await;
    assert_eq!(job["status"], "failed", "{job}");
    let error = job["error"].as_str().unwrap();
    assert!(error.contains("Claude Code") && error.contains("did not finish"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(processes.iter().all(|process| !process.is_alive()));
    let rows = scene.rows(&one);
    assert_eq!(rows.status(), ("failed", "failed"));
    assert_eq!(rows.run["metadata"]["timed_out"], true);
    let types = ["run_started", "run_progress", "message", "run_failed"];
    assert_eq!(rows.types(), types);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_waits_for_the_backend_and_is_told_once() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    let broken = json!({"success": false, "error": "later"}).to_string();
    scene.middleman.fault(FINALIZE, Fault::Answer(500, "application/json", broken));
    let id = scene.submit(&one).await;
    let tries = || {
        let seen = scene.middleman.seen();
        seen.iter().filter(|seen| seen.path.ends_with("finalize-gateway-subagent-run")).count()
    };
    wait_until("some tries", || async { (tries() >= 3).then_some(()) }).await;
    assert_eq!(scene.control.admin.job(&id).await.unwrap()["status"], "running");
    let record = scene.paired.machine.dir().join(format!("jobs/{id}.json"));
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert_eq!(record["subagent"]["end"]["finalization"]["final_status"], "completed", "{record}");
    assert_eq!(record["subagent"]["end"]["events"][0][0], "run_completed", "{record}");
    scene.middleman.fault(FINALIZE, Fault::LostAnswer);
    let before = tries();
    wait_until("the lost answer", || async { (tries() > before).then_some(()) }).await;
    scene.middleman.heal();
    let job = scene.control.ended(&id).await;
    assert_eq!(job["status"], "completed", "{job}");
    let rows = scene.rows(&one);
    assert_eq!(rows.status(), ("completed", "completed"));
    rows.payload("run_completed");
    scene.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_refused_fails_the_job() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    let refusal = json!({"success": false, "error": "not like this"}).to_string();
    scene.middleman.fault(FINALIZE, Fault::Answer(422, "application/json", refusal));
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert!(job["error"].as_str().unwrap().contains("not like this"), "{job}");
    let rows = scene.rows(&one);
    assert!(!rows.types().contains(&"run_completed"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_before_the_run_waits_for_the_backend_and_is_told_once() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({"config": {"full_control": true}})).await;
    scene.control.admin.set_full_control(Some(&scene.paired.gateway_id), false).await.unwrap();
    scene.meanwhile("PATCH /subagents", String::new());
    let job = scene.submit(&one).await;
    wait_until("the start", || async { (!scene.rows(&one).events.is_empty()).then_some(()) }).await;
    let job = scene.control.ended(&job).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert_eq!(scene.rows(&one).types(), ["run_started", "run_failed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cli_that_went_away_fails_the_run() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    std::fs::remove_file(scene.agent.path("claude")).unwrap();
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert!(job["error"].as_str().unwrap().contains("Claude Code"), "{job}");
    let rows = scene.rows(&one);
    assert_eq!(rows.status(), ("failed", "failed"));
    assert_eq!(rows.types().last(), Some(&"run_failed"));
}
