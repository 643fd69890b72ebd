//! Writes the report while the drives' thread is at work, and a line to the log now and then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::first_copy::{FirstCopy, Pace};
use super::monitor::Monitor;
use super::report::Report;

/// Between two reports.
const TELL: Duration = Duration::from_millis(500);
/// Between two lines of the log on a first copy.
const LINE: Duration = Duration::from_secs(30);

/// Tells until it is dropped.
pub(super) struct Teller {
    monitor: Monitor,
    state_dir: PathBuf,
    began: Instant,
    paces: BTreeMap<String, Pace>,
    lines: BTreeMap<String, Duration>,
}

impl Teller {
    pub(super) fn new(monitor: Monitor, state_dir: &Path) -> Self {
        Self {
            monitor,
            state_dir: state_dir.to_owned(),
            began: Instant::now(),
            paces: BTreeMap::new(),
            lines: BTreeMap::new(),
        }
    }

    /// Does not end by itself.
    pub(super) async fn run(mut self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(TELL).await;
            if let Some(report) = self.look() {
                let (monitor, state_dir) = (self.monitor.clone(), self.state_dir.clone());
                // It holds the disk up, not the runtime; a panic in it costs one report.
                let written =
                    tokio::task::spawn_blocking(move || monitor.write(report, &state_dir));
                let _ = written.await;
            }
        }
    }

    fn look(&mut self) -> Option<Report> {
        let mut report = self.monitor.report()?;
        let now = self.began.elapsed();
        let copies: Vec<&str> = report
            .drives
            .iter()
            .filter(|drive| drive.first_copy.is_some())
            .map(|drive| &*drive.drive_id)
            .collect();
        self.paces.retain(|id, _| copies.contains(&&**id));
        self.lines.retain(|id, _| copies.contains(&&**id));
        for drive in &mut report.drives {
            let Some(copy) = &mut drive.first_copy else { continue };
            let pace = self.paces.entry(drive.drive_id.clone()).or_default();
            copy.seconds_left = pace.left(copy, now).map(|left| left.as_secs());
            let last = self.lines.entry(drive.drive_id.clone()).or_insert(now);
            if now.saturating_sub(*last) >= LINE {
                *last = now;
                log(&drive.name, copy);
            }
        }
        Some(report)
    }
}

fn log(drive: &str, copy: &FirstCopy) {
    tracing::info!(
        drive,
        files = copy.files_done,
        of = copy.files,
        bytes = copy.bytes_done,
        of_bytes = copy.bytes,
        seconds_left = copy.seconds_left,
        "the first copy goes on"
    );
}
