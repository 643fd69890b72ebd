//! What the status socket answers, and whom.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::backend::{Fault, Middleman};
use crate::common::{ControlPlane, Machine, Paired, say, wait_until};
use crate::scene::Waiting;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_from_queue_to_report() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let machine = Machine::new().with("PANORAMA_GATEWAY_CONCURRENCY", "1");
    let code = control.code().await;
    let gateway_id = machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
    let paired = Paired::allowed(machine, &control, gateway_id).await;
    let waiting = Waiting::start(&control, &paired).await;
    let next = paired.submit_shell(&control, "echo next", json!({})).await;
    let list = wait_until("the second job to wait", || async {
        let list = paired.machine.ask("jobs").await?;
        (list["queued_total"] == 1).then_some(list)
    })
    .await;
    let active = &list["active"][0];
    assert_eq!((&active["id"], &active["phase"]), (&json!(waiting.job), &json!("running")));
    assert!(active["started_at"].is_string() && active["subagent_id"].is_null(), "{list}");
    let queued = &list["queued"][0];
    assert_eq!((&queued["id"], &queued["type"]), (&json!(next), &json!("shell_exec")));
    assert!(queued["created_at"].is_string(), "{list}");
    assert!(!list.to_string().contains("echo next"), "{list}");

    let busy = Fault::Answer(503, "text/plain", "busy".into());
    middleman.fault("PATCH /gateway_jobs", busy);
    waiting.let_go();
    wait_until("its result to wait for the backend", || async {
        let list = paired.machine.ask("jobs").await?;
        (list["active"][0]["phase"] == "reporting").then_some(())
    })
    .await;
    let shown = paired.machine.run_async(&["status"]).await.stdout;
    assert!(shown.contains(", being reported"), "{shown}");
    middleman.heal();
    assert_eq!(control.ended(&waiting.job).await["status"], "completed");
    assert_eq!(control.ended(&next).await["status"], "completed");
}

/// Asks as another user, who was let near the socket by mistake.
fn ask_as_stranger(socket: &std::path::Path) -> String {
    use std::os::unix::process::CommandExt;
    let script = "
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect(sys.argv[1])
try:
    s.sendall(b'{\"request\":\"status\"}\\n')
    print('heard', len(s.recv(10)))
except OSError:
    print('heard 0')
";
    let output = std::process::Command::new("python3")
        .args(["-S", "-E", "-c", script])
        .arg(socket)
        .uid(65_534)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return say("skipped: only root can be somebody else");
    }
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let _gateway = machine.start().await;
    let socket = machine.dir().join("gateway.sock");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&socket) & 0o777, 0o600);
    assert!(ask_as_stranger(&socket).contains("Permission"), "the directory is open");
    for path in socket.ancestors().take(4).skip(1) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(ask_as_stranger(&socket).trim(), "heard 0");
    assert!(machine.status().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hangs_is_named_by_its_process() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let gateway = machine.start().await;
    gateway.signal(Signal::SIGSTOP);
    let shown = machine.run_async(&["status", "--check"]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    let wanted = format!("running, but it does not answer (pid {})", gateway.pid());
    assert!(shown.stdout.contains(&wanted), "{shown:?}");
    gateway.signal(Signal::SIGCONT);
    let json: Value =
        serde_json::from_str(&machine.run_async(&["status", "--json"]).await.stdout).unwrap();
    assert_eq!(json["gateway"]["phase"], "up", "{json}");
    let log = json!({"dropped_lines": 0, "failed_writes": 0, "lost_lines": 0, "trouble": null});
    assert_eq!(json["gateway"]["log"], log);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_the_disk_refuses_are_counted() {
    let control = ControlPlane::start().await;
    // Opens like any file, and takes nothing.
    let machine = Machine::new();
    machine.pair(&control).await;
    let gateway = machine.start().await;
    // The log's directory goes away under it, so that it cannot be opened again.
    std::fs::remove_file(machine.dir().join("gateway.log")).unwrap();
    std::fs::create_dir(machine.dir().join("gateway.log")).unwrap();
    let failed = wait_until("a line to be refused", || async {
        gateway.signal(Signal::SIGHUP);
        let status = machine.status().await?;
        status["log"]["failed_writes"].as_u64().filter(|failed| *failed > 0)
    })
    .await;
    let shown = machine.run_async(&["status"]).await.stdout;
    assert!(failed > 0 && shown.contains("not written"), "{shown}");
}
