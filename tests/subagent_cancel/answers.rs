//! Every result of a cancel, with what the rows hold before and after.

use serde_json::{Value, json};

use crate::common::backend::Fault;
use crate::scene::{Scene, Subject, uuid};

/// A refusal's result without its message.
fn refusal(subject: &Subject, fields: &Value) -> Value {
    let mut wanted = json!({
        "subagent_id": subject.subagent, "run_id": null, "active_run_id": null,
        "cancelled_active_run": false, "reason": "Not needed", "cancel_state": "none",
        "cancel_supported": true,
    });
    for (name, value) in fields.as_object().unwrap() {
        wanted[name] = value.clone();
    }
    wanted
}

fn without_message(mut result: Value) -> Value {
    let message = result.as_object_mut().unwrap().remove("message");
    assert!(message.is_some_and(|message| message.is_string()), "{result}");
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_change_nothing() {
    let scene = Scene::new().await;
    let cases = [
        ("codex_gateway", "completed", json!({"cancel_result": "already_terminal"})),
        ("codex_gateway", "failed", json!({"cancel_result": "already_terminal"})),
        ("claude_code_gateway", "cancelled", json!({"cancel_result": "already_terminal"})),
        ("gemini_gateway", "idle", json!({"cancel_result": "no_active_run"})),
        (
            "cursor_gateway",
            "running",
            json!({"cancel_result": "rejected", "cancel_state": "rejected",
                "cancel_supported": false}),
        ),
    ];
    for (subagent_type, status, mut fields) in cases {
        let subject = scene.add(subagent_type, status);
        let before = scene.rows(&subject);
        let result = scene.cancel_run(&subject).await;
        fields["status"] = json!(status);
        assert_eq!(without_message(result), refusal(&subject, &fields), "{subagent_type} {status}");
        assert_eq!(scene.rows(&subject), before, "{subagent_type} {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_the_running_one_is_left_alone() {
    let scene = Scene::new().await;
    let fields = json!({"cancel_result": "no_active_run", "status": "running"});

    // The subagent has gone on: its first run is over, its second one runs.
    let first = scene.add("codex_gateway", "running");
    let sql = "UPDATE subagent_runs SET status = 'completed' WHERE id = ?1";
    scene.database().execute(sql, [&first.run]).unwrap();
    let second = Subject { run: uuid(), ..first.clone() };
    scene.add_run(&second, 2, "running");
    let before = (scene.rows(&first), scene.rows(&second));
    let result = scene.cancel_run(&first).await;
    let mut wanted = refusal(&first, &fields);
    wanted["active_run_id"] = json!(second.run);
    assert_eq!(without_message(result), wanted);
    assert_eq!((scene.rows(&first), scene.rows(&second)), before);

    // It says that it runs, but none of its runs does.
    let stale = scene.add("codex_gateway", "running");
    scene.database().execute(sql, [&stale.run]).unwrap();
    let before = scene.rows(&stale);
    let result = scene.cancel_run(&stale).await;
    assert_eq!(without_message(result), refusal(&stale, &fields));
    assert_eq!(scene.rows(&stale), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_here_is_not_supported() {
    let scene = Scene::new().await;
    let unknown = Subject { subagent: uuid(), run: uuid() };
    let mut wanted = json!({
        "subagent_id": unknown.subagent, "run_id": unknown.run, "cancelled_active_run": false,
        "reason": "Not needed", "cancel_result": "no_active_run", "cancel_state": "none",
        "cancel_supported": false, "status": "not_found",
    });
    let result = scene.cancel_run(&unknown).await;
    assert_eq!(without_message(result), wanted);

    let row = scene.cancel(json!({"subagentId": "nonsense", "reason": "Not needed"})).await;
    assert_eq!(row["status"], "completed", "{row}");
    wanted["subagent_id"] = json!("nonsense");
    wanted["run_id"] = Value::Null;
    assert_eq!(without_message(row["result"].clone()), wanted);

    // Access rules hide the subagents of other gateways; a backend may show them all the same.
    let subject = scene.add("codex_gateway", "running");
    let before = scene.rows(&subject);
    scene.fault(
        "GET /subagents",
        Fault::Changed(|_, rows| rows[0]["gateway_id"] = json!("another")),
    );
    let result = scene.cancel_run(&subject).await;
    wanted["subagent_id"] = json!(subject.subagent);
    wanted["run_id"] = json!(subject.run);
    wanted["status"] = json!("running");
    assert_eq!(without_message(result), wanted);
    assert_eq!(scene.rows(&subject), before);

    for payload in [json!({}), json!({"subagent_id": ""}), json!({"subagent_id": 7})] {
        let row = scene.cancel(payload).await;
        assert_eq!(row["status"], "failed", "{row}");
        assert_eq!(row["error"], "subagent_id is missing", "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_cancel_is_written_down_in_both_rows() {
    let scene = Scene::new().await;
    for named in [true, false] {
        let subject = scene.add("codex_gateway", "running");
        let mut payload = json!({"subagentId": subject.subagent.to_uppercase()});
        if named {
            payload["runId"] = json!(subject.run);
        }
        let row = scene.cancel(payload).await;
        let result = row["result"].clone();
        assert_eq!((&row["status"], &row["error"]), (&json!("completed"), &Value::Null), "{row}");
        let wanted = json!({
            "subagent_id": subject.subagent, "run_id": subject.run,
            "cancelled_active_run": false, "reason": "Cancelled", "cancel_result": "accepted",
            "cancel_state": "requested", "cancel_supported": true, "status": "running",
        });
        assert_eq!(without_message(result), wanted);
        let rows = scene.rows(&subject);
        let at = rows.subagent["metadata"]["cancel_requested_at"].clone();
        let keys = |mut own: Value| {
            let six = json!({
                "cancel_run_id": subject.run, "cancel_requested_at": at,
                "cancel_reason": "Cancelled", "cancel_state": "requested",
                "cancel_support": "gateway", "cancellation_scope": "gateway",
            });
            own.as_object_mut().unwrap().extend(six.as_object().unwrap().clone());
            own
        };
        assert_eq!(rows.subagent["metadata"], keys(json!({"kept": 1})));
        assert_eq!(rows.run["metadata"], keys(json!({"own": 2})));
        assert_eq!(
            (&rows.subagent["status"], &rows.run["status"]),
            (&json!("running"), &json!("running"))
        );
        let event = json!({
            "reason": "Cancelled", "source": "gateway_cancel_job", "active_process": false,
            "cancel_state": "requested",
        });
        assert_eq!(rows.events, [(0, "cancellation_requested".to_owned(), event)]);
    }
}
