//! Runs that are to be cancelled before they begin.

use serde_json::{Value, json};

use crate::scene::{Scene, merged, without};

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_came_first_ends_the_run_before_it_begins() {
    let scene = Scene::new().await;
    for given in [Some("not needed"), None] {
        let one = scene.subagent(&json!({})).await;
        scene.sql(&format!(
            "UPDATE subagents SET metadata = json_set(metadata, '$.cancel_run_id', '{}', \
             '$.cancel_requested_at', '2026-11-21T22:00:00.000Z') WHERE id = '{}'",
            one.run_id, one.id
        ));
        if let Some(reason) = given {
            scene.sql(&format!(
                "UPDATE subagents SET metadata = json_set(metadata, '$.cancel_reason', '{reason}') \
                 WHERE id = '{}'",
                one.id
            ));
        }
        let reason = given.unwrap_or("Cancelled");
        let job = scene.job(&one).await;
        let output = json!({
            "schema_version": 1, "content": reason, "content_type": "text", "errors": [reason],
        });
        assert_eq!((&job["status"], &job["error"]), (&json!("completed"), &Value::Null), "{job}");
        let result = json!({
            "subagent_id": one.id, "status": "cancelled", "output": output, "error": reason,
        });
        assert_eq!(job["result"], result);
        let rows = scene.rows(&one);
        assert_eq!(rows.status(), ("cancelled", "cancelled"));
        assert_eq!(rows.run["started_at"], Value::Null);
        assert_eq!((&rows.run["output"], &rows.run["error"]), (&output, &json!(reason)));
        let metadata = json!({
            "cancel_reason": reason, "cancel_support": "gateway", "cancellation_scope": "gateway",
            "cancel_state": "acknowledged", "cancelled": true, "full_control_requested": false,
            "run_id": one.run_id, "schema_version": 1,
        });
        let found = rows.run["metadata"].as_object().unwrap();
        assert_eq!(merged(&[&Value::Object(found.clone()), &metadata]), rows.run["metadata"]);
        assert!(!found.contains_key("stderr") && !found.contains_key("last_run_at"), "{found:?}");
        let types = ["cancellation_requested", "cancellation_acknowledged", "run_cancelled"];
        assert_eq!(rows.types(), types);
        let requested =
            json!({"reason": reason, "source": "pending_cancel", "stage": "before_start"});
        assert_eq!(rows.payload(types[0]), &requested);
        let cancelled =
            json!({"reason": reason, "source": "gateway", "cancellation_scope": "gateway"});
        assert_eq!(rows.payload(types[1]), &cancelled);
        assert_eq!(rows.payload(types[2]), &cancelled);
        scene.assert_tidy();
    }
    assert!(scene.agent.path("said").metadata().is_err(), "nothing was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_another_run_does_not_matter() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    scene.sql(&format!(
        "UPDATE subagents SET metadata = json_set(metadata, '$.cancel_run_id', '{0}') \
         WHERE id = '{0}'",
        one.id
    ));
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "completed", "{job}");
    let rows = scene.rows(&one);
    assert_eq!(rows.status(), ("completed", "completed"));
    assert_eq!(without(&rows.subagent["metadata"], &["cancel_run_id"])["cancelled"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_row_is_cancelled_before_the_start_ends_its_run() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    // It hangs in its checks until the row is said to be over.
    let slow = crate::common::backend::Fault::Slow(std::time::Duration::from_secs(3));
    scene.middleman.fault("GET /team_gateways", slow);
    let job = scene.submit(&one).await;
    scene.asked_for("GET /team_gateways").await;
    scene.control.admin.cancel_job(&job).await.unwrap();
    crate::common::wait_until("the run's end", || async {
        (scene.rows(&one).status() == ("cancelled", "cancelled")).then_some(())
    })
    .await;
    let job = scene.control.admin.job(&job).await.unwrap();
    assert_eq!((&job["status"], &job["result"]), (&json!("cancelled"), &Value::Null), "{job}");
    assert!(scene.agent.path("said").metadata().is_err(), "nothing was run");
}
