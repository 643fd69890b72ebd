//! Answers that no backend should give, and networks that do not work.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use panorama_gateway::backend::{BackendError, Http, exchange_pairing_code};
use panorama_gateway::config::Environment;
use panorama_gateway::model::JobId;
use serde_json::json;

use super::context::{api, endpoint};
use super::fake::{Fake, Reply, json as reply};

async fn status_of(answer: impl Fn() -> Reply + Send + Sync + 'static) -> BackendError {
    let fake = Fake::start(move |_| answer()).await;
    api(&fake).job_status(&JobId::new("j")).await.unwrap_err()
}

fn raw(text: &str) -> Reply {
    Reply::Raw(text.into())
}

#[tokio::test]
async fn what_is_not_json_is_named_and_not_shown() {
    let html =
        || Reply::Full(200, "content-type: text/html\r\n".into(), "<html>Welcome to nginx".into());
    let error = status_of(html).await;
    assert!(matches!(error, BackendError::Contract(_)), "{error:?}");
    assert!(error.to_string().contains("status 200, text/html, 22 bytes"), "{error}");
    assert!(!error.to_string().contains("nginx"));

    for body in ["[{\"status\":", "", "{\"status\":\"running\"}", "null", "\"rows\""] {
        let error = status_of(|| Reply::Full(200, String::new(), body.into())).await;
        assert!(matches!(error, BackendError::Contract(_)), "{body}: {error:?}");
    }
    let deep = || Reply::Full(200, String::new(), "[".repeat(100_000));
    assert!(status_of(deep).await.to_string().contains("nested deeper"));
    let word = || reply(200, json!([{"status": "sleeping"}]));
    assert!(matches!(status_of(word).await, BackendError::Contract(_)));
}

#[tokio::test]
async fn a_proxys_error_page_is_a_status() {
    let error =
        status_of(|| Reply::Full(502, "content-type: text/html\r\n".into(), "<html>bad".into()))
            .await;
    assert_eq!(error.to_string(), "the backend answered 502: Bad Gateway (text/html)");
    assert!(error.is_transient());
}

#[tokio::test]
async fn bodies_are_bounded_however_they_come() {
    let announced = || raw("HTTP/1.1 200 X\r\ncontent-length: 100000000\r\n\r\n[");
    assert!(matches!(status_of(announced).await, BackendError::TooLarge(_)));

    let chunk = format!("200000\r\n{}\r\n", "x".repeat(2 << 20));
    let endless = format!("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
    // The head goes out again too, but the first chunk is over the bound already.
    let fake = Fake::start(move |seen| match seen.path.starts_with("/functions") {
        true => Reply::Endless(endless.clone().into()),
        false => reply(200, json!([])),
    })
    .await;
    let endpoint = endpoint(&fake.url);
    let http = Http::new(&endpoint).unwrap();
    let error = exchange_pairing_code(&http, &endpoint, "c", "d").await.unwrap_err();
    assert!(matches!(error, BackendError::TooLarge(1_048_576)), "{error:?}");
}

#[tokio::test]
async fn an_endless_error_page_still_has_its_status() {
    let page = format!("HTTP/1.1 500 X\r\n\r\n{}", "x".repeat(1 << 16));
    let error = status_of(move || Reply::Endless(page.clone().into())).await;
    assert_eq!(error.status(), Some(500));
}

#[tokio::test]
async fn connections_that_break_are_passing_trouble() {
    for cut in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 X\r\ncontent-length: 90\r\n\r\n[{\"st",
        "nonsense\r\n\r\n",
    ] {
        let error = status_of(move || raw(cut)).await;
        assert!(matches!(error, BackendError::Unreachable(_)), "{cut}: {error:?}");
        assert!(error.is_transient());
        assert!(error.report().len() > error.to_string().len(), "{}", error.report());
    }
}

#[tokio::test]
async fn a_backend_that_is_down_is_unreachable_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = endpoint(&format!("http://127.0.0.1:{port}"));
    let http = Http::new(&endpoint).unwrap();
    let error = exchange_pairing_code(&http, &endpoint, "c", "d").await.unwrap_err();
    assert!(matches!(error, BackendError::Unreachable(_)), "{error:?}");
    assert!(error.report().contains("refused"), "{}", error.report());
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let fake = Fake::start(|seen| match seen.query("id").is_some() {
        true => Reply::Never,
        false => reply(200, json!([])),
    })
    .await;
    let api = api(&fake);
    // The connection is made before the clock is stopped.
    api.poll_jobs(None, 1).await.unwrap();
    tokio::time::pause();
    let error = api.job_status(&JobId::new("j")).await.unwrap_err();
    assert!(matches!(error, BackendError::TimedOut(limit) if limit == Duration::from_secs(20)));
    assert!(error.is_transient());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let fake = Fake::start(|seen| match seen.path == "/elsewhere" {
        true => reply(200, json!([])),
        false => Reply::Full(302, "location: /elsewhere\r\n".into(), String::new()),
    })
    .await;
    let error = api(&fake).job_status(&JobId::new("j")).await.unwrap_err();
    assert_eq!((error.status(), fake.seen().len()), (Some(302), 1));
}

#[tokio::test]
async fn a_stale_connection_is_replaced_without_a_word() {
    let fake = Fake::start(|seen| match seen.query("limit").is_some() {
        // Answered well, then closed while it lies in our pool.
        true => raw("HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n[]"),
        false => reply(200, json!([{"status": "running"}])),
    })
    .await;
    let api = api(&fake);
    for _ in 0..5 {
        api.poll_jobs(None, 1).await.unwrap();
        assert!(api.job_status(&JobId::new("j")).await.unwrap().is_some());
    }
    assert!(fake.connections() > 1);
}

/// Run by the test below in a process of its own: the environment of this one is shared.
#[tokio::test]
#[ignore = "a part of another test"]
async fn pair_in_a_child() {
    let environment = Environment::of_process();
    let Some(url) = environment.get("TEST_BACKEND_URL") else { return };
    let endpoint = endpoint(url);
    let http = Http::new(&endpoint).unwrap();
    let _ = exchange_pairing_code(&http, &endpoint, "c", "d").await;
}

#[tokio::test]
async fn proxies_serve_remote_backends_and_never_loopback() {
    let backend = Fake::start(|_| reply(200, json!({}))).await;
    let proxy = Fake::start(|_| reply(200, json!({}))).await;
    let port = backend.url.rsplit(':').next().unwrap();
    for (url, by_backend, by_proxy) in [
        (backend.url.clone(), 1, 0),
        (format!("http://localhost:{port}"), 2, 0),
        ("http://backend.example".to_owned(), 2, 1),
    ] {
        let (proxy_url, target) = (proxy.url.clone(), url.clone());
        let child = tokio::task::spawn_blocking(move || {
            Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "hostile::pair_in_a_child"])
                .env("HTTP_PROXY", proxy_url)
                .env_remove("NO_PROXY")
                .env_remove("no_proxy")
                .env("TEST_BACKEND_URL", target)
                .output()
                .unwrap()
        });
        assert!(child.await.unwrap().status.success());
        assert_eq!((backend.seen().len(), proxy.seen().len()), (by_backend, by_proxy), "{url}");
    }
    assert!(
        proxy.last().path.starts_with("http://backend.example/functions"),
        "{:?}",
        proxy.last()
    );
}
