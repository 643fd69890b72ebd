//! Carries out a subagent's plan: the run in its work dir, and what it tells while it goes on.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{AgentEvent, AgentOutcome, AgentReader, Stream};
use crate::process::{Ended, Exit, Run, RunIds};
use crate::providers::run::spec;
use crate::providers::{Left, OutputMode, Place, Plan, PlanRunError, WorkDir};

/// Chunks of stdout, of at most 64 KiB, between who reads them and who tells what is in them.
const CHUNKS: usize = 2;

/// A subagent's run that has ended.
#[derive(Debug)]
pub struct AgentRun {
    /// What it came to.
    pub outcome: AgentOutcome,
    /// How the CLI ended.
    pub exit: Exit,
    /// Who ended it.
    pub ended: Ended,
    /// From the CLI's start to its exit.
    pub duration: std::time::Duration,
    /// Text of stderr, bounded.
    pub stderr: String,
    /// More of stdout came than was kept; never so of a run that streams.
    pub stdout_truncated: bool,
    /// More of stderr came than was kept.
    pub stderr_truncated: bool,
    /// Lines of a streaming run that could not be read.
    pub ignored_lines: u64,
}

/// Runs the plan in `dir`, as its owner. `started` is told when the CLI runs; `told` gets what each piece of
/// output tells, in order, as it comes (nothing of a run that does not stream), and while it takes
/// its time the CLI waits. Dropping the future ends the run's whole tree.
pub async fn run_agent(
    place: &Place<'_>,
    dir: &WorkDir,
    plan: &Plan,
    mut reader: Box<dyn AgentReader>,
    cancel: &CancellationToken,
    started: impl AsyncFnOnce(RunIds),
    mut told: impl AsyncFnMut(AgentEvent),
) -> Result<AgentRun, PlanRunError> {
    let run = Run::spawn(spec(place, dir, plan)).await?;
    started(run.ids().clone()).await;
    let limit = Some(plan.time_limit);
    let streams = plan.output == OutputMode::Stream;
    let mut events = Vec::new();
    let (ended, ignored_lines) = if streams {
        let (tap, mut chunks) = mpsc::channel::<Vec<u8>>(CHUNKS);
        let mut stream = Stream::new(reader.as_mut());
        let read = async {
            while let Some(chunk) = chunks.recv().await {
                stream.push(&chunk, &mut events);
                for event in events.drain(..) {
                    told(event).await;
                }
            }
            let ignored = stream.end(&mut events);
            for event in events.drain(..) {
                told(event).await;
            }
            ignored
        };
        tokio::join!(run.wait_tapped(limit, cancel, tap), read)
    } else {
        (run.wait(limit, cancel).await, 0)
    };
    let ended = ended?;
    let stderr_truncated = ended.stderr.truncated;
    let left = Left {
        stdout_truncated: !streams && ended.stdout.truncated,
        stdout: if streams { String::new() } else { ended.stdout.into_text() },
        stderr: ended.stderr.into_text(),
        exit: ended.exit,
        ended: ended.ended,
        file: None,
    };
    Ok(AgentRun {
        outcome: reader.outcome(&left),
        exit: left.exit,
        ended: left.ended,
        duration: ended.duration,
        stderr: left.stderr,
        stdout_truncated: left.stdout_truncated,
        stderr_truncated,
        ignored_lines,
    })
}
