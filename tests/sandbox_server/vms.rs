//! Managed VMs: tokens, the gateway that a VM keeps, placeholders for its jobs' secrets.

use reqwest::Method;
use rusqlite::params;
use serde_json::{Value, json};

use crate::context::Context;

async fn exchange_with(context: &Context, token: &str, key: Option<&str>) -> (u16, Value) {
    let body = json!({"bootstrap_token": token, "device_name": "guest", "gateway_version": "1"});
    let mut request = context
        .request(Method::POST, "/functions/v1/exchange-vm-bootstrap-token")
        .bearer_auth(context.server.anon_key())
        .json(&body);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn exchange(context: &Context, token: &str) -> (u16, Value) {
    exchange_with(context, token, None).await
}

async fn token(context: &Context, vm: &str) -> String {
    context.admin().make_vm_token(Some(vm), None).await.unwrap().token
}

#[tokio::test]
async fn a_token_makes_the_vms_gateway_once() {
    let context = Context::new().await;
    let made = context.admin().make_vm_token(None, None).await.unwrap();
    let (status, answer) = exchange(&context, &made.token).await;
    assert_eq!(status, 200, "{answer}");
    let fields: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "success",
            "gateway_id",
            "team_id",
            "vm_id",
            "generation",
            "access_token",
            "refresh_token",
            "expires_at",
            "token_type",
            "drive_sync"
        ]
    );
    assert_eq!((&answer["vm_id"], &answer["generation"]), (&json!(made.vm_id), &json!(1)));
    let rows = context.admin().gateways().await.unwrap();
    assert_eq!((&rows[0]["vm_id"], &rows[0]["device_name"]), (&json!(made.vm_id), &json!("guest")));
    let (status, again) = exchange(&context, &made.token).await;
    assert_eq!((status, &again["code"]), (410, &json!("vm_token_used")));
    assert_eq!(context.count("team_gateways"), 1);
}

#[tokio::test]
async fn who_lost_the_answer_may_ask_again_and_nobody_else() {
    let context = Context::new().await;
    let token = token(&context, "vm-1").await;
    let (status, first) = exchange_with(&context, &token, Some("mine")).await;
    assert_eq!(status, 200);
    for key in [None, Some("yours"), Some("")] {
        assert_eq!(exchange_with(&context, &token, key).await.0, 410, "{key:?}");
    }
    let (status, second) = exchange_with(&context, &token, Some("mine")).await;
    assert_eq!(status, 200);
    assert_eq!(first["gateway_id"], second["gateway_id"]);
    let refreshed =
        async |answer: &Value| context.refresh(answer["refresh_token"].as_str().unwrap()).await.0;
    assert_eq!(refreshed(&first).await, 400, "what was lost is worth nothing");
    assert_eq!(refreshed(&second).await, 200);
}

#[tokio::test]
async fn a_vm_keeps_its_gateway_and_its_older_sessions_end() {
    let context = Context::new().await;
    let (_, first) = exchange(&context, &token(&context, "vm-1").await).await;
    let (_, second) = exchange(&context, &token(&context, "vm-1").await).await;
    let (_, other) = exchange(&context, &token(&context, "vm-2").await).await;
    assert_eq!(first["gateway_id"], second["gateway_id"]);
    assert_ne!(first["gateway_id"], other["gateway_id"]);
    assert_eq!((&second["generation"], &other["generation"]), (&json!(2), &json!(1)));
    let refreshed =
        async |answer: &Value| context.refresh(answer["refresh_token"].as_str().unwrap()).await.0;
    assert_eq!(refreshed(&first).await, 400);
    assert_eq!((refreshed(&second).await, refreshed(&other).await), (200, 200));
}

#[tokio::test]
async fn tokens_that_are_no_good_are_told_apart_and_counted() {
    let context = Context::new().await;
    let good = token(&context, "vm-1").await;
    let old = token(&context, "vm-1").await;
    context
        .database()
        .execute("UPDATE vm_tokens SET expires_at = 1 WHERE rowid = 2", params![])
        .unwrap();
    let truncated = &good[..good.len() - 1];
    for (token, status, code) in [
        (old.as_str(), 410, "vm_token_expired"),
        (truncated, 400, "vm_token_unknown"),
        ("pano_vm_forged", 400, "vm_token_unknown"),
        (" ", 400, "invalid_request"),
    ] {
        let (seen, answer) = exchange(&context, token).await;
        assert_eq!((seen, &answer["code"]), (status, &json!(code)), "{token}");
        let text = answer["error"].as_str().unwrap();
        assert!(!text.contains(&good[10..20]), "{text}");
    }
    assert_eq!(exchange(&context, &good).await.0, 200, "others' failures do not use it up");
    for _ in 0..10 {
        exchange(&context, "wrong").await;
    }
    let (status, answer) = exchange(&context, "wrong").await;
    assert_eq!((status, &answer["code"]), (429, &json!("over_request_rate_limit")));
}

#[tokio::test]
async fn the_bodys_fields_are_exactly_these() {
    let context = Context::new().await;
    let token = token(&context, "vm-1").await;
    let good = json!({"bootstrap_token": token, "device_name": "d", "gateway_version": "1"});
    let changed = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for body in [
        json!({}),
        changed("device_name", json!(" ")),
        changed("device_name", json!("x".repeat(201))),
        changed("bootstrap_token", json!(7)),
        changed("more", json!(1)),
    ] {
        let request = context
            .request(Method::POST, "/functions/v1/exchange-vm-bootstrap-token")
            .bearer_auth(context.server.anon_key());
        let answer = request.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{body}");
    }
    assert_eq!(exchange(&context, &token).await.0, 200);
}

#[tokio::test]
async fn ids_lifetimes_and_names_are_checked() {
    let context = Context::new().await;
    let admin = context.admin();
    for vm in ["", "a b", "../x", &"x".repeat(101)] {
        assert!(admin.make_vm_token(Some(vm), None).await.is_err(), "{vm}");
        assert!(admin.add_secret(vm).await.is_err(), "{vm}");
    }
    for seconds in [0, 2_592_001] {
        assert!(admin.make_vm_token(None, Some(seconds)).await.is_err(), "{seconds}");
    }
    admin.add_secret("second").await.unwrap();
    admin.add_secret("first").await.unwrap();
    admin.add_secret("first").await.unwrap();
    let names = async || -> Vec<String> {
        let rows = admin.secrets().await.unwrap();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names().await, ["first", "second"]);
    admin.remove_secret("first").await.unwrap();
    assert_eq!(names().await, ["second"]);
    let error = admin.remove_secret("first").await.unwrap_err();
    assert!(error.to_string().contains("no secret"), "{error}");
}

/// The rows of the RPC for a running job with this `secret_env`.
async fn resolved(context: &Context, guest: &Value, secret_env: Value) -> Vec<Value> {
    let new = panorama_gateway::sandbox::client::NewJob {
        gateway_id: guest["gateway_id"].as_str().map(str::to_owned),
        job_type: "shell_exec".into(),
        payload: serde_json::Map::from_iter([("secret_env".to_owned(), secret_env)]),
        ..Default::default()
    };
    let job = context.admin().submit_job(&new).await.unwrap();
    let id = job["id"].as_str().unwrap();
    let sql = "UPDATE gateway_jobs SET status = 'running' WHERE id = ?1";
    context.database().execute(sql, params![id]).unwrap();
    let path = "/rest/v1/rpc/resolve_secret_placeholders_for_job";
    let access = guest["access_token"].as_str().unwrap();
    let request = context.signed(Method::POST, path, access).json(&json!({"p_job_id": id}));
    request.send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn a_vms_job_gets_placeholders_for_secrets_that_there_are() {
    let context = Context::new().await;
    context.admin().add_secret("deploy-key").await.unwrap();
    let (_, guest) = exchange(&context, &token(&context, "vm-1").await).await;
    let wanted = json!({"KEY": "deploy-key", "OTHER": "unknown", "ODD": 7});
    let rows = resolved(&context, &guest, wanted.clone()).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&rows[0]["env_name"], &rows[0]["secret_name"]),
        (&json!("KEY"), &json!("deploy-key"))
    );
    let placeholder = rows[0]["placeholder"].as_str().unwrap();
    let hex = placeholder.strip_prefix("pano_sec_").unwrap();
    assert!(hex.len() == 36 && hex.bytes().all(|b| b.is_ascii_hexdigit()), "{placeholder}");
    let others = resolved(&context, &guest, wanted.clone()).await;
    assert_ne!(others[0]["placeholder"], placeholder, "each job has its own");
    for odd in [json!(["deploy-key"]), json!("deploy-key"), json!(null)] {
        assert!(resolved(&context, &guest, odd.clone()).await.is_empty(), "{odd}");
    }
    let host = context.pair().await;
    let host = json!({"gateway_id": host.gateway_id, "access_token": host.access});
    assert!(resolved(&context, &host, wanted).await.is_empty(), "it is in no VM");
}
