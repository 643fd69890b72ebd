//! Cancels of runs, wherever they stand.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::agents::Agent;
use crate::common::backend::Fault;
use crate::common::tree::{Tree, all_gone};
use crate::common::{Machine, wait_until};
use crate::scene::{Rows, Scene, Subject, grows, work_dir};

/// Besides the leader: who has a session of its own, is deaf to SIGTERM, and all of that at once.
const MEMBERS: &[&str] = &["child", "double", "session", "deaf", "escaped", "escaped-bare"];
/// The grace of 5 s, and a second more.
const LIMIT: Duration = Duration::from_secs(6);

/// Run and subagent are `cancelled` for the reason of the tests here, and the last events say so.
fn assert_cancelled(rows: &Rows, subject: &Subject) {
    for row in [&rows.subagent, &rows.run] {
        assert_eq!((&row["status"], &row["completed"]), (&json!("cancelled"), &json!(true)));
        let metadata = &row["metadata"];
        assert_eq!(metadata["cancel_reason"], "Not needed", "{subject:?} {row}");
        assert_eq!(metadata["cancel_state"], "acknowledged", "{row}");
        assert_eq!(metadata["cancelled"], true, "{row}");
    }
    let payload = rows.last_event("run_cancelled");
    assert_eq!((&payload["reason"], &payload["source"]), (&json!("Not needed"), &json!("gateway")));
    let types = rows.event_types();
    assert_eq!(types[types.len() - 2], "cancellation_acknowledged", "{types:?}");
}

fn requested(rows: &Rows) -> Vec<&Value> {
    let requested = rows.events.iter().filter(|(_, kind, _)| kind == "cancellation_requested");
    requested.map(|(_, _, payload)| payload).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_in_mid_run_ends_the_whole_tree_within_the_grace() {
    let machine = Machine::new();
    let tree = Tree::new(machine.home(), MEMBERS);
    let scene = Scene::with_act_on(machine, &grows(&tree)).await;
    let subject = scene.add("codex_gateway", "running");
    let job = scene.start(&subject).await;
    let members = tree.grown().await;
    let since = Instant::now();
    let what = "after a cancel in mid-run";
    let (result, ()) =
        tokio::join!(scene.cancel_run(&subject), all_gone(what, &members, since, LIMIT));
    assert_eq!(result["cancelled_active_run"], true, "{result}");
    let row = scene.control.ended(&job).await;
    assert_eq!((&row["status"], &row["error"]), (&json!("completed"), &Value::Null), "{row}");
    assert_eq!(row["result"]["status"], "cancelled", "{row}");
    let rows = scene.rows(&subject);
    assert_cancelled(&rows, &subject);
    assert_eq!(requested(&rows).len(), 1);
    assert_eq!(requested(&rows)[0]["active_process"], true);
    assert_eq!(requested(&rows)[0]["source"], "gateway_cancel_job");
    assert!(!work_dir(&scene, &subject).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_cancel_changes_nothing_of_the_first() {
    let machine = Machine::new();
    let tree = Tree::new(machine.home(), &["deaf"]);
    let scene = Scene::with_act_on(machine, &grows(&tree)).await;
    let subject = scene.add("codex_gateway", "running");
    let job = scene.start(&subject).await;
    let members = tree.grown().await;
    let since = Instant::now();
    let first = scene.cancel_run(&subject).await;
    let second = scene.cancel_run(&subject).await;
    for result in [first, second] {
        assert_eq!(result["cancel_result"], "accepted", "{result}");
    }
    all_gone("after two cancels", &members, since, LIMIT).await;
    scene.control.ended(&job).await;
    let rows = scene.rows(&subject);
    assert_cancelled(&rows, &subject);
    assert_eq!(requested(&rows).len(), 2);
    let third = scene.cancel_run(&subject).await;
    assert_eq!(third["cancel_result"], "already_terminal", "{third}");
    assert_eq!(scene.rows(&subject), rows, "a third one comes too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_works_while_the_gateway_drains() {
    let machine = Machine::new();
    let tree = Tree::new(machine.home(), &["child"]);
    let mut scene = Scene::with_act_on(machine, &grows(&tree)).await;
    let subject = scene.add("codex_gateway", "running");
    let job = scene.start(&subject).await;
    let members = tree.grown().await;
    scene.paired.gateway.signal(Signal::SIGTERM);
    wait_until("the gateway to drain", || async {
        (scene.paired.machine.status().await?["phase"] == "draining").then_some(())
    })
    .await;
    let since = Instant::now();
    let result = scene.cancel_run(&subject).await;
    assert_eq!(result["cancelled_active_run"], true, "{result}");
    all_gone("after a cancel while draining", &members, since, LIMIT).await;
    assert!(scene.paired.gateway.ended().await.success());
    assert_eq!(scene.control.ended(&job).await["status"], "completed");
    assert_cancelled(&scene.rows(&subject), &subject);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_before_the_claim_is_remembered() {
    let machine = Machine::new().with("PANORAMA_GATEWAY_AGENT_CONCURRENCY", "1");
    let tree = Tree::new(machine.home(), &["child"]);
    let scene = Scene::with_act_on(machine, &grows(&tree)).await;
    let (first, second) =
        (scene.add("codex_gateway", "running"), scene.add("codex_gateway", "running"));
    let first_job = scene.start(&first).await;
    tree.grown().await;
    let calls = scene.agent.calls().len();
    let second_job = scene.start(&second).await;
    let result = scene.cancel_run(&second).await;
    assert_eq!(result["cancel_result"], "accepted", "{result}");
    assert_eq!(result["cancelled_active_run"], false, "{result}");
    assert_eq!(scene.control.admin.job(&second_job).await.unwrap()["status"], "queued");
    scene.cancel_run(&first).await;
    for job in [&first_job, &second_job] {
        let row = scene.control.ended(job).await;
        assert_eq!(
            (&row["status"], &row["result"]["status"]),
            (&json!("completed"), &json!("cancelled"))
        );
    }
    let rows = scene.rows(&second);
    assert_cancelled(&rows, &second);
    let sources: Vec<_> = requested(&rows).iter().map(|payload| &payload["source"]).collect();
    assert_eq!(sources, ["gateway_cancel_job", "pending_cancel"]);
    assert_eq!(scene.agent.calls().len(), calls, "it never ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_between_claim_and_start_is_found() {
    let scene = Scene::with_act("cat > /dev/null").await;
    let subject = scene.add("codex_gateway", "running");
    let calls = scene.agent.calls().len();
    scene.fault("GET /team_gateways", Fault::Slow(Duration::from_secs(3)));
    scene.middle.forget();
    let job = scene.start(&subject).await;
    scene.sent("GET", "/team_gateways").await;
    let result = scene.cancel_run(&subject).await;
    assert_eq!(result["cancel_result"], "accepted", "{result}");
    assert_eq!(result["cancelled_active_run"], false, "{result}");
    let row = scene.control.ended(&job).await;
    assert_eq!(
        (&row["status"], &row["result"]["status"]),
        (&json!("completed"), &json!("cancelled"))
    );
    assert_cancelled(&scene.rows(&subject), &subject);
    assert_eq!(scene.agent.calls().len(), calls, "it never ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_while_the_run_is_finalised_comes_too_late() {
    let scene = Scene::with_act(&Agent::structured("codex")).await;
    let subject = scene.add("codex_gateway", "running");
    scene.fault("/finalize-gateway-subagent-run", Fault::Slow(Duration::from_secs(3)));
    scene.middle.forget();
    let job = scene.start(&subject).await;
    scene.sent("POST", "/finalize-gateway-subagent-run").await;
    let result = scene.cancel_run(&subject).await;
    assert_eq!(result["cancel_result"], "accepted", "{result}");
    assert_eq!(result["cancelled_active_run"], false, "{result}");
    let row = scene.control.ended(&job).await;
    assert_eq!(row["result"]["status"], "completed", "{row}");
    let rows = scene.rows(&subject);
    for row in [&rows.subagent, &rows.run] {
        assert_eq!(row["status"], "completed", "{row}");
        assert_eq!(row["metadata"]["cancel_run_id"], Value::Null, "{row}");
        assert_eq!(row["metadata"]["cancelled"], false, "{row}");
    }
    rows.last_event("run_completed");
    assert_eq!(requested(&rows).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_events_of_a_run_come_after_that_of_its_cancel() {
    let machine = Machine::new();
    let tree = Tree::new(machine.home(), &["child"]);
    let scene = Scene::with_act_on(machine, &grows(&tree)).await;
    let subject = scene.add("codex_gateway", "running");
    let job = scene.start(&subject).await;
    tree.grown().await;
    wait_until("the first events", || async {
        (scene.rows(&subject).event_types() == ["run_started", "run_progress"]).then_some(())
    })
    .await;
    // The cancel has to ask for its event's number; who writes the run's events knows it.
    scene.fault("GET /subagent_run_events", Fault::Slow(Duration::from_secs(3)));
    scene.cancel_run(&subject).await;
    scene.control.ended(&job).await;
    let types = ["cancellation_requested", "cancellation_acknowledged", "run_cancelled"];
    assert_eq!(scene.rows(&subject).event_types()[2..], types);
}
