//! Signals: drain, cancel, go at once; and a gateway that is killed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{ControlPlane, Paired, ProcessName, say, wait_until};

/// A command that tells its pid and then waits for a file.
fn waiting(paired: &Paired) -> (String, std::path::PathBuf, std::path::PathBuf) {
    let (pid, go) = (paired.machine.home().join("pid"), paired.machine.home().join("go"));
    let command = format!(
        "echo $$ > {0}.part; mv {0}.part {0}; until [ -e {1} ]; do sleep 0.05; done; echo done",
        pid.display(),
        go.display()
    );
    (command, pid, go)
}

async fn started(pid_file: &std::path::Path) -> ProcessName {
    wait_until("the command to start", || async {
        let pid = std::fs::read_to_string(pid_file).ok()?;
        ProcessName::of(pid.trim().parse().ok()?)
    })
    .await
}

async fn counted(paired: &Paired, stops: &str) {
    wait_until(&format!("the gateway to be {stops}"), || async {
        (paired.machine.status().await?["phase"] == stops).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_drains() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let (command, pid, go) = waiting(&paired);
    let running = paired.submit_shell(&control, &command, json!({})).await;
    started(&pid).await;
    paired.gateway.signal(Signal::SIGTERM);
    counted(&paired, "draining").await;
    let gateways = control.gateways().await;
    wait_until("the backend to know", || async {
        let gateways = control.gateways().await;
        (gateways[0]["status"] == "pending").then_some(())
    })
    .await;
    assert_eq!(gateways.len(), 1);
    let late = paired.submit_shell(&control, "echo late", json!({})).await;
    std::fs::write(go, "").unwrap();
    let row = control.ended(&running).await;
    assert_eq!((&row["status"], &row["result"]["stdout"]), (&json!("completed"), &json!("done\n")));
    assert!(paired.gateway.ended().await.success());
    assert_eq!(control.admin.job(&late).await.unwrap()["status"], "queued");
    assert_eq!(control.gateways().await[0]["status"], "offline");
    assert!(!paired.machine.dir().join("gateway.pid").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_stop_cancels_the_work() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let (command, pid, _) = waiting(&paired);
    let running = paired.submit_shell(&control, &command, json!({})).await;
    let process = started(&pid).await;
    let ran = paired.machine.run_async(&["stop", "--force", "--wait=30"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(paired.gateway.ended().await.success());
    let row = control.ended(&running).await;
    assert_eq!(row["status"], "cancelled", "{row}");
    assert_eq!(row["result"]["cancelled"], true);
    assert!(!process.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_cancels_and_those_within_a_second_count_once() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let (command, pid, _) = waiting(&paired);
    let running = paired.submit_shell(&control, &command, json!({})).await;
    let process = started(&pid).await;
    for _ in 0..5 {
        paired.gateway.signal(Signal::SIGINT);
    }
    counted(&paired, "draining").await;
    assert!(process.is_alive(), "signals within a second count once");
    // The next one that counts cancels; sending it again and again must not matter.
    wait_until("the gateway to end", || {
        if paired.gateway.child.try_wait().unwrap().is_none() {
            paired.gateway.signal(Signal::SIGTERM);
        }
        let gone = paired.gateway.child.try_wait().unwrap();
        async move { gone }
    })
    .await;
    let row = control.ended(&running).await;
    assert_eq!(row["status"], "cancelled", "{row}");
    assert!(!process.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_leaves_no_process_and_starts_again() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let (command, pid, _) = waiting(&paired);
    let killed = paired.submit_shell(&control, &command, json!({})).await;
    let process = started(&pid).await;
    paired.gateway.signal(Signal::SIGKILL);
    paired.gateway.ended().await;
    wait_until("the command to be gone", || async { (!process.is_alive()).then_some(()) }).await;
    // Stale pid file and socket are no hindrance.
    let _again = paired.machine.start().await;
    let row = control.ended(&killed).await;
    assert_eq!(row["status"], "failed", "{row}");
    assert_eq!(row["result"]["error_code"], "gateway_restarted", "{row}");
    let row = paired.shell(&control, "echo again").await;
    assert_eq!(row["result"]["stdout"], "again\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_at_the_backend_is_stopped() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let (command, pid, _) = waiting(&paired);
    let running = paired.submit_shell(&control, &command, json!({})).await;
    let process = started(&pid).await;
    let since = Instant::now();
    control.admin.cancel_job(&running).await.unwrap();
    wait_until("the command to be gone", || async { (!process.is_alive()).then_some(()) }).await;
    let took = since.elapsed();
    say(&format!("a cancelled job is gone after {} ms", took.as_millis()));
    // Its row is looked at every 15 s whatever happens: realtime told.
    assert!(took < Duration::from_secs(10), "{took:?}");
    wait_until("the gateway to have let go of it", || async {
        let status = paired.machine.status().await?;
        (status["active_jobs"] == json!([]) && status["journal"]["records"] == 0).then_some(())
    })
    .await;
    let row = control.admin.job(&running).await.unwrap();
    assert_eq!((&row["status"], &row["result"]), (&json!("cancelled"), &json!(null)), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_time_limit_cancels_by_itself() {
    let control = ControlPlane::start().await;
    let machine = crate::common::Machine::new().with("PANORAMA_GATEWAY_DRAIN_TIMEOUT_MS", "300");
    let mut paired = Paired::start_on(machine, &control).await;
    let (command, pid, _) = waiting(&paired);
    let running = paired.submit_shell(&control, &command, json!({})).await;
    started(&pid).await;
    paired.gateway.signal(Signal::SIGTERM);
    assert!(paired.gateway.ended().await.success());
    assert_eq!(control.ended(&running).await["status"], "cancelled");
}
