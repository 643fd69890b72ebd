//! What a token reaches that was forged, has lost its session, or belongs to another team.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use panorama_gateway::sandbox::client::NewJob;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use crate::context::{Context, Paired, capabilities};

const POLL: &str = "/rest/v1/gateway_jobs?select=id";

/// A token as this server would sign it, with any header and claims.
pub(crate) fn signed(context: &Context, header: &Value, claims: &Value) -> String {
    let secrets = std::fs::read(context.data_dir().join("secrets.json")).unwrap();
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    let key = secrets["jwt_secret"].as_str().unwrap().as_bytes();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = if header["alg"] == "HS512" {
        let mut mac = Hmac::<Sha512>::new_from_slice(key).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    } else {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    };
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

async fn poll(context: &Context, token: &str) -> (u16, Value) {
    let answer = context.signed(Method::GET, POLL, token).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn only_tokens_of_the_right_kind_are_taken() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let text = ours.access.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let again = signed(&context, &header, &claims);
    assert_eq!(poll(&context, &again).await.0, 200, "the helper signs as the server does");
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        signed(&context, &header, &claims)
    };
    let issued = claims["iat"].as_i64().unwrap();
    let unsigned = |alg: &str| {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
        format!("{header}.{text}.")
    };
    for (token, code) in [
        (unsigned("none"), "PGRST301"),
        (unsigned("HS256"), "PGRST301"),
        (signed(&context, &json!({"alg": "HS512"}), &claims), "PGRST301"),
        (signed(&context, &json!({"alg": "none"}), &claims), "PGRST301"),
        (signed(&context, &json!({"alg": ["HS256"]}), &claims), "PGRST301"),
        (with("role", json!("service_role")), "PGRST301"),
        (with("role", json!("anon")), "PGRST301"),
        (with("aud", json!(["authenticated"])), "PGRST301"),
        (with("exp", json!(null)), "PGRST301"),
        (with("exp", json!("9999999999")), "PGRST301"),
        (with("exp", json!(1e300)), "PGRST301"),
        (with("app_metadata", json!({})), "PGRST301"),
        (with("exp", json!(issued - 31)), "PGRST303"),
        (with("exp", json!(i64::MIN)), "PGRST303"),
        (with("iat", json!(issued + 3600)), "PGRST303"),
        (with("nbf", json!(issued + 3600)), "PGRST303"),
        (with("nbf", json!(i64::MAX)), "PGRST303"),
    ] {
        let (status, body) = poll(&context, &token).await;
        assert_eq!((status, body["code"].as_str()), (401, Some(code)), "{body} {token}");
        let path = "/functions/v1/gateway-heartbeat";
        let beat = context.signed(Method::POST, path, &token).json(&json!({})).send();
        assert_eq!(beat.await.unwrap().status(), 401, "{token}");
        let user = context.signed(Method::GET, "/auth/v1/user", &token).send().await.unwrap();
        assert_eq!(user.status(), 403, "{token}");
    }
}

#[tokio::test]
async fn a_token_of_an_ended_session_finishes_its_work_and_is_not_renewed() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let out = context.signed(Method::POST, "/auth/v1/logout", &ours.access).send().await.unwrap();
    assert_eq!(out.status(), 204);
    assert_eq!(poll(&context, &ours.access).await.0, 200);
    let (status, body) = context.refresh(&ours.refresh).await;
    assert_eq!((status, &body["code"]), (400, &json!("refresh_token_not_found")));
    assert_eq!(context.count("refresh_tokens"), 1);
}

/// A gateway of a team that this server's operator knows nothing of.
pub(crate) async fn stranger(context: &Context) -> Paired {
    const TEAM: &str = "00000000-0000-4000-8000-00000000000b";
    let hash = Sha256::digest(b"STRANGERCODE").iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let database = context.database();
    database.execute("INSERT INTO teams VALUES (?1, 'other', 0)", [TEAM]).unwrap();
    database
        .execute(
            "INSERT INTO pairing_codes (code_sha256, team_id, created_at, expires_at)
             VALUES (?1, ?2, 0, 9000000000000000)",
            [&hash, TEAM],
        )
        .unwrap();
    let body: Value = context.exchange("STRANGERCODE").await.json().await.unwrap();
    assert_eq!(body["team_id"], TEAM);
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    Paired {
        gateway_id: text("gateway_id"),
        team_id: text("team_id"),
        access: text("access_token"),
        refresh: text("refresh_token"),
    }
}

#[tokio::test]
async fn another_team_sees_and_changes_nothing() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let new = NewJob { job_type: "diagnostic".into(), ..NewJob::default() };
    let job = context.admin().submit_job(&new).await.unwrap();
    let id = job["id"].as_str().unwrap();
    let other = stranger(&context).await;
    let get = async |target: String| -> (u16, String, Value) {
        let answer = context
            .signed(Method::GET, &target, &other.access)
            .header("Prefer", "count=exact")
            .send()
            .await
            .unwrap();
        let range =
            answer.headers().get("content-range").map_or("", |range| range.to_str().unwrap());
        let range = range.to_owned();
        (answer.status().as_u16(), range, answer.json().await.unwrap())
    };
    let (gateway, team) = (&ours.gateway_id, &ours.team_id);
    for target in [
        "gateway_jobs".to_owned(),
        format!("gateway_jobs?id=eq.{id}"),
        format!("gateway_jobs?team_id=eq.{team}"),
        format!("gateway_jobs?or=(id.eq.{id},status.eq.queued)"),
        format!("gateway_jobs?not.and=(id.eq.{id},team_id.neq.{team})"),
        format!("gateway_jobs?team_id=not.in.({team})"),
        "gateway_jobs?select=id&order=payload->>x&payload->>x=is.null".to_owned(),
        format!("team_gateways?id=eq.{gateway}"),
        format!("team_gateways?or=(id.eq.{gateway},id.is.null)"),
        "team_resources".to_owned(),
    ] {
        let (status, range, rows) = get(format!("/rest/v1/{target}")).await;
        assert_eq!((status, range.as_str(), &rows), (200, "*/0", &json!([])), "{target}");
    }
    let started = "2026-11-21T22:00:00.000Z";
    for (method, target, prefer, body) in [
        (Method::PATCH, format!("gateway_jobs?id=eq.{id}"), "", json!({"status": "running"})),
        (
            Method::PATCH,
            format!("gateway_jobs?id=eq.{id}"),
            "max-affected=0",
            json!({"debug": {"x": 1}}),
        ),
        (
            Method::PATCH,
            format!("gateway_jobs?or=(id.eq.{id},id.is.null)"),
            "return=representation",
            json!({"status": "running", "started_at": started, "gateway_id": other.gateway_id}),
        ),
        (
            Method::PATCH,
            format!("team_gateways?id=eq.{gateway}"),
            "",
            json!({"full_control_enabled": true}),
        ),
        (
            Method::POST,
            "gateway_jobs?on_conflict=id".to_owned(),
            "resolution=merge-duplicates",
            json!({"id": id, "status": "cancelled"}),
        ),
        (
            Method::POST,
            "gateway_events".to_owned(),
            "",
            json!({"gateway_id": gateway, "team_id": team, "level": "info", "message": "m"}),
        ),
        (
            Method::POST,
            "gateway_events".to_owned(),
            "",
            json!({"gateway_id": other.gateway_id, "team_id": team, "level": "info",
                   "message": "m"}),
        ),
        (Method::DELETE, format!("gateway_jobs?id=eq.{id}"), "", json!({})),
    ] {
        let answer = context
            .signed(method.clone(), &format!("/rest/v1/{target}"), &other.access)
            .header("Prefer", prefer)
            .json(&body)
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let said = answer.text().await.unwrap();
        // Hidden rows do not match; what is no right at all is refused.
        let nothing = matches!(status, 200 | 204) && matches!(&*said, "" | "[]");
        assert!(nothing || status == 403, "{method} {target}: {status} {said}");
        assert!(!said.contains(gateway.as_str()), "{said}");
    }
    assert_eq!(context.admin().job(id).await.unwrap(), job);
    assert_eq!(context.count("gateway_events"), 0);
    let beat = json!({"status": "ready", "device_name": "other", "capabilities": capabilities()});
    assert_eq!(context.heartbeat(&other.access, &beat).await.status(), 200);
    let gateways = context.admin().gateways().await.unwrap();
    assert_eq!(gateways.len(), 1, "the operator's team has no more");
    assert_eq!((&gateways[0]["id"], &gateways[0]["status"]), (&json!(gateway), &json!("pending")));
}
