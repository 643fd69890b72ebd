//! Jobs that fail around a run: run and subagent do not stay `running`.

use serde_json::{Value, json};

use crate::common::agents::Agent;
use crate::common::backend::Fault;
use crate::scene::{Rows, Scene, Subject};

/// Both rows and the last event of a subject whose job failed for this reason.
pub(crate) fn assert_failed(rows: &Rows, subject: &Subject, reason: &Value) {
    let envelope = json!({
        "schema_version": 1, "content": reason, "content_type": "text", "errors": [reason],
    });
    let mut metadata = rows.subagent["metadata"].clone();
    assert!(metadata["last_run_at"].is_string(), "{rows:?}");
    for row in [&rows.subagent, &rows.run] {
        assert_eq!((&row["status"], &row["error"]), (&json!("failed"), reason), "{subject:?}");
        assert_eq!((&row["output"], &row["completed"]), (&envelope, &json!(true)));
        assert_eq!(row["metadata"], metadata, "both have the subagent's");
    }
    for name in ["last_run_at", "current_run_id", "current_run_sequence"] {
        metadata.as_object_mut().unwrap().remove(name);
    }
    let wanted = json!({
        "kept": 1, "schema_version": 1, "runner": "gateway", "subagent_type": "codex_gateway",
        "gateway_error": reason, "execution_lane": "cloud", "execution_bridge": "gateway",
        "execution_substrate": "gateway_host", "trust_zone": "user_delegated_host",
        "delegate_kind": "gateway_cli",
    });
    assert_eq!(metadata, wanted);
    let payload = json!({"reason": reason, "source": "gateway_job_failure"});
    assert_eq!(rows.last_event("run_failed"), &payload);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_policy_fails_run_and_subagent() {
    let scene = Scene::with_act("cat > /dev/null").await;
    let subject = scene.add("codex_gateway", "running");
    let refused = |_: &str, rows: &mut Value| {
        rows[0]["capabilities"]["services"]["model_execution"] =
            json!({"ready": false, "reason": "for a test"});
    };
    scene.fault("GET /team_gateways", Fault::Changed(refused));
    let before = scene.agent.calls().len();
    let row = scene.control.ended(&scene.start(&subject).await).await;
    assert_eq!(row["status"], "failed", "{row}");
    assert_eq!(row["result"]["message"], row["error"], "{row}");
    let rows = scene.rows(&subject);
    assert_failed(&rows, &subject, &row["error"]);
    assert_eq!(rows.event_types(), ["run_failed"]);
    assert_eq!(scene.agent.calls().len(), before, "nothing was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_touches_no_subagent() {
    let scene = Scene::with_act("cat > /dev/null").await;
    let subject = scene.add("codex_gateway", "running");
    let sql = "UPDATE subagents SET metadata = json_set(metadata, '$.current_run_id', 'other')";
    scene.database().execute(sql, []).unwrap();
    let before = scene.rows(&subject);
    let row = scene.control.ended(&scene.start(&subject).await).await;
    assert_eq!(row["status"], "cancelled", "{row}");
    assert_eq!(scene.rows(&subject), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_type_fails_run_and_subagent() {
    let scene = Scene::with_act("cat > /dev/null").await;
    let subject = scene.add("cursor_gateway", "running");
    let row = scene.control.ended(&scene.start(&subject).await).await;
    assert_eq!(row["status"], "failed", "{row}");
    let rows = scene.rows(&subject);
    assert_eq!(
        (&rows.subagent["status"], &rows.run["status"]),
        (&json!("failed"), &json!("failed"))
    );
    assert_eq!(rows.last_event("run_failed")["source"], "gateway_job_failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_away_while_a_job_fails_gets_all_of_it_later() {
    let scene = Scene::with_act("cat > /dev/null").await;
    let subject = scene.add("cursor_gateway", "running");
    let away = || Fault::Answer(503, "application/json", "{}".to_owned());
    scene.fault("PATCH /subagent_runs", away());
    scene.middle.forget();
    let job = scene.start(&subject).await;
    scene.sent("PATCH", "/subagent_runs").await;
    assert_eq!(scene.control.admin.job(&job).await.unwrap()["status"], "running");
    scene.middle.heal();
    assert_eq!(scene.control.ended(&job).await["status"], "failed");
    let rows = scene.rows(&subject);
    assert_eq!(
        (&rows.subagent["status"], &rows.run["status"]),
        (&json!("failed"), &json!("failed"))
    );
    assert_eq!(rows.event_types(), ["run_failed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_finalisation_fails_run_and_subagent() {
    let scene = Scene::with_act(&Agent::structured("codex")).await;
    let subject = scene.add("codex_gateway", "running");
    let text = json!({"error": "not like this"}).to_string();
    let refused = Fault::Answer(422, "application/json", text);
    scene.fault("/finalize-gateway-subagent-run", refused);
    let row = scene.control.ended(&scene.start(&subject).await).await;
    assert_eq!(row["status"], "failed", "{row}");
    assert!(row["error"].as_str().unwrap().contains("not like this"), "{row}");
    let rows = scene.rows(&subject);
    assert_failed(&rows, &subject, &row["error"]);
    assert!(!rows.event_types().contains(&"run_completed"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_whose_answer_was_lost_is_told_all_the_same() {
    let scene = Scene::with_act("cat > /dev/null").await;
    let subject = scene.add("cursor_gateway", "running");
    scene.fault("PATCH /subagent_runs", Fault::LostAnswer);
    scene.middle.forget();
    let job = scene.start(&subject).await;
    scene.sent("PATCH", "/subagent_runs").await;
    scene.middle.heal();
    let row = scene.control.ended(&job).await;
    assert_eq!(row["status"], "failed", "{row}");
    let rows = scene.rows(&subject);
    assert_eq!(rows.event_types(), ["run_failed"]);
}
