//! Cancels whose rows change under way, and events whose numbers are taken or whose answers are lost.

use std::time::Duration;

use rusqlite::params;
use serde_json::json;

use crate::common::backend::Fault;
use crate::common::wait_until;
use crate::scene::{Rows, Scene, Subject};

/// Long enough to change a row meanwhile.
const SLOW: Fault = Fault::Slow(Duration::from_millis(1_500));

/// Cancels a running subagent; `change` comes when the gateway has sent `PATCH` to this table, and
/// before that arrives.
async fn overtaken(
    table: &str,
    change: impl FnOnce(&Scene, &Subject),
) -> (serde_json::Value, Rows) {
    let scene = Scene::new().await;
    let subject = scene.add("codex_gateway", "running");
    scene.fault(&format!("PATCH /{table}"), SLOW);
    scene.middle.forget();
    let (result, ()) = tokio::join!(scene.cancel_run(&subject), async {
        scene.sent("PATCH", &format!("/{table}")).await;
        change(&scene, &subject);
    });
    (result, scene.rows(&subject))
}

fn end(scene: &Scene, subject: &Subject) {
    let database = scene.database();
    for (table, id) in [("subagents", &subject.subagent), ("subagent_runs", &subject.run)] {
        let sql = format!("UPDATE {table} SET status = 'completed' WHERE id = ?1");
        database.execute(&sql, [id]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subagent_that_ends_meanwhile_is_read_again() {
    let (result, rows) = overtaken("subagents", end).await;
    assert_eq!(result["cancel_result"], "already_terminal", "{result}");
    assert_eq!(result["status"], "completed", "{result}");
    assert_eq!(rows.subagent["metadata"], json!({"kept": 1}));
    assert!(rows.events.is_empty(), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_meanwhile_is_read_again() {
    let (result, rows) = overtaken("subagent_runs", end).await;
    assert_eq!(result["cancel_result"], "already_terminal", "{result}");
    assert_eq!(rows.run["metadata"], json!({"own": 2}));
    assert!(rows.events.is_empty(), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_begins_while_its_cancel_is_written_still_has_its_end_last() {
    let scene = Scene::with_act("exec sleep 1000").await;
    let subject = scene.add("codex_gateway", "running");
    scene.fault("PATCH /subagent_runs", Fault::Late(Duration::from_millis(1_500)));
    let cancel =
        scene.submit_cancel(json!({"subagent_id": subject.subagent, "run_id": subject.run})).await;
    wait_until("the rows to say that it is cancelled", || async {
        let run = scene.rows(&subject).run;
        run["metadata"].get("cancel_run_id").is_some().then_some(())
    })
    .await;
    // It knows from the rows.
    let run = scene.start(&subject).await;
    for job in [cancel, run] {
        let row = scene.control.ended(&job).await;
        assert_eq!(row["status"], "completed", "{row}");
    }
    let rows = scene.rows(&subject);
    rows.last_event("run_cancelled");
    assert!(rows.event_types().contains(&"cancellation_requested"), "{rows:?}");
    assert_eq!(rows.run["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_number_is_taken_gets_the_next_one() {
    let scene = Scene::new().await;
    let subject = scene.add("codex_gateway", "running");
    scene.fault("POST /subagent_run_events", SLOW);
    scene.middle.forget();
    let (result, ()) = tokio::join!(scene.cancel_run(&subject), async {
        scene.sent("POST", "/subagent_run_events").await;
        scene
            .database()
            .execute(
                "INSERT INTO subagent_run_events (id, run_id, subagent_id, team_id, gateway_id,
                     sequence, event_type, created_at)
                 SELECT 'other', id, subagent_id, team_id, gateway_id, 0, 'message', 0
                 FROM subagent_runs WHERE id = ?1",
                params![subject.run],
            )
            .unwrap();
        scene.middle.heal();
    });
    assert_eq!(result["cancel_result"], "accepted", "{result}");
    assert_eq!(scene.rows(&subject).event_types(), ["message", "cancellation_requested"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_answer_was_lost_is_there_once() {
    let scene = Scene::new().await;
    let subject = scene.add("codex_gateway", "running");
    scene.fault("POST /subagent_run_events", Fault::LostAnswer);
    scene.middle.forget();
    let (result, ()) = tokio::join!(scene.cancel_run(&subject), async {
        scene.sent("POST", "/subagent_run_events").await;
        scene.middle.heal();
    });
    assert_eq!(result["cancel_result"], "accepted", "{result}");
    assert_eq!(scene.rows(&subject).event_types(), ["cancellation_requested"]);
}
