//! Edge functions beyond pairing and heartbeats: what they write and what they refuse.

use std::time::Duration;

use panorama_gateway::model::{GatewayId, TeamId};
use reqwest::Method;
use rusqlite::params;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::context::{Context, Paired};

const FINALIZE: &str = "/functions/v1/finalize-gateway-subagent-run";
const FULL_CONTROL: &str = "/functions/v1/set-gateway-full-control";
const SUBAGENT: &str = "00000000-0000-4000-8000-000000000001";
const RUN: &str = "00000000-0000-4000-8000-000000000002";
const NEWER_RUN: &str = "00000000-0000-4000-8000-000000000003";

/// A running subagent with a running run.
fn start_run(context: &Context, ours: &Paired) {
    let database = context.database();
    let metadata = json!({"current_run_id": RUN, "kept": 1, "cancel_run_id": RUN}).to_string();
    database
        .execute(
            "INSERT INTO subagents (id, team_id, gateway_id, subagent_type, status, metadata,
                 created_at, updated_at)
             VALUES (?1, ?2, ?3, 'codex_gateway', 'running', ?4, 0, 0)",
            params![SUBAGENT, ours.team_id, ours.gateway_id, metadata],
        )
        .unwrap();
    database
        .execute(
            "INSERT INTO subagent_runs (id, subagent_id, team_id, gateway_id, run_sequence, prompt,
                 created_at)
             VALUES (?1, ?2, ?3, ?4, 1, 'do it', 0)",
            params![RUN, SUBAGENT, ours.team_id, ours.gateway_id],
        )
        .unwrap();
}

async fn row(context: &Context, ours: &Paired, table: &str, id: &str) -> Value {
    let path = format!("/rest/v1/{table}?id=eq.{id}");
    let rows: Value = context
        .signed(Method::GET, &path, &ours.access)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    rows[0].clone()
}

async fn finalize(context: &Context, ours: &Paired, body: &Value) -> (u16, Value) {
    let request = context.signed(Method::POST, FINALIZE, &ours.access).json(body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn completed() -> Value {
    json!({
        "subagent_id": SUBAGENT, "run_id": RUN, "final_status": "completed",
        "output": {"schema_version": 1, "content": "done", "content_type": "markdown",
                   "sources": ["a"]},
        "failure_output": null, "final_error": null,
        "completed_at": "2026-11-21T22:00:00.000Z", "stderr": "a warning",
        "metadata_patch": {"cancel_run_id": null, "exit_code": 0},
    })
}

fn failed() -> Value {
    json!({
        "subagent_id": SUBAGENT, "run_id": RUN, "final_status": "failed",
        "failure_output": {"schema_version": 1, "content": "it broke", "content_type": "text",
                           "errors": ["it broke"]},
        "final_error": "it broke",
    })
}

#[tokio::test]
async fn a_run_is_finalized_once_with_its_subagent() {
    let context = Context::new().await;
    let ours = context.pair().await;
    start_run(&context, &ours);
    let (status, answer) = finalize(&context, &ours, &completed()).await;
    assert_eq!(status, 200, "{answer}");
    let output = completed()["output"].clone();
    assert_eq!(answer, json!({"success": true, "status": "completed", "output": output}));
    let run = row(&context, &ours, "subagent_runs", RUN).await;
    let subagent = row(&context, &ours, "subagents", SUBAGENT).await;
    for row in [&run, &subagent] {
        assert_eq!((&row["status"], &row["output"]), (&json!("completed"), &output));
        assert_eq!((&row["error"], &row["completed_at"]), (&json!(null), &run["completed_at"]));
        assert_eq!(row["metadata"]["exit_code"], 0);
    }
    assert_eq!(run["completed_at"], "2026-11-21T22:00:00+00:00");
    assert_eq!(run["metadata"]["stderr"], "a warning");
    assert_eq!(
        subagent["metadata"],
        json!({"current_run_id": RUN, "kept": 1, "cancel_run_id": null, "exit_code": 0})
    );
    let mut again = completed();
    again["stderr"] = json!("another");
    assert_eq!(finalize(&context, &ours, &again).await, (200, answer));
    let (status, refused) = finalize(&context, &ours, &failed()).await;
    assert_eq!((status, &refused["code"]), (409, &json!("run_not_running")), "{refused}");
    assert_eq!(row(&context, &ours, "subagent_runs", RUN).await, run);
    assert_eq!(row(&context, &ours, "subagents", SUBAGENT).await, subagent);
}

#[tokio::test]
async fn a_run_that_failed_says_why() {
    let context = Context::new().await;
    let ours = context.pair().await;
    start_run(&context, &ours);
    let (status, answer) = finalize(&context, &ours, &failed()).await;
    assert_eq!((status, &answer["error"]), (200, &json!("it broke")));
    let run = row(&context, &ours, "subagent_runs", RUN).await;
    assert_eq!((&run["status"], &run["error"]), (&json!("failed"), &json!("it broke")));
    assert_eq!(run["output"], failed()["failure_output"]);
    assert!(run["completed_at"].is_string());
}

#[tokio::test]
async fn many_who_finalize_at_once_agree() {
    let context = Context::new().await;
    let ours = context.pair().await;
    start_run(&context, &ours);
    let bodies = (0..20).map(|at| if at % 2 == 0 { completed() } else { failed() });
    let bodies: Vec<Value> = bodies.collect();
    let answers = bodies.iter().map(|body| finalize(&context, &ours, body));
    let answers = futures_util::future::join_all(answers).await;
    let won: Vec<&Value> =
        answers.iter().filter(|(status, _)| *status == 200).map(|(_, body)| body).collect();
    assert_eq!(won.len(), 10);
    assert!(won.iter().all(|answer| *answer == won[0]));
    let run = row(&context, &ours, "subagent_runs", RUN).await;
    assert_eq!(run["status"], won[0]["status"]);
    assert_eq!(row(&context, &ours, "subagents", SUBAGENT).await["status"], run["status"]);
}

#[tokio::test]
async fn a_subagent_that_went_on_keeps_its_state() {
    let context = Context::new().await;
    let ours = context.pair().await;
    start_run(&context, &ours);
    let metadata = json!({"current_run_id": NEWER_RUN}).to_string();
    context.database().execute("UPDATE subagents SET metadata = ?1", [metadata]).unwrap();
    let before = row(&context, &ours, "subagents", SUBAGENT).await;
    assert_eq!(finalize(&context, &ours, &completed()).await.0, 200);
    assert_eq!(row(&context, &ours, "subagent_runs", RUN).await["status"], "completed");
    assert_eq!(row(&context, &ours, "subagents", SUBAGENT).await, before);
}

#[tokio::test]
async fn a_large_output_is_taken_and_larger_ones_refused() {
    let context = Context::new().await;
    let ours = context.pair().await;
    start_run(&context, &ours);
    let mut body = completed();
    body["stderr"] = json!("x".repeat(15_000_001));
    let (status, refused) = finalize(&context, &ours, &body).await;
    assert_eq!((status, &refused["code"]), (400, &json!("invalid_request")));
    let anonymous = context.request(Method::POST, FINALIZE).json(&body).send().await.unwrap();
    assert_eq!(anonymous.status(), 413, "without a session there is nothing large to say");
    body["stderr"] = json!(null);
    body["output"]["content"] = json!("é".repeat(2_500_000));
    assert_eq!(finalize(&context, &ours, &body).await.0, 200);
}

#[tokio::test]
async fn bodies_of_finalize_are_strict() {
    let context = Context::new().await;
    let ours = context.pair().await;
    start_run(&context, &ours);
    let with = |base: Value, name: &str, value: Value| {
        let mut body = base;
        body[name] = value;
        body
    };
    let without = |base: Value, name: &str| {
        let mut body = base;
        body.as_object_mut().unwrap().remove(name);
        body
    };
    let envelope = |name: &str, value: Value| {
        let mut body = completed();
        body["output"][name] = value;
        body
    };
    for (body, part) in [
        (json!([]), "expected"),
        (with(completed(), "extra", json!(1)), "extra"),
        (without(completed(), "run_id"), "run_id"),
        (without(completed(), "final_status"), "final_status"),
        (without(completed(), "output"), "output"),
        (with(completed(), "run_id", json!("one")), "UUID"),
        (with(completed(), "run_id", json!(1)), "UUID"),
        (with(completed(), "final_status", json!("running")), "running"),
        (with(completed(), "output", json!(null)), "null"),
        (with(completed(), "output", json!("done")), "Envelope"),
        (with(completed(), "final_error", json!("x")), "final_error"),
        (with(completed(), "failure_output", completed()["output"].clone()), "failure_output"),
        (with(completed(), "completed_at", json!("yesterday")), "completed_at"),
        (with(completed(), "completed_at", json!(null)), "null"),
        (with(completed(), "stderr", json!(["x"])), "sequence"),
        (with(completed(), "metadata_patch", json!([])), "sequence"),
        (envelope("schema_version", json!(2)), "schema_version"),
        (envelope("content_type", json!("html")), "html"),
        (envelope("content", json!({})), "content"),
        (envelope("sources", json!(null)), "null"),
        (envelope("overflow", json!(1)), "overflow"),
        (with(failed(), "output", completed()["output"].clone()), "output"),
        (with(failed(), "output", json!(null)), "null"),
        (with(failed(), "failure_output", json!(null)), "failure_output"),
        (with(failed(), "final_error", json!(null)), "final_error"),
        (with(failed(), "final_error", json!("x\u{0}")), "U+0000"),
    ] {
        let (status, answer) = finalize(&context, &ours, &body).await;
        assert_eq!((status, &answer["success"]), (400, &json!(false)), "{body} {answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{part}: {answer}");
    }
    let run = row(&context, &ours, "subagent_runs", RUN).await;
    assert_eq!((&run["status"], &run["metadata"]), (&json!("running"), &json!({})));
}

#[tokio::test]
async fn the_team_toggle_is_the_operators() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let operator = context.server.admin_token().expose_secret().to_owned();
    let set = async |token: &str, body: Value| {
        let request = context.signed(Method::POST, FULL_CONTROL, token).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let on = json!({"gateway_id": ours.gateway_id, "enabled": true});
    let (status, refused) = set(&ours.access, on.clone()).await;
    assert_eq!((status, &refused["code"]), (403, &json!("not_the_operator")));
    let done = json!({"success": true, "gateway_id": ours.gateway_id,
                      "full_control_enabled": true});
    assert_eq!(set(&operator, on).await, (200, done));
    for body in [
        json!({}),
        json!({"enabled": false}),
        json!({"gateway_id": ours.gateway_id}),
        json!({"gateway_id": ours.gateway_id, "enabled": "false"}),
        json!({"gateway_id": "x", "enabled": false}),
        json!({"gateway_id": ours.gateway_id, "enabled": false, "more": 1}),
    ] {
        let (status, answer) = set(&operator, body.clone()).await;
        assert_eq!((status, &answer["success"]), (400, &json!(false)), "{body} {answer}");
    }
    let row = row(&context, &ours, "team_gateways", &ours.gateway_id).await;
    assert_eq!(row["full_control_enabled"], true);
}

#[tokio::test]
async fn placeholders_come_as_three_fields_that_filters_apply_to() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let new = panorama_gateway::sandbox::client::NewJob {
        job_type: "shell_exec".into(),
        ..Default::default()
    };
    let job = context.admin().submit_job(&new).await.unwrap();
    let id = job["id"].as_str().unwrap();
    let database = context.database();
    for (env, secret) in [("B", "second"), ("A", "first")] {
        let placeholder = format!("pano_sec_{}", "0".repeat(36));
        let sql = "INSERT INTO job_secret_placeholders VALUES (?1, ?2, ?3, ?4)";
        database.execute(sql, params![id, env, secret, placeholder]).unwrap();
    }
    let call = async |query: &str| -> Value {
        let path = format!("/rest/v1/rpc/resolve_secret_placeholders_for_job{query}");
        let body = json!({"p_job_id": id});
        let request = context.signed(Method::POST, &path, &ours.access).json(&body);
        request.send().await.unwrap().json().await.unwrap()
    };
    assert_eq!(call("").await, json!([]), "the job does not run yet");
    database.execute("UPDATE gateway_jobs SET status = 'running'", []).unwrap();
    let all = call("").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let fields: Vec<&String> = all[0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["env_name", "secret_name", "placeholder"]);
    let one = call("?select=secret_name&env_name=eq.A").await;
    assert_eq!(one, json!([{"secret_name": "first"}]));
}

#[tokio::test]
async fn a_drive_token_is_told_what_it_is_for() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let lasting = |lifetime| {
        let (gateway, team) = (GatewayId::new(&ours.gateway_id), TeamId::new(&ours.team_id));
        context.server.drive_token(gateway, team, Some("vm-1".into()), lifetime)
    };
    let token = lasting(Duration::from_mins(1));
    let beat = context.heartbeat(&token, &json!({})).await;
    assert_eq!(beat.status(), 403);
    let said: Value = beat.json().await.unwrap();
    assert_eq!(said["code"], "insufficient_scope");
    assert!(said["error"].as_str().unwrap().contains("drive sync only"));
    let read = context.signed(Method::GET, "/rest/v1/gateway_jobs", &token).send().await.unwrap();
    assert_eq!(read.status(), 403);
    assert_eq!(read.json::<Value>().await.unwrap()["code"], "42501");
    let over = lasting(Duration::ZERO);
    assert_eq!(context.heartbeat(&over, &json!({})).await.status(), 401);
}
