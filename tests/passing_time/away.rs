//! The network goes away for long, and comes back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::scene::{World, count, kinds, pass, real_pause, until};

/// Of the network's return, by the gateway's clock.
const BACK_WITHIN: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(250);

static WARNINGS: AtomicUsize = AtomicUsize::new(0);

struct Warnings;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::WARN {
            WARNINGS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// From now on, in the whole process.
pub(crate) fn count_warnings() {
    let shown = crate::common::setting("PANORAMA_SHOW_LOG")
        .map(|_| tracing_subscriber::fmt::layer().with_writer(std::io::stderr));
    let counting = tracing_subscriber::registry().with(Warnings).with(shown);
    tracing::subscriber::set_global_default(counting).unwrap();
}

pub(crate) fn an_hour_without_a_network() {
    const MINUTES: u32 = 60;
    let (world, middleman) = World::with_middleman();
    world.play(
        |_| (),
        async |_| {
            // Its result has to wait.
            let home = world.machine.home();
            let job = world.submit("cd; touch runs; while [ ! -e go ]; do sleep 0.05; done");
            until("the job to run", async || home.join("runs").exists().then_some(())).await;
            let since = tokio::time::Instant::now();
            let warned = WARNINGS.load(Ordering::Relaxed);
            middleman.cut();
            std::fs::write(home.join("go"), "").unwrap();
            for _ in 0..60 * MINUTES {
                tokio::time::advance(Duration::from_secs(1)).await;
                real_pause(Duration::from_millis(2)).await;
            }
            let warned = WARNINGS.load(Ordering::Relaxed) - warned;
            let allowed = usize::try_from(MINUTES).unwrap() + 1;
            println!("passing time: {warned} warnings in {MINUTES} minutes without a network");
            assert!((1..=allowed).contains(&warned), "{warned} warnings");
            assert_eq!(world.job(&job)["status"], "running");

            assert!(since.elapsed() >= Duration::from_hours(1));
            let next = world.submit("echo next");
            middleman.forget();
            middleman.heal();
            let mut took: [Option<Duration>; 5] = [None; 5];
            let names = ["heartbeat", "poll", "the result that waited", "a new job", "realtime"];
            let mut passed = Duration::ZERO;
            while took.contains(&None) && passed <= BACK_WITHIN * 4 {
                pass(STEP).await;
                // Processes take real time.
                real_pause(Duration::from_millis(50)).await;
                passed += STEP;
                let kinds = kinds(&middleman);
                let status = world.status().await;
                let now = [
                    count(&kinds, "heartbeat") > 0,
                    count(&kinds, "poll") > 0,
                    world.job(&job)["status"] == "completed",
                    world.job(&next)["status"] == "completed",
                    status["realtime"]["state"] == "ready",
                ];
                for (took, is_back) in took.iter_mut().zip(now) {
                    if is_back && took.is_none() {
                        *took = Some(passed);
                    }
                }
            }
            for (name, took) in names.iter().zip(took) {
                println!("passing time: after an hour away: {name}: back within {took:?}");
                assert!(took.is_some_and(|took| took <= BACK_WITHIN), "{name}: {took:?}");
            }
        },
    );
}
