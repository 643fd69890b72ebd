//! `stop` in its forms: what it says while it waits, and how it gets through.

use crate::common::{ControlPlane, Machine, Paired, wait_until};
use crate::scene::Waiting;

#[tokio::test(flavor = "multi_thread")]
async fn stop_says_what_it_waits_for() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let waiting = Waiting::start(&control, &paired).await;
    let wanted = format!("1 job in hand (shell_exec {})", waiting.job);

    let plain = paired.machine.run_async(&["stop"]).await;
    assert_eq!(plain.code, 0, "{plain:?}");
    assert!(plain.stdout.contains(&format!("still draining: {wanted}")), "{plain:?}");
    assert!(plain.stderr.contains("stop --force"), "{plain:?}");

    let limited = paired.machine.run_async(&["stop", "--wait=0"]).await;
    assert_eq!(limited.code, 1, "{limited:?}");
    assert!(limited.stderr.contains(&wanted), "{limited:?}");
    // Asked twice by now, more than a second apart, and yet the work goes on.
    assert!(waiting.process.is_alive());
    waiting.let_go();
    let last = paired.machine.run_async(&["stop", "--wait"]).await;
    assert_eq!(last.code, 0, "{last:?}");
    assert!(paired.gateway.ended().await.success());
    assert_eq!(control.ended(&waiting.job).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_without_a_limit_lasts_until_the_work_is_done() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let waiting = Waiting::start(&control, &paired).await;
    let mut stop = paired.machine.command(&["stop", "--wait"]);
    let stop = tokio::task::spawn_blocking(move || stop.output());
    wait_until("the gateway to drain", || async {
        (paired.machine.status().await?["phase"] == "draining").then_some(())
    })
    .await;
    assert!(!stop.is_finished());
    waiting.let_go();
    let stop = stop.await.unwrap().unwrap();
    assert!(stop.status.success(), "{stop:?}");
    assert!(String::from_utf8_lossy(&stop.stdout).contains("has stopped"), "{stop:?}");
    assert!(paired.gateway.ended().await.success());
    assert_eq!(control.ended(&waiting.job).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn force_cancels_without_a_socket_too() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let waiting = Waiting::start(&control, &paired).await;
    std::fs::remove_file(paired.machine.dir().join("gateway.sock")).unwrap();
    let shown = paired.machine.run_async(&["status"]).await.stdout;
    assert!(shown.contains("does not answer (pid"), "{shown}");
    let forced = paired.machine.run_async(&["stop", "--force"]).await;
    assert_eq!(forced.code, 0, "{forced:?}");
    assert!(paired.gateway.ended().await.success());
    assert_eq!(control.ended(&waiting.job).await["status"], "cancelled");
    assert!(!waiting.process.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_cannot_have_its_socket_runs_and_stops() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    std::fs::create_dir(machine.dir().join("gateway.sock")).unwrap();
    let mut gateway = machine.spawn(&[]);
    wait_until("the backend to know it", || async {
        (control.gateways().await[0]["status"] == "ready").then_some(())
    })
    .await;
    let log = std::fs::read_to_string(machine.dir().join("gateway.log")).unwrap();
    assert!(log.contains("no status socket"), "{log}");
    let shown = machine.run_async(&["status", "--check"]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.stdout.contains("running"), "{shown:?}");
    let stopped = machine.run_async(&["stop", "--wait=20"]).await;
    assert_eq!(stopped.code, 0, "{stopped:?}");
    assert!(gateway.ended().await.success());
    assert_eq!(machine.run_async(&["status", "--check"]).await.code, 3);
}
