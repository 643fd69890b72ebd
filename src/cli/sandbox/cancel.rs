//! `sandbox cancel`: a job is marked in its row; a subagent's run is the gateway's to call off.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::args::CancelArgs;
use super::outcome::{self, LONG_POLL, text};
use super::{client, follow};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::{printable, table};
use crate::model::JobStatus;
use crate::sandbox::{AdminClient, AdminClientError};

/// Gateways answer at once, even when they are about to stop.
const PATIENCE: Duration = Duration::from_secs(20);
const REASON: &str = "Cancelled by the operator";

/// Runs the command. The id is a job's, or a subagent's.
pub(super) async fn run(context: &Context, args: &CancelArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let job = match client.job(&args.id).await {
        Ok(job) => job,
        Err(error) if is(&error, "job_not_found") => {
            return match client.cancel_subagent(&args.id, None, Some(REASON)).await {
                Ok(asked) => wait(context, &client, asked, args.common.json).await,
                Err(other) if is(&other, "subagent_not_found") => Err(error.into()),
                Err(other) => Err(other.into()),
            };
        }
        Err(error) => return Err(error.into()),
    };
    let is_over = JobStatus::parse(text(&job, "status")).is_none_or(JobStatus::is_terminal);
    if let (false, Some((subagent, run))) = (is_over, follow::run_of(&job)) {
        let asked = client.cancel_subagent(subagent, Some(run), Some(REASON)).await?;
        return wait(context, &client, asked, args.common.json).await;
    }
    let job = client.cancel_job(&args.id).await?;
    if args.common.json {
        context.ui.out(&table::json(&job))?;
    } else {
        context.ui.out(&format!("Job {} is {}.", args.id, text(&job, "status")))?;
    }
    Ok(Exit::Done)
}

fn is(error: &AdminClientError, wanted: &str) -> bool {
    matches!(error, AdminClientError::Refused { code, .. } if code == wanted)
}

/// Waits for what the gateway makes of a `subagent_cancel` job, and says it.
async fn wait(context: &Context, client: &AdminClient, mut job: Value, json: bool) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while JobStatus::parse(text(&job, "status")).is_some_and(|status| !status.is_terminal()) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(unanswered(&job));
        }
        let (id, before) = (text(&job, "id").to_owned(), text(&job, "updated_at").to_owned());
        job = client.job_after(&id, &before, left.min(LONG_POLL)).await?;
    }
    let result = &job["result"];
    let accepted = result["cancel_result"] == "accepted";
    let exit = if accepted { Exit::Done } else { Exit::Failed };
    if json {
        context.ui.out(&table::json(&job))?;
        return Ok(exit);
    }
    if job["status"] != JobStatus::Completed.as_str() {
        return Err(outcome::no_result(&job));
    }
    let run = text(&job["payload"], "run_id");
    let word = printable::line(text(result, "cancel_result"));
    let message = printable::line(text(result, "message"));
    let more = if message.is_empty() { String::new() } else { format!(" ({message})") };
    context.ui.out(&format!("Run {run}: {word}{more}."))?;
    Ok(exit)
}

fn unanswered(job: &Value) -> Failure {
    Failure::new(format!("the gateway has not answered within {} s", PATIENCE.as_secs())).hint(
        format!(
            "it does so when it is back: `panorama-gateway sandbox job {} --follow`",
            text(job, "id")
        ),
    )
}
