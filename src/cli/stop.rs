//! `stop`.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::args::{StopArgs, Wait};
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::instance::{Instance, Process};
use super::socket::{self, Answer};
use super::ui::Ui;
use crate::config::{Paths, Purpose};
use crate::runtime::status::{LiveStatus, Phase};

/// How long a plain `stop` waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long cancelled work may take to end: its own grace, and telling the backend.
const PATIENCE_WITH_FORCE: Duration = Duration::from_secs(20);
/// Signals that come sooner after each other count once.
const SECOND_SIGNAL_AFTER: Duration = Duration::from_millis(1200);
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Runs the command.
pub(crate) fn run(context: &Context, args: &StopArgs) -> Outcome {
    let paths = context.paths(Purpose::Look)?;
    let limit = match args.wait {
        Some(Wait::Forever) => None,
        Some(Wait::AtMost(limit)) => Some(limit),
        None if args.force => Some(PATIENCE_WITH_FORCE),
        None => Some(PATIENCE),
    };
    match stop(&paths, limit, args.force, &context.ui)? {
        Stopped::WasNotRunning { stale_pid } => {
            context.ui.out("The gateway is not running.")?;
            if let (Some(pid), true) = (stale_pid, context.options.verbose) {
                context.ui.note(&format!(
                    "{} names {pid}, which is not a gateway",
                    paths.pid_file.display()
                ));
            }
            Ok(Exit::Done)
        }
        Stopped::Ended => {
            context.ui.out("The gateway has stopped.")?;
            Ok(Exit::Done)
        }
        Stopped::NotYet(live) if args.wait.is_some() || args.force => Err(Failure::new(format!(
            "the gateway has not stopped yet: {}",
            what_is_left(live.as_deref())
        ))
        .hint(if args.force {
            "it goes on ending; `panorama-gateway status` says how far it is"
        } else {
            "wait longer, or cancel the work with `panorama-gateway stop --force`"
        })),
        Stopped::NotYet(live) => {
            context.ui.out(&format!(
                "The gateway is still draining: {}.",
                what_is_left(live.as_deref())
            ))?;
            context.ui.note(
                "`panorama-gateway stop --wait` waits for it; `panorama-gateway stop --force` cancels the work",
            );
            Ok(Exit::Done)
        }
    }
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// There was nothing to stop.
    WasNotRunning {
        /// What the pid file wrongly says.
        stale_pid: Option<i32>,
    },
    /// It is gone.
    Ended,
    /// It was told, and is still there.
    NotYet(Option<Box<LiveStatus>>),
}

/// Tells a running gateway to stop and waits at most `limit` for its end.
pub(crate) fn stop(
    paths: &Paths,
    limit: Option<Duration>,
    force: bool,
    ui: &Ui,
) -> Result<Stopped, Failure> {
    let (pid, found) = match Instance::find(paths) {
        Instance::Stopped { stale_pid } => return Ok(Stopped::WasNotRunning { stale_pid }),
        Instance::Running { pid: Some(pid), live } => (pid, live),
        Instance::Running { pid: None, .. } => {
            return Err(Failure::new("a gateway runs, but its process could not be found")
                .hint(format!("look for who holds {}", paths.instance_lock().display())));
        }
    };
    let process = Process::of(pid);
    let start = Instant::now();
    // A cancel request is a request to stop, too. A signal beside it would be one request more,
    // and the third makes a gateway leave without telling how its jobs ended.
    let cancelled = force && socket::cancel(&paths.socket());
    // One that drains was told already: a second signal would cancel the work that is waited for.
    let drains = found.is_some_and(|live| live.phase == Phase::Draining);
    if force && !cancelled || !force && !drains {
        send(&process, pid)?;
    }
    let mut second_signal_due = force && !cancelled;
    let mut told = false;
    while process.is_alive() {
        let waited = start.elapsed();
        if limit.is_some_and(|limit| waited >= limit) {
            return Ok(Stopped::NotYet(live(paths)));
        }
        if second_signal_due && waited >= SECOND_SIGNAL_AFTER {
            second_signal_due = false;
            send(&process, pid)?;
        }
        if !told && waited >= PATIENCE {
            told = true;
            ui.note(&format!("still draining: {}", what_is_left(live(paths).as_deref())));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(Stopped::Ended)
}

fn send(process: &Process, pid: i32) -> Result<(), Failure> {
    process.signal(Signal::SIGTERM).map(drop).map_err(|error| {
        Failure::new(format!("could not signal the gateway (pid {pid})"))
            .hint("stop it as the user who started it")
            .cause(error.to_string())
    })
}

fn live(paths: &Paths) -> Option<Box<LiveStatus>> {
    match socket::status(&paths.socket()) {
        Answer::Live(status) => Some(Box::new(status)),
        Answer::Nobody | Answer::Silent(_) => None,
    }
}

fn what_is_left(live: Option<&LiveStatus>) -> String {
    match live {
        None => "it does not say what it waits for".to_owned(),
        Some(live) if live.active_jobs.is_empty() => {
            live.detail.clone().unwrap_or_else(|| "no jobs are left".to_owned())
        }
        Some(live) => {
            let jobs: Vec<_> =
                live.active_jobs.iter().map(|job| format!("{} {}", job.job_type, job.id)).collect();
            let number = jobs.len();
            let word = if number == 1 { "job" } else { "jobs" };
            format!("{number} {word} in hand ({})", jobs.join(", "))
        }
    }
}
