//! Which jobs are turned away before anything of the subagent is touched.

use serde_json::{Value, json};

use crate::common::backend::Fault;
use crate::scene::{Scene, Subagent};

/// The job ends so, and no row of the subagent is another one.
async fn untouched(scene: &Scene, subagent: &Subagent, payload: Value, status: &str) -> Value {
    let before = scene.rows(subagent);
    let job = scene.submit_payload(payload).await;
    let job = scene.control.ended(&job).await;
    assert_eq!(job["status"], status, "{job}");
    assert_eq!(job["error"], job["result"]["message"], "{job}");
    assert_eq!(scene.rows(subagent), before, "{job}");
    job["result"].clone()
}

fn payload(subagent: &Subagent) -> Value {
    json!({"subagent_id": subagent.id, "run_id": subagent.run_id})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_for_no_subagent_that_runs_here_is_cancelled() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    let nobody = uuid::Uuid::new_v4().to_string();
    for id in [nobody.as_str(), "no uuid"] {
        let result = untouched(&scene, &one, json!({"subagent_id": id}), "cancelled").await;
        assert_eq!(result["subagent_id"], id, "{result}");
        assert_eq!(result.as_object().unwrap().len(), 2, "{result}");
    }

    for status in ["idle", "completed", "failed", "cancelled"] {
        let other = scene.subagent(&json!({"status": status})).await;
        let result = untouched(&scene, &other, payload(&other), "cancelled").await;
        assert_eq!(result["expected_run_id"], other.run_id, "{result}");
        assert_eq!(result["current_run_id"], other.run_id, "{result}");
        assert_eq!(result["subagent_id"], other.id, "{result}");
    }

    let metadata = json!({"current_run_id": nobody});
    let other = scene.subagent(&json!({"metadata": metadata})).await;
    let result = untouched(&scene, &other, payload(&other), "cancelled").await;
    assert_eq!(result["current_run_id"], nobody, "{result}");

    scene.middleman.fault(
        "GET /subagents",
        Fault::Changed(|_, rows| rows[0]["gateway_id"] = json!("another")),
    );
    let result = untouched(&scene, &one, payload(&one), "cancelled").await;
    assert_eq!(result["assigned_gateway_id"], "another", "{result}");
    assert_eq!(result["gateway_id"], scene.paired.gateway_id, "{result}");
    assert!(scene.agent.path("said").metadata().is_err(), "nothing was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_understood_has_failed() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    for asked in [json!({}), json!({"subagent_id": ""}), json!({"subagentId": 7})] {
        let result = untouched(&scene, &one, asked, "failed").await;
        assert!(result["message"].as_str().unwrap().contains("subagent_id"), "{result}");
    }
    let run_sequence = json!({"run_sequence": 1});
    for (fields, word) in [
        (json!({"input": run_sequence}), "prompt"),
        (json!({"input": {"prompt": " ", "query": "", "run_sequence": 1}}), "prompt"),
        (
            json!({"subagent_type": "codex_gateway", "metadata": {"session_id": "s"}}),
            "earlier session",
        ),
        (json!({"subagent_type": "cursor_gateway"}), "cursor_gateway"),
    ] {
        // A failed job's subagent is brought to an end afterwards, by another rule.
        let other = scene.subagent(&fields).await;
        let job = scene.job(&other).await;
        assert_eq!(job["status"], "failed", "{fields}: {job}");
        let message = job["result"]["message"].as_str().unwrap();
        assert!(message.contains(word), "{fields}: {job}");
        if word == "cursor_gateway" {
            assert_eq!(job["result"]["subagent_type"], "cursor_gateway", "{job}");
        }
        assert_eq!(scene.rows(&other).run["started_at"], Value::Null, "{job}");
    }
    assert!(scene.agent.path("said").metadata().is_err(), "nothing was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_named_or_does_not_agree_is_cancelled() {
    let scene = Scene::new().await;
    let nameless = json!({"input": {"prompt": "Is it so?", "run_sequence": 1}, "metadata": {}});
    let one = scene.subagent(&nameless).await;
    for run_id in [Value::Null, json!("no uuid"), json!(7)] {
        let asked = json!({"subagent_id": one.id, "run_id": run_id});
        let result = untouched(&scene, &one, asked, "cancelled").await;
        assert!(result["message"].as_str().unwrap().contains("names no run"), "{result}");
    }
    for sequence in [Value::Null, json!("first")] {
        let input = json!({"prompt": "Is it so?", "run_sequence": sequence});
        let one = scene.subagent(&json!({"input": input})).await;
        let result = untouched(&scene, &one, payload(&one), "cancelled").await;
        assert!(result["message"].as_str().unwrap().contains("run_sequence"), "{result}");
    }

    for (of_run, status) in [
        (Value::Null, Value::Null),
        (json!({"status": "queued"}), json!("queued")),
        (json!({"status": "cancelled"}), json!("cancelled")),
        (json!({"run_sequence": 2}), json!("running")),
        (json!({"prompt": "Is it?"}), json!("running")),
    ] {
        let one = scene.subagent_with(&json!({}), &of_run).await;
        let result = untouched(&scene, &one, payload(&one), "cancelled").await;
        assert_eq!(result["run_status"], status, "{of_run}: {result}");
        assert_eq!(result["run_id"], one.run_id, "{of_run}: {result}");
        assert_eq!(result["subagent_id"], one.id, "{of_run}: {result}");
    }
    // A run of somebody else.
    let (one, other) = (scene.subagent(&json!({})).await, scene.subagent(&json!({})).await);
    scene.sql(&format!(
        "UPDATE subagents SET metadata = json_set(metadata, '$.current_run_id', '{}') \
         WHERE id = '{}'",
        other.run_id, one.id
    ));
    let asked = json!({"subagent_id": one.id, "run_id": other.run_id});
    let result = untouched(&scene, &one, asked, "cancelled").await;
    assert!(result["message"].as_str().unwrap().contains("another subagent"), "{result}");
    assert!(scene.agent.path("said").metadata().is_err(), "nothing was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subagent_that_cannot_be_read_waits_for_the_backend_or_fails_the_job() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    let refusal = json!({"code": "42501", "message": "permission denied"}).to_string();
    scene.middleman.fault("GET /subagents", Fault::Answer(403, "application/json", refusal));
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert!(job["error"].as_str().unwrap().contains("permission denied"), "{job}");

    scene.middleman.heal();
    let two = scene.subagent(&json!({})).await;
    for path in ["GET /subagents", "GET /subagent_runs", "PATCH /subagents", "PATCH /subagent_runs"]
    {
        let broken = Fault::Answer(503, "text/plain", "later".to_owned());
        scene.middleman.fault(path, broken);
    }
    let id = scene.submit(&two).await;
    for path in ["GET /subagents", "GET /subagent_runs", "PATCH /subagent_runs", "PATCH /subagents"]
    {
        scene.asked_for(path).await;
        scene.middleman.fault(path, Fault::after(|| ()));
    }
    let job = scene.control.ended(&id).await;
    assert_eq!(job["status"], "completed", "{job}");
}
