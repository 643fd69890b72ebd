use std::os::unix::net::UnixDatagram;

use super::*;
use crate::config::Environment;
use crate::task::{Beat, Group};

/// The supervisor at work, and the manager's end of its socket.
struct Scene {
    shared: Arc<Shared>,
    socket: UnixDatagram,
    group: Group,
    _dirs: [tempfile::TempDir; 2],
}

impl Scene {
    /// With a watchdog of 40 s: a tick is 10 s.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let path = path.display().to_string();
        let manager = ServiceManager::handed_over(&Environment::from_pairs([
            ("NOTIFY_SOCKET", path.as_str()),
            ("WATCHDOG_USEC", "40000000"),
        ]));
        let (shared, journal) = Shared::for_tests();
        let shared = Arc::new(shared);
        let mut group = Group::new(CancellationToken::new());
        let own = Arc::clone(&shared);
        group.spawn("service manager", |stop| run(own, manager, stop));
        Self { shared, socket, group, _dirs: [dir, journal] }
    }

    /// What was said until then, line by line.
    async fn heard_after(&self, seconds: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let mut bytes = [0; 4096];
        // In small steps: the socket holds ten datagrams.
        for second in 0..=seconds {
            // Time is paused: it passes when everybody waits.
            let step = if second == 0 { Duration::from_millis(1) } else { Duration::from_secs(1) };
            tokio::time::sleep(step).await;
            while let Ok(length) = self.socket.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                lines.extend(text.lines().map(str::to_owned));
            }
        }
        lines
    }

    fn answering(&mut self, name: &'static str) {
        let mut beat: Beat = self.shared.pulse.beat(name);
        self.group.spawn(name, |stop| async move {
            loop {
                tokio::select! {
                    () = beat.asked() => {}
                    () = stop.cancelled() => return,
                }
            }
        });
    }
}

fn count(lines: &[String], line: &str) -> usize {
    lines.iter().filter(|one| *one == line).count()
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_up_is_ready() {
    let scene = Scene::new();
    assert_eq!(scene.heard_after(1).await, ["STATUS=Starting", "WATCHDOG=1"]);
    scene.shared.phase.send_replace(Phase::Up);
    assert_eq!(scene.heard_after(1).await, ["READY=1", "STATUS=Up, no jobs in hand"]);
    assert_eq!(scene.heard_after(30).await, ["WATCHDOG=1"; 3]);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_its_backend_is_ready_too_after_a_while() {
    let scene = Scene::new();
    scene.shared.notes().session_error = Some("no route".to_owned());
    scene.heard_after(14).await;
    let heard = scene.heard_after(1).await;
    assert_eq!(heard, ["READY=1", "STATUS=Waits for the backend: no route"]);
    scene.shared.notes().session_error = None;
    scene.shared.phase.send_replace(Phase::Up);
    assert_eq!(count(&scene.heard_after(1).await, "READY=1"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_starves_while_a_loop_hangs_and_is_fed_again_after_that() {
    let mut scene = Scene::new();
    scene.answering("lively");
    assert_eq!(count(&scene.heard_after(100).await, "WATCHDOG=1"), 11);
    let mut hung = scene.shared.pulse.beat("hung");
    // Two answers may be late.
    assert_eq!(count(&scene.heard_after(30).await, "WATCHDOG=1"), 3);
    assert_eq!(count(&scene.heard_after(60).await, "WATCHDOG=1"), 0);
    hung.asked().await;
    assert_eq!(count(&scene.heard_after(10).await, "WATCHDOG=1"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_told_once_and_granted_as_long_as_it_lives() {
    let mut scene = Scene::new();
    scene.answering("lively");
    scene.shared.phase.send_replace(Phase::Up);
    scene.heard_after(1).await;
    // What a new pairing does is no stop.
    scene.shared.phase.send_replace(Phase::Draining);
    assert_eq!(scene.heard_after(2).await, ["STATUS=Draining, no jobs in hand"]);
    scene.shared.request_stop();
    assert_eq!(scene.heard_after(2).await, ["STOPPING=1", "EXTEND_TIMEOUT_USEC=60000000"]);
    let heard = scene.heard_after(60).await;
    assert_eq!(count(&heard, "EXTEND_TIMEOUT_USEC=60000000"), 6, "{heard:?}");
    assert_eq!(count(&heard, "STOPPING=1"), 0, "{heard:?}");
    let _hung = scene.shared.pulse.beat("hung");
    scene.heard_after(30).await;
    let heard = scene.heard_after(60).await;
    assert!(heard.is_empty(), "a stop that hangs is not granted more time: {heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_ends_when_the_config_was_read() {
    let scene = Scene::new();
    scene.shared.reload.send_modify(|reloads| *reloads += 1);
    let heard = scene.heard_after(1).await;
    assert_eq!(count(&heard, "RELOADING=1"), 0, "its end would be the start's: {heard:?}");
    scene.shared.phase.send_replace(Phase::Up);
    scene.heard_after(1).await;
    scene.shared.reload.send_modify(|reloads| *reloads += 1);
    let heard = scene.heard_after(1).await;
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(heard[0], "RELOADING=1");
    assert!(heard[1].starts_with("MONOTONIC_USEC="));
    scene.shared.reloaded.send_replace(2);
    assert_eq!(scene.heard_after(1).await, ["READY=1", "STATUS=Up, no jobs in hand"]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_jobs_is_one_line_a_second() {
    let scene = Scene::new();
    scene.shared.phase.send_replace(Phase::Up);
    scene.heard_after(1).await;
    for active in 1..=50 {
        scene.shared.activity.send_modify(|activity| activity.active = active);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let heard = scene.heard_after(2).await;
    assert_eq!(heard, ["STATUS=Up, 1 job in hand", "STATUS=Up, 50 jobs in hand"]);
}
