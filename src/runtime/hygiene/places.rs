//! What a gateway leaves on disk, where, and within which bounds.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::open_files::OpenFiles;
use super::plan::{Bounds, Found};
use crate::config::Paths;
use crate::jobs::journal::{MAX_BYTES, MAX_RECORDS};
use crate::jobs::{MODEL_WORK, SUBAGENT_WORK};
use crate::observe::{audit, logging};
use crate::providers::{KeptBounds, VALIDATION_WORK};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const MIB: u64 = 1024 * 1024;

/// Who looks after a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeper {
    /// The sweep.
    Sweep,
    /// The sweep, where it can be seen what is open.
    SweepOfClosed,
    /// Whoever writes it.
    Owner,
}

/// One kind of what lies on disk.
#[derive(Debug)]
pub(super) struct Place {
    /// A stable name.
    pub(super) kind: &'static str,
    /// For people.
    pub(super) title: &'static str,
    pub(super) bounds: Bounds,
    /// Most entries.
    pub(super) entries: usize,
    pub(super) keeper: Keeper,
    pub(super) found: Vec<Entry>,
}

/// One of what is there.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// Nothing refers to it any more.
    stray: bool,
    /// Only who writes it touches it.
    written: bool,
}

impl Place {
    fn new(kind: &'static str, title: &'static str, keeper: Keeper, bounds: Bounds) -> Self {
        Self { kind, title, bounds, entries: usize::MAX, keeper, found: Vec::new() }
    }

    fn of(mut self, found: Vec<PathBuf>) -> Self {
        let entry = |path| Entry { path, stray: false, written: false };
        self.found.extend(found.into_iter().map(entry));
        self
    }
}

fn bounds(age: Duration, bytes: u64, spare: Duration) -> Bounds {
    Bounds { age, bytes, spare }
}

/// Everything that is bounded. Reads directories.
pub(super) fn places(paths: &Paths) -> Vec<Place> {
    use Keeper::{Owner, Sweep, SweepOfClosed};
    let journal = paths.journal();
    let kept = KeptBounds::USUAL;
    let mut records = Place::new("journal", "journal", Owner, bounds(DAY * 365, MAX_BYTES, DAY))
        .of(list(&journal, |path| has_extension(path, "json")));
    records.entries = MAX_RECORDS;
    let work: Vec<PathBuf> = [MODEL_WORK, VALIDATION_WORK]
        .iter()
        .flat_map(|kind| list(&paths.work(kind), |_| true))
        .collect();
    vec![
        records,
        Place::new("events", "events", SweepOfClosed, bounds(DAY * 7, 1024 * MIB, DAY))
            .of(list(&journal.join("events"), |_| true)),
        Place::new("rejected", "refused results", Sweep, bounds(DAY * 7, 256 * MIB, HOUR))
            .of(list(&journal.join("rejected"), |_| true)),
        Place::new("work", "work", Sweep, bounds(DAY, 2048 * MIB, DAY)).of(work),
        Place::new("kept", "kept folders", Owner, bounds(kept.age, kept.bytes, HOUR))
            .of(list(&paths.work(SUBAGENT_WORK), |_| true)),
        Place::new("tmp", "tmp", Sweep, bounds(DAY * 7, 4096 * MIB, DAY))
            .of(list(&paths.tmp(), |_| true)),
        Place::new("leftovers", "leftovers", Sweep, bounds(DAY, MIB, DAY))
            .of(list(&paths.dir, |path| is_hidden(path) && has_extension(path, "tmp"))),
        rotated("logs", "logs", &paths.log_file, logging::KEEP, logging::ROTATE_AT, DAY * 90),
        rotated("audit", "audit", &paths.audit_file(), audit::KEEP, audit::ROTATE_AT, DAY * 365),
    ]
}

/// A log with its forerunners. The one that is written counts, but only its owner touches it.
fn rotated(
    kind: &'static str,
    title: &'static str,
    file: &Path,
    keep: u32,
    size: u64,
    age: Duration,
) -> Place {
    // A line that is longer than the rest of a file goes into it whole.
    let most = size.saturating_mul(u64::from(keep) + 2);
    let mut place = Place::new(kind, title, Keeper::Sweep, bounds(age, most, HOUR));
    let (Some(dir), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str()))
    else {
        return place;
    };
    for path in list(dir, |_| true) {
        let rest = path.file_name().and_then(|other| other.to_str()?.strip_prefix(name));
        let number = rest.and_then(|rest| rest.strip_prefix('.')?.parse::<u32>().ok());
        match (rest, number) {
            (Some(""), _) => place.found.push(Entry { path, stray: false, written: true }),
            (_, Some(number)) if number > 0 => {
                place.found.push(Entry { path, stray: number > keep, written: false });
            }
            _ => {}
        }
    }
    place
}

/// The files and directories in `dir` whose names are wanted, in the order of their names; none of
/// a link to elsewhere.
fn list(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    if !dir.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Vec::new();
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| wanted(path))
        .collect();
    found.sort_unstable();
    found
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// What is known of an entry. `live`: names of what jobs in hand work with.
pub(super) fn look(
    entry: &Entry,
    now: SystemTime,
    open: &OpenFiles,
    live: &HashSet<String>,
) -> Found {
    let Entry { path, stray, written } = entry;
    let (bytes, changed) = measure(path);
    let named = path.file_name().and_then(|name| name.to_str());
    Found {
        bytes,
        age: changed.and_then(|at| now.duration_since(at).ok()).unwrap_or_default(),
        in_use: *written || open.has(path) || named.is_some_and(|name| live.contains(name)),
        stray: *stray,
    }
}

/// Bytes of an entry and all below it, and the last change of any of them; links not followed.
pub(super) fn measure(path: &Path) -> (u64, Option<SystemTime>) {
    let (mut bytes, mut changed, mut left) = (0_u64, None, vec![path.to_owned()]);
    while let Some(path) = left.pop() {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        changed = changed.max(metadata.modified().ok());
        if metadata.is_dir() {
            let below = std::fs::read_dir(&path).into_iter().flatten().flatten();
            left.extend(below.map(|entry| entry.path()));
        } else {
            bytes = bytes.saturating_add(metadata.len());
        }
    }
    (bytes, changed)
}
