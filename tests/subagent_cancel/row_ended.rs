//! The job's row is cancelled at the backend, and something goes wrong on the way to the run's end:
//! run and subagent end all the same.

use panorama_gateway::sandbox::client::NewJob;
use serde_json::json;

use crate::common::backend::Fault;
use crate::common::wait_until;
use crate::scene::{Rows, Scene, Subject};

/// Until it is ended.
const FOR_EVER: &str = "cat > /dev/null\nexec sleep 1000";

fn answer(status: u16, body: &serde_json::Value) -> Fault {
    Fault::Answer(status, "application/json", body.to_string())
}

/// A run whose CLI is at work, and its job.
async fn at_work(scene: &Scene, subject: &Subject) -> String {
    let calls = scene.agent.calls().len();
    let job = scene.start(subject).await;
    wait_until("the CLI to be at work", || async {
        (scene.agent.calls().len() > calls).then_some(())
    })
    .await;
    job
}

async fn no_record(scene: &Scene) {
    wait_until("the journal to be empty", || async {
        let files = std::fs::read_dir(scene.paired.machine.dir().join("jobs")).unwrap();
        let records = files.flatten().filter(|file| file.path().extension().is_some());
        (records.count() == 0).then_some(())
    })
    .await;
}

fn assert_both(rows: &Rows, status: &str) {
    for row in [&rows.subagent, &rows.run] {
        assert_eq!((&row["status"], &row["completed"]), (&json!(status), &json!(true)), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_refused_fails_the_run() {
    let scene = Scene::with_act(FOR_EVER).await;
    let subject = scene.add("codex_gateway", "running");
    let job = at_work(&scene, &subject).await;
    let refused = json!({"success": false, "error": "not like this"});
    scene.fault("/finalize-gateway-subagent-run", answer(422, &refused));
    scene.control.admin.cancel_job(&job).await.unwrap();
    let rows = scene.ended(&subject, "failed").await;
    assert_both(&rows, "failed");
    assert_eq!(rows.last_event("run_failed")["source"], "gateway_job_failure");
    let row = scene.control.ended(&job).await;
    assert_eq!((&row["status"], &row["result"]), (&json!("cancelled"), &json!(null)), "{row}");
    no_record(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_meanwhile_leaves_the_end_to_the_next_gateway() {
    let mut scene = Scene::with_act(FOR_EVER).await;
    let subject = scene.add("codex_gateway", "running");
    let job = at_work(&scene, &subject).await;
    let expired = json!({"code": "PGRST303", "message": "JWT expired"});
    scene.fault("/finalize-gateway-subagent-run", answer(401, &expired));
    let ended = json!({"code": "session_not_found", "message": "gone"});
    scene.fault("/auth/v1/token", answer(403, &ended));
    scene.control.admin.cancel_job(&job).await.unwrap();
    scene.paired.gateway.ended().await;
    assert_eq!(scene.rows(&subject).run["status"], "running");
    scene.middle.heal();
    let _again = scene.paired.machine.start().await;
    scene.ended(&subject, "cancelled").await;
    no_record(&scene).await;
    let rows = scene.rows(&subject);
    assert_both(&rows, "cancelled");
    rows.last_event("run_cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_killed_before_it_knew_of_the_run_leaves_it_to_the_next_one() {
    let mut scene = Scene::with_act(FOR_EVER).await;
    let subject = scene.add("codex_gateway", "running");
    scene.fault("GET /subagents", answer(503, &json!({})));
    scene.middle.forget();
    let job = scene.start(&subject).await;
    scene.sent("GET", "/subagents").await;
    scene.paired.gateway.kill().await;
    scene.control.admin.cancel_job(&job).await.unwrap();
    scene.middle.heal();
    let _again = scene.paired.machine.start().await;
    let rows = scene.ended(&subject, "failed").await;
    assert_both(&rows, "failed");
    let row = scene.control.ended(&job).await;
    assert_eq!(row["status"], "cancelled", "{row}");
    no_record(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_to_be_known_as_no_duplicate_ends_too() {
    let scene = Scene::with_act(FOR_EVER).await;
    let subject = scene.add("codex_gateway", "running");
    let asks = "GET /gateway_jobs?idempotency_key=";
    scene.fault(asks, answer(503, &json!({})));
    let payload = json!({"subagent_id": subject.subagent, "run_id": subject.run});
    let job = NewJob {
        gateway_id: Some(scene.paired.gateway_id.clone()),
        job_type: "subagent_run".to_owned(),
        payload: payload.as_object().unwrap().clone(),
        idempotency_key: Some("once".to_owned()),
        attempt: Some(1),
    };
    let job = scene.control.submit_job(job).await;
    wait_until("the gateway to ask", || async {
        scene.middle.seen().iter().any(|seen| seen.query.contains("idempotency_key=")).then_some(())
    })
    .await;
    scene.control.admin.cancel_job(&job).await.unwrap();
    scene.ended(&subject, "cancelled").await;
    no_record(&scene).await;
    let rows = scene.rows(&subject);
    assert_both(&rows, "cancelled");
    rows.last_event("run_cancelled");
    assert!(!rows.event_types().contains(&"run_started"), "{rows:?}");
}
