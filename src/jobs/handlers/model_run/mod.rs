//! `model_run`: one answer of a model, by an agent CLI of this host.

mod debug;
mod payload;
mod result;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::{Finished, Host};
use crate::jobs::progress::Progress;
use crate::jobs::stop::JobStop;
use crate::model::Job;
use crate::process::{Ended, RunError};
use crate::providers::schema::{Mismatch, schema_errors};
use crate::providers::{
    self, ErrorCode, Failure, Format, ModelRequest, Place, Plan, PlanRun, PlanRunError, Provider,
    Ran, run_plan,
};
use payload::Asked;
use result::Verdict;

/// The kind of work dirs.
pub(crate) const WORK: &str = "model";
/// From the first signal to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How long a write of `debug` may take: nobody waits for it for its own sake.
const DEBUG_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn run(
    host: &Host,
    job: &Job,
    stop: &JobStop,
    progress: &Progress<'_>,
) -> Finished {
    let asked = match payload::parse(&job.payload) {
        Ok(asked) => asked,
        Err(message) => return result::refused(&message),
    };
    let id = asked.provider;
    let standing = host.providers.standing(id);
    let (Some(provider), Some(installed)) = (providers::by_id(id), &standing.installed) else {
        let message = format!("{} cannot be used: {}", id.title(), standing.absence());
        return result::not_run(id.command(), ErrorCode::ProviderUnavailable, &message);
    };
    let plan = match provider.plan(&asked.request, installed) {
        Ok(plan) => plan,
        Err(error) => return result::refused(&error.to_string()),
    };
    carry_out(host, job, &asked, provider, &plan, stop, progress).await
}

async fn carry_out(
    host: &Host,
    job: &Job,
    asked: &Asked,
    provider: &dyn Provider,
    plan: &Plan,
    stop: &JobStop,
    progress: &Progress<'_>,
) -> Finished {
    let place = Place {
        work: host.work(WORK),
        guest: host.guest.clone(),
        environment: &host.environment,
        umask: host.caller_umask,
        grace: GRACE,
    };
    let command = debug::command_line(&host.redactor, plan);
    let before = debug::before(&host.redactor, asked, plan, &work_dir(&place, job));
    progress.audit().command(&command, &work_dir(&place, job).display().to_string());
    progress.audit().starts().await;
    let started = async |ids| progress.run_started(&ids).await;
    let (ran, ()) = tokio::join!(
        run_plan(&place, job.id.as_str(), plan, stop.token(), started),
        tell_debug(host, job, &before),
    );
    if let Ok(ran) = &ran {
        progress.audit().exit(ran.left.exit, ran.left.ended);
    }
    let ran = match ran {
        Ok(ran) if ran.left.ended == Ended::Cancelled => return Finished::stopped(),
        Ok(ran) => ran,
        Err(error) => return not_run(host, job, asked, &command, error),
    };
    let verdict = decide(provider, &asked.request, plan, &ran);
    host.learn_secrets().await;
    let summary = match &verdict {
        Verdict::Failure(failure) => failure.summary.as_ref(),
        Verdict::Answer(_) | Verdict::OverTheBound(_) => None,
    };
    tell_debug(host, job, &debug::after(&host.redactor, before, &ran, summary)).await;
    match &verdict {
        Verdict::Answer(_) => host.providers.ran(of_job(asked, job), Ok(())),
        Verdict::Failure(failure) => host.providers.ran(of_job(asked, job), Err(failure)),
        // How much a model has to say does not tell whether its CLI works.
        Verdict::OverTheBound(_) => {}
    }
    let mismatches = mismatches(asked, &verdict).await;
    result::finish(&host.redactor, asked, &command, &ran, verdict, &mismatches)
}

fn decide(provider: &dyn Provider, request: &ModelRequest, plan: &Plan, ran: &PlanRun) -> Verdict {
    result::judge(ran, |left| provider.decode(request, plan, left))
}

/// How an answer does not fit the caller's schema: no CLI guarantees that it does. Beside the
/// runtime, for large answers take their time.
async fn mismatches(asked: &Asked, verdict: &Verdict) -> Vec<Mismatch> {
    let (Format::Json { schema }, Verdict::Answer(answer)) = (&asked.request.format, verdict)
    else {
        return Vec::new();
    };
    let (schema, output) = (Value::Object(schema.clone()), answer.output.clone());
    let check = move || schema_errors(&schema, &output);
    // It fails only when the runtime is going down.
    tokio::task::spawn_blocking(check).await.unwrap_or_default()
}

fn of_job(asked: &Asked, job: &Job) -> Ran {
    Ran { provider: asked.provider, context: "model_run", job_id: job.id.to_string(), run_id: None }
}

fn work_dir(place: &Place<'_>, job: &Job) -> std::path::PathBuf {
    place.work.join(Path::new(job.id.as_str()))
}

/// Best effort. A row that is not ours any more is left alone by whoever stops the job.
async fn tell_debug(host: &Host, job: &Job, debug: &Value) {
    match timeout(DEBUG_LIMIT, host.api.write_debug(&job.id, debug)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the job's debug is not written"),
        Err(_) => tracing::debug!("the job's debug is not written in time"),
    }
}

/// The CLI did not run, or its end is not known.
fn not_run(host: &Host, job: &Job, asked: &Asked, command: &str, error: PlanRunError) -> Finished {
    let code = match &error {
        PlanRunError::Run(RunError::Spawn { source, .. }) if is_the_callers(source.kind()) => {
            ErrorCode::InvalidRequest
        }
        PlanRunError::Run(RunError::Spawn { .. }) => ErrorCode::ProviderFailed,
        // Says nothing about the provider.
        PlanRunError::Run(RunError::ShimLost)
        | PlanRunError::WorkDir(_)
        | PlanRunError::Place(_) => ErrorCode::ProviderUnavailable,
    };
    let why = format!("{:#}", anyhow::Error::new(error));
    let message = format!("{} could not be run: {why}", asked.provider.title());
    let failure = Failure { code, message, summary: None };
    host.providers.ran(of_job(asked, job), Err(&failure));
    result::not_run(command, failure.code, &failure.message)
}

/// The caller's texts are too long for arguments, or hold what arguments cannot.
fn is_the_callers(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ArgumentListTooLong | ErrorKind::InvalidInput)
}
