//! Everything that is known of the drives at this moment: reports, and the progress of what is under
//! way. The keeper's thread puts it here; the report's file, the status and metrics are made of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::super::engine::Done;
use super::super::progress::{Now, Phase, Progress};
use super::report::{DriveReport, DriveState, Report};
use super::tally::Tally;

/// Clones share it. It outlives keepers that fail.
#[derive(Debug, Clone, Default)]
pub struct Monitor {
    facts: Arc<Mutex<Facts>>,
    file: Arc<Mutex<File>>,
}

#[derive(Debug, Default)]
struct Facts {
    tally: Tally,
    /// As the keeper has told it; `None`: there was none yet.
    report: Option<Report>,
    progress: BTreeMap<String, Progress>,
}

/// The report's file has a lock of its own: a slow disk holds nobody up who only asks.
#[derive(Debug, Default)]
struct File {
    written: Option<Report>,
    /// Before a keeper has begun, and when it has ended, nothing is written.
    is_ours: bool,
}

impl Monitor {
    /// What was done since the gateway started.
    pub fn tally(&self) -> Tally {
        self.lock().tally
    }

    /// How all drives are now; `None`: drive sync was never begun.
    pub fn report(&self) -> Option<Report> {
        let facts = self.lock();
        let mut report = facts.report.clone()?;
        for drive in &mut report.drives {
            if let Some(progress) = facts.progress.get(&drive.drive_id) {
                drive.show(&progress.now());
            }
        }
        Some(report)
    }

    /// Drive sync cannot be begun, or has ended.
    pub fn failed(&self, why: &str) {
        let mut facts = self.lock();
        let report = facts.report.get_or_insert_default();
        report.problem = Some(why.to_owned());
        report.retry_at = None;
        for drive in &mut report.drives {
            drive.state = DriveState::Stopped;
        }
        facts.progress.clear();
    }

    #[cfg(test)]
    pub(crate) fn set_for_tests(&self, report: Report, add: impl FnOnce(&mut Tally)) {
        self.publish(report);
        self.count(add);
    }

    /// A keeper begins.
    pub(super) fn begin(&self) {
        *lock(&self.file) = File { written: None, is_ours: true };
        let mut facts = self.lock();
        facts.progress.clear();
        facts.report = Some(Report { pid: std::process::id(), ..Report::default() });
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Tally)) {
        add(&mut self.lock().tally);
    }

    /// The progress of this drive is told here from now on.
    pub(super) fn follow(&self, drive_id: &str, progress: Progress) {
        self.lock().progress.insert(drive_id.to_owned(), progress);
    }

    /// How everything is when nothing is under way.
    pub(super) fn publish(&self, report: Report) {
        self.lock().report = Some(report);
    }

    /// How one drive is: the others may take their time.
    pub(super) fn publish_drive(&self, drive: DriveReport) {
        let mut facts = self.lock();
        let drives = &mut facts.report.get_or_insert_default().drives;
        match drives.iter_mut().find(|known| known.drive_id == drive.drive_id) {
            Some(known) => *known = drive,
            None => drives.push(drive),
        }
    }

    /// Writes the report if it says something new. To be called where waiting for a disk does no
    /// harm.
    pub(super) fn write(&self, report: Report, state_dir: &Path) {
        let mut file = lock(&self.file);
        if file.is_ours {
            file.write(report, state_dir);
        }
    }

    /// The same for the last time.
    pub(super) fn end(&self, state_dir: &Path) {
        let report = self.report();
        let mut file = lock(&self.file);
        if let Some(report) = report {
            file.write(report, state_dir);
        }
        file.is_ours = false;
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        lock(&self.facts)
    }
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl File {
    fn write(&mut self, mut report: Report, state_dir: &Path) {
        report.updated_at.clear();
        if self.written.as_ref() == Some(&report) {
            return;
        }
        let updated_at = Timestamp::now().to_string();
        if let Err(error) = (Report { updated_at, ..report.clone() }).write(state_dir) {
            tracing::debug!(%error, "the report on the drives could not be written");
            return;
        }
        self.written = Some(report);
    }
}

impl DriveReport {
    /// Brings it up to a moment of a tick that is under way.
    fn show(&mut self, now: &Now) {
        if now.phase == Phase::Resting {
            return;
        }
        self.doing = now.phase;
        self.listed = now.listed;
        if now.phase != Phase::Working {
            return;
        }
        self.pending = now.left().into();
        // What was in the way is told until it turns out that it is no more.
        let gets_on = now.moving > 0 || now.done != Done::default();
        match self.state {
            DriveState::Starting | DriveState::UpToDate => self.state = DriveState::Syncing,
            DriveState::Waiting | DriveState::Stopped if gets_on => {
                self.state = DriveState::Syncing;
                if self.halted {
                    (self.reason, self.retry_at) = (None, None);
                }
            }
            DriveState::Waiting | DriveState::Stopped | DriveState::Syncing | DriveState::Held => {}
        }
        self.transfers = now.transfers().map(Into::into).collect();
        self.done.add(&now.done);
        if let Some(copy) = &mut self.first_copy {
            copy.files_done += (now.done.fetched + now.done.sent) as u64;
            copy.bytes_done += now.done.fetched_bytes + now.done.sent_bytes;
            let left = now.left();
            copy.files = copy.files_done + (left.downloads + left.uploads) as u64;
            copy.bytes = copy.bytes_done + left.download_bytes + left.upload_bytes;
            copy.bytes_done = (copy.bytes_done + now.moving).min(copy.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::engine::Pending;
    use super::super::first_copy::FirstCopy;
    use super::*;

    #[test]
    fn what_was_in_the_way_is_told_until_the_drive_gets_on() {
        let (monitor, progress) = (Monitor::default(), Progress::default());
        monitor.begin();
        monitor.follow("d", progress.clone());
        let told = |before: &DriveReport| {
            monitor.publish_drive(before.clone());
            let now = monitor.report().unwrap().drives.remove(0);
            (now.state, now.reason.is_some(), now.retry_at.is_some())
        };
        let wait = |state, halted| DriveReport {
            drive_id: "d".into(),
            state,
            halted,
            reason: Some("why".into()),
            retry_at: Some("2026-11-22T10:00:25Z".into()),
            ..DriveReport::default()
        };
        let halted = [DriveState::Waiting, DriveState::Stopped].map(|state| wait(state, true));
        let partly = wait(DriveState::Waiting, false);
        for phase in [Phase::Asking, Phase::Looking, Phase::Working] {
            progress.enter(phase);
            for before in halted.iter().chain([&partly]) {
                assert_eq!(told(before), (before.state, true, true), "a try is no progress yet");
            }
        }
        progress.moved_small(1);
        for before in &halted {
            assert_eq!(told(before), (DriveState::Syncing, false, false));
        }
        assert_eq!(told(&partly), (DriveState::Syncing, true, true), "a part still waits");
    }

    #[test]
    fn a_report_moves_while_a_tick_lasts_and_is_not_written_twice() {
        let (monitor, progress) = (Monitor::default(), Progress::default());
        assert_eq!(monitor.report(), None);
        monitor.begin();
        let copy = FirstCopy {
            files_done: 10,
            files: 30,
            bytes_done: 100,
            bytes: 300,
            ..FirstCopy::default()
        };
        let drive =
            DriveReport { drive_id: "d".into(), first_copy: Some(copy), ..DriveReport::default() };
        monitor.publish_drive(DriveReport { drive_id: "d".into(), ..DriveReport::default() });
        monitor.publish_drive(drive.clone());
        monitor.follow("d", progress.clone());
        assert_eq!(monitor.report().unwrap().drives, std::slice::from_ref(&drive));

        progress.plan(Pending { downloads: 20, download_bytes: 200, ..Pending::default() });
        progress.done(Done { fetched: 5, fetched_bytes: 40, ..Done::default() });
        progress.moved_small(7);
        let shown = monitor.report().unwrap().drives.remove(0);
        assert_eq!(shown.state, DriveState::Syncing);
        assert_eq!((shown.pending.downloads, shown.pending.download_bytes), (15, 160));
        let copy = shown.first_copy.unwrap();
        assert_eq!((copy.files_done, copy.files), (15, 30));
        assert_eq!((copy.bytes_done, copy.bytes), (147, 300));

        let dir = tempfile::tempdir().unwrap();
        let report = monitor.report().unwrap();
        monitor.write(report.clone(), dir.path());
        let file = dir.path().join("status.json");
        assert_eq!(Report::read(dir.path()).unwrap().unwrap().drives, [shown]);
        std::fs::remove_file(&file).unwrap();
        monitor.write(report.clone(), dir.path());
        assert!(!file.exists(), "nothing new was to be said");
        progress.rest();
        monitor.end(dir.path());
        assert_eq!(Report::read(dir.path()).unwrap().unwrap().drives, [drive]);
        std::fs::remove_file(&file).unwrap();
        monitor.write(Report { pid: 7, ..report }, dir.path());
        assert!(!file.exists(), "a keeper that has ended writes nothing");
    }
}
