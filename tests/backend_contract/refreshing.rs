//! The session: what is asked at start, how tokens rotate, what ends a pairing and what never does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use panorama_gateway::backend::{BackendError, SessionState};
use panorama_gateway::model::JobId;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::context::{
    KEY, MemoryStore, access, access_of, api_with, auth_error, dated, exposed, pair, pair_body,
    session, user,
};
use super::fake::{Fake, Reply, Seen, json as reply, json_with};

const USER: &str = "GET /auth/v1/user";
const TOKEN: &str = "POST /auth/v1/token";
const HEALTH: &str = "GET /auth/v1/health";

fn is_refresh(seen: &Seen) -> bool {
    seen.path == "/auth/v1/token"
}

/// Answers refreshes by `refresh` and everything else well.
async fn auth(refresh: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::start(move |seen| if is_refresh(seen) { refresh(seen) } else { user() }).await
}

#[tokio::test]
async fn a_living_token_is_checked_and_kept() {
    let fake = auth(|_| panic!("no refresh is needed")).await;
    let store = MemoryStore::with(&access("a", 3600), "r1");
    let session = session(&fake, &store);
    assert_eq!(session.state(), SessionState::Unchecked);
    session.authenticate().await.unwrap();
    session.keep_fresh().await.unwrap();
    assert_eq!(session.state(), SessionState::Valid);
    assert_eq!(fake.paths(), [USER]);
    let seen = fake.last();
    assert_eq!(seen.header("x-supabase-api-version"), Some("2024-01-01"));
    assert_eq!((seen.header("apikey"), seen.bearer()), (Some(KEY), &*store.saved().0));
}

#[tokio::test]
async fn a_dying_token_is_refreshed_first_and_saved() {
    let new = access("b", 3600);
    let sent = new.clone();
    let fake = auth(move |_| pair(&sent, "r2")).await;
    let store = MemoryStore::with(&access("a", 60), "r1");
    let session = session(&fake, &store);
    session.authenticate().await.unwrap();
    assert_eq!(fake.paths(), [HEALTH, TOKEN]);
    let seen = fake.last();
    assert_eq!(seen.raw_query, "grant_type=refresh_token");
    assert_eq!(seen.body, r#"{"refresh_token":"r1"}"#);
    assert_eq!(seen.header("x-supabase-api-version"), Some("2024-01-01"));
    assert_eq!(seen.bearer(), KEY);
    assert_eq!(store.saved(), (new.clone(), "r2".into()));
    assert_eq!(store.locks.load(Ordering::SeqCst), 1);
    assert_eq!(exposed(&session.access_token()), new);
}

#[tokio::test]
async fn the_age_of_a_saved_token_is_told_by_the_servers_clock() {
    // (server's clock is off, token's life by ours, requests)
    for (offset, life, wanted) in [
        (-7200, -1800, vec![HEALTH, USER]),
        (-7200, 60, vec![HEALTH, USER]),
        (7200, 1800, vec![USER, TOKEN]),
        (7200, -60, vec![HEALTH, TOKEN]),
    ] {
        let fake = Fake::start(move |seen| {
            let body = if is_refresh(seen) { pair_body("new", "r2") } else { json!({"id": "u"}) };
            dated(offset, 200, body)
        })
        .await;
        let session = session(&fake, &MemoryStore::with(&access("a", life), "r1"));
        session.authenticate().await.unwrap();
        assert_eq!(fake.paths(), wanted, "{offset} {life}");
        assert_eq!(session.state(), SessionState::Valid);
    }
}

#[tokio::test]
async fn a_refused_token_is_refreshed_once_and_that_decides() {
    for ends in [false, true] {
        let fake = Fake::start(move |seen| match (is_refresh(seen), ends) {
            (false, _) => auth_error(403, "session_not_found"),
            (true, false) => pair("new", "r2"),
            (true, true) => auth_error(400, "session_not_found"),
        })
        .await;
        let session = session(&fake, &MemoryStore::with(&access("a", 3600), "r1"));
        let result = session.authenticate().await;
        assert_eq!(fake.paths(), [USER, TOKEN]);
        if ends {
            assert!(result.unwrap_err().ends_session());
            assert_eq!(session.state(), SessionState::Ended("session_not_found".into()));
        } else {
            result.unwrap();
            assert_eq!(session.state(), SessionState::Valid);
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_no_reason_to_refresh() {
    let fake = Fake::start(|_| reply(401, json!({"message": "Invalid API key"}))).await;
    let store = MemoryStore::with(&access("a", 3600), "r1");
    let session = session(&fake, &store);
    let error = session.authenticate().await.unwrap_err();
    assert_eq!(error.to_string(), "the backend answered 401: Invalid API key");
    let api = api_with(&fake, &store);
    api.job_status(&JobId::new("j")).await.unwrap_err();
    assert_eq!(fake.paths(), [USER, "GET /rest/v1/gateway_jobs"]);
}

#[tokio::test]
async fn only_the_terminal_codes_end_a_session() {
    for (status, code, ends) in [
        (400, "refresh_token_not_found", true),
        (400, "refresh_token_already_used", true),
        (400, "session_not_found", true),
        (400, "session_expired", true),
        (403, "user_banned", true),
        (400, "validation_failed", true),
        (400, "invalid_grant", false),
        (401, "no_authorization", false),
        (409, "conflict", false),
        (429, "over_request_rate_limit", false),
        (429, "session_expired", false),
        (500, "unexpected_failure", false),
        (500, "session_not_found", false),
        (504, "request_timeout", false),
    ] {
        for old_shape in [false, true] {
            let fake = auth(move |_| match old_shape {
                false => auth_error(status, code),
                true => reply(status, json!({"code": status, "error_code": code, "msg": "no"})),
            })
            .await;
            let store = MemoryStore::with(&access("a", 10), "r1");
            let session = session(&fake, &store);
            let error = session.authenticate().await.unwrap_err();
            assert_eq!(error.ends_session(), ends, "{status} {code}: {error}");
            match session.state() {
                SessionState::Ended(ended) => assert!(ends && ended == code, "{code}"),
                SessionState::Retrying(text) => assert!(!ends && !text.is_empty(), "{code}"),
                SessionState::Unchecked | SessionState::Valid => panic!("{code} was no error"),
            }
            assert_eq!(store.saved().1, "r1", "the saved identity is left alone");
            assert_eq!(exposed(&session.access_token()), store.saved().0);
        }
    }
}

#[tokio::test]
async fn an_ended_session_asks_no_more_but_its_access_token_serves_on() {
    let fake = Fake::start(|seen| match is_refresh(seen) {
        true => auth_error(400, "session_expired"),
        false => reply(200, json!([{"status": "running"}])),
    })
    .await;
    let store = MemoryStore::with(&access("a", 10), "r1");
    let api = api_with(&fake, &store);
    let session = api.session();
    assert!(session.authenticate().await.unwrap_err().ends_session());
    let before = fake.seen().len();
    assert!(session.keep_fresh().await.unwrap_err().ends_session());
    assert!(session.authenticate().await.unwrap_err().ends_session());
    let stale = session.access_token();
    assert!(session.refresh_if_current(&stale).await.unwrap_err().ends_session());
    assert_eq!(fake.seen().len(), before);
    assert!(api.job_status(&JobId::new("j")).await.unwrap().is_some());
}

#[tokio::test]
async fn fifty_calls_with_a_dead_token_make_one_refresh() {
    let gate = Arc::new(Notify::new());
    let (held, store) = (Arc::clone(&gate), MemoryStore::with("dead", "r1"));
    let (refreshes, early) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, unsaved, watched) =
        (Arc::clone(&refreshes), Arc::clone(&early), Arc::clone(&store));
    let fake = Fake::start(move |seen| {
        if is_refresh(seen) {
            counted.fetch_add(1, Ordering::SeqCst);
            return Reply::After(Arc::clone(&held), Box::new(pair("new", "r2")));
        }
        if seen.bearer() == "new" {
            unsaved.fetch_or(watched.saved().1 != "r2", Ordering::SeqCst);
            return reply(200, json!([{"status": "running"}]));
        }
        reply(401, json!({"code": "PGRST303", "message": "JWT expired"}))
    })
    .await;
    let api = api_with(&fake, &store);
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let api = api.clone();
        calls.spawn(async move { api.job_status(&JobId::new("j")).await });
    }
    while fake.seen().len() < 51 {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    while let Some(result) = calls.join_next().await {
        assert!(result.unwrap().unwrap().is_some());
    }
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
    assert!(!early.load(Ordering::SeqCst), "a token was used before it was saved");
    assert_eq!(fake.seen().len(), 101);
}

#[tokio::test]
async fn callers_that_waited_for_a_failed_refresh_share_its_error() {
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    let fake = Fake::start(move |seen| match is_refresh(seen) {
        true => Reply::After(Arc::clone(&held), Box::new(auth_error(503, "down"))),
        false => reply(401, json!({"message": "JWT expired"})),
    })
    .await;
    let api = api_with(&fake, &MemoryStore::with("dead", "r1"));
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let api = api.clone();
        calls.spawn(async move { api.job_status(&JobId::new("j")).await });
    }
    while fake.seen().len() < 11 {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    while let Some(result) = calls.join_next().await {
        let error = result.unwrap().unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert_eq!(error.status(), Some(503));
    }
    assert_eq!(fake.paths().iter().filter(|path| *path == TOKEN).count(), 1);
    // And the backend is left alone for a while.
    let error = api.job_status(&JobId::new("j")).await.unwrap_err();
    assert!(error.retry_after().is_some_and(|wait| wait > Duration::ZERO), "{error:?}");
    assert_eq!(fake.paths().iter().filter(|path| *path == TOKEN).count(), 1);
}

#[tokio::test]
async fn a_second_401_is_an_error() {
    let fake = Fake::start(|seen| match is_refresh(seen) {
        true => pair("new", "r2"),
        false => reply(401, json!({"code": "PGRST301", "message": "no"})),
    })
    .await;
    let api = api_with(&fake, &MemoryStore::with("dead", "r1"));
    let error = api.job_status(&JobId::new("j")).await.unwrap_err();
    assert_eq!((error.status(), error.code()), (Some(401), Some("PGRST301")));
    let jobs = "GET /rest/v1/gateway_jobs";
    assert_eq!(fake.paths(), [jobs, TOKEN, jobs]);
}

#[tokio::test]
async fn after_a_lost_answer_the_same_token_is_sent_again() {
    let answers = AtomicUsize::new(0);
    let fake = auth(move |_| match answers.fetch_add(1, Ordering::SeqCst) {
        // The first is repeated at once, as the connection might have been stale.
        0 | 1 => Reply::Raw(Vec::new()),
        2 => Reply::Raw("HTTP/1.1 200 X\r\ncontent-length: 500\r\n\r\n{\"acc".into()),
        _ => pair("new", "r2"),
    })
    .await;
    let store = MemoryStore::with(&access("a", 10), "r1");
    let session = session(&fake, &store);
    for _ in 0..2 {
        let error = session.authenticate().await.unwrap_err();
        assert!(matches!(error, BackendError::Unreachable(_)), "{error:?}");
    }
    session.authenticate().await.unwrap();
    let sent: Vec<_> = fake.seen().into_iter().filter(is_refresh).map(|seen| seen.body).collect();
    assert_eq!(sent, [r#"{"refresh_token":"r1"}"#; 4]);
    assert_eq!(store.saved(), ("new".into(), "r2".into()));
}

#[tokio::test]
async fn half_an_answer_to_a_refresh_changes_nothing() {
    for body in [
        json!({}),
        json!({"access_token": "new"}),
        json!({"access_token": "a\nb", "refresh_token": "r2"}),
    ] {
        let fake = auth(move |_| reply(200, body.clone())).await;
        let store = MemoryStore::with(&access("a", 10), "r1");
        let session = session(&fake, &store);
        let error = session.authenticate().await.unwrap_err();
        assert!(matches!(error, BackendError::Contract(_)), "{error:?}");
        assert_eq!(
            (store.saved().1, exposed(&session.access_token())),
            ("r1".into(), store.saved().0)
        );
    }
}

#[tokio::test]
async fn what_another_process_refreshed_is_taken_over() {
    let fake = Fake::start(|seen| match (is_refresh(seen), seen.bearer() == "dead") {
        (true, _) => panic!("nobody else refreshes"),
        (false, true) => reply(401, json!({"message": "JWT expired"})),
        (false, false) => reply(200, json!([])),
    })
    .await;
    let dead = access("dead", -10);
    let store = MemoryStore::with(&dead, "r1");
    let api = api_with(&fake, &store);
    let theirs = access("theirs", 3600);
    store.put(&theirs, "r2");
    api.session().refresh_if_current(&dead.into()).await.unwrap();
    assert_eq!(exposed(&api.session().access_token()), theirs);
    assert_eq!(fake.seen().len(), 0);
}

#[tokio::test]
async fn a_newer_token_in_the_store_is_used_when_ours_is_refused() {
    let store = MemoryStore::with(&access("a", 10), "r1");
    let shared = Arc::clone(&store);
    let fake = auth(move |seen| {
        if seen.body.contains("r1") {
            // Somebody saves a newer pair while our request is under way.
            shared.put(&access("b", 10), "r2");
            return auth_error(400, "refresh_token_already_used");
        }
        pair("new", "r3")
    })
    .await;
    let session = session(&fake, &store);
    session.authenticate().await.unwrap();
    assert_eq!(store.saved(), ("new".into(), "r3".into()));
    assert_eq!(session.state(), SessionState::Valid);
}

#[tokio::test]
async fn a_new_pairing_is_neither_used_nor_overwritten() {
    let fake = auth(|seen| {
        assert!(seen.body.contains("r1"), "{}", seen.body);
        pair("new", "r2")
    })
    .await;
    let store = MemoryStore::with(&access("a", 10), "r1");
    let session = session(&fake, &store);
    let other = access_of("somebody else", "x", 3600);
    store.put(&other, "x1");
    session.authenticate().await.unwrap();
    assert_eq!(exposed(&session.access_token()), "new");
    assert_eq!(store.saved(), (other, "x1".into()));
    // Neither is an unpairing undone.
    store.clear();
    session.keep_fresh().await.unwrap();
    assert_eq!(store.saved(), Default::default());
}

#[tokio::test]
async fn a_full_disk_does_not_cost_the_session() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&sent);
    let fake = auth(move |seen| {
        log.lock().unwrap().push(seen.json()["refresh_token"].as_str().unwrap().to_owned());
        // The parent of the live token may be used again, and returns the live one.
        pair(&format!("new{}", log.lock().unwrap().len()), "r2")
    })
    .await;
    let first = access("a", 10);
    let store = MemoryStore::with(&first, "r1");
    let session = session(&fake, &store);
    store.full.store(true, Ordering::SeqCst);
    session.authenticate().await.unwrap();
    assert_eq!(exposed(&session.access_token()), "new1");
    assert_eq!(store.saved(), (first, "r1".into()), "the parent is kept");
    // Refreshing again goes from what a restart would find.
    session.refresh_if_current(&"new1".into()).await.unwrap();
    assert_eq!(*sent.lock().unwrap(), ["r1", "r1"]);
    store.full.store(false, Ordering::SeqCst);
    session.keep_fresh().await.unwrap();
    assert_eq!(store.saved(), ("new2".into(), "r2".into()));
    session.refresh_if_current(&"new2".into()).await.unwrap();
    assert_eq!(*sent.lock().unwrap(), ["r1", "r1", "r2"]);
}

#[tokio::test]
async fn a_token_is_refreshed_two_minutes_before_its_end_by_the_time_it_came_in() {
    let count = AtomicUsize::new(0);
    let fake = auth(move |_| {
        let count = count.fetch_add(1, Ordering::SeqCst);
        // The server's own `expires_at` is nonsense and must not matter.
        pair(&format!("new{count}"), "r2")
    })
    .await;
    let session = session(&fake, &MemoryStore::with(&access("a", 10), "r1"));
    session.authenticate().await.unwrap();
    let refreshes = || fake.paths().iter().filter(|path| *path == TOKEN).count();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3600 - 125)).await;
    session.keep_fresh().await.unwrap();
    assert_eq!(refreshes(), 1);
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    session.keep_fresh().await.unwrap();
    session.keep_fresh().await.unwrap();
    assert_eq!(refreshes(), 2);
}

#[tokio::test]
async fn a_token_from_the_future_is_waited_for_and_not_refreshed() {
    let jobs = "GET /rest/v1/gateway_jobs";
    for (bad, wanted) in [(1, 2), (9, 4)] {
        let count = AtomicUsize::new(0);
        let fake = Fake::start(move |_| match count.fetch_add(1, Ordering::SeqCst) < bad {
            true => reply(401, json!({"code": "PGRST303", "message": "JWT issued at future"})),
            false => reply(200, json!([{"status": "running"}])),
        })
        .await;
        let api = api_with(&fake, &MemoryStore::with("a", "r1"));
        let call = async { api.job_status(&JobId::new("j")).await };
        let (result, ()) = tokio::join!(call, skip_waits(&fake, wanted));
        assert_eq!(result.is_ok(), bad == 1);
        if bad == 1 {
            assert_eq!(fake.paths(), vec![jobs; wanted]);
        } else {
            // Skew that does not pass is treated like any other refusal: one refresh.
            assert_eq!(fake.paths()[..wanted], vec![jobs; wanted]);
            assert_eq!(fake.paths()[wanted], TOKEN);
        }
    }
}

/// Moves the clock on whenever the fake has answered, until it saw `requests`.
async fn skip_waits(fake: &Fake, requests: usize) {
    let mut seen = 0;
    while fake.seen().len() < requests {
        if fake.seen().len() > seen {
            seen = fake.seen().len();
            // Let the answer arrive, then skip the pause before the next attempt.
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(5)).await;
            tokio::time::resume();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_for_a_minute_at_least() {
    let fake = auth(|_| {
        json_with(
            429,
            "retry-after: 2\r\n",
            json!({"code": "over_request_rate_limit", "message": "no"}),
        )
    })
    .await;
    let session = session(&fake, &MemoryStore::with(&access("a", 10), "r1"));
    let error = session.authenticate().await.unwrap_err();
    assert!(error.retry_after().unwrap() >= Duration::from_secs(59), "{error:?}");
    session.authenticate().await.unwrap_err();
    assert_eq!(fake.paths().iter().filter(|path| *path == TOKEN).count(), 1);
}

#[tokio::test]
async fn no_error_shows_a_token() {
    let secret = "secret-refresh-token";
    let fake = Fake::start(move |seen| match is_refresh(seen) {
        true => reply(500, json!({"message": format!("bad: {secret} {KEY}")})),
        false => reply(401, json!({"message": "JWT secret-access-token expired"})),
    })
    .await;
    let api = api_with(&fake, &MemoryStore::with("secret-access-token", secret));
    let error = api.job_status(&JobId::new("j")).await.unwrap_err();
    let shown = format!("{error} {error:?} {} {:?} {api:?}", error.report(), api.session());
    assert!(!shown.contains("secret-") && !shown.contains(KEY), "{shown}");
}
