//! SIGKILL of either process at each stage of a hand-over.

use std::path::PathBuf;

use serde_json::Value;

use super::scene::{Scene, kill};
use super::versions::{self, numbered};
use crate::common::backend::Fault;
use crate::common::wait_until;

/// A gateway that drains for an upgrade: a job holds it until the file `go` is there.
async fn draining() -> (Scene, String, PathBuf) {
    let scene = Scene::start().await;
    let home = scene.machine.home();
    let (marker, go) = (home.join("marker"), home.join("go"));
    let command = format!(
        "echo x >> {}; until [ -e {} ]; do sleep 0.05; done",
        marker.display(),
        go.display()
    );
    let job = scene.submit(&command).await;
    wait_until("the command to run", || async { marker.exists().then_some(()) }).await;
    scene.install(&versions::other(&numbered(2)));
    scene.status_is("the drain", |status| status["upgrade"]["state"] == "draining").await;
    (scene, job, go)
}

/// A gateway whose replacement has taken over but cannot get up: no heartbeat is accepted.
async fn half_way() -> (Scene, Value) {
    let (scene, job, go) = draining().await;
    let down = Fault::Answer(503, "text/plain", "down".into());
    scene.middleman.fault("/gateway-heartbeat", down);
    std::fs::write(go, "").unwrap();
    scene.control.ended(&job).await;
    let new = scene
        .status_is("the replacement to answer", |status| status["version"] == numbered(2))
        .await;
    assert_eq!(new["phase"], "starting");
    (scene, new)
}

fn other(scene: &Scene, pid: i32) -> i32 {
    let others: Vec<i32> = scene.processes().into_iter().filter(|other| *other != pid).collect();
    let [other] = others.as_slice() else { panic!("{others:?}") };
    *other
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_one_while_it_drains() {
    let (mut scene, job, _go) = draining().await;
    let new = other(&scene, scene.first_pid());
    kill(scene.first_pid());
    scene.first_ended().await;
    let status = scene.version_is_up(&numbered(2)).await;
    assert_eq!(status["pid"], new, "it takes the dead one's place");
    let row = scene.control.ended(&job).await;
    assert_eq!(row["status"], "failed", "{row}");
    assert_eq!(scene.who_runs().await, new);
    let marker = scene.machine.home().join("marker");
    assert_eq!(std::fs::read_to_string(marker).unwrap(), "x\n", "ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_one_while_the_old_one_drains() {
    let (mut scene, job, go) = draining().await;
    kill(other(&scene, scene.first_pid()));
    scene
        .status_is("the old one to go on", |status| {
            status["phase"] == "up" && status["upgrade"]["last_failed"]["version"] == numbered(2)
        })
        .await;
    // With its job still in hand it takes others again.
    assert_eq!(scene.who_runs().await, scene.first_pid());
    assert_eq!(scene.control.admin.job(&job).await.unwrap()["status"], "running");
    std::fs::write(go, "").unwrap();
    assert_eq!(scene.control.ended(&job).await["status"], "completed");
    assert!(scene.first_is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_one_before_it_is_up() {
    let (mut scene, new) = half_way().await;
    kill(i32::try_from(new["pid"].as_i64().unwrap()).unwrap());
    let status =
        scene.status_is("the old one to answer", |status| status["pid"] == scene.first_pid()).await;
    assert_eq!(status["upgrade"]["last_failed"]["reason"], "it was ended by signal 9");
    scene.middleman.heal();
    scene.machine.is_up().await;
    assert_eq!(scene.who_runs().await, scene.first_pid());
    assert!(scene.first_is_running());
    wait_until("the event", || async { scene.events("restart_failed").await.into_iter().next() })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_one_before_the_new_one_is_up() {
    let (mut scene, new) = half_way().await;
    kill(scene.first_pid());
    scene.first_ended().await;
    // The lock has gone over: nobody else can start.
    let again = scene.machine.run_async(&["start", "--daemon"]).await;
    assert!(again.stdout.contains("already running"), "{again:?}");
    scene.middleman.heal();
    let up = scene.version_is_up(&numbered(2)).await;
    assert_eq!(up["pid"], new["pid"]);
    assert_eq!(i64::from(scene.who_runs().await), up["pid"].as_i64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_at_each_stage_and_the_next_start_brings_everything_up() {
    let (mut scene, job, _go) = draining().await;
    let new = other(&scene, scene.first_pid());
    kill(new);
    kill(scene.first_pid());
    scene.first_ended().await;
    scene.start_in_foreground().await;
    assert_eq!(scene.control.ended(&job).await["status"], "failed");
    assert_eq!(scene.who_runs().await, scene.first_pid());
    drop(scene);

    let (mut scene, new) = half_way().await;
    kill(scene.first_pid());
    kill(i32::try_from(new["pid"].as_i64().unwrap()).unwrap());
    scene.first_ended().await;
    scene.middleman.heal();
    scene.processes_are(0).await;
    scene.start_in_foreground().await;
    assert_eq!(scene.who_runs().await, scene.first_pid());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_stops_both() {
    for half in [false, true] {
        let (mut scene, held) = if half {
            (half_way().await.0, None)
        } else {
            let (scene, job, go) = draining().await;
            (scene, Some((job, go)))
        };
        let pid = nix::unistd::Pid::from_raw(scene.first_pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        if let Some((job, go)) = held {
            scene.processes_are(1).await;
            std::fs::write(go, "").unwrap();
            assert_eq!(scene.control.ended(&job).await["status"], "completed");
        }
        assert!(scene.first_ended().await.success());
        scene.processes_are(0).await;
        assert!(!scene.machine.dir().join("gateway.sock").exists());
        assert!(!scene.machine.dir().join("gateway.pid").exists());
    }
}
