//! `sandbox jobs`, `job`, `cancel`.

use serde_json::Value;

use super::args::{CancelArgs, JobArgs, JobsArgs};
use super::client;
use super::outcome::{self, text};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::table;

/// `jobs`.
pub(super) async fn list(context: &Context, args: &JobsArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let jobs = client.jobs(args.status, Some(args.limit)).await?;
    if args.common.json {
        context.ui.out(&table::json(&Value::Array(jobs)))?;
    } else if jobs.is_empty() {
        context.ui.note("no jobs");
    } else {
        let rows = jobs.iter().map(row).collect();
        context.ui.out(&table::text(["ID", "TYPE", "STATUS", "CREATED", "ERROR"], rows))?;
    }
    Ok(Exit::Done)
}

fn row(job: &Value) -> [String; 5] {
    let error: String = text(job, "error").split_whitespace().collect::<Vec<_>>().join(" ");
    let error = error.chars().take(60).collect();
    let field = |name| text(job, name).to_owned();
    [field("id"), field("job_type"), field("status"), field("created_at"), error]
}

/// `job`.
pub(super) async fn show(context: &Context, args: &JobArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let mut job = client.job(&args.id).await?;
    if args.follow {
        job = outcome::follow(&client, &context.ui, job).await?;
    }
    // A row has too many fields for anything but JSON.
    context.ui.out(&table::json(&job))?;
    Ok(Exit::Done)
}

/// `cancel`.
pub(super) async fn cancel(context: &Context, args: &CancelArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let job = client.cancel_job(&args.id).await?;
    if args.common.json {
        context.ui.out(&table::json(&job))?;
    } else {
        context.ui.out(&format!("Job {} is {}.", args.id, text(&job, "status")))?;
    }
    Ok(Exit::Done)
}
