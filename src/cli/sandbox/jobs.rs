//! `sandbox jobs`, `job`.

use serde_json::Value;

use super::args::{JobArgs, JobsArgs};
use super::outcome::{self, text};
use super::{client, follow};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::{printable, table};

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
    let error = error.chars().take(60).collect::<String>();
    let field = |name| printable::line(text(job, name));
    [field("id"), field("job_type"), field("status"), field("created_at"), printable::line(&error)]
}

/// `job`.
pub(super) async fn show(context: &Context, args: &JobArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let mut job = client.job(&args.id).await?;
    if args.follow {
        if let Some((_, run_id)) = follow::run_of(&job) {
            let run_id = run_id.to_owned();
            return follow::conversation(context, &client, job, &run_id, &args.common).await;
        }
        job = outcome::follow(&client, &context.ui, job).await?;
    }
    // A row has too many fields for anything but JSON.
    context.ui.out(&table::json(&job))?;
    Ok(Exit::Done)
}
