//! The one thread that does everything: who is there, whose turn it is, what is told.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::ports::{Clock, RemoteError};
use super::super::remote::Link;
use super::super::wire::{Drive, Hello};
use super::mirror::{Mirror, Outcome, Shared, in_a_while};
use super::monitor::Monitor;
use super::renewal::Renewal;
use super::report::{DriveReport, DriveState, Report, Totals};
use super::request::{self, Request};
use super::system::SystemClock;
use super::{Identity, Settings, drives, system};
use crate::fs;

/// Between two questions which drives there are.
const GREETING: Duration = Duration::from_mins(1);
/// Where the server is asked more often than usual, so it is here: once in so many polls.
const POLLS: u32 = 12;
/// The same while the server cannot be reached, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// A look for what a person asks, at least so often.
const GLANCE: Duration = Duration::from_secs(1);
/// A drive that could not be opened is tried again after so long.
const REOPEN: Duration = Duration::from_secs(30);
/// Says when the machine crashed.
const CRASH: &str = "crashed";
/// What is told of a drive that the server does not name any more.
const TAKEN_AWAY: &str = "this gateway may not use it any more, or it is gone; its files stay as they \
    are, and are told of until the folder is removed";

pub(super) struct Control {
    settings: Settings,
    identity: Identity,
    link: Link,
    runtime: Handle,
    stop: CancellationToken,
    clock: SystemClock,
    wake: (mpsc::Sender<()>, mpsc::Receiver<()>),
    mirrors: BTreeMap<String, Slot>,
    greet_at: Duration,
    greetings_lost: u32,
    renewal: Option<Renewal>,
    problem: Option<String>,
    retry_at: Option<String>,
    monitor: Monitor,
    /// What the last keeper told of its drives.
    before: BTreeMap<String, DriveReport>,
    running: Running,
    start: String,
    /// Bytes of a file that the server takes.
    largest: u64,
    /// Drives that this gateway had, and may not use any more: what is told of them.
    lost: BTreeMap<String, DriveReport>,
}

/// A drive, kept or not.
struct Slot {
    drive: Drive,
    folder: PathBuf,
    mirror: Option<Mirror>,
    /// When it could not be opened: what is told of it, and when to try again.
    report: DriveReport,
    open_at: Duration,
}

impl Control {
    pub(super) fn new(
        settings: Settings,
        identity: Identity,
        monitor: Monitor,
        runtime: Handle,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        fs::ensure_private_dir(&settings.state_dir)?;
        let running = Running::begin(&settings.state_dir)?;
        monitor.begin();
        let before = last_told(&settings.state_dir);
        let lost = lost_drives(&settings.state_dir, &before);
        let client_key = client_key(&settings, &identity.vm_id)?;
        let link = Link::new(
            identity.client.clone(),
            identity.backend.clone(),
            identity.anon_key.clone(),
            client_key,
            identity.token.clone(),
            stop.clone(),
            settings.network_timeout,
        )
        .context("prepare connections")?
        .with_keys(identity.session.clone(), identity.keep_token.clone());
        Ok(Self {
            settings,
            identity,
            link,
            runtime,
            stop,
            clock: SystemClock::new(),
            wake: mpsc::channel(1),
            mirrors: BTreeMap::new(),
            greet_at: Duration::ZERO,
            greetings_lost: 0,
            renewal: None,
            problem: None,
            retry_at: None,
            monitor,
            before,
            running,
            start: system::start(),
            largest: u64::MAX,
            lost,
        })
    }

    /// Until it is stopped.
    pub(super) fn run(mut self) {
        while !self.stop.is_cancelled() {
            self.greet();
            if !self.turns() {
                break;
            }
            self.publish();
            self.wait();
        }
        for slot in self.mirrors.values_mut() {
            slot.mirror = None;
            slot.report.state = DriveState::Stopped;
        }
        self.problem = Some("drive sync does not run".to_owned());
        self.retry_at = None;
        self.publish();
        self.monitor.end(&self.settings.state_dir);
        self.running.end();
    }

    /// Asks which drives there are, and for a new token in time.
    fn greet(&mut self) {
        let now = self.clock.elapsed();
        if self.renewal.is_some_and(|renewal| renewal.is_due(now, Timestamp::now())) {
            self.renew(now);
        }
        if self.greet_at > now {
            return;
        }
        match self.link.hello() {
            Ok(hello) => {
                self.greetings_lost = 0;
                self.greet_at = now + GREETING.min(self.settings.poll_interval * POLLS);
                self.problem = None;
                self.retry_at = None;
                self.welcome(&hello, now);
            }
            Err(RemoteError::Stopped) => {}
            Err(error) => {
                let wait =
                    (RETRY.0 * 2_u32.saturating_pow(self.greetings_lost.min(16))).min(RETRY.1);
                self.greetings_lost += 1;
                self.greet_at = now + wait;
                self.retry_at = in_a_while(wait);
                self.monitor.count(super::tally::Tally::not_greeted);
                // Drives that are kept already tell for themselves how they are.
                if self.mirrors.is_empty() {
                    tracing::warn!(%error, "the drives are not known");
                }
                self.problem = Some(format!("{error}"));
            }
        }
    }

    fn renew(&mut self, now: Duration) {
        match self.link.renew() {
            Ok(renewed) => {
                self.renewal = Some(Renewal::plan(&renewed.expires_at, now, Timestamp::now()));
            }
            Err(error) => {
                tracing::warn!(%error, "the drives' token could not be renewed");
                self.renewal = Some(Renewal::after(GREETING, now, Timestamp::now()));
            }
        }
    }

    fn welcome(&mut self, hello: &Hello, now: Duration) {
        if self.renewal.is_none() {
            self.renewal = Some(Renewal::plan(&hello.token_expires_at, now, Timestamp::now()));
        }
        let folders = drives::folders(&self.settings.root, &hello.drives);
        self.largest = hello.limits.file_bytes;
        // What may not be seen any more is let be, its files with it.
        for (id, slot) in self.mirrors.extract_if(.., |id, _| !folders.contains_key(id)) {
            tracing::warn!(drive = %slot.drive.name, "the drive is gone, or was taken away");
            self.lost.insert(id, slot.report);
        }
        // One that comes back goes on where it stopped.
        self.lost.retain(|id, report| !folders.contains_key(id) && report.path.is_dir());
        for report in self.lost.values_mut() {
            report.state = DriveState::Stopped;
            report.reason = Some(TAKEN_AWAY.to_owned());
        }
        for drive in &hello.drives {
            let Some(folder) = folders.get(&drive.drive_id) else { continue };
            let slot = self.mirrors.entry(drive.drive_id.clone()).or_insert_with(|| Slot {
                drive: drive.clone(),
                folder: folder.clone(),
                mirror: None,
                report: self.before.remove(&drive.drive_id).unwrap_or_else(|| DriveReport {
                    drive_id: drive.drive_id.clone(),
                    path: folder.clone(),
                    ..DriveReport::default()
                }),
                open_at: now,
            });
            slot.drive = drive.clone();
            slot.report.name.clone_from(&drive.name);
            if let Some(mirror) = &mut slot.mirror {
                mirror.hear(drive, self.largest);
            }
        }
    }

    /// Each drive has its turn. False: to stop.
    fn turns(&mut self) -> bool {
        let now = self.clock.elapsed();
        let shared = Shared {
            settings: &self.settings,
            link: &self.link,
            clock: self.clock,
            vm_id: &self.identity.vm_id,
            crash: self.running.crash,
            start: &self.start,
            stop: &self.stop,
            largest: self.largest,
            wake: &self.wake.0,
            monitor: &self.monitor,
        };
        for slot in self.mirrors.values_mut() {
            let accept = Request::AcceptRoot;
            let state_dir = &shared.settings.state_dir;
            let is_asked = || request::is_waiting(state_dir, &slot.report.drive_id, accept);
            if slot.mirror.is_none() && (slot.open_at <= now || is_asked()) {
                slot.open(&shared, now);
                if slot.mirror.is_none() {
                    // There is nothing that could be accepted.
                    request::done(state_dir, &slot.report.drive_id, accept);
                }
            }
            let Some(mirror) = &mut slot.mirror else { continue };
            // A turn may take long, and is watched.
            self.monitor.publish_drive(mirror.report.clone());
            let outcome = mirror.turn(shared.settings);
            slot.report = mirror.report.clone();
            self.monitor.publish_drive(slot.report.clone());
            match outcome {
                Outcome::Goes => {}
                Outcome::Broken => {
                    slot.mirror = None;
                    slot.open_at = now + REOPEN;
                }
                Outcome::Stopped => return false,
            }
        }
        true
    }

    /// Of all drives, those that were taken away at the end.
    fn reports(&self) -> Vec<DriveReport> {
        let kept = self.mirrors.values().map(|slot| &slot.report);
        kept.chain(self.lost.values()).cloned().collect()
    }

    /// Tells how the drives are, for the teller to write.
    fn publish(&self) {
        self.monitor.publish(Report {
            pid: std::process::id(),
            updated_at: String::new(),
            problem: self.problem.clone(),
            retry_at: self.retry_at.clone(),
            drives: self.reports(),
        });
    }

    fn wait(&mut self) {
        let now = self.clock.elapsed();
        let next = self
            .mirrors
            .values()
            .map(|slot| match &slot.mirror {
                Some(mirror) => mirror.due(&self.settings),
                None => slot.open_at,
            })
            .min()
            .unwrap_or(Duration::MAX);
        let wait = next.min(self.greet_at).saturating_sub(now).min(GLANCE);
        let (stop, wake) = (&self.stop, &mut self.wake.1);
        if stop.is_cancelled() {
            return;
        }
        self.runtime.block_on(async {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = wake.recv() => {}
                () = tokio::time::sleep(wait) => {}
            }
        });
    }
}

impl Slot {
    fn open(&mut self, shared: &Shared<'_>, now: Duration) {
        match Mirror::open(shared, &self.drive, &self.folder, self.report.until_it_goes()) {
            Ok(mirror) => self.mirror = Some(mirror),
            Err(error) => {
                tracing::warn!(drive = %self.drive.name, "{error:#}");
                self.report.state = DriveState::Stopped;
                self.report.reason = Some(format!("{error:#}"));
                self.report.retry_at = in_a_while(REOPEN);
                self.report.halted = true;
                self.open_at = now + REOPEN;
            }
        }
    }
}

/// Drives that were told of before this start and have a state: those that the server does not name
/// any more are still told of.
fn lost_drives(
    state_dir: &Path,
    before: &BTreeMap<String, DriveReport>,
) -> BTreeMap<String, DriveReport> {
    let has_state = |id: &String| drives::state_file(state_dir, id).exists();
    let known = before.iter().filter(|(id, _)| has_state(id));
    let waiting =
        |report: &DriveReport| DriveReport { state: DriveState::Waiting, ..report.clone() };
    known.map(|(id, report)| (id.clone(), waiting(report))).collect()
}

/// What a person would miss after a restart, by drive. A report that cannot be read is none.
fn last_told(state_dir: &Path) -> BTreeMap<String, DriveReport> {
    let report = Report::read(state_dir).ok().flatten().unwrap_or_default();
    let lasting = |drive: &DriveReport| DriveReport { done: Totals::default(), ..drive.lasting() };
    report.drives.iter().map(|drive| (drive.drive_id.clone(), lasting(drive))).collect()
}

/// Names this mirror to the server.
fn client_key(settings: &Settings, vm_id: &str) -> anyhow::Result<String> {
    if let Some(key) = &settings.client_key {
        return Ok(key.clone());
    }
    let place = settings.state_dir.join("client-id");
    let own = if let Some(own) = fs::read_private(&place, 100)? {
        own
    } else {
        let own = uuid::Uuid::new_v4().to_string().into_bytes();
        fs::save(&place, &own)?;
        own
    };
    let hash = Sha256::new().chain_update(vm_id).chain_update(&own).finalize();
    Ok(super::super::model::Sha256(hash.into()).hex())
}

/// That this process keeps the drives, and whether the last one that did ended with the machine.
struct Running {
    mark: PathBuf,
    /// Held as long as this lives.
    _lock: File,
    /// When this machine was found to have crashed, the last time, in nanoseconds since 1970. Each
    /// drive knows whether it still holds something back for it.
    crash: Option<i64>,
}

impl Running {
    fn begin(state_dir: &Path) -> anyhow::Result<Self> {
        let lock = fs::edit_private(&state_dir.join("lock"))?;
        lock.try_lock().with_context(|| {
            format!("another process keeps the drives of {}", state_dir.display())
        })?;
        let mark = state_dir.join("running");
        let boot = system::boot();
        let before = fs::read_private(&mark, 100)?;
        if before.is_some_and(|before| !before.is_empty() && before != boot) {
            tracing::warn!(
                "the machine was not shut down in good order; emptied files are held back"
            );
            // Before the mark: it must not be forgotten by a second crash.
            fs::save(&state_dir.join(CRASH), SystemClock::new().wall().to_string().as_bytes())?;
        }
        fs::save(&mark, &boot)?;
        let crash = fs::read_private(&state_dir.join(CRASH), 100)?;
        let crash = crash.and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
        Ok(Self { mark, _lock: lock, crash })
    }

    fn end(&self) {
        let _ = std::fs::remove_file(&self.mark);
    }
}
