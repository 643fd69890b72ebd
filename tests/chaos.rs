//! Chaos: random jobs and subagents under random faults, and afterwards nothing is lost, left, doubled or told.
//!
//! Several gateways (lanes) work for one control plane, each behind a backend that misbehaves. What
//! happens follows from a seed; when it happens, relative to the work, follows from the machine. A
//! short run is part of `cargo test`. Longer ones:
//!
//! ```sh
//! PANORAMA_CHAOS_JOBS=2000 PANORAMA_CHAOS_FAULTS=500 cargo test --test chaos
//! ```
//!
//! `PANORAMA_CHAOS_SEED` repeats a run, `PANORAMA_CHAOS_LANES` says how many gateways there are,
//! `PANORAMA_CHAOS_UPGRADES` how many faults of a hundred are upgrades, and `PANORAMA_CHAOS_RARE=1`
//! adds the faults that take a minute each (rate limits).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "chaos that leaves harm fails; it measures real time"
)]

#[path = "common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

#[path = "chaos/agents.rs"]
mod agents;
#[path = "chaos/blows.rs"]
mod blows;
#[path = "chaos/lane.rs"]
mod lane;
#[path = "chaos/plan.rs"]
mod plan;
#[path = "chaos/process.rs"]
mod process;
#[path = "chaos/runs.rs"]
mod runs;
#[path = "chaos/upgrades.rs"]
mod upgrades;
#[path = "chaos/verdict.rs"]
mod verdict;
#[path = "upgrade/versions.rs"]
#[expect(dead_code, reason = "the stories of upgrades use the rest")]
mod versions;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{ControlPlane, say, setting};
use lane::{Lane, Report};
use plan::{Extent, Plan};

/// So short that every lane lives through many rotations.
const TOKEN_LIFETIME: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_left_doubled_or_told() {
    let seed = setting("PANORAMA_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let lanes = setting("PANORAMA_CHAOS_LANES").unwrap_or(2).max(1);
    let extent = Extent {
        jobs: setting("PANORAMA_CHAOS_JOBS").unwrap_or(80),
        faults: setting("PANORAMA_CHAOS_FAULTS").unwrap_or(24),
        upgrades: setting("PANORAMA_CHAOS_UPGRADES").unwrap_or(12),
        rare: setting("PANORAMA_CHAOS_RARE").is_some(),
    };
    say(&format!("chaos: seed {seed}, {lanes} gateways, {extent:?}"));
    process::adopt_orphans();
    upgrades::prepare();
    let began = Instant::now();
    let control = ControlPlane::start_with(|options| {
        options.access_token_lifetime = TOKEN_LIFETIME;
        options.clock_leeway = Duration::ZERO;
    })
    .await;
    let plans = (0..lanes).map(|number| Plan::new(seed, number, extent.share(number, lanes)));
    let runs = plans.map(|plan| async { Lane::pair(&control, plan.number).await.run(plan).await });
    let mut reports = Vec::new();
    for lane in futures_util::future::join_all(runs).await {
        reports.push(lane.report().await);
    }

    let sum = |of: fn(&Report) -> &BTreeMap<String, usize>| {
        let mut sum: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, count) in reports.iter().flat_map(of) {
            *sum.entry(name).or_default() += count;
        }
        sum
    };
    let violations: Vec<_> = reports.iter().flat_map(|report| &report.violations).collect();
    let total = |counts: &BTreeMap<&str, usize>| counts.values().sum::<usize>();
    let (faults, outcomes) = (sum(|report| &report.faults), sum(|report| &report.outcomes));
    say(&format!(
        "chaos: seed {seed}: {} jobs, {} faults, {} violations in {} s",
        total(&outcomes),
        total(&faults),
        violations.len(),
        began.elapsed().as_secs()
    ));
    let others = sum(|report| &report.others);
    for (title, counts) in [("fault", &faults), ("outcome", &outcomes), ("seen", &others)] {
        for (name, count) in counts {
            say(&format!("    {title:<8} {count:>5}  {name}"));
        }
    }
    let Extent { jobs, faults, upgrades, rare } = extent;
    let rare = if rare { " PANORAMA_CHAOS_RARE=1" } else { "" };
    assert!(
        violations.is_empty(),
        "{violations:#?}\nrepeat with: PANORAMA_CHAOS_SEED={seed} PANORAMA_CHAOS_LANES={lanes} \
         PANORAMA_CHAOS_JOBS={jobs} PANORAMA_CHAOS_FAULTS={faults} \
         PANORAMA_CHAOS_UPGRADES={upgrades}{rare} cargo test --test chaos"
    );
    assert_eq!(total(&outcomes), usize::try_from(jobs).unwrap(), "every job has an outcome");
}
