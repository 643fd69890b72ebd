//! Runs that are stopped from outside: the job's row is cancelled, or the gateway goes.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::wait_until;
use crate::scene::{Rows, Scene, merged};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_called_off_ends_the_process_and_finalises_the_run() {
    let scene = Scene::new().await;
    scene.acts_for_ever();
    let one = scene.subagent(&json!({})).await;
    let job = scene.submit(&one).await;
    let processes = scene.named("pids", 2).await;
    scene.control.admin.cancel_job(&job).await.unwrap();
    let rows = wait_until("the run's end", || async {
        let rows = scene.rows(&one);
        (rows.types().last() == Some(&"run_cancelled")).then_some(rows)
    })
    .await;
    assert!(processes.iter().all(|process| !process.is_alive()));
    assert_eq!(rows.status(), ("cancelled", "cancelled"));
    assert_eq!(rows.run["metadata"]["cancelled"], true);
    assert_eq!(rows.run["metadata"]["cancel_state"], "acknowledged");
    assert_eq!(rows.run["metadata"]["session_id"], crate::scene::SESSION);
    assert_eq!(rows.payload("run_cancelled")["source"], "gateway");
    let job = scene.control.admin.job(&job).await.unwrap();
    assert_eq!((&job["status"], &job["result"]), (&json!("cancelled"), &Value::Null), "{job}");
    wait_until("the spool to be gone", || async {
        let left = std::fs::read_dir(scene.spool()).map_or(0, Iterator::count);
        (left == 0).then_some(())
    })
    .await;
}

/// What a shutdown writes.
fn assert_shut_down(rows: &Rows, run_id: &str) {
    assert_eq!(rows.status(), ("cancelled", "cancelled"));
    for row in [&rows.subagent, &rows.run] {
        let error = row["error"].as_str().unwrap();
        assert!(error.contains("shut down"), "{row}");
        let envelope = json!({
            "schema_version": 1, "content": error, "content_type": "text", "errors": [error],
        });
        assert_eq!(row["output"], envelope, "{row}");
        assert!(row["completed_at"].is_number(), "{row}");
        let metadata = &row["metadata"];
        let keys = json!({
            "theirs": "kept", "current_run_id": run_id, "cancel_run_id": run_id,
            "cancel_reason": error, "cancel_state": "acknowledged", "cancel_support": "gateway",
            "cancellation_scope": "gateway", "cancelled": true,
        });
        let own = if metadata.get("theirs").is_some() {
            keys
        } else {
            merged(&[&keys, &json!({"theirs": null, "current_run_id": null})])
        };
        for (name, value) in own.as_object().unwrap() {
            assert_eq!(metadata.get(name).unwrap_or(&Value::Null), value, "{name}: {row}");
        }
        assert_eq!(metadata["cancel_requested_at"], metadata["last_run_at"], "{row}");
    }
    let payload = json!({
        "reason": rows.run["error"], "source": "gateway_shutdown", "cancellation_scope": "gateway",
    });
    assert_eq!(rows.payload("cancellation_acknowledged"), &payload);
    assert_eq!(rows.payload("run_cancelled"), &payload);
}

/// SIGTERM, and once it counts, again.
async fn two_signals(scene: &Scene) {
    scene.paired.gateway.signal(Signal::SIGTERM);
    wait_until("the gateway to drain", || async {
        (scene.paired.machine.status().await?["phase"] == "draining").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    scene.paired.gateway.signal(Signal::SIGTERM);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_that_does_not_wait_cancels_run_and_subagent() {
    let mut scene = Scene::new().await;
    scene.acts_for_ever();
    let one = scene.subagent(&json!({})).await;
    let job = scene.submit(&one).await;
    let processes = scene.named("pids", 2).await;
    two_signals(&scene).await;
    assert!(scene.paired.gateway.ended().await.success());
    assert!(processes.iter().all(|process| !process.is_alive()));
    let rows = scene.rows(&one);
    assert_shut_down(&rows, &one.run_id);
    let types =
        ["run_started", "run_progress", "message", "cancellation_acknowledged", "run_cancelled"];
    assert_eq!(rows.types(), types);
    let job = scene.control.ended(&job).await;
    assert_eq!(job["status"], "cancelled", "{job}");
    assert_eq!(job["result"]["cancelled"], true, "{job}");
    scene.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_cancels_a_run_that_still_waits_in_its_checks() {
    let mut scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    let broken = crate::common::backend::Fault::Answer(503, "text/plain", "later".to_owned());
    scene.middleman.fault("GET /team_gateways", broken);
    let job = scene.submit(&one).await;
    scene.asked_for("GET /team_gateways").await;
    two_signals(&scene).await;
    assert!(scene.paired.gateway.ended().await.success());
    let rows = scene.rows(&one);
    assert_shut_down(&rows, &one.run_id);
    assert_eq!(rows.types(), ["cancellation_acknowledged", "run_cancelled"]);
    assert_eq!(scene.control.ended(&job).await["status"], "cancelled");
    assert!(scene.agent.path("said").metadata().is_err(), "nothing was run");
    scene.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_tells_no_events_of_a_run_that_ended_before() {
    let mut scene = Scene::new().await;
    scene.acts_for_ever();
    let one = scene.subagent(&json!({})).await;
    let job = scene.submit(&one).await;
    scene.named("pids", 2).await;
    let sql = format!("UPDATE subagent_runs SET status = 'failed' WHERE id = '{}'", one.run_id);
    scene.meanwhile("PATCH /subagent_runs", sql);
    two_signals(&scene).await;
    assert!(scene.paired.gateway.ended().await.success());
    let rows = scene.rows(&one);
    assert_eq!(rows.types(), ["run_started", "run_progress", "message"]);
    assert_eq!(rows.status(), ("cancelled", "failed"));
    assert_eq!(scene.control.ended(&job).await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_waits_for_the_run() {
    let mut scene = Scene::new().await;
    let go = scene.acts_until("go");
    let one = scene.subagent(&json!({})).await;
    let job = scene.submit(&one).await;
    scene.named("pids", 1).await;
    scene.paired.gateway.signal(Signal::SIGTERM);
    wait_until("the gateway to drain", || async {
        (scene.paired.machine.status().await?["phase"] == "draining").then_some(())
    })
    .await;
    std::fs::write(go, "").unwrap();
    assert!(scene.paired.gateway.ended().await.success());
    assert_eq!(scene.control.ended(&job).await["status"], "completed");
    assert_eq!(scene.rows(&one).status(), ("completed", "completed"));
}
