//! The report as it changes, for a person at a terminal.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;

use super::{describe, look};
use crate::cli::context::Context;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::ui::Ui;
use crate::cli::{asynchronous, printable};
use crate::drive_sync::keeper::report::Report;

const EVERY: Duration = Duration::from_secs(1);
/// Cursor to the top, and nothing left of what was there.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the report anew each second until it is interrupted.
pub(super) fn run(context: &Context, args: &super::DriveSyncArgs) -> Outcome {
    if !io::stdout().is_terminal() {
        return Err(Failure::new("--watch is for people at a terminal")
            .hint("without it the report is printed once; --json is for programs"));
    }
    asynchronous::short(async {
        loop {
            let (_, report) = look(context, args)?;
            let text = describe::report(&report, context.options.verbose, Timestamp::now());
            context.ui.out_raw(&format!("{CLEAR}{text}\nCtrl-C ends this.\n"))?;
            tokio::time::sleep(EVERY).await;
        }
    })?
}

/// Shows on a terminal what drives have to do, for as long as they have; does not end by itself.
pub(crate) async fn follow(ui: &Ui, state_dir: &Path) -> std::convert::Infallible {
    if !ui.stderr_moves() {
        return std::future::pending().await;
    }
    let mut shown: Option<ProgressBar> = None;
    loop {
        let report = Report::read(state_dir).ok().flatten().unwrap_or_default();
        // A report of an earlier gateway moves nothing.
        let works = report.drives.iter().filter(|_| report.pid == std::process::id());
        let lines: Vec<String> = works
            .filter_map(|drive| Some(format!("{}  {}", drive.name, describe::progress(drive)?)))
            .map(|line| printable::line(&line))
            .collect();
        if lines.is_empty() {
            if let Some(bar) = shown.take() {
                bar.finish_and_clear();
            }
        } else {
            let bar = shown.get_or_insert_with(|| {
                ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner())
            });
            bar.set_message(lines.join("; "));
            bar.tick();
        }
        tokio::time::sleep(EVERY / 4).await;
    }
}
