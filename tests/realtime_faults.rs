//! Realtime under faults of the network: the real binary, the embedded control plane, and wires
//! between them that are cut, frozen and muted. What recovery takes is printed.
//!
//! The times are those of the protocol (heartbeats of 25 s, a minute of silence), so these stories
//! take longer than others; those of one kind run beside each other in one test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a story that goes wrong fails; it measures real time"
)]

#[path = "common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

#[path = "realtime_faults/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use panorama_gateway::sandbox::{Server, ServerOptions};
use serde_json::{Value, json};

use common::{ControlPlane, Machine, Paired, say};
use wire::{Mode, Wire};

/// After the network is back, for what was refused or out of reach; and two hops on a loaded
/// machine.
const BACK_WITHIN: Duration = Duration::from_secs(6);
/// A poll's interval, and the same.
const POLLED_WITHIN: Duration = Duration::from_millis(5_500);
const HEARTBEAT: Duration = Duration::from_secs(25);
const JOIN_LIMIT: Duration = Duration::from_secs(15);

/// A gateway whose every byte goes through wires.
struct Scene {
    control: ControlPlane,
    wire: Wire,
    paired: Paired,
}

impl Scene {
    /// Realtime is ready.
    async fn new() -> Self {
        let control = ControlPlane::start().await;
        let wire = Wire::to(control.server.local_addr()).await;
        let paired = Paired::through(&control, &wire.url).await;
        ready(&paired, 0).await;
        Self { control, wire, paired }
    }

    async fn reconnects(&self) -> u64 {
        realtime(&self.paired).await["reconnects"].as_u64().unwrap()
    }

    /// A new job is done within this time.
    async fn job_is_done(&self, what: &str, limit: Duration) {
        let since = Instant::now();
        let row = self.paired.shell(&self.control, "true").await;
        let took = since.elapsed();
        assert_eq!(row["status"], "completed", "{row}");
        say(&format!("realtime faults: {what}: a job is done after {}", shown(took)));
        assert!(took <= limit, "{what}: a job took {took:?}");
    }
}

fn shown(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

async fn realtime(paired: &Paired) -> Value {
    paired.machine.status().await.expect("the gateway runs")["realtime"].clone()
}

/// Waits until realtime is ready over a connection after this many others; patient.
async fn ready(paired: &Paired, reconnects: u64) {
    let deadline = Instant::now() + Duration::from_secs(95);
    loop {
        let now = realtime(paired).await;
        if now["state"] == "ready" && now["reconnects"].as_u64() >= Some(reconnects) {
            return;
        }
        assert!(Instant::now() < deadline, "realtime does not get ready: {now}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until realtime is not ready.
async fn lost(paired: &Paired) {
    common::wait_until("realtime to be lost", || async {
        (realtime(paired).await["state"] != "ready").then_some(())
    })
    .await;
}

/// Prints and checks how long it took.
fn recovered(what: &str, since: Instant, limit: Duration) {
    let took = since.elapsed();
    say(&format!("realtime faults: {what}: ready again after {}", shown(took)));
    assert!(took <= limit, "{what}: it took {took:?}, more than {limit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_claimed_within_milliseconds_and_a_cancelled_one_stopped() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    ready(&paired, 0).await;
    let mut claims = Vec::new();
    for _ in 0..21 {
        let job = paired.submit_shell(&control, "sleep 60", json!({})).await;
        let running = common::wait_until("the claim", || async {
            let row = control.admin.job(&job).await.unwrap();
            (row["status"] == "running").then_some(row)
        })
        .await;
        let at = |name: &str| running[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        claims.push(at("updated_at").duration_since(at("created_at")));
        let since = Instant::now();
        control.admin.cancel_job(&job).await.unwrap();
        common::wait_until("the job to be let go", || async {
            let status = paired.machine.status().await?;
            (status["active_jobs"] == json!([])).then_some(())
        })
        .await;
        assert!(since.elapsed() < Duration::from_secs(5), "not by the next look at the row");
    }
    claims.sort_unstable();
    let (middle, last) = (claims[claims.len() / 2], claims[claims.len() - 1]);
    say(&format!("realtime: insert to claim: p50 {middle:#}, at most {last:#} (of 21)"));
    // Polls alone would take seconds; the bound leaves room for a loaded machine and a debug build.
    assert!(middle.as_millis() < 100, "{middle:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_silent_is_found_by_its_deadlines() {
    tokio::join!(half_open(), frozen_for_a_minute(), mute_after_the_join(), stopped_for_a_while());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_is_mended_within_5_s() {
    tokio::join!(
        cut_every_10_s(),
        refused_for_a_while(),
        closed_when_the_token_expires(),
        the_server_restarts(),
    );
}

async fn half_open() {
    let scene = Scene::new().await;
    let before = scene.reconnects().await;
    let since = Instant::now();
    scene.wire.turn(Mode::HalfOpen);
    scene.job_is_done("half-open", POLLED_WITHIN).await;
    ready(&scene.paired, before + 1).await;
    recovered("half-open", since, HEARTBEAT * 2 + BACK_WITHIN);
    scene.job_is_done("half-open, afterwards", Duration::from_secs(2)).await;
}

async fn frozen_for_a_minute() {
    let scene = Scene::new().await;
    let before = scene.reconnects().await;
    scene.wire.turn(Mode::Frozen);
    let job = scene.paired.submit_shell(&scene.control, "true", json!({})).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_ne!(realtime(&scene.paired).await["state"], "ready", "two heartbeats were missed");
    let since = Instant::now();
    scene.wire.turn(Mode::Well);
    ready(&scene.paired, before + 1).await;
    recovered("frozen for a minute", since, HEARTBEAT * 2 + BACK_WITHIN);
    assert_eq!(scene.control.ended(&job).await["status"], "completed");
    let took = since.elapsed();
    say(&format!("realtime faults: frozen: the waiting job is done after {}", shown(took)));
}

/// By SIGSTOP, as a frozen container is: the server has given the socket up meanwhile.
async fn stopped_for_a_while() {
    let scene = Scene::new().await;
    let before = scene.reconnects().await;
    scene.paired.gateway.signal(nix::sys::signal::Signal::SIGSTOP);
    let job = scene.paired.submit_shell(&scene.control, "true", json!({})).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(scene.control.admin.job(&job).await.unwrap()["status"], "queued");
    let since = Instant::now();
    scene.paired.gateway.signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(scene.control.ended(&job).await["status"], "completed");
    ready(&scene.paired, before + 1).await;
    recovered("stopped for 40 s", since, BACK_WITHIN);
    let log = scene.paired.machine.run_async(&["logs", "--no-follow"]).await.stdout;
    assert!(log.contains("the process stood still for"), "{log}");
}

async fn cut_every_10_s() {
    let scene = Scene::new().await;
    for round in 1..=4 {
        let before = scene.reconnects().await;
        let since = Instant::now();
        scene.wire.cut();
        scene.job_is_done(&format!("cut {round}"), POLLED_WITHIN).await;
        ready(&scene.paired, before + 1).await;
        recovered(&format!("cut {round}"), since, BACK_WITHIN);
        tokio::time::sleep(Duration::from_secs(10).saturating_sub(since.elapsed())).await;
    }
}

async fn mute_after_the_join() {
    let scene = Scene::new().await;
    let before = scene.wire.sockets();
    let reconnects = scene.reconnects().await;
    scene.wire.turn(Mode::Mute);
    scene.wire.cut();
    common::wait_until("a mute connection", || async {
        (scene.wire.sockets() > before).then_some(())
    })
    .await;
    scene.wire.turn(Mode::Well);
    let since = Instant::now();
    scene.job_is_done("mute after the join", POLLED_WITHIN).await;
    // The join is repeated, which does not help; the heartbeats then tell.
    ready(&scene.paired, reconnects + 2).await;
    assert!(since.elapsed() > JOIN_LIMIT, "it was mute");
    recovered("mute after the join", since, HEARTBEAT * 2 + BACK_WITHIN);
}

async fn refused_for_a_while() {
    let scene = Scene::new().await;
    for seconds in [1, 7, 13] {
        let before = scene.reconnects().await;
        scene.wire.turn(Mode::Refused);
        lost(&scene.paired).await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let since = Instant::now();
        scene.wire.turn(Mode::Well);
        let what = format!("refused for {seconds} s");
        scene.job_is_done(&what, POLLED_WITHIN).await;
        ready(&scene.paired, before + 1).await;
        recovered(&what, since, BACK_WITHIN);
    }
}

async fn closed_when_the_token_expires() {
    let lifetime = Duration::from_secs(8);
    let control =
        ControlPlane::start_with(|options| options.access_token_lifetime = lifetime).await;
    let paired = Paired::start(&control).await;
    for round in 1..=2 {
        ready(&paired, 0).await;
        lost(&paired).await;
        let since = Instant::now();
        ready(&paired, 0).await;
        recovered(&format!("token expired ({round})"), since, Duration::from_secs(5));
    }
    assert_eq!(realtime(&paired).await["reconnects"], 0, "the connection stays");
    let row = paired.shell(&control, "true").await;
    assert_eq!(row["status"], "completed", "{row}");
}

async fn the_server_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        |port| ServerOptions::new(dir.path().join("control"), ([127, 0, 0, 1], port).into());
    let mut server = Server::start(options(0)).await.unwrap();
    let machine = Machine::new();
    let admin = |_: &Server| async {
        let data = dir.path().join("control");
        panorama_gateway::sandbox::client::AdminClient::find(&data).await.unwrap().expect("it runs")
    };
    let code = admin(&server).await.make_pairing_code(None).await.unwrap().code;
    machine.pair_with(server.url(), server.anon_key(), &code).await;
    let _gateway = machine.start().await;
    let state = || async { machine.status().await.expect("it runs")["realtime"].clone() };
    for round in 0..3_u64 {
        common::wait_until("realtime", || async {
            let now = state().await;
            (now["state"] == "ready" && now["reconnects"] == round).then_some(())
        })
        .await;
        let port = server.local_addr().port();
        server.shutdown().await;
        server = Server::start(options(port)).await.unwrap();
        let since = Instant::now();
        common::wait_until("realtime again", || async {
            let now = state().await;
            (now["state"] == "ready" && now["reconnects"] == round + 1).then_some(())
        })
        .await;
        recovered(&format!("server restart {}", round + 1), since, BACK_WITHIN);
    }
}
