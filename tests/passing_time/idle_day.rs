//! A gateway with nothing to do for a day: it grows by nothing, and asks for no more than it should.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::common::setting;
use crate::pipe::Pipe;
use crate::scene::{World, real_pause};

/// A poll's interval, and what rounding timers takes.
const STEP: Duration = Duration::from_millis(5_001);
/// Caches fill, the control plane's database makes its pages.
const WARM: u64 = 2;

/// What could grow.
#[derive(Debug, Clone, Copy)]
struct Size {
    tasks: usize,
    descriptors: usize,
    /// Of the whole process, the control plane included.
    resident_kib: u64,
}

impl Size {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            resident_kib: resident.split_whitespace().next().unwrap().parse().unwrap(),
        }
    }
}

pub(crate) fn an_idle_day() {
    let hours = setting("PANORAMA_IDLE_HOURS").unwrap_or(24);
    let (world, pipe) = World::new(async |control| Pipe::to(control.server.local_addr()).await);
    world.play(
        |_| (),
        async |_| {
            let counts = &pipe.counts;
            let mut polls = counts.polls.subscribe();
            let (began, real) = (tokio::time::Instant::now(), Instant::now());
            let before = [*polls.borrow(), counts.heartbeats.load(Relaxed)];
            let mut sizes = Vec::new();
            for hour in 1..=hours {
                while began.elapsed() < Duration::from_hours(hour) {
                    polls.mark_unchanged();
                    tokio::time::advance(STEP).await;
                    let answered = tokio::task::unconstrained(polls.changed());
                    answered.await.unwrap();
                }
                // What an hour's end still has under way.
                real_pause(Duration::from_millis(20)).await;
                let size = Size::now();
                println!("passing time: idle for {hour} h: {size:?}");
                sizes.push(size);
            }
            let polls = *polls.borrow() - before[0];
            let beats = counts.heartbeats.load(Relaxed) - before[1];
            let refreshes = counts.refreshes.load(Relaxed);
            let (sockets, others) = (counts.sockets.load(Relaxed), counts.others.load(Relaxed));
            println!(
                "passing time: idle for {hours} h in {:.1} s: {polls} polls, {beats} heartbeats, \
                 {refreshes} refreshes, {sockets} sockets, {others} other requests, {} connections",
                real.elapsed().as_secs_f64(),
                counts.connections.load(Relaxed),
            );
            // 720 an hour, 120 an hour, and a token of an hour renewed 2 minutes before its end. The
            // next heartbeat is due by the answer to the last one, which comes a step later here.
            within("polls", polls, 700 * hours..=730 * hours);
            within("heartbeats", beats, 103 * hours..=122 * hours);
            within("refreshes", refreshes, hours * 60 / 59..=hours * 60 / 57 + 1);
            within("sockets", sockets, 1..=3);
            within("other requests", others, 0..=10);
            let status = world.status().await;
            assert_eq!(status["reported_status"], "ready", "{status}");
            assert_eq!(status["realtime"]["state"], "ready", "{status}");
            let warm = sizes[usize::try_from(WARM.min(hours)).unwrap() - 1];
            for size in &sizes[usize::try_from(WARM.min(hours)).unwrap()..] {
                assert!(size.tasks <= warm.tasks + 1, "tasks: {warm:?}, {size:?}");
                assert!(
                    size.descriptors <= warm.descriptors + 4,
                    "descriptors: {warm:?}, {size:?}"
                );
                let growth = size.resident_kib.saturating_sub(warm.resident_kib);
                assert!(growth <= 8 * 1024, "memory: {warm:?}, {size:?}");
            }
        },
    );
}

fn within(what: &str, count: u64, range: std::ops::RangeInclusive<u64>) {
    assert!(range.contains(&count), "{what}: {count} is not in {range:?}");
}
