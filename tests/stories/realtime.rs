//! What a gateway says and does about realtime; without it, jobs are found by polling.

use std::sync::{Arc, Mutex};

use panorama_gateway::sandbox::ServerOptions;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::common::backend::{Fault, Middleman};
use crate::common::{ControlPlane, Machine, Paired, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn status_says_that_realtime_is_ready() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let status = wait_until("realtime", || async {
        let status = paired.machine.status().await?;
        (status["realtime"]["state"] == "ready").then_some(status)
    })
    .await;
    assert_eq!(status["ingress"], "realtime");
    let realtime = &status["realtime"];
    assert!(realtime["since"].is_string() && realtime["error"].is_null(), "{realtime}");
    assert_eq!((&realtime["reconnects"], &realtime["missed_jobs"]), (&json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_refuses_realtime_is_polled_and_told_of_it_once() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let refusal = json!({"error": "suspended"}).to_string();
    middleman.fault("/websocket", Fault::Answer(403, "application/json", refusal));
    let paired = Paired::through(&control, &middleman.url).await;
    let event = wait_until("the event", || async {
        let events = control.admin.events(None).await.unwrap();
        events.into_iter().find(|event| event["code"] == "realtime_unavailable")
    })
    .await;
    assert_eq!(
        (&event["level"], &event["gateway_id"]),
        (&json!("warn"), &json!(paired.gateway_id))
    );
    assert!(event["details"]["reason"].as_str().unwrap().contains("suspended"), "{event}");
    let row = paired.shell(&control, "echo here").await;
    assert_eq!(row["result"]["stdout"], "here\n");
    let status = paired.machine.status().await.unwrap();
    assert_eq!(
        (&status["realtime"]["state"], &status["ingress"]),
        (&json!("unavailable"), &json!("polling"))
    );
    let asked = middleman.seen().iter().filter(|seen| seen.path.ends_with("/websocket")).count();
    assert_eq!(asked, 1, "it is left alone for 10 minutes");
    let shown = paired.machine.run_async(&["status"]).await.stdout;
    assert!(shown.contains("unavailable") && shown.contains("suspended"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_no_realtime() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let mut config = machine.config();
    config["vmGuest"] = json!({"vmId": "vm-1"});
    std::fs::write(machine.config_file(), config.to_string()).unwrap();
    let _gateway = machine.start().await;
    let status = machine.status().await.unwrap();
    assert_eq!(
        (&status["realtime"]["state"], &status["ingress"]),
        (&json!("off"), &json!("polling"))
    );
    let supervisors = status["supervisors"].as_array().unwrap();
    assert!(
        supervisors.iter().all(|supervisor| supervisor["name"] != "realtime"),
        "{supervisors:?}"
    );
}

/// Speaks TLS for a control plane, under this name. Gives its URL, its certificate, and the task.
async fn with_tls(control: &ControlPlane, name: &str) -> (String, String, JoinSet<()>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{name}:{}", listener.local_addr().unwrap().port());
    let upstream = control.server.local_addr();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            open.spawn(async move {
                let Ok(mut down) = acceptor.accept(stream).await else { return };
                let mut up = TcpStream::connect(upstream).await.unwrap();
                // A connection that breaks is the peers' business.
                let _ = tokio::io::copy_bidirectional(&mut down, &mut up).await;
            });
        }
    });
    (url, made.cert.pem(), tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_platforms_roots_count_for_realtime_too() {
    let control = ControlPlane::start().await;
    let (url, certificate, _tasks) = with_tls(&control, "localhost").await;
    let machine = Machine::new();
    let roots = machine.home().join("roots.pem");
    std::fs::write(&roots, certificate).unwrap();
    let machine = machine.with("SSL_CERT_FILE", roots.display().to_string());
    machine.pair_with(&url, control.server.anon_key(), &control.code().await).await;
    let _gateway = machine.start().await;
    wait_until("realtime", || async {
        (machine.status().await?["realtime"]["state"] == "ready").then_some(())
    })
    .await;
}

/// Takes whoever asks for a tunnel to that port of this machine, whatever the host is called. Gives
/// its URL and the targets that were asked for.
async fn tunnels() -> (String, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&asked);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut down, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            open.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = down.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap().to_owned();
                let port: u16 = target.rsplit_once(':').unwrap().1.parse().unwrap();
                log.lock().unwrap().push(target);
                let mut up = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                down.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut down, &mut up).await;
            });
        }
    });
    (url, asked, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_through_a_proxy() {
    let named = |options: &mut ServerOptions| {
        (options.allow_remote, options.host_names) = (true, vec!["backend.test".to_owned()]);
    };
    let control = ControlPlane::start_with(named).await;
    let (url, certificate, _tls) = with_tls(&control, "backend.test").await;
    let (proxy, asked, _tunnels) = tunnels().await;
    let machine = Machine::new();
    let roots = machine.home().join("roots.pem");
    std::fs::write(&roots, certificate).unwrap();
    let machine =
        machine.with("SSL_CERT_FILE", roots.display().to_string()).with("HTTPS_PROXY", proxy);
    machine.pair_with(&url, control.server.anon_key(), &control.code().await).await;
    let _gateway = machine.start().await;
    wait_until("realtime", || async {
        (machine.status().await?["realtime"]["state"] == "ready").then_some(())
    })
    .await;
    let asked = asked.lock().unwrap().clone();
    assert!(asked.iter().all(|target| url.ends_with(target)), "{asked:?}");
}
