//! The disk: torn lines, emptied files, and no room at all.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::super::spool::{self, Owner, Spool};
use super::fake::{Fault, Scene, numbers, payload, tell, timed_out};
use crate::jobs::run_events::Ended;
use crate::model::{GatewayId, RunId, SubagentId};
use small::SmallDisk;

#[path = "../../../../tests/common/disk.rs"]
#[expect(dead_code, reason = "the stories use more of it")]
mod small;

fn owner() -> Owner {
    Owner { gateway: GatewayId::new("g"), subagent: SubagentId::new("s"), run: RunId::new("r") }
}

fn lines(indexes: std::ops::Range<u64>) -> Vec<u8> {
    indexes
        .map(|n| spool::encode(n, "message", &format!("{{\"n\":{n}}}")))
        .collect::<String>()
        .into()
}

async fn read_all(spool: &mut Spool) -> Vec<u64> {
    let mut read = Vec::new();
    while spool.has_more() {
        read.extend(spool.read_on(0).await.unwrap().into_iter().map(|line| line.index));
    }
    read
}

#[tokio::test]
async fn a_line_that_was_torn_is_dropped_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.jsonl");
    let mut spool = Spool::open(&path, &owner()).unwrap();
    spool.append(lines(0..4), 4).await.unwrap();
    spool.settle(1, 8).await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    let last = lines(3..4).len();
    for cut in 1..=last {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let mut spool = Spool::open(&path, &owner()).unwrap();
        assert_eq!((spool.end(), spool.progress().done, spool.progress().next), (3, 1, Some(8)));
        spool.append(lines(3..5), 5).await.unwrap();
        assert_eq!(read_all(&mut spool).await, [0, 1, 2, 3, 4], "cut {cut}");
        assert_eq!(read_all(&mut Spool::open(&path, &owner()).unwrap()).await, [0, 1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn a_file_of_which_nothing_can_be_used_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.jsonl");
    let mut spool = Spool::open(&path, &owner()).unwrap();
    spool.append(lines(0..2), 2).await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    let head = whole.len() - lines(0..2).len();
    for cut in 0..head {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let spool = Spool::open(&path, &owner()).unwrap();
        assert_eq!((spool.end(), spool.progress().next), (0, None), "{cut}");
        assert_eq!(std::fs::read(&path).unwrap(), whole[..head]);
    }
    std::fs::write(&path, &whole).unwrap();
    let other = Owner { gateway: GatewayId::new("other"), ..owner() };
    assert_eq!(Spool::open(&path, &other).unwrap().end(), 0);
}

#[tokio::test]
async fn lines_longer_than_a_chunk_are_read_and_damaged_ones_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.jsonl");
    let mut spool = Spool::open(&path, &owner()).unwrap();
    let long = format!("{{\"t\":\"{}\"}}", "x".repeat(900 * 1024));
    let text = [
        spool::encode(0, "message", "{}"),
        spool::encode(1, "message", &long),
        "damaged\n".to_owned(),
        spool::encode(3, "message", &long),
    ];
    spool.append(text.concat().into_bytes(), 4).await.unwrap();
    assert_eq!(read_all(&mut spool).await, [0, 1, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_events_are_settled_does_not_grow_on() {
    let scene = Scene::new();
    let (events, driver) = scene.open();
    let told = async {
        for round in 0..10 {
            for n in round * 300..(round + 1) * 300 {
                let mut payload = payload(n);
                payload.insert("text".into(), json!("x".repeat(1024)));
                events.tell("message", payload).await;
            }
            assert!(events.settled().await);
        }
        let length = scene.path.metadata().unwrap().len();
        assert!(length < 2 * 1024 * 1024, "{length} bytes");
        drop(events);
    };
    let (ended, ()) = tokio::join!(driver.run(), told);
    assert_eq!(ended, Ended::Settled);
    assert_eq!(scene.fake.told(0), numbers(3_000));
    // The next gateway goes on from an emptied file.
    scene.run(3_000..3_005).await;
    assert_eq!(scene.fake.told(0), numbers(3_005));
}

/// A scene whose spool lies on a disk of so many KiB; why not, where mounting is not possible.
fn on_small_disk(kib: u32) -> Result<(Scene, SmallDisk), String> {
    let mut scene = Scene::new();
    let mount = scene.dir.path().join("disk");
    let disk = SmallDisk::mount(&mount, kib)?;
    scene.path = mount.join("events/r.jsonl");
    Ok((scene, disk))
}

fn free(mount: &Path) {
    std::fs::remove_file(mount.join("filler")).unwrap();
}

#[tokio::test]
async fn a_full_disk_makes_tellers_wait_and_loses_nothing() {
    let (scene, _disk) = match on_small_disk(1024) {
        Ok(made) => made,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let (dead, well) = tokio::sync::watch::channel(false);
    scene.fake.plan(move |_| if *well.borrow() { Fault::None } else { Fault::Before(timed_out()) });
    let (events, driver) = scene.open();
    let count = 4_000;
    let told = std::sync::atomic::AtomicI64::new(0);
    let teller = async {
        for n in 0..count {
            let mut payload = payload(n);
            payload.insert("text".into(), json!("x".repeat(1024)));
            events.tell("message", payload).await;
            told.store(n + 1, std::sync::atomic::Ordering::Relaxed);
        }
        assert!(events.settled().await);
        drop(events);
    };
    let watcher = async {
        // Until nothing more is taken: disk, memory and channel are full.
        let mut before = -1;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = told.load(std::sync::atomic::Ordering::Relaxed);
            if now == before {
                break;
            }
            before = now;
        }
        // 1 MiB each on disk, in memory and in the channel.
        assert!((1_500..3_600).contains(&before), "{before} events were taken");
        dead.send_replace(true);
    };
    let (ended, (), ()) = tokio::join!(driver.run(), teller, watcher);
    assert_eq!(ended, Ended::Settled);
    assert_eq!(scene.fake.told(0), numbers(count));
}

#[tokio::test]
async fn without_any_room_events_go_through_memory_until_there_is_some() {
    let (scene, disk) = match on_small_disk(256) {
        Ok(made) => made,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let mount = scene.dir.path().join("disk");
    assert_eq!(disk.fill().raw_os_error(), Some(nix::libc::ENOSPC));
    let (events, driver) = scene.open();
    let told = async {
        tell(&events, 0..100).await;
        assert!(events.settled().await, "the backend takes them");
        assert_eq!(scene.fake.told(0), numbers(100));
        assert!(scene.spooled().is_empty());
        scene.fake.plan(|_| Fault::Hang);
        tell(&events, 100..110).await;
        free(&mount);
        scene.until_spooled(10).await;
    };
    tokio::select! {
        ended = driver.run() => panic!("{ended:?}"),
        () = told => {}
    }
    // Killed: its successor has the rest.
    scene.fake.plan(|_| Fault::None);
    scene.run(110..111).await;
    assert_eq!(scene.fake.told(0), numbers(111));
}
