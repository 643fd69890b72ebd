//! Very many events while the backend is away.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::fake::{Fault, Scene, numbers, payload, timed_out};
use crate::jobs::run_events::Ended;

const EVENTS: i64 = 100_000;
/// Characters of each.
const SIZE: usize = 1_000;

/// KiB of memory that this process has in use now (`VmRSS`), or had at most (`VmHWM`).
fn memory_kib(which: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// In a process of its own, whose memory no other test uses.
#[test]
fn memory_is_bounded_while_the_backend_is_away_and_all_arrive_in_order() {
    let name = "jobs::run_events::tests::load::a_hundred_thousand_events";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args([name, "--exact", "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    print!("{text}");
}

#[tokio::test]
#[ignore = "run by the test above, in a process of its own"]
async fn a_hundred_thousand_events() {
    let scene = Scene::new();
    let (dead, well) = tokio::sync::watch::channel(false);
    scene.fake.plan(move |_| if *well.borrow() { Fault::None } else { Fault::Before(timed_out()) });
    let (events, driver) = scene.open();
    scene.fake.state().only_numbers = true;
    let before = memory_kib("VmRSS");
    let told = async {
        let started = tokio::time::Instant::now();
        for n in 0..EVENTS {
            let mut payload = payload(n);
            payload.insert("text".into(), json!("x".repeat(SIZE)));
            events.tell("message", payload).await;
        }
        let took = started.elapsed();
        assert!(scene.path.metadata().unwrap().len() > 99_000_000, "they wait on disk");
        let grown = memory_kib("VmHWM").saturating_sub(before);
        println!("{EVENTS} events told in {took:?}; {grown} KiB of memory more");
        assert!(grown < 24 * 1024, "{grown} KiB for {} MiB", SIZE * 100_000 / 1024 / 1024);
        dead.send_replace(true);
        let settled = tokio::time::timeout(Duration::from_mins(5), events.settled()).await;
        assert_eq!(settled, Ok(true));
        // Some of it is the fake's own rows.
        let grown = memory_kib("VmHWM").saturating_sub(before);
        println!("{:?}; {grown} KiB of memory more", events.figures());
        assert!(grown < 56 * 1024, "{grown} KiB");
        drop(events);
    };
    let (ended, ()) = tokio::join!(driver.run(), told);
    assert_eq!(ended, Ended::Settled);
    assert_eq!(scene.fake.told(0), numbers(EVENTS));
    assert!(scene.path.metadata().unwrap().len() < 1024 * 1024, "the file is emptied");
}
