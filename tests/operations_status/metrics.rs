//! What a scrape sees of a gateway at work.

use serde_json::json;

use crate::common::{ControlPlane, Machine, Paired, wait_until};
use crate::scene::{ANY_PORT, count, get, metrics_address, number};

const ENDED: &str = "panorama_gateway_jobs_ended_total";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_show_between_two_scrapes() {
    let control = ControlPlane::start().await;
    let machine = Machine::new().with(ANY_PORT.0, ANY_PORT.1);
    let paired = Paired::start_on(machine, &control).await;
    let address = metrics_address(&paired.machine).await;
    let before = get(&address, "/metrics").await;
    assert_eq!(before.status, 200);
    let completed = format!("{ENDED}{{type=\"shell_exec\",status=\"completed\"}}");
    let unknown = format!("{ENDED}{{type=\"other\",status=\"failed\"}}");
    assert_eq!(count(&before.body, &completed) + count(&before.body, &unknown), 0);
    for _ in 0..3 {
        paired.shell(&control, "echo x").await;
    }
    let odd = control.submit(&paired.gateway_id, "made_up\"\n{}", json!({})).await;
    control.ended(&odd).await;
    let after = get(&address, "/metrics").await.body;
    assert_eq!(count(&after, &completed), 3);
    assert_eq!(count(&after, &unknown), 1);
    assert!(!after.contains("made_up"), "{after}");
    let timed = "panorama_gateway_job_duration_seconds_count{type=\"shell_exec\"}";
    assert_eq!(count(&after, timed), 3);
    assert_eq!(count(&after, "panorama_gateway_phase{phase=\"up\"}"), 1);
    for at_least_one in [
        "panorama_gateway_heartbeats_total{result=\"ok\"}",
        "panorama_gateway_polls_total{result=\"ok\"}",
        "panorama_gateway_backend_requests_total",
        "panorama_gateway_pulse_total",
        "process_open_fds",
    ] {
        assert!(count(&after, at_least_one) >= 1, "{at_least_one}\n{after}");
    }
    assert!(number(&after, "panorama_gateway_heartbeat_age_seconds") < 60.0);
    assert_eq!(count(&after, "panorama_gateway_log_dropped_lines_total"), 0);
    for secret in ["accessToken", "refreshToken", "supabaseAnonKey"] {
        let secret = paired.machine.config()[secret].as_str().unwrap().to_owned();
        assert!(!after.contains(&secret));
    }
    // The socket has the same.
    let asked = paired.machine.ask("metrics").await.unwrap();
    assert_eq!(count(asked["metrics"].as_str().unwrap(), &completed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_does_not_hold_up_the_gateway() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let _gateway = machine.spawn(&["--metrics-listen", &address]);
    let status = machine.is_up().await;
    assert_eq!(status["metrics_listen"]["listening"], false, "{status}");
    let shown = machine.run_async(&["status"]).await.stdout;
    assert!(shown.contains(&format!("no metrics at {address}: ")), "{shown}");
    let log = std::fs::read_to_string(machine.dir().join("gateway.log")).unwrap();
    let warned = log.lines().filter(|line| line.contains("cannot be served there")).count();
    assert_eq!(warned, 1, "{log}");
    drop(taken);
    assert_eq!(metrics_address(&machine).await, address);
    assert_eq!(get(&address, "/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_background_gateway_gets_the_address_and_others_are_warned_of() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let ran = machine.run_async(&["start", "--daemon", "--metrics-listen", "0.0.0.0:0"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let address = metrics_address(&machine).await;
    let port = address.rsplit_once(':').unwrap().1;
    let local = format!("127.0.0.1:{port}");
    assert_eq!(get(&local, "/readyz").await.status, 200);
    wait_until("the warning", || async {
        let log = std::fs::read_to_string(machine.dir().join("gateway.log")).ok()?;
        log.contains("open to other machines").then_some(())
    })
    .await;
    assert_eq!(machine.run_async(&["stop", "--wait=20"]).await.code, 0);
}
