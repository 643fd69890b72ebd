//! One drive: its engine, the watch over its folder, and when it is to look again.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::disk::Disk;
use super::super::engine::{self, Engine, Look, Tick, TickError};
use super::super::model::{Local, LocalTree, Opaque};
use super::super::path::RelPath;
use super::super::plan::Blocked;
use super::super::planner::Access;
use super::super::ports::{Clock, Fs, Scope};
use super::super::progress::Progress;
use super::super::remote::{Link, RemoteDrive};
use super::super::state::{Note, State};
use super::super::wire;
use super::debounce::{Debounce, Places};
use super::folder;
use super::lookout::{Lookout, Opened};
use super::monitor::Monitor;
use super::observed::Observed;
use super::report::{DriveReport, DriveState, FirstCopy};
use super::request::{self, Request};
use super::system::{SystemClock, SystemRng};
use super::watch::Watch;
use super::{Settings, drives};

/// Between two comparisons with the server's digest.
const DIGEST: Duration = Duration::from_hours(1);
/// After something that only a person or time can mend.
const PATIENCE: Duration = Duration::from_secs(30);
/// What was replaced or removed is kept for so long.
const TRASH: Duration = Duration::from_hours(7 * 24);
/// Below this many free bytes older things in the trash go, too.
const WANT_FREE: u64 = 500 << 20;
/// A drive that rests is said to be up to date at a time that is at most so old.
const REST_TOLD: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// A drive that is kept in step.
pub(super) struct Mirror {
    engine: Engine<Disk, Observed<RemoteDrive>, SystemClock, SystemRng>,
    clock: SystemClock,
    monitor: Monitor,
    progress: Progress,
    lookout: Lookout<Watch>,
    /// Entries that could not be read at the last look; folders among them are not watched.
    closed: BTreeSet<RelPath>,
    debounce: Debounce,
    poll_at: Duration,
    audit_at: Duration,
    digest_at: Duration,
    more: bool,
    /// Nothing is done before.
    not_before: Duration,
    /// Why the last tick failed, if it did.
    trouble: Option<std::mem::Discriminant<TickError>>,
    /// A crash of the machine for which files may be held back.
    crash: Option<i64>,
    /// Disk and server were the same then.
    rested_at: Option<Timestamp>,
    pub(super) report: DriveReport,
}

/// What has become of it.
pub(super) enum Outcome {
    /// It goes on.
    Goes,
    /// It has to be made anew.
    Broken,
    /// The engine is to stop.
    Stopped,
}

/// What all mirrors share.
pub(super) struct Shared<'a> {
    pub(super) settings: &'a Settings,
    pub(super) link: &'a Link,
    pub(super) clock: SystemClock,
    pub(super) vm_id: &'a str,
    /// When the machine crashed the last time, in nanoseconds since 1970.
    pub(super) crash: Option<i64>,
    pub(super) stop: &'a CancellationToken,
    /// Bytes of a file that the server takes.
    pub(super) largest: u64,
    /// This start of the machine.
    pub(super) start: &'a str,
    pub(super) wake: &'a mpsc::Sender<()>,
    pub(super) monitor: &'a Monitor,
}

impl Mirror {
    /// Opens folder and state. Nothing is looked at before the first tick. `before` is what was
    /// known of the drive the last time.
    pub(super) fn open(
        shared: &Shared<'_>,
        drive: &wire::Drive,
        folder: &Path,
        before: DriveReport,
    ) -> anyhow::Result<Self> {
        let state = State::open(&drives::state_file(&shared.settings.state_dir, &drive.drive_id))?;
        // A folder that was known and is gone is not made again: it may be a disk that is not there.
        let is_new = state.root()?.is_none();
        let label = short(shared.vm_id);
        if let Some(owner) = shared.settings.folder_owner.filter(|_| is_new) {
            folder::make(folder, owner)
                .with_context(|| format!("make the folder {}", folder.display()))?;
        }
        let settled = state.crash_settled()?;
        let crash = shared.crash.filter(|crash| settled != Some(*crash));
        let disk = Disk::open(folder, label, is_new, crash)?.until(shared.stop.clone());
        disk.limit_files(shared.largest);
        let lookout = Lookout::over(folder, shared.wake.clone());
        let mut settings = engine::Settings::new(&drive.drive_id, label);
        settings.access = access(drive.access);
        settings.change_limit = shared.settings.change_limit;
        settings.max_batches = shared.settings.max_batches;
        shared.start.clone_into(&mut settings.start);
        let (monitor, progress) = (shared.monitor.clone(), Progress::default());
        monitor.follow(&drive.drive_id, progress.clone());
        let remote = Observed {
            drive: RemoteDrive::new(shared.link.clone(), &drive.drive_id),
            progress: progress.clone(),
            monitor: monitor.clone(),
        };
        let clock = shared.clock;
        let is_first = state.noted(Note::FirstCopy)?.is_none();
        let report = DriveReport {
            drive_id: drive.drive_id.clone(),
            name: drive.name.clone(),
            path: folder.to_owned(),
            writable: drive.access == wire::Access::Write,
            watched: lookout.problem().is_none(),
            watch_problem: lookout.problem().map(str::to_owned),
            head: drive.head_sequence,
            first_copy: is_first.then(FirstCopy::default),
            free_bytes: disk.free_space().ok(),
            ..before
        };
        let now = clock.elapsed();
        let mut engine = Engine::new(state, disk, remote, clock, SystemRng, settings);
        engine.show_progress(progress.clone());
        Ok(Self {
            engine,
            clock,
            monitor,
            progress,
            lookout,
            closed: BTreeSet::new(),
            debounce: Debounce::default(),
            poll_at: now,
            audit_at: now,
            digest_at: now + DIGEST,
            more: false,
            not_before: now,
            trouble: None,
            crash,
            rested_at: None,
            report,
        })
    }

    /// The server says what may be done, how far it is, and the size of the largest file.
    pub(super) fn hear(&mut self, drive: &wire::Drive, largest: u64) {
        self.engine.fs().limit_files(largest);
        self.engine.set_access(access(drive.access));
        self.report.writable = drive.access == wire::Access::Write;
        self.report.name.clone_from(&drive.name);
        self.report.head = drive.head_sequence;
    }

    /// When there is something to do next.
    pub(super) fn due(&self, settings: &Settings) -> Duration {
        if self.more {
            return self.not_before;
        }
        let look = self.debounce.due(settings.debounce).unwrap_or(Duration::MAX);
        self.poll_at.min(self.audit_at).min(look).max(self.not_before)
    }

    /// Takes up what has changed and what a person asks, and does what is due.
    pub(super) fn turn(&mut self, settings: &Settings) -> Outcome {
        let now = self.clock.elapsed();
        for hint in self.lookout.take() {
            if hint.is_none() {
                self.monitor.count(|tally| tally.watch_overflows += 1);
            }
            self.debounce.note(hint, now);
        }
        self.tell_of_watch();
        self.take_requests(settings);
        if self.due(settings) > now {
            return Outcome::Goes;
        }
        let audit = self.audit_at <= now;
        let scope = match self.debounce.take(settings.debounce, now) {
            _ if audit => Scope::All,
            Some(Places::Everywhere) => Scope::All,
            Some(Places::These(places)) => Scope::Only(places),
            None => Scope::Only(BTreeSet::new()),
        };
        if audit {
            self.keep_house(settings, now);
        }
        let digest = self.digest_at <= now;
        if digest {
            self.digest_at = now + DIGEST;
        }
        self.poll_at = now + settings.poll_interval;
        let whole = scope == Scope::All;
        let before = self.report.state;
        let outcome = match self.engine.tick(&Look { scope, digest }) {
            Ok(tick) => {
                self.went(&tick, whole, settings);
                if whole {
                    self.settle_crash();
                }
                Outcome::Goes
            }
            Err(error) => self.failed(&error, settings),
        };
        self.progress.rest();
        self.log_change(before);
        outcome
    }

    /// When nothing is held back any more for the sake of a crash, it is forgotten: what is emptied
    /// later is not its doing.
    fn settle_crash(&mut self) {
        let Some(crash) = self.crash else { return };
        let is_held = |tree: &LocalTree| {
            tree.values().any(|local| {
                matches!(
                    local,
                    Local::Opaque(Opaque::Suspicious | Opaque::Unreadable | Opaque::Unsettled)
                )
            })
        };
        if self.engine.local().is_none_or(is_held) {
            return;
        }
        match self.engine.settle_crash(crash) {
            Ok(()) => self.crash = None,
            Err(error) => tracing::debug!(%error, "a crash could not be noted as settled"),
        }
    }

    fn keep_house(&mut self, settings: &Settings, now: Duration) {
        self.audit_at = now + settings.audit_interval;
        self.lookout.mend();
        self.tell_of_watch();
        let disk = self.engine.fs();
        match disk.rescue_late_writes() {
            Ok(rescued) => {
                self.report.done.rescued += rescued.len();
                self.monitor.count(|tally| tally.rescued += rescued.len() as u64);
                self.report.conflicts.extend(rescued.iter().map(ToString::to_string));
            }
            Err(error) => tracing::debug!(%error, "late writes could not be looked for"),
        }
        if let Err(error) = disk.purge_trash(TRASH, WANT_FREE) {
            tracing::debug!(%error, "the trash could not be looked through");
        }
        self.report.free_bytes = disk.free_space().ok();
    }

    fn tell_of_watch(&mut self) {
        let problem = self.lookout.problem();
        self.report.watched = problem.is_none();
        self.report.watch_problem = problem.map(str::to_owned);
    }

    fn take_requests(&mut self, settings: &Settings) {
        for request in request::waiting(&settings.state_dir, &self.report.drive_id) {
            let taken = match request {
                Request::ReleaseDeletions => {
                    self.engine.release_deletions().map_err(TickError::from)
                }
                Request::Resync => self.engine.request_resync().map_err(TickError::from),
                Request::AcceptRoot => self.engine.accept_root(),
            };
            match taken {
                Ok(()) => {
                    request::done(&settings.state_dir, &self.report.drive_id, request);
                    (self.more, self.not_before) = (true, Duration::ZERO);
                }
                // It is what it is; the next look says the same.
                Err(error @ TickError::RootLost(_)) => {
                    tracing::warn!(drive = %self.report.name, %error, "its folder is not accepted");
                    request::done(&settings.state_dir, &self.report.drive_id, request);
                }
                Err(error) => tracing::warn!(%error, "a request for a drive waits"),
            }
        }
    }

    fn went(&mut self, tick: &Tick, whole: bool, settings: &Settings) {
        self.not_before = Duration::ZERO;
        self.trouble = None;
        self.more = tick.more;
        self.monitor.count(|tally| {
            tally.add(tick);
            tally.went();
            tally.full_looks += u64::from(whole);
        });
        let report = &mut self.report;
        report.take(tick);
        report.head = report.head.max(tick.cursor);
        report.reason = tick.short_of_space.map(short_of_space);
        report.halted = false;
        // Whether there is room again is looked at each time.
        let look = tick.short_of_space.map(|_| settings.poll_interval);
        report.retry_at = tick.retry_in.into_iter().chain(look).min().and_then(in_a_while);
        report.state = match () {
            () if tick.held.is_some() => DriveState::Held,
            () if tick.short_of_space.is_some() || (tick.waiting > 0 && !tick.more) => {
                DriveState::Waiting
            }
            () if tick.settled => DriveState::UpToDate,
            () => DriveState::Syncing,
        };
        report.entries = self.engine.local().map_or(0, |tree| tree.len() as u64);
        if whole {
            report.audited_at = Some(Timestamp::now().to_string());
            self.forget_settled_conflicts();
        }
        self.watch_opened(tick);
        self.note_rest(tick.settled);
        // What is left waits for something else than time.
        let stuck = !tick.more && tick.waiting > 0 && tick.done.effects() == 0;
        if tick.settled || (stuck && tick.short_of_space.is_none()) {
            self.end_first_copy();
        }
        if let Some(wait) = tick.retry_in {
            self.poll_at = self.poll_at.min(self.clock.elapsed() + wait);
        }
    }

    /// A folder that could not be read is watched as soon as it can be, and looked at once more: of
    /// what was done there meanwhile nobody has told.
    fn watch_opened(&mut self, tick: &Tick) {
        let unreadable = Blocked::Local(Opaque::Unreadable);
        let is_closed =
            |(path, why): &(RelPath, Blocked)| (*why == unreadable).then(|| path.clone());
        let now = tick.blocked.iter().filter_map(is_closed).collect();
        let before = std::mem::replace(&mut self.closed, now);
        for path in before {
            if self.closed.contains(&path) {
                continue;
            }
            match self.lookout.opened(&path) {
                Opened::Watched => self.debounce.note(Some(path), self.clock.elapsed()),
                // A look that ended early tells nothing of it.
                Opened::Closed => drop(self.closed.insert(path)),
                Opened::NoFolder => {}
            }
        }
    }

    /// A drive that rests is told to be up to date since the last minute, not anew each time.
    fn note_rest(&mut self, at_rest: bool) {
        let now = Timestamp::now();
        if at_rest {
            self.rested_at = Some(now);
        }
        let told = self.report.synced_at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
        let is_old = told.is_none_or(|told| now.duration_since(told) >= REST_TOLD);
        if let Some(rested) = self.rested_at
            && (!at_rest || is_old)
        {
            self.report.synced_at = Some(rested.to_string());
        }
    }

    /// A conflict copy that a person has renamed or deleted is none any more.
    fn forget_settled_conflicts(&mut self) {
        let Some(tree) = self.engine.local() else { return };
        let is_there =
            |copy: &String| RelPath::parse(copy).is_ok_and(|copy| tree.contains_key(&copy));
        self.report.conflicts.retain(is_there);
    }

    fn end_first_copy(&mut self) {
        let Some(copy) = &self.report.first_copy else { return };
        if let Err(error) = self.engine.note_first_copy() {
            tracing::warn!(%error, "the end of a first copy could not be noted");
            return;
        }
        if copy.files_done > 0 {
            let (files, bytes) = (copy.files_done, copy.bytes_done);
            tracing::info!(drive = %self.report.name, files, bytes, "the first copy is done");
        }
        self.report.first_copy = None;
    }

    fn failed(&mut self, error: &TickError, settings: &Settings) -> Outcome {
        let now = self.clock.elapsed();
        let tick = self.engine.interrupted();
        self.monitor.count(|tally| {
            tally.add(tick);
            tally.failed(error);
        });
        self.report.take_done(tick);
        self.note_rest(false);
        let reason = reason(error);
        let is_told = self.report.reason.as_ref() == Some(&reason);
        self.report.reason = Some(reason);
        self.report.halted = true;
        let (state, wait, outcome) = match error {
            TickError::Stopped => return Outcome::Stopped,
            TickError::Unavailable { retry_in, .. } => {
                (DriveState::Waiting, *retry_in, Outcome::Goes)
            }
            // Nothing is easier to look at than whether there is room again.
            TickError::NoSpace { .. } => {
                (DriveState::Waiting, settings.poll_interval, Outcome::Goes)
            }
            TickError::Disk(_) => (DriveState::Waiting, PATIENCE, Outcome::Goes),
            TickError::AccessLost => (DriveState::Stopped, PATIENCE, Outcome::Goes),
            TickError::RootLost(_) | TickError::State(_) => {
                (DriveState::Stopped, PATIENCE, Outcome::Broken)
            }
        };
        // What lasts is said once.
        let kind = Some(std::mem::discriminant(error));
        let news = std::mem::replace(&mut self.trouble, kind) != kind && !is_told;
        self.report.state = state;
        self.report.retry_at = in_a_while(wait);
        self.not_before = now + wait;
        let drive = &self.report.name;
        if news {
            tracing::warn!(%drive, %error, "a drive is not kept in step now");
        } else {
            tracing::debug!(%drive, %error, "a drive is still not kept in step");
        }
        outcome
    }

    /// What a person should learn from the log.
    fn log_change(&self, before: DriveState) {
        let DriveReport { name, state, held, .. } = &self.report;
        let was_in_trouble = matches!(before, DriveState::Waiting | DriveState::Stopped);
        match state {
            DriveState::Held if before != DriveState::Held => {
                let why = held.as_deref().unwrap_or_default();
                tracing::warn!(drive = %name, why, "deletions wait for a person");
            }
            DriveState::UpToDate if was_in_trouble => {
                tracing::info!(drive = %name, "a drive is kept in step again");
            }
            DriveState::Starting
            | DriveState::Syncing
            | DriveState::UpToDate
            | DriveState::Held
            | DriveState::Waiting
            | DriveState::Stopped => {}
        }
    }
}

fn short_of_space(free: u64) -> String {
    format!("only {} MiB are free on the disk, too little for what is to be fetched", free >> 20)
}

fn reason(error: &TickError) -> String {
    match error {
        TickError::NoSpace { free } => {
            format!("only {} MiB are free on the disk: nothing is done", free >> 20)
        }
        TickError::Stopped
        | TickError::RootLost(_)
        | TickError::AccessLost
        | TickError::Unavailable { .. }
        | TickError::Disk(_)
        | TickError::State(_) => error.to_string(),
    }
}

/// The wall time then, as reports have it.
pub(super) fn in_a_while(wait: Duration) -> Option<String> {
    Timestamp::now().checked_add(wait).ok().map(|at| at.to_string())
}

fn access(access: wire::Access) -> Access {
    match access {
        wire::Access::Read => Access::Read,
        wire::Access::Write => Access::Write,
    }
}

/// Enough of an id to tell machines apart in a file name.
fn short(vm_id: &str) -> &str {
    let end = vm_id.char_indices().nth(12).map_or(vm_id.len(), |(end, _)| end);
    &vm_id[..end]
}
