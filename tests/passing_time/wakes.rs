//! The machine sleeps, the process stands still, somebody sets the wall clock.

use std::time::Duration;

use jiff::SignedDuration;

use crate::common::backend::{Fault, Middleman};
use crate::scene::{World, count, kinds, pass, real_pause, until};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// The gateway looks at its clocks this often.
const LOOK: Duration = Duration::from_secs(2);

/// The requests after a wake, once heartbeat, realtime and the poll that follow it were seen.
async fn after_the_wake(middleman: &Middleman) -> Vec<&'static str> {
    until("a heartbeat, a poll and realtime", async || {
        let kinds = kinds(middleman);
        let beaten = kinds.iter().position(|kind| *kind == "heartbeat")?;
        let all = kinds[beaten..].contains(&"poll") && kinds.contains(&"realtime");
        all.then_some(())
    })
    .await;
    // What is not expected would follow at once.
    real_pause(Duration::from_millis(100)).await;
    kinds(middleman)
}

/// What is under way comes to its end, and is forgotten.
async fn quiet(middleman: &Middleman) {
    loop {
        let before = middleman.seen().len();
        real_pause(Duration::from_millis(100)).await;
        if middleman.seen().len() == before {
            return middleman.forget();
        }
    }
}

/// One refresh, then the heartbeat, then the poll; realtime after the refresh.
fn in_order(kinds: &[&str]) {
    assert_eq!(count(kinds, "refresh"), 1, "{kinds:?}");
    let first = |wanted| kinds.iter().position(|kind| *kind == wanted).unwrap();
    assert_eq!(first("refresh"), 0, "{kinds:?}");
    assert!(first("heartbeat") < first("poll"), "{kinds:?}");
    assert_eq!(count(kinds, "realtime"), 1, "{kinds:?}");
}

pub(crate) fn a_sleep_through_the_tokens_end() {
    let (world, middleman) = World::with_middleman();
    world.play(
        |_| (),
        async |steering| {
            for hours in [8, 40] {
                quiet(&middleman).await;
                steering.sleep(Duration::from_hours(hours));
                tokio::time::advance(LOOK).await;
                in_order(&after_the_wake(&middleman).await);
                is_ready(&world).await;
            }
            // A nap costs no refresh, but new connections.
            quiet(&middleman).await;
            steering.sleep(Duration::from_mins(5));
            tokio::time::advance(LOOK).await;
            let kinds = after_the_wake(&middleman).await;
            assert_eq!((count(&kinds, "refresh"), count(&kinds, "realtime")), (0, 1), "{kinds:?}");
        },
    );
}

pub(crate) fn a_sleep_with_a_job_in_hand() {
    let (world, middleman) = World::with_middleman();
    world.play(
        |_| (),
        async |steering| {
            let job = world.submit(
                "cd; echo began >> runs; while [ ! -e go ]; do sleep 0.05; done; echo over",
            );
            let home = world.machine.home();
            until("the job to run", async || home.join("runs").exists().then_some(())).await;
            quiet(&middleman).await;
            steering.sleep(Duration::from_hours(8));
            tokio::time::advance(LOOK).await;
            in_order(&after_the_wake(&middleman).await);
            std::fs::write(home.join("go"), "").unwrap();
            let row = ended(&world, &job).await;
            assert_eq!(
                (&row["status"], &row["result"]["stdout"]),
                (&"completed".into(), &"over\n".into())
            );
            assert_eq!(std::fs::read_to_string(home.join("runs")).unwrap(), "began\n", "once");
            assert_eq!(count(&kinds(&middleman), "refresh"), 1);
        },
    );
}

pub(crate) fn a_process_that_stood_still() {
    let (world, middleman) = World::with_middleman();
    world.play(
        |_| (),
        async |_| {
            quiet(&middleman).await;
            // As after SIGSTOP: the clocks went on, and no timer was served.
            tokio::time::advance(Duration::from_hours(2)).await;
            let kinds = after_the_wake(&middleman).await;
            // One that a wake interrupts is sent again.
            assert!(matches!(count(&kinds, "refresh"), 1 | 2), "{kinds:?}");
            is_ready(&world).await;
        },
    );
}

pub(crate) fn the_wall_clock_is_set() {
    let (world, middleman) = World::with_middleman();
    world.play(
        |_| (),
        async |steering| {
            for by in [DAY, -DAY, -DAY, DAY] {
                quiet(&middleman).await;
                steering.set_wall(by);
                tokio::time::advance(LOOK).await;
                let kinds = after_the_wake(&middleman).await;
                assert_eq!(count(&kinds, "refresh"), 0, "{by}: {kinds:?}");
                let job = world.submit("echo fine");
                assert_eq!(ended(&world, &job).await["status"], "completed", "{by}");
                is_ready(&world).await;
                // Nothing is due earlier or later for it.
                middleman.forget();
                pass(Duration::from_secs(61)).await;
                let kinds = self::kinds(&middleman);
                let counted = (count(&kinds, "refresh"), count(&kinds, "heartbeat"));
                assert!(matches!(counted, (0, 2 | 3)), "{by}: {kinds:?}");
                assert!((11..=14).contains(&count(&kinds, "poll")), "{by}: {kinds:?}");
            }
        },
    );
}

pub(crate) fn a_start_with_a_wrong_wall_clock() {
    for by in [DAY, -DAY] {
        let (world, middleman) = World::with_middleman();
        world.play(
            |steering| steering.set_wall(by),
            async |_| {
                let kinds = kinds(&middleman);
                assert_eq!(count(&kinds, "refresh"), 0, "{by}: {kinds:?}");
                let job = world.submit("echo fine");
                assert_eq!(ended(&world, &job).await["status"], "completed", "{by}");
            },
        );
    }
}

pub(crate) fn nothing_is_claimed_by_an_old_heartbeat() {
    let (world, middleman) = World::with_middleman();
    world.play(
        |_| (),
        async |steering| {
            middleman.fault("/gateway-heartbeat", Fault::LostRequest);
            steering.sleep(Duration::from_mins(10));
            middleman.forget();
            let job = world.submit("echo now");
            pass(Duration::from_secs(16)).await;
            let kinds = kinds(&middleman);
            assert!(count(&kinds, "poll") >= 3, "{kinds:?}");
            assert_eq!(count(&kinds, "change"), 0, "{kinds:?}");
            assert_eq!(world.job(&job)["status"], "queued");
            middleman.heal();
            pass(Duration::from_secs(4)).await;
            assert_eq!(ended(&world, &job).await["status"], "completed");
        },
    );
}

/// The usual way of a laptop: it is awake some seconds before its network.
pub(crate) fn a_wake_before_the_network_is_back() {
    let (world, middleman) = World::with_middleman();
    world.play(
        |_| (),
        async |steering| {
            middleman.cut();
            steering.sleep(Duration::from_hours(8));
            pass(Duration::from_secs(10)).await;
            middleman.forget();
            middleman.heal();
            let job = world.submit("echo back");
            pass(Duration::from_secs(4)).await;
            assert_eq!(ended(&world, &job).await["status"], "completed");
            let kinds = kinds(&middleman);
            // One that a wake interrupts is sent again.
            assert!(matches!(count(&kinds, "refresh"), 1 | 2), "{kinds:?}");
            is_ready(&world).await;
        },
    );
}

async fn is_ready(world: &World) {
    until("the gateway to be ready", async || {
        let status = world.status().await;
        let ready = status["reported_status"] == "ready" && status["realtime"]["state"] == "ready";
        ready.then_some(())
    })
    .await;
}

async fn ended(world: &World, job: &str) -> serde_json::Value {
    until("the end of a job", async || {
        let row = world.job(job);
        matches!(row["status"].as_str(), Some("completed" | "failed" | "cancelled")).then_some(row)
    })
    .await
}
