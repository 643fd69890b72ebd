//! The promises: nothing lost, doubled or reordered, whatever backend, disk and kills do.

#[expect(clippy::print_stderr, reason = "says what it skips")]
mod disk;
mod fake;
#[expect(clippy::print_stdout, reason = "says its figures")]
mod load;
#[expect(clippy::print_stdout, reason = "says its figures")]
mod sandbox;

use std::time::Duration;

use fake::{Fault, Scene, numbers, payload, status, tell, timed_out};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Ended, RunEvents};
use crate::backend::BackendError;

/// A backend that fails every so often, before and after it acted.
fn unreliable(mut rng: fastrand::Rng, foreign: bool) -> impl FnMut(&'static str) -> Fault + Send {
    move |_| match rng.u8(0..20) {
        0 => Fault::Before(status(500, None)),
        1 => Fault::Before(status(503, Some("PGRST002"))),
        2 => Fault::Before(timed_out()),
        3 => Fault::Before(BackendError::Unreachable("refused".into())),
        4 => Fault::After(timed_out()),
        5 => Fault::After(BackendError::Unreachable("reset".into())),
        6 => Fault::After(status(502, None)),
        7 => Fault::Before(status(429, None)),
        8 if foreign => Fault::Foreign,
        _ => Fault::None,
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_doubled_or_reordered_by_failures_lost_answers_and_foreign_rows() {
    for seed in 0..60 {
        let scene = Scene::new();
        let mut rng = fastrand::Rng::with_seed(seed);
        scene.fake.plan(unreliable(rng.fork(), true));
        let (events, driver) = scene.open();
        let told = async move {
            for n in 0..200 {
                tell(&events, n..n + 1).await;
                if rng.u8(0..8) == 0 {
                    tokio::time::sleep(Duration::from_millis(rng.u64(0..3_000))).await;
                }
            }
            assert!(events.settled().await);
            events
        };
        let ended = async {
            let (ended, ()) = tokio::join!(driver.run(), async { drop(told.await) });
            ended
        };
        assert_eq!(ended.await, Ended::Settled);
        assert_eq!(scene.fake.told(0), numbers(200), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_killed_leaves_the_rest_for_its_successor() {
    for seed in 0..40 {
        let scene = Scene::new();
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut told = 0;
        for _ in 0..6 {
            let mut plan = unreliable(rng.fork(), true);
            let (mut left, after) = (rng.usize(0..12), rng.bool());
            // At some call the backend falls silent, with or without having acted.
            scene.fake.plan(move |call| {
                left = left.saturating_sub(1);
                match left {
                    0 if after => Fault::HangAfter,
                    0 => Fault::Hang,
                    _ => plan(call),
                }
            });
            let (events, driver) = scene.open();
            let more = rng.i64(0..60);
            let life = async {
                tell(&events, told..told + more).await;
                wait_until_kept(&scene, told + more).await;
                tokio::time::sleep(Duration::from_millis(rng.u64(0..4_000))).await;
            };
            // The driver is dropped wherever it is.
            tokio::select! {
                ended = driver.run() => panic!("{ended:?}: a handle is left"),
                () = life => {}
            }
            told += more;
        }
        scene.fake.plan(|_| Fault::None);
        scene.run(told..told + 5).await;
        assert_eq!(scene.fake.told(0), numbers(told + 5), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_who_send_what_was_left_of_a_run_send_it_once() {
    let scene = Scene::new();
    let (events, driver) = scene.open();
    tell(&events, 0..3).await;
    // Killed before it could ask for a number.
    scene.fake.plan(|_| Fault::Hang);
    tokio::select! {
        ended = driver.run() => panic!("{ended:?}: a handle is left"),
        () = wait_until_kept(&scene, 3) => {}
    }
    // The second is slow to ask for a number, if it asks at all.
    let mut asked = 0;
    scene.fake.plan(move |call| {
        asked += usize::from(call == "highest");
        if call == "highest" && asked == 2 {
            Fault::Slow(Duration::from_secs(1))
        } else {
            Fault::None
        }
    });
    let finish = || async {
        let (events, driver) = scene.open();
        let removed = async move {
            assert!(events.settled().await);
            events.remove().await;
        };
        tokio::join!(driver.run(), removed).0
    };
    assert_eq!(tokio::join!(finish(), finish()), (Ended::Settled, Ended::Settled));
    assert_eq!(scene.fake.told(0), numbers(3));
}

/// Waits until the last event is on disk (or settled: the file may have been emptied).
async fn wait_until_kept(scene: &Scene, told: i64) {
    let last = u64::try_from(told).unwrap();
    while scene.spooled().last().map_or(0, |last| last + 1) < last {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_stand_already_are_counted_on_and_the_first_of_all_is_zero() {
    let scene = Scene::new();
    let figures = scene.run(0..3).await;
    assert_eq!((figures.rows, figures.retries, figures.renumbered), (3, 0, 0));
    assert_eq!(scene.fake.told(0), numbers(3));
    let scene = Scene::new();
    scene.fake.state().rows.insert(41, ("system".into(), json!({})));
    scene.run(0..3).await;
    assert_eq!(scene.fake.told(41), numbers(3));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_found_out_and_not_sent_twice() {
    let scene = Scene::new();
    scene.fake.script([("highest", Fault::None), ("insert", Fault::After(timed_out()))]);
    let figures = scene.run(0..1).await;
    assert_eq!((figures.retries, figures.renumbered, figures.rows), (1, 0, 1));
    assert_eq!(scene.fake.told(0), [0]);
    assert_eq!(scene.fake.state().inserts, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_number_that_somebody_else_took_is_given_up() {
    let scene = Scene::new();
    scene.fake.script([("highest", Fault::None), ("insert", Fault::Foreign)]);
    let figures = scene.run(0..1).await;
    assert_eq!((figures.retries, figures.renumbered, figures.rows), (0, 1, 1));
    assert_eq!(scene.fake.told(0), [0]);
    assert_eq!(scene.fake.state().rows[&0].1, json!({"foreign": 0}));
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_taken_by_no_visible_row_does_not_stop_the_run() {
    let scene = Scene::new();
    let mut inserts = 0;
    scene.fake.plan(move |call| {
        inserts += usize::from(call == "insert");
        let taken = call == "insert" && inserts <= 3;
        if taken { Fault::Before(status(409, Some("23505"))) } else { Fault::None }
    });
    let figures = scene.run(0..2).await;
    assert_eq!((figures.retries, figures.renumbered, figures.rows), (2, 1, 2));
    assert_eq!(scene.fake.told(1), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_errors_is_waited_out() {
    let scene = Scene::new();
    let well_at = Instant::now() + Duration::from_mins(1);
    scene.fake.plan(move |_| {
        if Instant::now() < well_at { Fault::Before(status(500, None)) } else { Fault::None }
    });
    let figures = scene.run(0..1_000).await;
    assert!(Instant::now() >= well_at && figures.retries >= 2, "{figures:?}");
    assert!(figures.retries < 60, "it does not hammer: {figures:?}");
    assert_eq!(scene.fake.told(0), numbers(1_000));
    assert!(figures.batches <= 1_000 / 50 + 1, "full batches: {figures:?}");
    assert!(scene.fake.state().inserts.iter().all(|rows| *rows <= 50));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_for_good_is_left_out_alone() {
    for bad in [vec![30], vec![0, 49, 50], vec![7, 8, 99]] {
        let scene = Scene::new();
        scene.fake.state().refuse_bad = true;
        // They pile up first, so that bad ones are among good ones.
        scene.fake.script([("highest", Fault::Before(timed_out()))]);
        let (events, driver) = scene.open();
        let marked = bad.clone();
        let told = async move {
            for n in 0..100 {
                let mut payload = payload(n);
                if marked.contains(&n) {
                    payload.insert("bad".into(), json!(true));
                }
                events.tell("message", payload).await;
            }
            assert!(events.settled().await);
            events.figures()
        };
        let (ended, figures) = tokio::join!(driver.run(), told);
        assert_eq!(ended, Ended::Settled);
        assert_eq!(figures.refused, bad.len() as u64);
        let good: Vec<i64> = (0..100).filter(|n| !bad.contains(n)).collect();
        assert_eq!(scene.fake.told(0), good);
        let tries = scene.fake.state().inserts.len();
        assert!(tries <= 60, "{tries} inserts for {} bad events", bad.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_of_megabytes_becomes_a_preview_without_our_secrets() {
    let scene = Scene::new();
    scene.redactor.add_secret("correct-horse-battery");
    let (events, driver) = scene.open();
    let told = async move {
        // Many large ones: each goes alone, and the channel's room is no obstacle.
        for n in 0..4 {
            let text = "correct-horse-battery é ".repeat(5 * 1024 * 1024 / 25);
            let payload = json!({"n": n, "content": text});
            let Value::Object(payload) = payload else { unreachable!() };
            events.tell("tool_result", payload).await;
        }
        events.tell("message", payload(4)).await;
        assert!(events.settled().await);
    };
    let (ended, ()) = tokio::join!(driver.run(), told);
    assert_eq!(ended, Ended::Settled);
    let state = scene.fake.state();
    assert_eq!(state.rows.len(), 5);
    for (_, row) in state.rows.values().take(4) {
        assert_eq!(row["truncated"], true);
        assert!(row["original_bytes"].as_u64().unwrap() > 2_000_000);
        let preview = row["preview"].as_str().unwrap();
        assert_eq!(preview.chars().count(), 200_000);
        assert!(preview.contains("[REDACTED] é") && !preview.contains("correct"));
    }
    assert_eq!(state.rows[&4].1["n"], 4);
    assert!(state.largest <= 512 * 1024, "{} bytes in one insert", state.largest);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_leaves_everything_on_disk() {
    let scene = Scene::new();
    scene.fake.plan(|call| match call {
        "insert" => Fault::Before(BackendError::SessionEnded("session_not_found".into())),
        _ => Fault::None,
    });
    let (events, driver) = scene.open();
    let told = async move {
        tell(&events, 0..20).await;
        assert!(!events.settled().await, "they are not in the table");
        // Nobody waits for a driver that has ended.
        tell(&events, 20..2_000).await;
    };
    let (ended, ()) = tokio::join!(driver.run(), told);
    assert_eq!(ended, Ended::SessionOver);
    assert_eq!(scene.spooled(), (0..20).collect::<Vec<u64>>());
    scene.fake.plan(|_| Fault::None);
    scene.run(20..21).await;
    assert_eq!(scene.fake.told(0), numbers(21));
}

#[tokio::test(start_paused = true)]
async fn a_stop_keeps_what_was_told() {
    let scene = Scene::new();
    scene.fake.plan(|_| Fault::Hang);
    let stop = CancellationToken::new();
    let (events, driver) = scene.open_until(stop.clone());
    let told = async {
        tell(&events, 0..30).await;
        stop.cancel();
        assert!(!events.settled().await);
    };
    let (ended, ()) = tokio::join!(driver.run(), told);
    assert_eq!(ended, Ended::Stopped);
    assert_eq!(scene.spooled(), (0..30).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn settled_waits_for_what_an_earlier_gateway_left_and_remove_ends_it() {
    let scene = Scene::new();
    scene.fake.plan(|_| Fault::Hang);
    let (events, driver) = scene.open();
    tokio::select! {
        _ = driver.run() => unreachable!(),
        () = async { tell(&events, 0..7).await; scene.until_spooled(7).await } => {}
    }
    scene.fake.plan(|_| Fault::None);
    let (events, driver) = scene.open();
    let finished = async {
        assert!(events.settled().await, "nothing was told, but something was left");
        assert_eq!(scene.fake.told(0), numbers(7));
        events.remove().await;
    };
    let (ended, ()) = tokio::join!(driver.run(), finished);
    assert_eq!(ended, Ended::Settled);
    assert!(!scene.path.exists());
}

#[tokio::test(start_paused = true)]
async fn a_tell_that_is_dropped_while_it_waits_has_told_nothing() {
    let scene = Scene::new();
    scene.fake.plan(|_| Fault::Hang);
    let (events, driver) = scene.open();
    // Nobody takes them: the driver is not polled yet.
    let mut told = 0;
    while tokio::time::timeout(Duration::from_secs(1), tell_of(&events, told)).await.is_ok() {
        told += 1;
    }
    assert!((1..300).contains(&told), "{told}: the channel is bounded");
    scene.fake.plan(|_| Fault::None);
    let rest = async move {
        assert!(events.settled().await);
        tell_of(&events, told).await;
    };
    tokio::join!(driver.run(), rest);
    assert_eq!(scene.fake.told(0), numbers(told + 1));
}

async fn tell_of(events: &RunEvents, n: i64) {
    let mut payload: Map<String, Value> = payload(n);
    payload.insert("text".into(), json!("x".repeat(9_000)));
    events.tell("message", payload).await;
}
