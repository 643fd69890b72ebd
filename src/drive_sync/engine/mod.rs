//! Carries out what the planner asks for, one look at a time, so that the base never leads.
//!
//! Generic over disk, server, clock and chance, and blocking: one thread per drive calls
//! [`Engine::tick`] again and again. Everything that must outlive a crash is in the [`State`]; what
//! is here besides can be lost at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::model::{Content, LocalTree, VersionId};
use super::path::{PathError, RelPath};
use super::planner::Access;
use super::ports::{Clock, Drive, Fs, Rng, Scope};
use super::progress::Progress;
use super::state::{Note, State, StateError};

mod apply;
mod backoff;
mod failure;
mod fetch;
mod intents;
mod local;
mod pull;
mod report;
mod resync;
mod root;
mod send;
mod survey;
#[cfg(test)]
mod tests;
mod tick;
mod unclear;
mod writes;

pub use failure::TickError;
pub use report::{Deed, Done, Missed, Pending, Tick};

use backoff::{Patience, Troubles};
use tick::Idle;

/// Under this many free bytes nothing is fetched.
const DOWNLOAD_FLOOR: u64 = 250 << 20;
/// Under this many free bytes nothing is done at all.
const FLOOR: u64 = 50 << 20;
/// Effects that become durable together.
const BATCH: usize = 1000;
/// Bytes after which a batch of downloads is closed.
const BATCH_BYTES: u64 = 256 << 20;
/// Contents that are sent together.
const UPLOADS: usize = 1000;
/// New entries of one side that are planned at once.
const WINDOW: usize = 8192;
/// A broken upload of at least so many bytes is gone on with; smaller ones are sent anew.
const WORTH_RESUMING: u64 = 1 << 20;
/// Entries whose failure is told one by one.
const FAILED_TOLD: usize = 100;
/// After this long a tick ends between two batches.
const TICK_LENGTH: Duration = Duration::from_secs(20);

/// How one drive is kept in step.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The drive.
    pub drive_id: String,
    /// This machine, in the names of conflict copies.
    pub vm: String,
    /// What the server lets us do.
    pub access: Access,
    /// Changes of the feed in one answer.
    pub change_limit: u32,
    /// Answers of the feed in one tick.
    pub max_batches: u32,
    /// Bytes: with less free, nothing is fetched.
    pub download_floor: u64,
    /// Bytes: with less free, nothing is done.
    pub floor: u64,
    /// Effects that become durable together.
    pub batch: usize,
    /// Contents that are sent together.
    pub uploads: usize,
    /// New entries of one side that are planned at once, so that a first copy does not take memory
    /// for all of it. At least one.
    pub window: usize,
    /// A tick that takes longer ends between two batches, and asks for another.
    pub tick_length: Duration,
    /// Names this start of the machine (or container): devices have other numbers after another one.
    /// Empty: not known.
    pub start: String,
}

impl Settings {
    /// The defaults.
    pub fn new(drive_id: &str, vm: &str) -> Self {
        Self {
            drive_id: drive_id.to_owned(),
            vm: vm.to_owned(),
            access: Access::Write,
            change_limit: 50,
            max_batches: 25,
            download_floor: DOWNLOAD_FLOOR,
            floor: FLOOR,
            batch: BATCH,
            uploads: UPLOADS,
            window: WINDOW,
            tick_length: TICK_LENGTH,
            start: String::new(),
        }
    }
}

/// What a tick is to look at, besides the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Places of the disk where something may have changed. The first tick of an engine looks
    /// everywhere.
    pub scope: Scope,
    /// Whether to compare with the server's digest.
    pub digest: bool,
}

impl Look {
    /// At the whole disk.
    pub fn everywhere() -> Self {
        Self { scope: Scope::All, digest: false }
    }

    /// At these places of the disk; none: only at the feed.
    pub fn at(places: BTreeSet<RelPath>) -> Self {
        Self { scope: Scope::Only(places), digest: false }
    }
}

/// An upload that did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BrokenOff {
    operation_id: String,
    content: Content,
    expect: Option<VersionId>,
}

/// Keeps one drive's folder and the server in step.
pub struct Engine<F, D, C, R> {
    state: State,
    fs: F,
    drive: D,
    clock: C,
    rng: R,
    settings: Settings,
    /// `None`: not known, the next scan is of everything.
    local: Option<LocalTree>,
    /// Places that have to be looked at again.
    dirty: BTreeSet<RelPath>,
    /// The next scan is of everything.
    everywhere: bool,
    /// There are files that were not read yet: what is missing may be one of them, by another name.
    has_unread: bool,
    /// What the server lets us do, as far as it has told.
    access: Access,
    /// Where the feed ended when it was last read to its end; `None`: there is more to read.
    head: Option<u64>,
    /// The next plan may leave out new entries beyond the window.
    narrow: bool,
    /// Nothing could be done at the last look; holds until something changes.
    idle: Option<Idle>,
    /// Places of the remote tree that are not to be planned; `None`: to be found again.
    unclear: Option<unclear::Unclear>,
    /// Entries of the server that this disk cannot hold; found together with the unclear places.
    unholdable: Vec<(String, PathError)>,
    troubles: Troubles,
    patience: Patience,
    /// Uploads that broke off: the server knows by their operation id what of them it has.
    broken_off: BTreeMap<RelPath, BrokenOff>,
    /// Places at which something has failed in this tick.
    stuck: BTreeSet<RelPath>,
    /// When this tick began, on the clock's own scale.
    began: Duration,
    /// What this tick has done so far.
    now: Tick,
    /// The same for those who watch.
    progress: Progress,
}

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    /// Nothing is read or done before the first tick.
    pub fn new(state: State, fs: F, drive: D, clock: C, rng: R, settings: Settings) -> Self {
        let access = settings.access;
        let began = clock.elapsed();
        Self {
            state,
            fs,
            drive,
            clock,
            rng,
            settings,
            local: None,
            dirty: BTreeSet::new(),
            everywhere: true,
            has_unread: false,
            access,
            head: None,
            narrow: true,
            idle: None,
            unclear: None,
            unholdable: Vec::new(),
            troubles: Troubles::default(),
            patience: Patience::default(),
            broken_off: BTreeMap::new(),
            stuck: BTreeSet::new(),
            began,
            now: Tick::default(),
            progress: Progress::default(),
        }
    }

    /// From here on it is told there what is going on.
    pub fn show_progress(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// What outlives this engine.
    pub fn into_state(self) -> State {
        self.state
    }

    /// What it knows, for reports.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The disk that it works on.
    pub fn fs(&self) -> &F {
        &self.fs
    }

    /// The disk as it was seen last.
    pub fn local(&self) -> Option<&LocalTree> {
        self.local.as_ref()
    }

    /// What the last tick had done when it ended in an error.
    pub fn interrupted(&self) -> &Tick {
        &self.now
    }

    /// Nothing is held back any more for the sake of a crash of the machine.
    pub fn settle_crash(&mut self, crash: i64) -> Result<(), StateError> {
        self.state.settle_crash(crash)
    }

    /// Everything was copied once.
    pub fn note_first_copy(&mut self) -> Result<(), StateError> {
        self.state.note(Note::FirstCopy, self.clock.wall())
    }

    /// A person lets held deletions go.
    pub fn release_deletions(&mut self) -> Result<(), StateError> {
        self.idle = None;
        self.state.release_deletions(true)
    }

    /// A person asks for everything to be compared anew, and tried again. Both sides are kept.
    pub fn request_resync(&mut self) -> Result<(), StateError> {
        self.idle = None;
        self.troubles = Troubles::default();
        self.local = None;
        self.state.begin_resync(false)
    }

    /// The server has said what we may do.
    pub fn set_access(&mut self, access: Access) {
        if self.access != access {
            self.access = access;
            self.idle = None;
        }
    }
}
