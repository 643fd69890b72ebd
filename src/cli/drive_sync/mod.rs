//! `drive-sync`: how the drives of this machine are, and a person's word to them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

mod describe;
mod watch;

use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::{age, asynchronous, printable, table};
use crate::config::{Environment, Purpose};
use crate::drive_sync::keeper::Settings;
use crate::drive_sync::keeper::report::{DriveReport, DriveState, Report};
use crate::drive_sync::keeper::request::{self, Request};
pub(crate) use watch::follow;

/// How long the keeper may take to hear a request.
const HEARING: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Subcommand)]
pub(crate) enum DriveSyncCommand {
    /// How each drive is; --verbose tells more
    Status(StatusArgs),
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
pub(crate) struct StatusArgs {
    #[command(flatten)]
    common: DriveSyncArgs,
    /// Show it anew each second
    #[arg(long, conflicts_with = "json")]
    watch: bool,
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
        DriveSyncCommand::Status(args) if args.watch => watch::run(context, &args.common),
        DriveSyncCommand::Status(args) => status(context, &args.common),
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

fn look(context: &Context, args: &DriveSyncArgs) -> Result<(PathBuf, Report), Failure> {
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
    if report.problem.is_none() && !lives(report.pid) {
        report.died(&died(&report));
    }
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

/// Whether there is such a process. One that may not be signalled is there.
fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

fn died(report: &Report) -> String {
    let told: Option<jiff::Timestamp> = report.updated_at.parse().ok();
    let ago = told.map(|told| age::between(told, jiff::Timestamp::now())).unwrap_or_default();
    format!("drive sync does not run; this is how it was {ago} ago")
}

fn is_meant(drive: &DriveReport, wanted: &str) -> bool {
    drive.name == wanted
        || drive.drive_id == wanted
        || drive.path.file_name().is_some_and(|name| name == wanted)
}

fn status(context: &Context, args: &DriveSyncArgs) -> Outcome {
    let (_, report) = look(context, args)?;
    if args.json {
        context.ui.out(&table::json(&json!(report)))?;
    } else {
        let now = jiff::Timestamp::now();
        context.ui.out_raw(&describe::report(&report, context.options.verbose, now))?;
    }
    let is_well = report.problem.is_none()
        && report.drives.iter().all(|drive| drive.state != DriveState::Stopped);
    Ok(if is_well { Exit::Done } else { Exit::Failed })
}

fn conflicts(context: &Context, args: &DriveSyncArgs) -> Outcome {
    let (_, report) = look(context, args)?;
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
        context.ui.out("no conflict copies")?;
    }
    for copy in copies {
        context.ui.out(&printable::line(&copy.display().to_string()))?;
    }
    Ok(Exit::Done)
}

fn ask(context: &Context, args: &DriveSyncArgs, request: Request, done: &str) -> Outcome {
    let (dir, report) = look(context, args)?;
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
