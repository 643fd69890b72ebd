//! One quick story for each surface: `cargo test --test stories smoke_`.
//!
//! They say whether a surface works at all; what it does in trouble is told by the other stories.

use nix::sys::signal::Signal;

use crate::common::{ControlPlane, Machine, Paired, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn smoke_start_command() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let ran = machine.run_async(&["start", "--daemon"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("is up"), "{ran:?}");
    assert_eq!(machine.run_async(&["status", "--check"]).await.code, 0);
    assert_eq!(machine.run_async(&["stop", "--wait=20"]).await.code, 0);
    assert_eq!(machine.run_async(&["status", "--check"]).await.code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn smoke_local_runtime() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let row = paired.shell(&control, "echo $((6 * 7))").await;
    assert_eq!(row["status"], "completed", "{row}");
    assert_eq!(row["result"]["stdout"], "42\n", "{row}");
    // The backend knows of the end before its answer reaches the gateway.
    wait_until("the gateway to count it", || async {
        (paired.machine.status().await?["finished_jobs"] == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn smoke_heartbeat() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let _gateway = machine.start().await;
    let gateways = control.gateways().await;
    assert_eq!(gateways[0]["status"], "ready", "{gateways:?}");
    let shown = |gateway: &serde_json::Value| {
        gateway["capabilities"]["services"]["machine_control"]["ready"].clone()
    };
    assert_eq!(shown(&gateways[0]), false, "{gateways:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn smoke_shutdown() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let mut gateway = machine.start().await;
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.ended().await.success());
    wait_until("the backend to know", || async {
        (control.gateways().await[0]["status"] == "offline").then_some(())
    })
    .await;
    assert!(!machine.dir().join("gateway.pid").exists());
    assert!(!machine.dir().join("gateway.sock").exists());
}
