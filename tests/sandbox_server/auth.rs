//! Sessions: rotation, reuse, both shapes of errors.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::context::{Context, Paired};

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn user(context: &Context, access: &str) -> (u16, Value) {
    let answer = context
        .signed(Method::GET, "/auth/v1/user", access)
        .header("X-Supabase-Api-Version", "2024-01-01")
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn the_access_token_carries_what_clients_rely_on() {
    let context = Context::new().await;
    let Paired { access, gateway_id, team_id, .. } = context.pair().await;
    let claims = claims(&access);
    assert_eq!(
        (&claims["role"], &claims["aud"]),
        (&json!("authenticated"), &json!("authenticated"))
    );
    assert_eq!(claims["app_metadata"]["gateway_id"], gateway_id.as_str());
    assert_eq!(claims["app_metadata"]["team_id"], team_id.as_str());
    let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(lifetime, 3600);
    let (status, user) = user(&context, &access).await;
    assert_eq!(status, 200);
    assert_eq!(user["id"], claims["sub"]);
    assert!(user["app_metadata"].is_object());
}

#[tokio::test]
async fn refresh_rotates_and_the_parent_gives_the_same_child() {
    let context = Context::new().await;
    let paired = context.pair().await;
    let (status, first) = context.refresh(&paired.refresh).await;
    assert_eq!(status, 200);
    assert_eq!((&first["token_type"], &first["expires_in"]), (&json!("bearer"), &json!(3600)));
    assert!(first["expires_at"].is_i64() && first["user"]["id"].is_string());
    assert_ne!(first["refresh_token"], paired.refresh.as_str());
    let (status, again) = context.refresh(&paired.refresh).await;
    assert_eq!(status, 200);
    assert_eq!(again["refresh_token"], first["refresh_token"]);
    let child = first["refresh_token"].as_str().unwrap();
    let (_, second) = context.refresh(child).await;
    assert_eq!(context.refresh(child).await.1["refresh_token"], second["refresh_token"]);
    assert_eq!(user(&context, second["access_token"].as_str().unwrap()).await.0, 200);
}

#[tokio::test]
async fn many_refreshes_at_once_agree_on_one_child() {
    let context = Context::new().await;
    let token = context.pair().await.refresh;
    let answers = futures_util::future::join_all((0..50).map(|_| context.refresh(&token))).await;
    let child = &answers[0].1["refresh_token"];
    for (status, body) in &answers {
        assert_eq!((*status, &body["refresh_token"]), (200, child));
    }
    assert_eq!(context.count("refresh_tokens"), 2);
}

#[tokio::test]
async fn an_older_token_works_within_the_reuse_interval() {
    let context = Context::with(|options| options.reuse_interval = Duration::from_hours(1)).await;
    let grandparent = context.pair().await.refresh;
    let parent = context.refresh(&grandparent).await.1["refresh_token"].clone();
    let live = context.refresh(parent.as_str().unwrap()).await.1["refresh_token"].clone();
    let (status, body) = context.refresh(&grandparent).await;
    assert_eq!((status, &body["refresh_token"]), (200, &live));
}

#[tokio::test]
async fn an_older_token_ends_the_session_after_it() {
    let context = Context::with(|options| options.reuse_interval = Duration::ZERO).await;
    let grandparent = context.pair().await.refresh;
    let parent = context.refresh(&grandparent).await.1;
    let live = context.refresh(parent["refresh_token"].as_str().unwrap()).await.1;
    let (status, body) = context.refresh(&grandparent).await;
    assert_eq!((status, &body["code"]), (400, &json!("refresh_token_already_used")));
    let (status, body) = context.refresh(live["refresh_token"].as_str().unwrap()).await;
    assert_eq!((status, &body["code"]), (400, &json!("refresh_token_not_found")));
    let (status, body) = user(&context, live["access_token"].as_str().unwrap()).await;
    assert_eq!((status, &body["code"]), (403, &json!("session_not_found")));
}

#[tokio::test]
async fn tokens_survive_a_restart_of_the_server() {
    let context = Context::new().await;
    let paired = context.pair().await;
    let child = context.refresh(&paired.refresh).await.1["refresh_token"].clone();
    let data_dir = context.data_dir();
    let Context { server, dir, http } = context;
    let anon_key = server.anon_key().to_owned();
    server.shutdown().await;
    assert!(!data_dir.join("server.json").exists());
    let options =
        panorama_gateway::sandbox::ServerOptions::new(data_dir, "127.0.0.1:0".parse().unwrap());
    let server = panorama_gateway::sandbox::Server::start(options).await.unwrap();
    assert_eq!(server.anon_key(), anon_key);
    let context = Context { server, dir, http };
    assert_eq!(context.refresh(&paired.refresh).await.1["refresh_token"], child);
    assert_eq!(user(&context, &paired.access).await.0, 200);
}

#[tokio::test]
async fn errors_follow_the_version_header() {
    let context = Context::new().await;
    let url = "/auth/v1/token?grant_type=refresh_token";
    let body = json!({"refresh_token": "zzzzzzzzzzz0"});
    let new = context
        .request(Method::POST, url)
        .header("X-Supabase-Api-Version", "2024-01-01")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(new.status(), 400);
    assert_eq!(new.headers()["x-supabase-api-version"], "2024-01-01");
    assert_eq!(new.headers()["x-sb-error-code"], "refresh_token_not_found");
    let new: Value = new.json().await.unwrap();
    assert_eq!(new.as_object().unwrap().keys().collect::<Vec<_>>(), ["code", "message"]);
    let old = context.request(Method::POST, url).json(&body).send().await.unwrap();
    assert_eq!(old.headers()["x-sb-error-code"], "refresh_token_not_found");
    let old: Value = old.json().await.unwrap();
    assert_eq!(
        (&old["code"], &old["error_code"]),
        (&json!(400), &json!("refresh_token_not_found"))
    );
    assert!(old["msg"].is_string());
}

#[tokio::test]
async fn bad_refresh_bodies_are_told_apart() {
    let context = Context::new().await;
    for (body, code) in [
        (r#"{"refresh_token":"short"}"#, "validation_failed"),
        (r#"{"refresh_token":7}"#, "validation_failed"),
        ("{}", "validation_failed"),
        ("<html></html>", "bad_json"),
        ("", "bad_json"),
        (r#"{"refresh_token":"#, "bad_json"),
    ] {
        let answer = context
            .request(Method::POST, "/auth/v1/token?grant_type=refresh_token")
            .header("X-Supabase-Api-Version", "2024-01-01")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400, "{body}");
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], code, "{body}");
    }
    let other = context
        .request(Method::POST, "/auth/v1/token?grant_type=password")
        .json(&json!({"email": "a", "password": "b"}))
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 400);
}

#[tokio::test]
async fn user_refuses_bad_tokens() {
    let context = Context::new().await;
    let paired = context.pair().await;
    let none = context.request(Method::GET, "/auth/v1/user").send().await.unwrap();
    assert_eq!(none.status(), 401);
    let none: Value = none.json().await.unwrap();
    assert_eq!(none["error_code"], "no_authorization");
    let [header, claims, _]: [&str; 3] =
        paired.access.split('.').collect::<Vec<_>>().try_into().unwrap();
    for token in [
        format!("{header}.{claims}.YmFkIHNpZ25hdHVyZQ"),
        context.server.anon_key().to_owned(),
        "garbage".to_owned(),
    ] {
        let (status, body) = user(&context, &token).await;
        assert_eq!((status, &body["code"]), (403, &json!("bad_jwt")), "{token}");
    }
}

#[tokio::test]
async fn an_expired_access_token_is_refused_everywhere() {
    let context = Context::with(|options| {
        options.access_token_lifetime = Duration::ZERO;
        options.clock_leeway = Duration::ZERO;
    })
    .await;
    let paired = context.pair().await;
    assert_eq!(user(&context, &paired.access).await.1["code"], "bad_jwt");
    let rest = context
        .signed(Method::GET, "/rest/v1/gateway_jobs?select=*", &paired.access)
        .send()
        .await
        .unwrap();
    assert_eq!(rest.status(), 401);
    let rest: Value = rest.json().await.unwrap();
    assert_eq!((&rest["code"], &rest["message"]), (&json!("PGRST303"), &json!("JWT expired")));
    let beat = context.heartbeat(&paired.access, &json!({})).await;
    assert_eq!(beat.status(), 401);
}

#[tokio::test]
async fn logout_ends_the_session() {
    let context = Context::new().await;
    let paired = context.pair().await;
    let url = "/auth/v1/logout?scope=global";
    let out = context.signed(Method::POST, url, &paired.access).send().await.unwrap();
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    assert_eq!(out.bytes().await.unwrap().len(), 0);
    assert_eq!(user(&context, &paired.access).await.1["code"], "session_not_found");
    assert_eq!(context.refresh(&paired.refresh).await.1["code"], "refresh_token_not_found");
}

#[tokio::test]
async fn public_pages_need_no_key() {
    let context = Context::new().await;
    let url = context.server.url();
    for path in ["/auth/v1/health", "/auth/v1/.well-known/jwks.json", "/healthz"] {
        let answer = context.http.get(format!("{url}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.headers().contains_key("date"), "{path}");
    }
    let jwks = context.http.get(format!("{url}/auth/v1/.well-known/jwks.json"));
    let jwks = jwks.send().await.unwrap();
    assert_eq!(jwks.headers()["cache-control"], "public, max-age=600");
    assert_eq!(jwks.json::<Value>().await.unwrap(), json!({"keys": []}));
}

#[tokio::test]
async fn every_error_has_its_code_in_both_shapes_and_every_answer_a_date() {
    let context = Context::new().await;
    let paired = context.pair().await;
    context.signed(Method::POST, "/auth/v1/logout", &paired.access).send().await.unwrap();
    let refresh = "/auth/v1/token?grant_type=refresh_token";
    let ended = json!({"refresh_token": paired.refresh});
    for (method, path, token, body, status, code) in [
        (Method::POST, refresh, "", ended, 400, "refresh_token_not_found"),
        (Method::POST, refresh, "", json!({}), 400, "validation_failed"),
        (Method::POST, "/auth/v1/token", "", json!({}), 400, "unsupported_grant_type"),
        (Method::GET, "/auth/v1/user", "", json!({}), 401, "no_authorization"),
        (Method::GET, "/auth/v1/user", "a.b.c", json!({}), 403, "bad_jwt"),
        (Method::GET, "/auth/v1/user", &paired.access, json!({}), 403, "session_not_found"),
        (Method::POST, "/auth/v1/logout", "", json!({}), 401, "no_authorization"),
        (Method::POST, "/auth/v1/logout", "a.b.c", json!({}), 403, "bad_jwt"),
        (Method::POST, "/auth/v1/logout", &paired.access, json!({}), 403, "session_not_found"),
    ] {
        for version in [None, Some("2024-01-01")] {
            let mut request = context.request(method.clone(), path).json(&body);
            if !token.is_empty() {
                request = request.bearer_auth(token);
            }
            if let Some(version) = version {
                request = request.header("X-Supabase-Api-Version", version);
            }
            let answer = request.send().await.unwrap();
            let headers = answer.headers().clone();
            assert_eq!(
                (answer.status().as_u16(), &headers["x-sb-error-code"]),
                (status, &code.parse().unwrap()),
                "{path}"
            );
            assert!(headers.contains_key("date"), "{path}");
            let said: Value = answer.json().await.unwrap();
            let expected = match version {
                Some(_) => json!({"code": code, "message": said["message"]}),
                None => json!({"code": status, "error_code": code, "msg": said["msg"]}),
            };
            assert_eq!(said, expected, "{path}");
        }
    }
    let options = panorama_gateway::sandbox::ServerOptions::new(
        context.data_dir(),
        "127.0.0.1:0".parse().unwrap(),
    );
    assert_eq!(options.reuse_interval, Duration::from_secs(10));
}
