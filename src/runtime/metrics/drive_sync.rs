//! The part of a scrape that tells of drives: what was done by all of them, and how each one is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use prometheus_client::registry::{Registry, Unit};

use super::{Gauges, counter, counters, gauges};
use crate::drive_sync::engine::Deed;
use crate::drive_sync::keeper::report::{DriveReport, DriveState, Report};
use crate::drive_sync::keeper::tally::{RETRIED, TICK_RESULTS, Tally};

/// Drives that have a label of their own, at most.
const LABELLED: usize = 16;
/// All others together, and those whose id does not look like one.
const OTHER: &str = "other";
/// The longest id that may be a label.
const LONGEST_ID: usize = 64;

type Value = fn(&DriveReport) -> u64;
type DriveLabel = [(&'static str, String); 1];

/// Puts them into a registry that is about to be written.
pub(super) fn register(registry: &mut Registry, report: &Report, tally: &Tally, now: Timestamp) {
    work(registry, tally);
    troubles(registry, tally);
    let problem = u64::from(report.problem.is_some());
    let help =
        "1 while no drive can be kept in step, or the server cannot be asked which there are";
    super::gauge(registry, "drive_sync_trouble", help, problem);
    let labels = labels(&report.drives);
    states(registry, report, &labels);
    per_drive(registry, report, &labels, now);
}

fn work(registry: &mut Registry, tally: &Tally) {
    let results = [("ok", tally.done), ("refused", tally.refused), ("stale", tally.stale)];
    let operations = results.into_iter().flat_map(|(result, counts)| {
        Deed::ALL.map(|deed| ([("kind", deed.word()), ("result", result)], counts[deed.index()]))
    });
    registry.register(
        "drive_sync_operations",
        "What was done to files and folders, on disk and server",
        counters(operations),
    );
    let bytes = [("fetch", tally.fetched_bytes), ("send", tally.sent_bytes)]
        .map(|(direction, bytes)| ([("direction", direction)], bytes));
    registry.register_with_unit(
        "drive_sync_transferred",
        "Contents that came or went, those of broken transfers too",
        Unit::Bytes,
        counters(bytes),
    );
    let ticks = TICK_RESULTS.iter().zip(tally.ticks);
    registry.register(
        "drive_sync_ticks",
        "Looks at a drive that came to an end, by how",
        counters(ticks.map(|(result, count)| ([("result", *result)], count))),
    );
    counter(
        registry,
        "drive_sync_full_looks",
        "Looks at everything in a drive's folder",
        tally.full_looks,
    );
}

fn troubles(registry: &mut Registry, tally: &Tally) {
    counter(
        registry,
        "drive_sync_conflict_copies",
        "Files and folders that got a conflict name because both sides had changed",
        tally.conflicts,
    );
    counter(
        registry,
        "drive_sync_rescued_writes",
        "Changes kept under a conflict name that came while a file was being replaced",
        tally.rescued,
    );
    counter(
        registry,
        "drive_sync_watch_overflows",
        "How often hints of the system were lost, so that everything was looked at",
        tally.watch_overflows,
    );
    let retries = RETRIED.iter().zip(tally.retries);
    registry.register(
        "drive_sync_retries",
        "What failed and is tried again",
        counters(retries.map(|(what, count)| ([("what", *what)], count))),
    );
}

/// The label of each drive, in their order.
fn labels(drives: &[DriveReport]) -> Vec<String> {
    let mut left = LABELLED;
    let mut label = |drive: &DriveReport| {
        let id = &drive.drive_id;
        let is_id = (1..=LONGEST_ID).contains(&id.len())
            && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if !is_id || left == 0 {
            return OTHER.to_owned();
        }
        left -= 1;
        id.clone()
    };
    drives.iter().map(&mut label).collect()
}

fn states(registry: &mut Registry, report: &Report, labels: &[String]) {
    let mut counts = BTreeMap::new();
    for (drive, label) in report.drives.iter().zip(labels) {
        for state in DriveState::ALL {
            *counts.entry((label.clone(), state.word())).or_default() +=
                u64::from(drive.state == state);
        }
    }
    let values = counts
        .into_iter()
        .map(|((label, state), count)| ([("drive", label), ("state", state.to_owned())], count));
    registry.register("drive_sync_state", "1 for how a drive is, 0 for the others", gauges(values));
}

fn per_drive(registry: &mut Registry, report: &Report, labels: &[String], now: Timestamp) {
    let sum = |value: &dyn Fn(&DriveReport) -> u64| sum(report, labels, value);
    let directions = |values: [&dyn Fn(&DriveReport) -> u64; 2]| {
        let both = ["fetch", "send"].into_iter().zip(values).flat_map(|(direction, value)| {
            let of_one = report.drives.iter().zip(labels);
            of_one.map(move |(drive, label)| ((label.clone(), direction), value(drive)))
        });
        let mut sums = BTreeMap::new();
        for (labels, value) in both {
            *sums.entry(labels).or_default() += value;
        }
        gauges(sums.into_iter().map(|((drive, direction), value)| {
            ([("drive", drive), ("direction", direction.to_owned())], value)
        }))
    };
    registry.register(
        "drive_sync_pending_files",
        "Contents that are to come or to go",
        directions([&|drive| drive.pending.downloads as u64, &|drive| {
            drive.pending.uploads as u64
        }]),
    );
    registry.register_with_unit(
        "drive_sync_pending",
        "Size of these contents",
        Unit::Bytes,
        directions([&|drive| drive.pending.download_bytes, &|drive| drive.pending.upload_bytes]),
    );
    let values: [(&str, &str, Value); 6] = [
        (
            "lag_changes",
            "How far the server's numbering of changes is ahead of what is known here, at most",
            |drive| drive.head.saturating_sub(drive.cursor),
        ),
        ("entries", "Files and folders in the drive's folder", |drive| drive.entries),
        ("held_deletions", "Deletions that wait for a person", |drive| drive.held_deletions as u64),
        ("unsyncable_entries", "Entries that take no part, ignored ones aside", |drive| {
            drive.unsyncable_count as u64
        }),
        ("waiting_entries", "Entries that are tried again later", |drive| drive.waiting as u64),
        ("watched", "1 while the system tells of changes in the folder", |drive| {
            u64::from(drive.watched)
        }),
    ];
    for (name, help, value) in values {
        registry.register(format!("drive_sync_{name}"), help, sum(&value));
    }
    ages(registry, report, labels, now);
}

/// Per drive; those without a label of their own are added up.
fn sum(
    report: &Report,
    labels: &[String],
    value: &dyn Fn(&DriveReport) -> u64,
) -> Gauges<DriveLabel> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (drive, label) in report.drives.iter().zip(labels) {
        *sums.entry(label).or_default() += value(drive);
    }
    gauges(sums.into_iter().map(|(label, value)| ([("drive", label.to_owned())], value)))
}

/// Of drives with a label of their own: ages cannot be added up.
fn ages(registry: &mut Registry, report: &Report, labels: &[String], now: Timestamp) {
    let looked = report.drives.iter().zip(labels).filter_map(|(drive, label)| {
        let at: Timestamp = drive.audited_at.as_deref()?.parse().ok()?;
        let age = u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0);
        (label != OTHER).then(|| ([("drive", label.clone())], age))
    });
    registry.register_with_unit(
        "drive_sync_full_look_age",
        "Time since the last look at everything in the drive's folder; absent before the first",
        Unit::Seconds,
        gauges(looked),
    );
}
