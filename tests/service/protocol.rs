//! A gateway process and a socket that listens as systemd does.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::net::UnixDatagram;

use crate::common::{BINARY, ControlPlane, Gateway, Machine, PATIENCE, Paired, wait_until};

/// What the manager tolerates; a gateway says so four times as often.
const WATCHDOG: Duration = Duration::from_secs(2);

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn on(machine: &Machine) -> Self {
        let path = machine.home().join("notify");
        Self { socket: UnixDatagram::bind(&path).unwrap(), path }
    }

    /// Starts the gateway as systemd does; `exec` keeps the pid.
    fn spawn(&self, machine: &Machine, variables: &str) -> Gateway {
        let script = format!("{variables}; exec \"$0\" start --foreground");
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &script, BINARY])
            .env_clear()
            .env("HOME", machine.home())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .env("INVOCATION_ID", "0123")
            .env("JOURNAL_STREAM", "1:2")
            .current_dir(machine.home());
        Gateway::silent(&mut command)
    }

    /// The next datagram, or `None` when none comes for so long.
    async fn next(&self, within: Duration) -> Option<String> {
        let mut bytes = [0; 4096];
        let length = tokio::time::timeout(within, self.socket.recv(&mut bytes)).await.ok()?;
        Some(String::from_utf8(bytes[..length.unwrap()].to_vec()).unwrap())
    }

    /// Listens until this line is said; gives the datagram.
    async fn hears(&self, line: &str) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let left = deadline - tokio::time::Instant::now();
            let said = self.next(left).await.expect(line);
            if said.lines().any(|one| one == line) {
                return said;
            }
        }
    }
}

const OURS: &str = "export SYSTEMD_EXEC_PID=$$ WATCHDOG_PID=$$";

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_is_told_of_a_whole_life() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let gateway_id = machine.pair(&control).await;
    machine.allow_control().await;
    let resource_id = control.allow_shell(&gateway_id).await;
    let manager = Manager::on(&machine);
    let mut gateway = manager.spawn(&machine, OURS);

    let said = manager.hears("READY=1").await;
    assert_eq!(said, "READY=1\nSTATUS=Up, no jobs in hand\n");
    assert_eq!(machine.status().await.unwrap()["phase"], "up", "ready before it was up");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1").await;
    }

    gateway.signal(Signal::SIGHUP);
    let said = manager.hears("RELOADING=1").await;
    assert!(said.contains("MONOTONIC_USEC="), "{said}");
    manager.hears("READY=1").await;

    // A process that does not turn says nothing, and what is not said is what a manager acts on.
    gateway.signal(Signal::SIGSTOP);
    while manager.next(WATCHDOG).await.is_some() {}
    gateway.signal(Signal::SIGCONT);
    manager.hears("WATCHDOG=1").await;

    let paired = Paired { machine, gateway, gateway_id, resource_id };
    let gate = paired.machine.home().join("gate");
    let wait = format!("env; while ! [ -e {} ]; do sleep 0.05; done", gate.display());
    let job = paired.submit_shell(&control, &wait, json!({})).await;
    manager.hears("STATUS=Up, 1 job in hand").await;
    paired.gateway.signal(Signal::SIGTERM);
    manager.hears("STOPPING=1").await;
    // Two, so that one came by itself: the drain is granted time as long as it takes.
    manager.hears("EXTEND_TIMEOUT_USEC=3000000").await;
    manager.hears("EXTEND_TIMEOUT_USEC=3000000").await;
    std::fs::write(&gate, "").unwrap();
    let row = control.ended(&job).await;
    assert_eq!(row["status"], "completed", "{row}");
    let environment = row["result"]["stdout"].as_str().unwrap();
    assert!(environment.contains("HOME="), "{row}");
    for name in
        ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID", "JOURNAL_STREAM"]
    {
        assert!(!environment.contains(&format!("{name}=")), "{name} reached a job: {environment}");
    }
    gateway = paired.gateway;
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_the_manager_did_not_start_says_nothing() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let manager = Manager::on(&machine);
    let mut gateway = manager.spawn(&machine, "export SYSTEMD_EXEC_PID=1 WATCHDOG_PID=1");
    machine.is_up().await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert_eq!(manager.next(Duration::from_millis(1)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_learns_that_its_service_found_another_gateway() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let _first = machine.start().await;
    let manager = Manager::on(&machine);
    let mut second = manager.spawn(&machine, OURS);
    assert_eq!(second.ended().await.code(), Some(5));
    assert_eq!(manager.next(Duration::from_millis(1)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_is_told_of_a_gateway_that_ends_unasked() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let manager = Manager::on(&machine);
    let mut gateway = manager.spawn(&machine, OURS);
    manager.hears("READY=1").await;
    let mut config = machine.config();
    config.as_object_mut().unwrap().remove("refreshToken");
    config.as_object_mut().unwrap().remove("gatewayId");
    let staged = machine.dir().join("staged");
    std::fs::write(&staged, config.to_string()).unwrap();
    std::fs::rename(&staged, machine.config_file()).unwrap();
    manager.hears("STOPPING=1").await;
    let code = wait_until("the end", || {
        let status = gateway.child.try_wait().unwrap();
        async move { status }
    });
    assert_eq!(code.await.code(), Some(4));
}
