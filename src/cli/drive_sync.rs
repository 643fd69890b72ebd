//! `drive-sync`: how the drives of this machine are, and a person's word to them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::{age, asynchronous, printable, table};
use crate::config::{Environment, Purpose};
use crate::drive_sync::keeper::Settings;
use crate::drive_sync::keeper::report::{DriveReport, DriveState, Report, Unsyncable};
use crate::drive_sync::keeper::request::{self, Request};

/// How long the keeper may take to hear a request.
const HEARING: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

#[derive(Debug, Subcommand)]
pub(crate) enum DriveSyncCommand {
    /// How each drive is
    Status(DriveSyncArgs),
    /// Copies that were made because two sides changed the same file
    Conflicts(DriveSyncArgs),
    /// Let deletions go that are held because there are so many of them
    ReleaseDeletions(DriveSyncArgs),
    /// Compare everything with the server anew; nothing is deleted by it
    Resync(DriveSyncArgs),
    /// Take the folder that is there now for the drive's; both sides are kept
    AcceptRoot(DriveSyncArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DriveSyncArgs {
    /// One drive, by name, folder name or id [default: all, or the only one]
    #[arg(long, value_name = "DRIVE")]
    drive: Option<String>,
    /// Where drive sync keeps its state [default: as the gateway has it]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(context: &Context, command: &DriveSyncCommand) -> Outcome {
    match command {
        DriveSyncCommand::Status(args) => status(context, args),
        DriveSyncCommand::Conflicts(args) => conflicts(context, args),
        DriveSyncCommand::ReleaseDeletions(args) => {
            ask(context, args, Request::ReleaseDeletions, "its held deletions are let go")
        }
        DriveSyncCommand::Resync(args) => {
            ask(context, args, Request::Resync, "everything is compared with the server anew")
        }
        DriveSyncCommand::AcceptRoot(args) => {
            let done = "the folder that is there is taken, unless it is another drive's or missing";
            ask(context, args, Request::AcceptRoot, done)
        }
    }
}

fn state_dir(context: &Context, args: &DriveSyncArgs) -> Result<PathBuf, Failure> {
    if let Some(dir) = &args.state_dir {
        return Ok(dir.clone());
    }
    let settings = context.settings(Purpose::Look)?;
    Ok(drive_settings(&settings.environment)?.state_dir)
}

/// Drive sync's settings, or what is wrong with them.
pub(crate) fn drive_settings(environment: &Environment) -> Result<Settings, Failure> {
    Settings::read(environment).map_err(|error| Failure::new(error.to_string()))
}

fn read(context: &Context, args: &DriveSyncArgs) -> Result<(PathBuf, Report), Failure> {
    let dir = state_dir(context, args)?;
    let report = Report::read(&dir).map_err(|error| {
        Failure::new(format!("the report in {} cannot be read", dir.display()))
            .cause(format!("{error:#}"))
    })?;
    let mut report = report.ok_or_else(|| {
        Failure::new(format!("drive sync has never run with its state in {}", dir.display())).hint(
            "it runs in managed VMs with PANORAMA_DRIVE_SYNC_ENABLED=1, or by `sandbox up \
             --drive-sync DIR`; --state-dir names another place",
        )
    })?;
    if let Some(wanted) = &args.drive {
        let known: Vec<String> = report.drives.iter().map(|drive| drive.name.clone()).collect();
        report.drives.retain(|drive| is_meant(drive, wanted));
        if report.drives.is_empty() {
            return Err(Failure::new(format!("there is no drive {}", printable::line(wanted)))
                .hint(format!("known: {}", printable::line(&known.join(", ")))));
        }
    }
    Ok((dir, report))
}

fn is_meant(drive: &DriveReport, wanted: &str) -> bool {
    drive.name == wanted
        || drive.drive_id == wanted
        || drive.path.file_name().is_some_and(|name| name == wanted)
}

fn status(context: &Context, args: &DriveSyncArgs) -> Outcome {
    let (_, report) = read(context, args)?;
    if args.json {
        context.ui.out(&table::json(&json!(report)))?;
    } else {
        context.ui.out_raw(&describe(&report, jiff::Timestamp::now()))?;
    }
    let is_well = report.problem.is_none()
        && report.drives.iter().all(|drive| drive.state != DriveState::Stopped);
    Ok(if is_well { Exit::Done } else { Exit::Failed })
}

fn conflicts(context: &Context, args: &DriveSyncArgs) -> Outcome {
    let (_, report) = read(context, args)?;
    if args.json {
        let all: Vec<_> = report
            .drives
            .iter()
            .map(|drive| json!({"drive_id": drive.drive_id, "conflicts": drive.conflicts}))
            .collect();
        context.ui.out(&table::json(&json!(all)))?;
        return Ok(Exit::Done);
    }
    let copies: Vec<_> = report
        .drives
        .iter()
        .flat_map(|drive| drive.conflicts.iter().map(|copy| drive.path.join(copy)))
        .collect();
    if copies.is_empty() {
        context.ui.out("no conflict copies since the gateway started")?;
    }
    for copy in copies {
        context.ui.out(&printable::line(&copy.display().to_string()))?;
    }
    Ok(Exit::Done)
}

fn ask(context: &Context, args: &DriveSyncArgs, request: Request, done: &str) -> Outcome {
    let (dir, report) = read(context, args)?;
    let [drive] = &report.drives[..] else {
        let names: Vec<_> = report.drives.iter().map(|drive| drive.name.as_str()).collect();
        return Err(Failure::new("there are several drives")
            .hint(format!("say which: --drive, one of: {}", printable::line(&names.join(", ")))));
    };
    request::ask(&dir, &drive.drive_id, request)?;
    let heard = asynchronous::short(async {
        let heard = async {
            while request::is_waiting(&dir, &drive.drive_id, request) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(HEARING, heard).await.is_ok()
    })?;
    let name = printable::line(&drive.name);
    if heard {
        context.ui.out(&format!("{name}: {done}"))?;
    } else {
        context.ui.out(&format!("{name}: {done} when the gateway runs and has time for it"))?;
    }
    Ok(Exit::Done)
}

/// The report for people.
fn describe(report: &Report, now: jiff::Timestamp) -> String {
    let mut text = String::new();
    let mut line = |indent: &str, words: &str| {
        text.push_str(indent);
        text.push_str(&printable::line(words));
        text.push('\n');
    };
    if let Some(problem) = &report.problem {
        line("", &format!("problem: {problem}"));
    }
    if report.drives.is_empty() {
        line("", "no drives");
    }
    for drive in &report.drives {
        line("", &format!("{}  {}", drive.name, state(drive, now)));
        line("  ", &format!("folder       {}", drive.path.display()));
        if let Some(reason) = &drive.reason {
            line("  ", &format!("reason       {reason}"));
        }
        if !drive.writable {
            line("  ", "access       read only: what changes here is not sent");
        }
        if let Some(held) = &drive.held {
            line(
                "  ",
                &format!("held         {held}; `drive-sync release-deletions` lets them go"),
            );
        }
        if let Some(pending) = pending(drive) {
            line("  ", &format!("to do        {pending}"));
        }
        line("  ", &format!("done         {}", done(drive)));
        let lag = drive.head.saturating_sub(drive.cursor);
        let behind = if lag == 0 { String::new() } else { format!(", up to {lag} behind") };
        line("  ", &format!("entries      {} (change {}{behind})", drive.entries, drive.cursor));
        if !drive.conflicts.is_empty() {
            let count = drive.conflicts.len();
            line("  ", &format!("conflicts    {count}; `drive-sync conflicts` lists them"));
        }
        list(&mut line, "not synced", &drive.unsyncable, drive.unsyncable_count);
        list(&mut line, "failed", &drive.failed, drive.failed.len());
        if !drive.watched {
            line("  ", "watch        none: changes are found by looking now and then");
        }
        if let Some(free) = drive.free_bytes {
            line("  ", &format!("free         {}", size(free)));
        }
    }
    text
}

fn list(line: &mut impl FnMut(&str, &str), what: &str, entries: &[Unsyncable], count: usize) {
    if count == 0 {
        return;
    }
    line("  ", &format!("{what:<12} {count}"));
    for entry in entries.iter().take(10) {
        line("    ", &format!("{}: {}", entry.path, entry.reason));
    }
    if count > 10 {
        line("    ", &format!("and {} more; --json lists up to 100", count - 10));
    }
}

fn state(drive: &DriveReport, now: jiff::Timestamp) -> String {
    let word = match drive.state {
        DriveState::Starting => "starting",
        DriveState::Syncing => "syncing",
        DriveState::UpToDate => "up to date",
        DriveState::Held => "deletions are held",
        DriveState::Waiting => "waiting",
        DriveState::Stopped => "stopped",
    };
    let since = drive.synced_at.as_deref().and_then(|time| time.parse().ok());
    match since {
        Some(time) if drive.state != DriveState::UpToDate => {
            format!("{word} (last up to date {} ago)", age::between(time, now))
        }
        _ => word.to_owned(),
    }
}

fn pending(drive: &DriveReport) -> Option<String> {
    let pending = &drive.pending;
    let mut parts = Vec::new();
    if pending.downloads > 0 {
        parts.push(format!("{} to fetch ({})", pending.downloads, size(pending.download_bytes)));
    }
    if pending.uploads > 0 {
        parts.push(format!("{} to send ({})", pending.uploads, size(pending.upload_bytes)));
    }
    for (count, what) in [(pending.deletions, "to delete"), (pending.others, "other steps")] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    (drive.state == DriveState::Syncing && !parts.is_empty()).then(|| parts.join(", "))
}

fn done(drive: &DriveReport) -> String {
    let done = &drive.done;
    format!(
        "{} fetched ({}), {} sent ({}), {} moved, {} deleted",
        done.downloads,
        size(done.download_bytes),
        done.uploads,
        size(done.upload_bytes),
        done.moves,
        done.deletions
    )
}

/// Bytes with at most one digit after the point.
fn size(bytes: u64) -> String {
    let mut unit = 0;
    let mut tenths = bytes.saturating_mul(10);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive_sync::keeper::report::{Counts, Totals};

    #[test]
    fn a_person_reads_how_each_drive_is() {
        let busy = DriveReport {
            name: "Team".into(),
            path: "/panorama/drives/team".into(),
            writable: true,
            state: DriveState::Syncing,
            cursor: 120,
            head: 150,
            pending: Counts {
                downloads: 1200,
                download_bytes: 5_000_000,
                uploads: 1,
                upload_bytes: 12,
                ..Counts::default()
            },
            done: Totals { downloads: 300, download_bytes: 1 << 20, ..Totals::default() },
            entries: 301,
            conflicts: vec!["plan (conflict vm 2026-11-22T10-00-00Z abcdef01).md".into()],
            watched: true,
            free_bytes: Some(3 << 30),
            ..DriveReport::default()
        };
        let link = Unsyncable { path: "a\u{1b}[2Jlink".into(), reason: "a symbolic link".into() };
        let held = DriveReport {
            name: "Notes".into(),
            path: "/panorama/drives/notes".into(),
            state: DriveState::Held,
            synced_at: Some("2026-11-22T09:58:00Z".into()),
            held: Some("15 of 20 entries would be deleted".into()),
            unsyncable: vec![link],
            unsyncable_count: 1,
            ..DriveReport::default()
        };
        let problem = Some("the server cannot be reached: refused".to_owned());
        let report = Report { problem, drives: vec![busy, held], ..Report::default() };
        insta::assert_snapshot!(describe(&report, "2026-11-22T10:00:00Z".parse().unwrap()));
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (5_000_000, "4.7 MiB"),
            (u64::MAX, "1677721.5 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
