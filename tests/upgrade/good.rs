//! Upgrades that work.

use std::os::unix::fs::symlink;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::scene::{GATEWAY_OF_JOB, Scene};
use super::versions::{self, numbered, put};
use crate::common::{ControlPlane, Machine, say, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_takes_over_and_the_old_one_ends_well() {
    let mut scene = Scene::start().await;
    let old = scene.first_pid();
    assert_eq!(scene.who_runs().await, old);
    scene.install(&versions::other(&numbered(7)));
    let status = scene.version_is_up(&numbered(7)).await;
    assert_ne!(status["pid"], old);
    assert_eq!(status["upgrade"]["state"], "watching");
    assert!(scene.first_ended().await.success());
    let new = i32::try_from(status["pid"].as_i64().unwrap()).unwrap();
    let pid = std::fs::read_to_string(scene.machine.dir().join("gateway.pid")).unwrap();
    assert_eq!(pid.trim(), new.to_string());
    assert_eq!(scene.who_runs().await, new);
    // Nobody was told that the gateway is away, and nobody can start another one.
    assert!(!scene.log().contains("offline"), "{}", scene.log());
    // At the start, before the hand-over, at the start of the new one.
    assert_eq!(scene.log().matches(r#""status":"pending""#).count(), 3, "{}", scene.log());
    let gateways = scene.control.gateways().await;
    assert_eq!(gateways[0]["status"], "ready");
    assert_eq!(gateways[0]["capabilities"]["runtime"]["gateway_version"], numbered(7));
    let again = scene.machine.run_async(&["start", "--daemon"]).await;
    assert!(again.stdout.contains(&format!("already running (pid {new})")), "{again:?}");
    assert!(scene.events("restart_failed").await.is_empty());
    // The caller's umask has come over.
    assert_eq!(scene.run("umask").await, "0022\n");
    scene.processes_are(1).await;
    let stopped = scene.machine.run_async(&["stop", "--wait=20"]).await;
    assert_eq!(stopped.code, 0, "{stopped:?}");
    scene.processes_are(0).await;
    assert_eq!(scene.control.gateways().await[0]["status"], "offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_switched_upgrades_a_daemon() {
    let scene = Scene::installed(Machine::new(), ControlPlane::start().await).await;
    let versions = scene.machine.home().join("versions");
    std::fs::create_dir(&versions).unwrap();
    put(&versions::ours(), &versions.join("old"));
    put(&versions::other(&numbered(6)), &versions.join("new"));
    let switch_to = |name: &str| {
        let draft = scene.program.with_extension("link");
        symlink(versions.join(name), &draft).unwrap();
        std::fs::rename(draft, &scene.program).unwrap();
    };
    switch_to("old");
    let mut start = scene.command(&["start", "--daemon"]);
    let started = tokio::task::spawn_blocking(move || start.output()).await.unwrap().unwrap();
    assert!(started.status.success(), "{started:?}");
    let old = scene.machine.is_up().await;
    switch_to("new");
    let new = scene.version_is_up(&numbered(6)).await;
    assert_ne!(new["pid"], old["pid"]);
    assert_eq!(i64::from(scene.who_runs().await), new["pid"].as_i64().unwrap());
    scene.processes_are(1).await;
    // And back, as a downgrade is done.
    switch_to("old");
    scene.version_is_up(panorama_gateway::VERSION).await;
    scene.processes_are(1).await;
    let stopped = scene.machine.run_async(&["stop", "--wait=20"]).await;
    assert_eq!(stopped.code, 0, "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_in_hand_is_finished_and_reported_once_by_the_old_process() {
    let mut scene = Scene::start().await;
    let home = scene.machine.home();
    let (marker, go) = (home.join("marker"), home.join("go"));
    let command = format!(
        "echo x >> {}; until [ -e {} ]; do sleep 0.05; done; {GATEWAY_OF_JOB}",
        marker.display(),
        go.display()
    );
    let job = scene.submit(&command).await;
    wait_until("the command to run", || async { marker.exists().then_some(()) }).await;
    scene.install(&versions::other(&numbered(5)));
    let status = scene.status_is("the drain", |s| s["upgrade"]["state"] == "draining").await;
    assert_eq!(
        (&status["phase"], &status["upgrade"]["version"]),
        (&json!("draining"), &json!(numbered(5)))
    );
    let shown = scene.machine.run_async(&["status"]).await;
    assert!(shown.stdout.contains("waits for the jobs in hand"), "{shown:?}");
    // What comes now waits for the new one.
    let later = scene.submit(GATEWAY_OF_JOB).await;
    std::fs::write(&go, "").unwrap();
    let row = scene.control.ended(&job).await;
    assert_eq!(row["status"], "completed", "{row}");
    assert_eq!(row["result"]["stdout"], format!("{}\n", scene.first_pid()));
    let new = scene.version_is_up(&numbered(5)).await;
    assert!(scene.first_ended().await.success());
    let row = scene.control.ended(&later).await;
    assert_eq!(row["result"]["stdout"], format!("{}\n", new["pid"]));
    assert_eq!(std::fs::read_to_string(marker).unwrap(), "x\n", "ran once");
    assert!(!scene.log().contains("no longer running"), "{}", scene.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_takes_too_long_is_cancelled() {
    let machine = Machine::new().with("PANORAMA_GATEWAY_RESTART_MAX_WAIT_MS", "300");
    let mut scene = Scene::installed(machine, ControlPlane::start().await).await;
    scene.start_in_foreground().await;
    let marker = scene.machine.home().join("marker");
    let job = scene.submit(&format!("echo x > {}; sleep 600", marker.display())).await;
    wait_until("the command to run", || async { marker.exists().then_some(()) }).await;
    scene.install(&versions::other(&numbered(4)));
    scene.version_is_up(&numbered(4)).await;
    let row = scene.control.ended(&job).await;
    assert_eq!((&row["status"], &row["result"]["cancelled"]), (&json!("cancelled"), &json!(true)));
    assert!(scene.first_ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_survives_five_upgrades_in_a_row() {
    // So short-lived that every gateway must rotate the tokens at once.
    let control = ControlPlane::start_with(|options| {
        options.access_token_lifetime = Duration::from_mins(1);
    })
    .await;
    let mut scene = Scene::installed(Machine::new(), control).await;
    scene.start_in_foreground().await;
    let mut tokens = vec![scene.machine.config()["refreshToken"].clone()];
    let mut pids = vec![scene.first_pid()];
    for last in 1..=5 {
        scene.install(&versions::other(&numbered(last)));
        scene.version_is_up(&numbered(last)).await;
        pids.push(scene.who_runs().await);
        tokens.push(scene.machine.config()["refreshToken"].clone());
    }
    pids.dedup();
    tokens.dedup();
    assert_eq!((pids.len(), tokens.len()), (6, 6), "{pids:?}");
    assert_eq!(scene.machine.config()["gatewayId"], scene.gateway_id.as_str());
    scene.processes_are(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_on_and_the_longest_time_without_a_claim_is_told() {
    let scene = Scene::start().await;
    let (job, all) = (scene.submit("true").await, std::cell::RefCell::new(Vec::new()));
    scene.control.ended(&job).await;
    let version = numbered(3);
    scene.install(&versions::other(&version));
    let submit = async {
        loop {
            let job = scene.submit("true").await;
            all.borrow_mut().push(job);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = submit => {}
        _ = scene.version_is_up(&version) => {}
    }
    for _ in 0..20 {
        let job = scene.submit("true").await;
        all.borrow_mut().push(job);
    }
    let mut claims: Vec<Timestamp> = Vec::new();
    for job in all.into_inner() {
        let row = scene.control.ended(&job).await;
        assert_eq!(row["status"], "completed", "{row}");
        claims.push(row["started_at"].as_str().unwrap().parse().unwrap());
    }
    claims.sort();
    let gaps = claims.windows(2).map(|two| two[1].duration_since(two[0]));
    let gap = Duration::try_from(gaps.max().unwrap()).unwrap();
    // A figure, not a verdict: it grows with what else the machine does. Less than a second is wanted.
    say(&format!("    nobody claimed for {} ms ({} jobs)", gap.as_millis(), claims.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_switched_off() {
    let machine = Machine::new().with("PANORAMA_GATEWAY_AUTO_RESTART", "0");
    let mut scene = Scene::installed(machine, ControlPlane::start().await).await;
    let status = scene.start_in_foreground().await;
    assert_eq!(status["upgrade"]["state"], "off");
    assert!(status["supervisors"].as_array().unwrap().iter().all(|s| s["name"] != "restart"));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_of_the_same_version_change_nothing() {
    let mut scene = Scene::start().await;
    let same = scene.machine.home().join("same");
    let mut bytes = std::fs::read(versions::ours()).unwrap();
    bytes.extend(b"trailing bytes");
    std::fs::write(&same, bytes).unwrap();
    std::fs::set_permissions(&same, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    scene.install(&same);
    let told = "another file of the same version";
    wait_until("a line in the log", || async { scene.log().contains(told).then_some(()) }).await;
    // The next checks say nothing more.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(scene.log().matches(told).count(), 1);
    assert!(scene.first_is_running());
    assert_eq!(scene.who_runs().await, scene.first_pid());
}
