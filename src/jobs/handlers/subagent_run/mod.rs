//! `subagent_run`: one run of a coding agent of the team, by an agent CLI of this host.
//!
//! The checks come first and only read; a run that passes them all is accepted and taken in hand.
//! Then rows are written: the start, live events while the CLI works, the end, the last events. What
//! decides is pure (`target`, `policy`, `request`, `metadata`, `finalise`); what acts is here, in
//! `course` and in `shutdown`.

mod course;
mod finalise;
mod metadata;
mod policy;
mod request;
mod shutdown;
mod target;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Finished, Host};
use crate::backend::BackendError;
use crate::jobs::patience::read;
use crate::jobs::progress::Progress;
use crate::jobs::run_events;
use crate::jobs::stop::JobStop;
use crate::jobs::subagents::ActiveRun;
use crate::model::{Job, JobStatus};
use crate::providers;
use course::{Course, shut_down};
pub(in crate::jobs) use finalise::finished;
pub(in crate::jobs) use metadata::context;
use policy::FullControl;
use request::Config;
use target::{Asked, Target, asked, refuse};

/// A run that was accepted.
struct Prepared {
    asked: Asked,
    target: Target,
    full_control: FullControl,
    /// This gateway runs in a managed guest.
    guest: bool,
    active: ActiveRun,
}

pub(super) async fn run(
    host: &Host,
    job: &Job,
    stop: &JobStop,
    progress: &Progress<'_>,
) -> Finished {
    let asked = match asked(&job.payload) {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let prepared = tokio::select! {
        // Cancel safe: it only reads.
        prepared = prepare(host, progress, &asked) => prepared,
        () = shut_down(stop) => return call_off(host, progress, &asked).await,
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(refusal) => return refusal,
    };
    let Target { subagent_id, run_id, .. } = &prepared.target;
    progress.is_for(subagent_id, run_id).await;
    let (events, driver) = run_events::open(host, subagent_id, run_id, CancellationToken::new());
    let work = async {
        let prepared = &prepared;
        let course = Course { host, job, stop, progress, prepared, events: &events };
        let finished = Box::pin(course.run()).await;
        settle(events).await;
        finished
    };
    let (finished, _) = tokio::join!(work, driver.run());
    finished
}

/// The last event is in the table before the job ends.
async fn settle(events: run_events::RunEvents) {
    let is_told = events.settled().await;
    tracing::debug!(figures = ?events.figures(), is_told, "the run's events");
    if is_told {
        events.remove().await;
    }
}

/// A shutdown before the run was accepted.
async fn call_off(host: &Host, progress: &Progress<'_>, asked: &Asked) -> Finished {
    let called_off = shutdown::call_off(host, progress, asked).await;
    let Some(work) = progress.subagent().await.filter(|_| !called_off.events.is_empty()) else {
        return called_off.finished;
    };
    let stop = CancellationToken::new();
    let (events, driver) = run_events::open(host, &work.subagent_id, &work.run_id, stop);
    let tell = async {
        for (event_type, payload) in called_off.events {
            events.tell(event_type, payload).await;
        }
        settle(events).await;
    };
    tokio::join!(tell, driver.run());
    called_off.finished
}

/// All checks, in their order; an error is the job's end. It only reads.
async fn prepare(
    host: &Host,
    progress: &Progress<'_>,
    asked: &Asked,
) -> Result<Prepared, Finished> {
    let row = match asked.subagent() {
        Some(id) => read(host, || host.api.subagent(&id))
            .await
            .map_err(|error| unread("the subagent", asked, &error))?,
        None => None,
    };
    let target = asked.target(row.as_ref(), host.api.gateway())?;
    let (full_control, guest) = check_policy(host, progress, asked, &target).await?;
    // Before the run's row is read: a cancel that comes from now on finds it.
    let active = host.subagents.enter(&target.subagent_id, &target.run_id);
    let run = read(host, || host.api.subagent_run(&target.run_id))
        .await
        .map_err(|error| unread("the run", asked, &error))?;
    target.accept(run.as_ref())?;
    Ok(Prepared { asked: asked.clone(), target, full_control, guest, active })
}

async fn check_policy(
    host: &Host,
    progress: &Progress<'_>,
    asked: &Asked,
    target: &Target,
) -> Result<(FullControl, bool), Finished> {
    let state = read(host, || host.api.control_state())
        .await
        .map_err(|error| unread("this gateway's row", asked, &error))?;
    policy::may_run(state.as_ref()).map_err(|reason| {
        let message = format!("Agents cannot run here now: {reason}");
        refuse(JobStatus::Failed, &message, names(asked))
    })?;
    let saved = host.saved_config().await;
    let guest = saved.as_ref().is_ok_and(crate::config::SavedConfig::is_guest);
    let id = target.provider;
    let standing = host.providers.standing(id);
    let provider = match (providers::by_id(id), &standing.installed) {
        (Some(provider), Some(installed)) => {
            let root = nix::unistd::geteuid().is_root();
            provider.full_control(installed, root, guest)
        }
        (_, None) | (None, _) => Err(finalise::failure_text(id, standing.absence())),
    };
    let wanted = Config(&target.config).wants_full_control();
    let audit = progress.audit();
    audit.toggle("wanted", wanted);
    if let Some(state) = &state {
        audit.toggle("team", state.full_control_enabled);
    }
    if let Ok(saved) = &saved {
        audit.toggle("host", saved.full_control());
    }
    let full_control = FullControl::judge(
        wanted,
        state.is_some_and(|state| state.full_control_enabled),
        saved.map(|saved| saved.full_control()),
        provider,
    );
    audit.toggle("full_control", full_control.effective());
    Ok((full_control, guest))
}

fn unread(what: &str, asked: &Asked, error: &BackendError) -> Finished {
    let message = format!("Could not read {what}: {}", error.report());
    refuse(JobStatus::Failed, &message, names(asked))
}

fn names(asked: &Asked) -> Value {
    json!({"subagent_id": asked.subagent_id})
}
