//! Each call's request, and how its answers are read.

use std::sync::Mutex;
use std::time::Duration;

use panorama_gateway::backend::{
    BackendError, Claim, Completion, Confirmation, GatewayEvent, PageKey,
};
use panorama_gateway::model::{
    Capabilities, GatewayStatus, Host, HostMetadata, Hosts, Job, JobId, JobStatus, Provider,
    Providers, ResourceId, Runtime, Service, Services,
};
use serde_json::{Map, Value, json};

use super::context::{KEY, api, dated};
use super::fake::{Fake, Reply, Seen, json as reply};

const AT: &str = "2026-11-21T22:00:00.000Z";

fn job() -> JobId {
    JobId::new("j")
}

fn full(key: Option<&str>) -> Job {
    Job::decode(&json!({"id": "j", "team_id": "t", "gateway_id": "g", "job_type": "x",
        "status": "queued", "created_at": AT, "attempt": 2, "idempotency_key": key}))
    .unwrap()
}

fn completion(result: Value) -> Completion {
    Completion { status: JobStatus::Completed, result, error: None, completed_at: AT.into() }
}

fn capabilities() -> Capabilities {
    let provider = Providers {
        claude_code: Provider::default(),
        codex: Provider::default(),
        gemini: Provider::default(),
    };
    let service = || Service { ready: true, reason: None };
    Capabilities {
        schema_version: "v1".into(),
        providers: provider,
        hosts: Hosts {
            gateway: Host {
                kind: "gateway".into(),
                available: true,
                label: "a\0b".into(),
                metadata: HostMetadata { install_full_control_enabled: false },
            },
        },
        services: Services {
            model_execution: service(),
            remote_shell: service(),
            machine_control: service(),
        },
        runtime: Runtime {
            platform: "linux".into(),
            arch: "x64".into(),
            node_version: "none".into(),
            gateway_version: "1".into(),
            image_reference: None,
        },
    }
}

#[tokio::test]
async fn every_table_call_is_what_the_contract_names() {
    let fake = Fake::start(|seen| {
        if seen.method == "POST" {
            return Reply::Full(201, String::new(), String::new());
        }
        reply(200, json!([{"id": "j", "status": "completed", "unknown": {"a": 1}}]))
    })
    .await;
    let api = api(&fake);

    assert_eq!(api.poll_jobs(None, 200).await.unwrap().len(), 1);
    let claimed = api.claim(&job(), AT).await.unwrap();
    assert!(matches!(claimed, Claim::Won(row) if row["id"] == "j"));
    assert!(api.duplicate_of(&full(Some("key"))).await.unwrap().is_some());
    let written = api.complete(&job(), &completion(json!({"a": 1}))).await.unwrap();
    assert_eq!(written, Confirmation::Written);
    assert_eq!(api.job_status(&job()).await.unwrap(), Some(JobStatus::Completed));
    assert!(api.control_state().await.unwrap().is_some());
    assert!(api.resource(&ResourceId::new("r")).await.unwrap().is_some());
    let event = GatewayEvent {
        provider: None,
        level: "warn",
        code: Some("config_dir_fallback"),
        message: "two\nlines".into(),
        details: Map::new(),
    };
    api.record_event(&event).await.unwrap();
    api.write_debug(&job(), &json!({"d": 1})).await.unwrap();

    let seen = fake.seen();
    let lines: Vec<_> = seen.iter().map(Seen::line).collect();
    insta::assert_snapshot!(lines.join("\n"));
    for seen in &seen {
        assert_eq!(seen.header("apikey"), Some(KEY), "{}", seen.path);
        assert_eq!(seen.header("authorization"), Some("Bearer access"), "{}", seen.path);
        assert_eq!(seen.header("accept"), Some("application/json"), "{}", seen.path);
        assert_eq!(seen.header("range"), None, "{}", seen.path);
        let kind = (seen.method != "GET").then_some("application/json");
        assert_eq!(seen.header("content-type"), kind, "{}", seen.path);
    }
    assert_eq!(api.requests_sent(), 9);
    assert_eq!(fake.connections(), 1, "connections are kept");
}

#[tokio::test]
async fn a_job_without_a_key_is_not_asked_about() {
    let fake = Fake::start(|_| reply(500, json!({}))).await;
    assert_eq!(api(&fake).duplicate_of(&full(None)).await.unwrap(), None);
    assert_eq!(fake.seen().len(), 0);
}

#[tokio::test]
async fn rows_that_are_gone_are_not_errors() {
    let fake = Fake::start(|_| reply(200, json!([]))).await;
    let api = api(&fake);
    assert_eq!(api.claim(&job(), AT).await.unwrap(), Claim::Lost);
    assert_eq!(api.complete(&job(), &completion(json!(1))).await.unwrap(), Confirmation::NotOurs);
    assert_eq!(api.job_status(&job()).await.unwrap(), None);
    assert_eq!(api.control_state().await.unwrap(), None);
    assert_eq!(api.resource(&ResourceId::new("r")).await.unwrap(), None);
    assert_eq!(api.duplicate_of(&full(Some("k"))).await.unwrap(), None);
    assert_eq!(fake.seen().len(), 7);
}

#[tokio::test]
async fn a_completion_whose_answer_was_lost_is_known_again() {
    let row = |status: &str, at: Value| json!([{"status": status, "completed_at": at}]);
    for (found, wanted) in [
        // The backend writes our time in another way.
        ((200, row("completed", json!("2026-11-21T22:00:00+00:00"))), Some(true)),
        ((200, row("completed", json!("2026-11-21T22:00:00.001+00:00"))), Some(false)),
        ((200, row("cancelled", json!("2026-11-21T22:00:00+00:00"))), Some(false)),
        ((200, row("completed", Value::Null)), Some(false)),
        ((200, row("queued", Value::Null)), Some(false)),
        ((200, json!([])), Some(false)),
        ((403, json!({"code": "42501", "message": "denied"})), Some(false)),
        ((503, json!({"message": "down"})), None),
    ] {
        let shown = format!("{found:?}");
        let fake = Fake::start(move |seen| match &*seen.method {
            "PATCH" => reply(200, json!([])),
            _ => reply(found.0, found.1.clone()),
        })
        .await;
        let result = api(&fake).complete(&job(), &completion(json!(1))).await;
        match wanted {
            Some(true) => assert_eq!(result.unwrap(), Confirmation::Written, "{shown}"),
            Some(false) => assert_eq!(result.unwrap(), Confirmation::NotOurs, "{shown}"),
            None => assert!(result.unwrap_err().is_transient(), "{shown}"),
        }
        let read = fake.last();
        assert_eq!(read.line(), "GET /rest/v1/gateway_jobs?select=status,completed_at&id=eq.j ");
    }
}

#[tokio::test]
async fn a_heartbeat_carries_status_capabilities_and_name() {
    let fake = Fake::start(|_| reply(200, json!({"success": true, "more": 1}))).await;
    api(&fake).heartbeat(GatewayStatus::Ready, &capabilities(), "box").await.unwrap();
    let seen = fake.last();
    assert_eq!((&*seen.method, &*seen.path), ("POST", "/functions/v1/gateway-heartbeat"));
    assert_eq!(seen.bearer(), "access");
    let body = seen.json();
    let keys: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["status", "capabilities", "device_name"]);
    assert_eq!((&body["status"], &body["device_name"]), (&json!("ready"), &json!("box")));
    assert_eq!(body["capabilities"]["hosts"]["gateway"]["label"], "a\u{fffd}b");
    assert!(!seen.body.contains("null"), "{}", seen.body);
}

#[tokio::test]
async fn a_heartbeat_that_was_not_accepted_is_an_error() {
    for (answer, wanted) in [
        (json!({"success": false, "error": "gateway unknown"}), "gateway unknown"),
        (json!({}), "success is missing"),
        (json!([]), "success is missing"),
    ] {
        let fake = Fake::start(move |_| reply(200, answer.clone())).await;
        let error = api(&fake)
            .heartbeat(GatewayStatus::Ready, &capabilities(), "box")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn the_next_page_starts_behind_the_last_row_in_the_servers_own_words() {
    let fake = Fake::start(|_| reply(200, json!([]))).await;
    let created_at = "2025-11-03T09:32:55.123456+00:00".to_owned();
    let key = PageKey { created_at, id: JobId::new("a\"b,c\\") };
    api(&fake).poll_jobs(Some(&key), 200).await.unwrap();
    let seen = fake.last();
    assert_eq!(
        seen.query("or").unwrap(),
        r#"(created_at.gt."2025-11-03T09:32:55.123456+00:00",and(created_at.eq."2025-11-03T09:32:55.123456+00:00",id.gt."a\"b,c\\"))"#
    );
    assert!(seen.raw_query.contains("123456%2B00%3A00"), "{}", seen.raw_query);
}

#[tokio::test]
async fn an_oversized_poll_is_repeated_with_smaller_pages_until_it_is_complete() {
    let fake = Fake::start(|seen| {
        let limit: usize = seen.query("limit").unwrap().parse().unwrap();
        if limit > 3 {
            let head = "HTTP/1.1 200 X\r\ncontent-length: 100000000\r\n\r\n[";
            return Reply::Raw(head.into());
        }
        let from = seen.query("or").map_or(0, |or| {
            let id = or.rsplit("id.gt.\"").next().unwrap();
            id.trim_end_matches("\"))").parse::<usize>().unwrap()
        });
        let rows: Vec<_> = (from + 1..=8)
            .take(limit)
            .map(|id| json!({"id": id.to_string(), "created_at": AT}))
            .collect();
        reply(200, rows)
    })
    .await;
    let rows = api(&fake).poll_jobs(None, 10).await.unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    let limits: Vec<_> = fake.seen().iter().map(|seen| seen.query("limit").unwrap()).collect();
    assert_eq!(limits, ["10", "5", "2", "2", "2", "2", "2"]);
}

#[tokio::test]
async fn one_row_that_is_too_large_is_an_error_and_not_a_loop() {
    let fake =
        Fake::start(|_| Reply::Raw("HTTP/1.1 200 X\r\ncontent-length: 100000000\r\n\r\n[".into()))
            .await;
    let error = api(&fake).poll_jobs(None, 4).await.unwrap_err();
    assert!(matches!(error, BackendError::TooLarge(67_108_864)), "{error}");
    assert_eq!(fake.seen().len(), 3);
}

/// A claim whose PATCH is answered by `patch` and whose row then reads as `row`.
async fn lost_claim(
    patch: impl Fn() -> Reply + Send + Sync + 'static,
    row: Value,
) -> (Result<Claim, BackendError>, usize) {
    let fake = Fake::start(move |seen| match &*seen.method {
        "PATCH" => patch(),
        _ => reply(200, row.clone()),
    })
    .await;
    let result = api(&fake).claim(&job(), AT).await;
    (result, fake.seen().len())
}

#[tokio::test]
async fn a_claim_without_an_answer_is_resolved_by_reading_the_row() {
    let close = || Reply::Raw(Vec::new());
    let row = |status: &str, gateway: &str, started: &str| json!([{"status": status, "gateway_id": gateway, "started_at": started}]);
    let ours = row("running", "g", "2026-11-21T22:00:00+00:00");
    let won = Claim::Won(ours[0].clone());
    assert_eq!(lost_claim(close, ours.clone()).await.0.unwrap(), won);
    for cut in [
        || Reply::Raw("HTTP/1.1 200 X\r\ncontent-length: 50\r\n\r\n[{\"id\"".into()),
        || Reply::Full(504, String::new(), "timeout".into()),
        || Reply::Full(200, String::new(), "<html>".into()),
    ] {
        assert_eq!(lost_claim(cut, ours.clone()).await.0.unwrap(), won);
    }
    for other in [
        row("running", "other", "2026-11-21T22:00:00+00:00"),
        row("running", "g", "2026-11-21T22:00:00.001+00:00"),
        row("cancelled", "g", "2026-11-21T22:00:00+00:00"),
        json!([{"status": "running", "gateway_id": "g", "started_at": null}]),
        json!([]),
    ] {
        assert_eq!(lost_claim(close, other.clone()).await.0.unwrap(), Claim::Lost, "{other}");
    }
    // Not applied, or not readable: the caller tries again.
    let (result, _) = lost_claim(close, json!([{"status": "queued"}])).await;
    assert!(result.unwrap_err().is_transient());
    let (result, _) = lost_claim(close, json!("nonsense")).await;
    assert!(matches!(result.unwrap_err(), BackendError::Unreachable(_)));
    // A refusal is an answer.
    let refuse = || reply(403, json!({"code": "42501", "message": "denied"}));
    let (result, requests) = lost_claim(refuse, json!([])).await;
    assert_eq!((result.unwrap_err().code(), requests), (Some("42501"), 1));
}

#[tokio::test]
async fn results_are_sent_without_nul() {
    let fake = Fake::start(|_| reply(200, json!([{"id": "j"}]))).await;
    let result = json!({"stdout": "a\0b", "k\0": ["\0"]});
    api(&fake).complete(&job(), &completion(result)).await.unwrap();
    assert_eq!(
        fake.last().json()["result"],
        json!({"stdout": "a\u{fffd}b", "k\u{fffd}": ["\u{fffd}"]})
    );
}

#[tokio::test]
async fn ages_are_told_by_the_servers_clock() {
    let fake = Fake::start(|_| {
        let seen_at = jiff::Timestamp::now().as_second() + 7190;
        let seen_at = jiff::Timestamp::from_second(seen_at).unwrap().to_string();
        let row = json!([{"status": "ready", "full_control_enabled": true,
            "last_seen_at": seen_at, "capabilities": {"a": 1}, "vm_id": "vm"}]);
        dated(7200, 200, row)
    })
    .await;
    let state = api(&fake).control_state().await.unwrap().unwrap();
    let age = state.heartbeat_age.unwrap();
    assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&age), "{age:?}");
    assert_eq!((state.full_control_enabled, state.vm_id.as_deref()), (true, Some("vm")));
}

#[tokio::test]
async fn jobs_with_lone_surrogates_are_read() {
    let fake = Fake::start(|_| {
        Reply::Full(200, String::new(), r#"[{"id":"j","payload":{"t":"\ud800"}}]"#.into())
    })
    .await;
    let rows = api(&fake).poll_jobs(None, 200).await.unwrap();
    assert_eq!(rows[0]["payload"]["t"], "\u{fffd}");
}

#[tokio::test]
async fn refusals_keep_their_code_and_are_told_from_passing_trouble() {
    let answers = Mutex::new(vec![
        reply(409, json!({"code": "23505", "message": "duplicate", "details": "x", "hint": null})),
        super::fake::json_with(429, "retry-after: 7\r\n", json!({"message": "slow down"})),
    ]);
    let fake = Fake::start(move |_| answers.lock().unwrap().pop().unwrap()).await;
    let api = api(&fake);
    let limited = api.job_status(&job()).await.unwrap_err();
    assert!(limited.is_transient() && !limited.is_permanent_refusal());
    assert_eq!(limited.retry_after(), Some(Duration::from_secs(7)));
    let refused = api.job_status(&job()).await.unwrap_err();
    assert!(!refused.is_transient() && refused.is_permanent_refusal());
    assert_eq!(refused.to_string(), "the backend answered 409: duplicate");
    assert_eq!(fake.seen().len(), 2, "one attempt each");
}
