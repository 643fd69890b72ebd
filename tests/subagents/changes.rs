//! Rows that change under us, at every step.

use serde_json::{Value, json};

use crate::common::backend::Fault;
use crate::scene::{Scene, Subagent};

fn set_run(subagent: &Subagent, status: &str) -> String {
    format!("UPDATE subagent_runs SET status = '{status}' WHERE id = '{}'", subagent.run_id)
}

fn set_subagent(subagent: &Subagent, status: &str) -> String {
    format!("UPDATE subagents SET status = '{status}' WHERE id = '{}'", subagent.id)
}

/// While such a request is on its way, this happens; the job ends as cancelled, and no agent ran.
async fn cancelled(scene: &Scene, one: &Subagent, which: &str, sql: String) -> Value {
    scene.meanwhile(which, sql);
    let job = scene.job(one).await;
    scene.middleman.heal();
    assert_eq!(job["status"], "cancelled", "{which}: {job}");
    assert_eq!(job["result"]["subagent_id"], one.id, "{which}: {job}");
    assert!(scene.rows(one).events.is_empty(), "{which}: {job}");
    assert!(scene.agent.path("said").metadata().is_err(), "nothing was run");
    job["result"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_ends_before_the_start_ends_the_job() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    let result = cancelled(&scene, &one, "GET /subagents", set_subagent(&one, "cancelled")).await;
    assert_eq!(result["current_run_id"], one.run_id, "{result}");

    let one = scene.subagent(&json!({})).await;
    let result = cancelled(&scene, &one, "GET /subagent_runs", set_run(&one, "failed")).await;
    assert_eq!(result["run_status"], "failed", "{result}");

    let one = scene.subagent(&json!({})).await;
    let result = cancelled(&scene, &one, "PATCH /subagent_runs", set_run(&one, "cancelled")).await;
    assert_eq!(result["run_id"], one.run_id, "{result}");
    assert_eq!(scene.rows(&one).subagent["started_at"], Value::Null);

    let one = scene.subagent(&json!({})).await;
    let result = cancelled(&scene, &one, "PATCH /subagents", set_subagent(&one, "failed")).await;
    assert_eq!(result["run_id"], one.run_id, "{result}");
    let rows = scene.rows(&one);
    assert_eq!(rows.status(), ("failed", "running"));
    assert_eq!(rows.subagent["started_at"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_answers_were_lost_is_a_start() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    scene.middleman.forget();
    scene.middleman.fault("PATCH /subagent_runs", Fault::LostAnswer);
    scene.middleman.fault("PATCH /subagents", Fault::LostAnswer);
    let job = scene.submit(&one).await;
    scene.asked_for("PATCH /subagent_runs").await;
    scene.middleman.fault("PATCH /subagent_runs", Fault::after(|| ()));
    scene.asked_for("PATCH /subagents").await;
    scene.middleman.heal();
    let job = scene.control.ended(&job).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(scene.rows(&one).types().first(), Some(&"run_started"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_row_was_cancelled_meanwhile_counts_as_cancelled() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    let go = scene.acts_until("go");
    let job = scene.submit(&one).await;
    scene.named("pids", 1).await;
    scene.sql(&format!(
        "UPDATE subagent_runs SET status = 'cancelled', metadata = \
         json_set(metadata, '$.cancel_reason', 'enough') WHERE id = '{}'",
        one.run_id
    ));
    std::fs::write(go, "").unwrap();
    let job = scene.control.ended(&job).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(job["result"]["status"], "cancelled", "{job}");
    assert_eq!(job["result"]["error"], "enough", "{job}");
    let rows = scene.rows(&one);
    let last: Vec<_> = rows.types().into_iter().rev().take(2).collect();
    assert_eq!(last, ["run_cancelled", "cancellation_acknowledged"]);
    assert_eq!(rows.payload("run_cancelled")["reason"], "enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ended_otherwise_while_its_end_was_told_fails_the_job() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    scene.meanwhile("POST /finalize-gateway-subagent-run", set_run(&one, "failed"));
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert!(job["error"].as_str().unwrap().contains("failed already"), "{job}");
    let rows = scene.rows(&one);
    assert!(!rows.types().contains(&"run_completed"), "{rows:?}");
    assert_eq!(rows.run["output"], Value::Null, "somebody else's end stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_while_its_end_is_told_is_cancelled() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    scene.meanwhile("POST /finalize-gateway-subagent-run", set_run(&one, "cancelled"));
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(job["result"]["status"], "cancelled", "{job}");
    assert_eq!(scene.rows(&one).types().last(), Some(&"run_cancelled"));
}
