//! `logs`: the last lines, then what follows, across rotation and truncation.

mod audit;
mod follow;
mod line;
mod tail;

use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::args::LogsArgs;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use crate::config::Purpose;
use crate::fs::FsError;
use follow::Follower;
use line::Filter;

/// Lines shown first when nothing else was asked for.
const LINES: usize = 200;
/// Between looks for new lines.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs the command.
pub(crate) fn run(context: &Context, args: &LogsArgs) -> Outcome {
    let paths = context.paths(Purpose::Look)?;
    let path = &if args.audit { paths.audit_file() } else { paths.log_file };
    let render = if args.audit { audit::render } else { line::render };
    let filter = Filter { level: args.level, since: oldest(args.since) };
    let most = match (args.lines, args.since) {
        (Some(lines), _) => usize::try_from(lines).unwrap_or(usize::MAX),
        (None, Some(_)) => usize::MAX,
        (None, None) => LINES,
    };
    let Some(mut follower) = Follower::at_end(path)? else {
        return Err(missing(path, args.audit));
    };
    let last = tail::last_lines(path, follower.start(), most, &filter)
        .map_err(|error| FsError::io("read", path, error))?;
    let show = |line: &str| -> io::Result<()> {
        if args.json { context.ui.out(line) } else { context.ui.out(&render(line)) }
    };
    for line in last {
        show(&line)?;
    }
    if args.no_follow {
        return Ok(Exit::Done);
    }
    loop {
        let lines = follower.poll();
        for line in lines.iter().filter(|line| filter.shows(line)) {
            show(line)?;
        }
        // A flood is kept up with: the next look is at once while there is more.
        if lines.is_empty() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn missing(path: &Path, audit: bool) -> Failure {
    let (what, hint) = if audit {
        ("audit log", "pairing and each gateway that runs write one: `panorama-gateway start`")
    } else {
        ("log", "a gateway in the background writes one: `panorama-gateway start`")
    };
    Failure::new(format!("there is no {what} at {}", path.display())).hint(hint)
}

fn oldest(since: Option<Duration>) -> Option<Timestamp> {
    let since = jiff::SignedDuration::try_from(since?).ok()?;
    Timestamp::now().checked_sub(since).ok()
}
