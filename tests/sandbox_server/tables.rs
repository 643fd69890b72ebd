//! Tables through the whole server: what a gateway does with a job.

use panorama_gateway::sandbox::client::NewJob;
use reqwest::Method;
use serde_json::{Value, json};

use crate::context::Context;
use crate::fixtures;

#[tokio::test]
async fn a_job_is_polled_claimed_and_completed() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let new = NewJob { job_type: "diagnostic".into(), ..NewJob::default() };
    let job = context.admin().submit_job(&new).await.unwrap();
    let id = job["id"].as_str().unwrap();
    let polled: Vec<Value> = context
        .signed(
            Method::GET,
            &format!(
                "/rest/v1/gateway_jobs?select=*&team_id=eq.{}&status=eq.queued&gateway_id=eq.{}\
                 &order=created_at.asc,id.asc&limit=200",
                ours.team_id, ours.gateway_id
            ),
            &ours.access,
        )
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(polled.len(), 1);
    assert_eq!((&polled[0]["id"], &polled[0]["payload"]), (&job["id"], &json!({})));
    let patch = |filter: String, body: Value| {
        context
            .signed(Method::PATCH, &format!("/rest/v1/gateway_jobs?{filter}"), &ours.access)
            .header("Prefer", "return=representation")
            .json(&body)
            .send()
    };
    let claim = || {
        patch(
            format!(
                "id=eq.{id}&team_id=eq.{}&status=eq.queued&gateway_id=eq.{}",
                ours.team_id, ours.gateway_id
            ),
            json!({"status": "running", "gateway_id": ours.gateway_id,
                   "started_at": "2026-11-21T22:00:00.000Z"}),
        )
    };
    let won: Vec<Value> = claim().await.unwrap().json().await.unwrap();
    assert_eq!(won[0]["status"], "running");
    let lost: Vec<Value> = claim().await.unwrap().json().await.unwrap();
    assert_eq!(lost, Vec::<Value>::new());
    let done = patch(
        format!("id=eq.{id}&status=eq.running"),
        json!({"status": "completed", "result": {"message": "ok"}, "error": null,
               "completed_at": "2026-11-21T22:00:01.000Z"}),
    )
    .await
    .unwrap();
    assert_eq!(done.status(), 200);
    let row = context.admin().job(id).await.unwrap();
    assert_eq!((&row["status"], &row["result"]["message"]), (&json!("completed"), &json!("ok")));
}

#[tokio::test]
async fn another_gateway_cannot_claim_it() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let other = context.pair().await;
    let new = NewJob {
        gateway_id: Some(ours.gateway_id.clone()),
        job_type: "diagnostic".into(),
        ..NewJob::default()
    };
    let job = context.admin().submit_job(&new).await.unwrap();
    let id = job["id"].as_str().unwrap();
    context
        .signed(Method::PATCH, &format!("/rest/v1/gateway_jobs?id=eq.{id}"), &other.access)
        .json(&json!({"status": "running", "started_at": "2026-11-21T22:00:00.000Z"}))
        .send()
        .await
        .unwrap();
    assert_eq!(context.admin().job(id).await.unwrap()["status"], "queued");
}

#[tokio::test]
async fn keys_and_tokens_are_checked_before_anything_else() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let url = format!("{}/rest/v1/gateway_jobs?select=id", context.server.url());
    for (key, message) in
        [(None, "No API key found in request"), (Some("wrong"), "Invalid API key")]
    {
        let mut request = context.http.get(&url).bearer_auth(&ours.access);
        if let Some(key) = key {
            request = request.header("apikey", key);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.json::<Value>().await.unwrap()["message"], message);
    }
    let in_query = format!("{url}&apikey={}", context.server.anon_key());
    let answer = context.http.get(in_query).bearer_auth(&ours.access).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let [header, claims, _]: [&str; 3] =
        ours.access.split('.').collect::<Vec<_>>().try_into().unwrap();
    for token in [format!("{header}.{claims}.AAAA"), "garbage".into(), String::new()] {
        let path = "/rest/v1/gateway_jobs?select=id";
        let answer = context.signed(Method::GET, path, &token).send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"], "PGRST301");
        assert_eq!(
            body.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["code", "message", "details", "hint"]
        );
    }
}

#[tokio::test]
async fn tables_and_functions_can_be_added() {
    let context = Context::with(|options| options.schema = fixtures::schema()).await;
    let ours = context.pair().await;
    let item: Value = context
        .signed(Method::POST, "/rest/v1/conformance_items?select=name,status", &ours.access)
        .header("Prefer", "return=representation")
        .json(&json!({"name": "first"}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(item, json!([{"name": "first", "status": "queued"}]));
    let sum: Value = context
        .signed(Method::POST, "/rest/v1/rpc/conformance_add", &ours.access)
        .json(&json!({"a": 2, "b": 40}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(sum, json!(42));
}

#[tokio::test]
async fn an_answer_is_bounded_by_bytes_as_by_rows() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let insert = "INSERT INTO gateway_jobs
            (id, team_id, gateway_id, job_type, status, error, created_at, updated_at)
        VALUES ('small', ?1, ?2, 'diagnostic', 'failed', 'x', 0, 0),
            ('large', ?1, ?2, 'diagnostic', 'failed', printf('%.*c', 68000000, 'x'), 1, 1)";
    context.database().execute(insert, [&ours.team_id, &ours.gateway_id]).unwrap();
    // What is not asked for does not count.
    for (columns, range) in [("id,error", "0-0/*"), ("id", "0-1/*")] {
        let path = format!("/rest/v1/gateway_jobs?select={columns}&order=created_at");
        let answer = context.signed(Method::HEAD, &path, &ours.access).send().await.unwrap();
        assert_eq!(answer.headers()["content-range"], range, "{columns}");
    }
}
