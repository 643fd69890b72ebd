//! One drive: its engine, the watch over its folder, and when it is to look again.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::disk::Disk;
use super::super::engine::{self, Engine, Look, Tick, TickError};
use super::super::model::{Local, LocalTree, Opaque};
use super::super::planner::Access;
use super::super::ports::{Clock, Fs, Scope};
use super::super::remote::{Link, RemoteDrive};
use super::super::state::State;
use super::super::wire;
use super::debounce::{Debounce, Places};
use super::folder;
use super::report::{DriveReport, DriveState};
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

/// A drive that is kept in step.
pub(super) struct Mirror {
    engine: Engine<Disk, RemoteDrive, SystemClock, SystemRng>,
    clock: SystemClock,
    watch: Option<Watch>,
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
}

impl Mirror {
    /// Opens folder and state. Nothing is looked at before the first tick.
    pub(super) fn open(
        shared: &Shared<'_>,
        drive: &wire::Drive,
        folder: &Path,
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
        let watch = Watch::over(folder, shared.wake.clone())
            .inspect_err(|error| {
                tracing::warn!(folder = %folder.display(), %error, "changes are found by looking only");
            })
            .ok();
        let mut settings = engine::Settings::new(&drive.drive_id, label);
        settings.access = access(drive.access);
        settings.change_limit = shared.settings.change_limit;
        settings.max_batches = shared.settings.max_batches;
        shared.start.clone_into(&mut settings.start);
        let remote = RemoteDrive::new(shared.link.clone(), &drive.drive_id);
        let clock = shared.clock;
        let report = DriveReport {
            drive_id: drive.drive_id.clone(),
            name: drive.name.clone(),
            path: folder.to_owned(),
            writable: drive.access == wire::Access::Write,
            head: drive.head_sequence,
            ..DriveReport::default()
        };
        let now = clock.elapsed();
        Ok(Self {
            engine: Engine::new(state, disk, remote, clock, SystemRng, settings),
            clock,
            watch,
            debounce: Debounce::default(),
            poll_at: now,
            audit_at: now,
            digest_at: now + DIGEST,
            more: false,
            not_before: now,
            trouble: None,
            crash,
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
        for hint in self.watch.as_mut().map(Watch::take).unwrap_or_default() {
            self.debounce.note(hint, now);
        }
        self.report.watched = self.watch.as_ref().is_some_and(Watch::is_complete);
        self.take_requests(settings);
        if self.due(settings) > now {
            return Outcome::Goes;
        }
        let audit = self.audit_at <= now;
        let scope = match self.debounce.take(settings.debounce, now) {
            _ if audit => Scope::All,
            Some(Places::Everywhere) => Scope::All,
            Some(Places::These(places)) => Scope::Only(places),
            None => Scope::Only(std::collections::BTreeSet::new()),
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
        let outcome = self.engine.tick(&Look { scope, digest });
        match outcome {
            Ok(tick) => {
                self.went(&tick, whole);
                if whole {
                    self.settle_crash();
                }
            }
            Err(error) => return self.failed(&error, settings),
        }
        Outcome::Goes
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
        let disk = self.engine.fs();
        match disk.rescue_late_writes() {
            Ok(rescued) => {
                self.report.done.rescued += rescued.len();
                self.report.conflicts.extend(rescued.iter().map(ToString::to_string));
            }
            Err(error) => tracing::debug!(%error, "late writes could not be looked for"),
        }
        if let Err(error) = disk.purge_trash(TRASH, WANT_FREE) {
            tracing::debug!(%error, "the trash could not be looked through");
        }
        self.report.free_bytes = disk.free_space().ok();
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

    fn went(&mut self, tick: &Tick, whole: bool) {
        self.not_before = Duration::ZERO;
        self.trouble = None;
        self.more = tick.more;
        let report = &mut self.report;
        report.take(tick);
        report.head = report.head.max(tick.cursor);
        report.reason = tick.short_of_space.map(|free| format!("only {free} bytes are free"));
        report.state = match () {
            () if tick.held.is_some() => DriveState::Held,
            () if tick.short_of_space.is_some() || (tick.waiting > 0 && !tick.more) => {
                DriveState::Waiting
            }
            () if tick.at_rest => DriveState::UpToDate,
            () => DriveState::Syncing,
        };
        report.entries = self.engine.local().map_or(0, |tree| tree.len() as u64);
        let time = Timestamp::now().to_string();
        if whole {
            report.audited_at = Some(time.clone());
        }
        if tick.at_rest {
            report.synced_at = Some(time);
        }
        if let Some(wait) = tick.retry_in {
            self.poll_at = self.poll_at.min(self.clock.elapsed() + wait);
        }
    }

    fn failed(&mut self, error: &TickError, settings: &Settings) -> Outcome {
        let now = self.clock.elapsed();
        self.report.take(self.engine.interrupted());
        self.report.reason = Some(format!("{error}"));
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
        let news = std::mem::replace(&mut self.trouble, kind) != kind;
        self.report.state = state;
        self.not_before = now + wait;
        let drive = &self.report.name;
        if news {
            tracing::warn!(%drive, %error, "a drive is not kept in step now");
        } else {
            tracing::debug!(%drive, %error, "a drive is still not kept in step");
        }
        outcome
    }
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
