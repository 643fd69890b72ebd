//! The real agent CLIs behind a gateway, with a scripted stand-in for the APIs of their models.
//!
//! They come from npm as `tests/real_clis.lock.json` pins them, with a Node of their own, and are
//! kept outside the tree. A plain `cargo test` downloads nothing: without them this says that it
//! skips, and fails where `CI=true`. `PANORAMA_REAL_CLIS=1` fetches them first;
//! `PANORAMA_REAL_CLIS_STORIES="plain cancel"` runs those stories only.
//!
//! `tests/real_clis.list` names every story with every CLI and whether it must run.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a story that goes wrong fails; it measures real time"
)]

#[path = "common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;
#[path = "fake_llm/mod.rs"]
mod fake_llm;

#[path = "real_clis/direct.rs"]
mod direct;
#[path = "real_clis/hard_ends.rs"]
mod hard_ends;
#[path = "real_clis/install.rs"]
mod install;
#[path = "real_clis/list.rs"]
mod list;
#[path = "real_clis/model_run.rs"]
mod model_run;
#[path = "real_clis/scene.rs"]
mod scene;
#[path = "real_clis/stories.rs"]
mod stories;
#[path = "real_clis/subagents.rs"]
mod subagents;
#[path = "real_clis/subagents_answers.rs"]
mod subagents_answers;
#[path = "real_clis/subagents_ends.rs"]
mod subagents_ends;

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use panorama_gateway::providers::ProviderId;
use tokio::sync::Semaphore;

use common::say;
use list::{Entry, Verdict};
use scene::Scene;
use stories::{Company, Story};

/// Stories at a time: each is a CLI that starts up.
const AT_A_TIME: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_gets_along_with_the_real_clis() {
    let entries = list::read();
    let is_ci = install::setting("CI") == "true";
    let asked = is_ci || install::setting("PANORAMA_REAL_CLIS") == "1";
    let clis = match install::prepare() {
        Ok(clis) => clis,
        Err(missing) => {
            say(&format!("real CLIs: skipped: {missing}"));
            assert!(!asked, "the real CLIs must not be skipped here: {missing}");
            return;
        }
    };
    let only = install::setting("PANORAMA_REAL_CLIS_STORIES");
    assert!(!is_ci || only.is_empty(), "all stories must run here");
    let meant = |entry: &Entry| {
        only.is_empty() || only.split_whitespace().any(|name| name == entry.story.name())
    };
    let began = Instant::now();
    let mut scene = Scene::set(clis).await;
    let mut lines = Vec::new();
    let skipped = entries.iter().filter(|entry| meant(entry) && entry.skip.is_some());
    lines.extend(skipped.cloned().map(|entry| (entry, Verdict::Skipped)));
    let to_run = || entries.iter().filter(|entry| meant(entry) && entry.skip.is_none()).cloned();
    let of = |company| to_run().filter(move |entry| entry.story.company() == company);

    lines.extend(together(&scene, of(Company::Any)).await);
    if of(Company::Well).next().is_some() {
        scene.heal().await;
        lines.extend(together(&scene, of(Company::Well)).await);
    }
    scene.fake.close().await;
    lines.extend(together(&scene, of(Company::WithoutApi)).await);
    scene.fake.open();
    for entry in of(Company::Alone) {
        lines.extend(together(&scene, std::iter::once(entry)).await);
    }

    let (table, failures) = list::table(&mut lines);
    say(&format!("{table}real CLIs: {} s in all", began.elapsed().as_secs()));
    let outside = scene.fake.outside();
    assert!(failures == 0, "{failures} stories went wrong; the gateway said:\n{}", scene.log());
    assert!(outside.is_empty(), "somebody tried to reach {outside:?}");
    let ran = lines.len();
    assert!(!only.is_empty() || ran == entries.len(), "{ran} of {} stories", entries.len());
}

/// Runs stories side by side; each with how it ended.
async fn together(scene: &Scene, entries: impl Iterator<Item = Entry>) -> Vec<(Entry, Verdict)> {
    let turns = Semaphore::new(AT_A_TIME);
    let run = async |entry: Entry| {
        let _turn = turns.acquire().await.unwrap();
        let began = Instant::now();
        let verdict = tell(scene, entry.story, entry.cli).await;
        let verdict = match verdict {
            Ok(()) => Verdict::Passed(began.elapsed()),
            Err(why) => Verdict::Failed(began.elapsed(), why),
        };
        (entry, verdict)
    };
    entries.map(run).collect::<FuturesUnordered<_>>().collect().await
}

/// One story; what was wrong if it panicked or never ended.
async fn tell(scene: &Scene, story: Story, cli: ProviderId) -> Result<(), String> {
    let told = std::panic::AssertUnwindSafe(story.tell(scene, cli)).catch_unwind();
    match tokio::time::timeout(Duration::from_mins(5), told).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned())
        }
        Err(_) => Err("it never ended".to_owned()),
    }
}
