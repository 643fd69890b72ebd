//! A gateway under a service manager: the manager follows it from process to process.

use std::time::Duration;

use tokio::net::UnixDatagram;

use super::scene::Scene;
use super::versions::{self, numbered};
use crate::common::{ControlPlane, Machine};

/// Every line that was said until one is this.
async fn until(manager: &UnixDatagram, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let heard = tokio::time::timeout(Duration::from_mins(1), manager.recv(&mut bytes)).await;
        let length = heard.unwrap_or_else(|_| panic!("{last} was not said: {lines:?}")).unwrap();
        let said = std::str::from_utf8(&bytes[..length]).unwrap();
        lines.extend(said.lines().map(str::to_owned));
        if lines.iter().any(|line| line == last) {
            return lines;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_learns_of_each_new_process_and_of_no_end() {
    let mut scene = Scene::installed(Machine::new(), ControlPlane::start().await).await;
    let path = scene.machine.home().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    scene.start_as_service(&path).await;
    until(&manager, "READY=1").await;
    // The second hand-over is by a process that the manager has not started itself.
    for last in [1, 2] {
        scene.install(&versions::other(&numbered(last)));
        let new = scene.version_is_up(&numbered(last)).await;
        let said = until(&manager, &format!("MAINPID={}", new["pid"])).await;
        assert!(!said.iter().any(|line| line == "STOPPING=1"), "{said:?}");
        scene.processes_are(1).await;
        // The new process feeds the watchdog.
        let said = until(&manager, "WATCHDOG=1").await;
        assert!(!said.iter().any(|line| line == "STOPPING=1"), "{said:?}");
        // What a job sees has nothing of it.
        assert_eq!(scene.run("echo \"$NOTIFY_SOCKET$WATCHDOG_USEC\"").await, "\n");
    }
    let stopped = scene.machine.run_async(&["stop", "--wait=20"]).await;
    assert_eq!(stopped.code, 0, "{stopped:?}");
    until(&manager, "STOPPING=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_to_nothing_is_none_of_the_managers_business() {
    let mut scene = Scene::installed(Machine::new(), ControlPlane::start().await).await;
    let path = scene.machine.home().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    scene.start_as_service(&path).await;
    scene.install(&versions::impostor("9.9.9", "crashes"));
    scene.upgrade_failed().await;
    let mut said = until(&manager, "READY=1").await;
    for _ in 0..3 {
        said.extend(until(&manager, "WATCHDOG=1").await);
    }
    let about = |name: &str| said.iter().any(|line| line.starts_with(name));
    assert!(!about("MAINPID=") && !about("STOPPING="), "{said:?}");
    assert_eq!(scene.who_runs().await, scene.first_pid());
}
