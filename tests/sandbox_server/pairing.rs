//! Codes become gateways, once.

use panorama_gateway::model::time;
use reqwest::Method;
use serde_json::{Value, json};

use crate::context::{Context, capabilities};

#[tokio::test]
async fn a_code_becomes_a_gateway_with_a_session() {
    let context = Context::new().await;
    let code = context.admin().make_pairing_code(Some("preset")).await.unwrap();
    assert_eq!(code.url, context.server.url());
    assert_eq!(code.anon_key, context.server.anon_key());
    let answer = context.exchange(&format!("  {} ", code.code.to_lowercase())).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("date"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["success"], true);
    assert_eq!(body["token_type"], "bearer");
    let lifetime = time::parse(body["expires_at"].as_str().unwrap()).unwrap().as_second()
        - jiff::Timestamp::now().as_second();
    assert!((3590..=3600).contains(&lifetime), "{lifetime}");
    let gateways = context.admin().gateways().await.unwrap();
    assert_eq!(gateways.len(), 1);
    assert_eq!(gateways[0]["id"], body["gateway_id"]);
    assert_eq!(gateways[0]["team_id"], body["team_id"]);
    assert_eq!(gateways[0]["device_name"], "bench");
    assert_eq!(gateways[0]["status"], "pending");
    assert_eq!(gateways[0]["online"], false);
    let stored: String = context
        .database()
        .query_row("SELECT group_concat(code_sha256) FROM pairing_codes", [], |row| row.get(0))
        .unwrap();
    assert!(!stored.contains(&code.code));
}

#[tokio::test]
async fn a_code_works_once_and_not_for_ever() {
    let context = Context::new().await;
    let used = context.admin().make_pairing_code(None).await.unwrap().code;
    assert_eq!(context.exchange(&used).await.status(), 200);
    let expired = context.admin().make_pairing_code(None).await.unwrap().code;
    let changed = context
        .database()
        .execute("UPDATE pairing_codes SET expires_at = 1 WHERE used_at IS NULL", [])
        .unwrap();
    assert_eq!(changed, 1);
    for (code, status, word) in
        [(used.as_str(), 410, "used"), (&expired, 410, "expired"), ("ABCD-EFGH-JKLM", 400, "known")]
    {
        let answer = context.exchange(code).await;
        assert_eq!(answer.status(), status, "{word}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["success"], false);
        assert!(body["error"].as_str().unwrap().contains(word), "{body}");
    }
    assert_eq!(context.count("team_gateways"), 1);
    assert_eq!(context.count("sessions"), 1);
    assert_eq!(context.count("refresh_tokens"), 1);
}

#[tokio::test]
async fn one_code_used_by_many_at_once_makes_one_gateway() {
    let context = Context::new().await;
    let code = context.admin().make_pairing_code(None).await.unwrap().code;
    let answers = futures_util::future::join_all((0..20).map(|_| context.exchange(&code))).await;
    let won = answers.iter().filter(|answer| answer.status() == 200).count();
    assert_eq!(won, 1);
    assert_eq!(context.count("team_gateways"), 1);
}

#[tokio::test]
async fn guessing_codes_is_slowed_down_but_pairing_is_not() {
    let context = Context::new().await;
    for _ in 0..12 {
        context.pair().await;
    }
    let good = context.admin().make_pairing_code(None).await.unwrap().code;
    for _ in 0..10 {
        assert_eq!(context.exchange("ABCD-EFGH-JKLM").await.status(), 400);
    }
    let refused = context.exchange(&good).await;
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(context.count("team_gateways"), 12);
}

#[tokio::test]
async fn bad_exchange_bodies_are_refused_and_change_nothing() {
    let context = Context::new().await;
    let code = context.admin().make_pairing_code(None).await.unwrap().code;
    let long = "x".repeat(201);
    for body in [
        String::new(),
        "<html><body>hi</body></html>".into(),
        "{\"code\":".into(),
        "null".into(),
        "[]".into(),
        json!({"code": code}).to_string(),
        json!({"code": 7, "device_name": "x"}).to_string(),
        json!({"code": "  ", "device_name": "x"}).to_string(),
        json!({"code": code, "device_name": " "}).to_string(),
        json!({"code": code, "device_name": long}).to_string(),
        json!({"code": code, "device_name": "x", "extra": 1}).to_string(),
    ] {
        let answer = context
            .request(Method::POST, "/functions/v1/exchange-gateway-pairing-code")
            .body(body.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400, "{body}");
        assert_eq!(answer.json::<Value>().await.unwrap()["success"], false, "{body}");
    }
    assert_eq!(context.count("team_gateways"), 0);
    assert_eq!(context.exchange(&code).await.status(), 200, "the code must still work");
}

async fn row(context: &Context, id: &str) -> Value {
    let gateways = context.admin().gateways().await.unwrap();
    gateways.into_iter().find(|row| row["id"] == id).unwrap()
}

#[tokio::test]
async fn a_heartbeat_updates_its_own_gateway() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let other = context.pair().await;
    let beat = |status: &str| json!({"status": status, "capabilities": capabilities(), "device_name": "renamed"});
    let answer = context.heartbeat(&ours.access, &beat("pending")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await.unwrap()["success"], true);
    let first = row(&context, &ours.gateway_id).await;
    assert_eq!((&first["device_name"], &first["online"]), (&json!("renamed"), &json!(true)));
    assert_eq!(first["ready_at"], Value::Null);
    assert_eq!(first["capabilities"], capabilities());
    context.heartbeat(&ours.access, &beat("ready")).await;
    let ready = row(&context, &ours.gateway_id).await;
    assert_eq!(ready["status"], "ready");
    let ready_at = ready["ready_at"].clone();
    assert!(ready_at.is_string());
    context.heartbeat(&ours.access, &beat("pending")).await;
    context.heartbeat(&ours.access, &beat("ready")).await;
    assert_eq!(row(&context, &ours.gateway_id).await["ready_at"], ready_at);
    context.heartbeat(&ours.access, &beat("offline")).await;
    assert_eq!(row(&context, &ours.gateway_id).await["online"], false);
    let untouched = row(&context, &other.gateway_id).await;
    assert_eq!(
        (&untouched["device_name"], &untouched["last_seen_at"]),
        (&json!("bench"), &Value::Null)
    );
}

#[tokio::test]
async fn bad_heartbeats_are_refused_and_change_nothing() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let mut with_null = capabilities();
    with_null["providers"]["codex"]["version"] = Value::Null;
    for body in [
        json!({"status": "ready", "capabilities": {}, "device_name": "x"}),
        json!({"status": "asleep", "capabilities": capabilities(), "device_name": "x"}),
        json!({"status": "ready", "capabilities": capabilities()}),
        json!({"status": "ready", "capabilities": capabilities(), "device_name": ""}),
        json!({"status": "ready", "capabilities": capabilities(), "device_name": "x", "pid": 1}),
        json!({"status": "ready", "capabilities": [], "device_name": "x"}),
        json!({"status": "ready", "capabilities": with_null, "device_name": "x"}),
        json!("text"),
    ] {
        let answer = context.heartbeat(&ours.access, &body).await;
        assert_eq!(answer.status(), 400, "{body}");
    }
    let good = json!({"status": "ready", "capabilities": capabilities(), "device_name": "x"});
    let anonymous = context
        .request(Method::POST, "/functions/v1/gateway-heartbeat")
        .json(&good)
        .send()
        .await
        .unwrap();
    assert_eq!(anonymous.status(), 401);
    assert_eq!(context.admin().gateways().await.unwrap()[0]["last_seen_at"], Value::Null);
}

#[tokio::test]
async fn a_silent_gateway_shows_as_offline() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let beat = json!({"status": "ready", "capabilities": capabilities(), "device_name": "bench"});
    context.heartbeat(&ours.access, &beat).await;
    context
        .database()
        .execute("UPDATE team_gateways SET last_seen_at = last_seen_at - 91000000", [])
        .unwrap();
    let gateway = context.admin().gateways().await.unwrap().remove(0);
    assert_eq!((&gateway["online"], &gateway["status"]), (&json!(false), &json!("offline")));
}
