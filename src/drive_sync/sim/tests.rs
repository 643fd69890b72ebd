use std::collections::BTreeMap;

use super::Case;
use super::checks::Invariant;
use super::shrink::{list, shrink};
use super::world::Counts;
use crate::drive_sync::planted::{Bug, plant};

/// Effects of engines and actions of others in an ordinary run of the tests.
const OPERATIONS: u64 = 20_000;
/// A planted fault must be found within so many seeds.
const SEEDS: u64 = 400;

#[expect(clippy::disallowed_methods, reason = "asks how long a test is to run, by a person's word")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[expect(clippy::print_stderr, reason = "the figures are what such a run is for")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// What a person needs to find the fault.
fn explain(seed: u64) -> String {
    let case = Case::of(seed);
    let outcome = case.run(false);
    let Some(violation) = outcome.violations.first() else {
        return format!("seed {seed}: nothing is wrong");
    };
    let small = shrink(&case, violation.invariant);
    let again = small.run(true);
    format!(
        "seed {seed} violates {:?}\n{:?}\n\nreplay: PANORAMA_SYNC_SIM_SEED={seed} cargo test --lib \
         drive_sync::sim -- --nocapture\n\nthe least that does it ({} of {} actions):\n{}\n{}\n{:?}",
        violation.invariant,
        violation.what,
        small.entries.len(),
        case.entries.len(),
        list(&small),
        again.trace.join("\n"),
        again.violations,
    )
}

#[test]
fn nothing_is_lost_whoever_writes_and_whatever_crashes() {
    plant(None);
    if let Some(seed) = asked("PANORAMA_SYNC_SIM_SEED") {
        let text = explain(seed);
        say(&text);
        assert!(text.ends_with("nothing is wrong"), "seed {seed} fails");
        return;
    }
    let wanted = asked("PANORAMA_SYNC_SIM_OPERATIONS").unwrap_or(OPERATIONS);
    let first = asked("PANORAMA_SYNC_SIM_FIRST").unwrap_or(1);
    let mut all = Counts::default();
    let mut seed = first;
    while all.operations() < wanted {
        let outcome = Case::of(seed).run(false);
        all.add(&outcome.counts);
        assert!(outcome.violations.is_empty(), "{}", explain(seed));
        seed += 1;
    }
    say(&format!(
        "{} operations ({} effects of engines, {} actions of others, {} crashes) in {} seeds: no \
         violation; {} calls, {} ticks, {} conflict copies, {} rests, at most {} rounds to rest",
        all.operations(),
        all.effects,
        all.actions,
        all.crashes,
        seed - first,
        all.calls,
        all.ticks,
        all.conflicts,
        all.rests,
        all.rounds,
    ));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    plant(None);
    for seed in 1..=5 {
        let [one, two] = [(), ()].map(|()| Case::of(seed).run(true));
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.counts, two.counts, "seed {seed}");
    }
}

/// Seeds from the first one on, whatever a person asks of the others, until the planted fault breaks
/// this invariant. Returns the seed and the operations up to there.
fn found(bug: Bug, invariant: Invariant) -> Result<(u64, u64), BTreeMap<Invariant, u64>> {
    let mut operations = 0;
    let mut others = BTreeMap::new();
    for seed in 1..=SEEDS {
        plant(Some(bug));
        let outcome = Case::of(seed).run(false);
        plant(None);
        operations += outcome.counts.operations();
        if outcome.violations.iter().any(|violation| violation.invariant == invariant) {
            return Ok((seed, operations));
        }
        for violation in outcome.violations {
            *others.entry(violation.invariant).or_default() += 1;
        }
    }
    Err(others)
}

/// Each fault is looked for from the first seed on, as if nobody knew where it shows.
fn all_found(planted: &[(Invariant, Bug)]) {
    for (invariant, bug) in planted {
        let (seed, operations) = found(*bug, *invariant).unwrap_or_else(|others| {
            panic!("{bug:?}: {invariant:?} holds in {SEEDS} seeds, others do not: {others:?}")
        });
        say(&format!("{invariant:?}: {bug:?} found by seed {seed}, {operations} operations"));
        let outcome = Case::of(seed).run(false);
        assert!(outcome.violations.is_empty(), "without a planted fault: {}", explain(seed));
    }
}

#[test]
fn every_fault_planted_in_planner_and_engine_is_found() {
    all_found(&[
        (Invariant::NothingWrittenIsLost, Bug::TakesRemoteOverEdit),
        (Invariant::AtRestAllAgree, Bug::StaysAtRest),
        (Invariant::BaseNeverLeads, Bug::BaseFirst),
        (Invariant::OneVersionPerOperation, Bug::OperationIdOfPath),
        (Invariant::NothingOutsideChanges, Bug::IgnoresRoot),
        (Invariant::DeletionsStay, Bug::BringsBackDeleted),
        (Invariant::NoConflictAlone, Bug::EqualIsConflict),
        (Invariant::NoConflictAlone, Bug::ForgetsIntents),
        (Invariant::UnknownIsNeverRemoved, Bug::DeletesEdited),
    ]);
}

/// What disk and server promise is proven here only for those of memory: the real ones have to show
/// it by themselves.
#[test]
fn every_fault_planted_in_disk_and_server_is_found() {
    all_found(&[
        (Invariant::NothingWrittenIsLost, Bug::InstallUnverified),
        (Invariant::BaseNeverLeads, Bug::InstallUnsynced),
        (Invariant::NothingOutsideChanges, Bug::FollowsLinks),
        (Invariant::ReadersSeeWholeFiles, Bug::FinishUnverified),
        (Invariant::BaseNeverLeads, Bug::SendUnchecked),
        (Invariant::UnknownIsNeverRemoved, Bug::RemovesIgnored),
        (Invariant::UnknownIsNeverRemoved, Bug::DeletesAnyVersion),
    ]);
}

/// Violations by seed, for a look at many at once.
#[test]
#[ignore = "lists the failing ones among many seeds: for whoever looks for one"]
fn survey() {
    plant(None);
    let (mut all, mut bad) = (Counts::default(), 0);
    let first = asked("PANORAMA_SYNC_SIM_FIRST").unwrap_or(1);
    for seed in first..first + asked("PANORAMA_SYNC_SIM_SEEDS").unwrap_or(100) {
        let outcome = Case::of(seed).run(false);
        all.add(&outcome.counts);
        if let Some(violation) = outcome.violations.first() {
            bad += 1;
            let what: String = violation.what.chars().take(300).collect();
            say(&format!("{seed}: {:?} {what}", violation.invariant));
        }
    }
    say(&format!("{bad} bad; {all:?}"));
    assert_eq!(bad, 0, "of the seeds above");
}
