//! Jobs: submit, list, watch, cancel.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::AdminError;
use super::{Answer, Created, Id, Input, Params, gateways, row_limit, watch};
use crate::model::{JobStatus, TeamId, time};
use crate::sandbox::app::{App, Shared, now_micros};
use crate::sandbox::rows;
use crate::sandbox::store::Store;

const TABLE: &str = "gateway_jobs";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewJob {
    gateway_id: Option<String>,
    job_type: String,
    #[serde(default)]
    payload: Map<String, Value>,
    idempotency_key: Option<String>,
    attempt: Option<u32>,
}

/// Puts a job into a gateway's queue.
pub(super) async fn submit(State(app): State<Shared>, Input(job): Input<NewJob>) -> Created {
    if job.job_type.trim().is_empty() {
        return Err(AdminError::invalid("job_type is empty"));
    }
    // The column is a Postgres integer, and gateways read it as one.
    let attempt = i32::try_from(job.attempt.unwrap_or(1))
        .map_err(|_| AdminError::invalid("attempt is too large"))?;
    let team = app.team_id.clone();
    app.store
        .write(move |write| {
            let gateway = gateways::choose(write.tx, &team, job.gateway_id.as_deref())?;
            let queued = Queued {
                gateway_id: &gateway,
                job_type: &job.job_type,
                payload: &Value::Object(job.payload.clone()),
                attempt,
                idempotency_key: job.idempotency_key.as_deref(),
            };
            Ok((StatusCode::CREATED, Json(queued.insert(write.tx, &team)?)))
        })
        .await
}

/// A job on its way into a gateway's queue.
pub(super) struct Queued<'a> {
    pub(super) gateway_id: &'a str,
    pub(super) job_type: &'a str,
    pub(super) payload: &'a Value,
    pub(super) attempt: i32,
    pub(super) idempotency_key: Option<&'a str>,
}

impl Queued<'_> {
    /// Its row.
    pub(super) fn insert(&self, tx: &Connection, team: &TeamId) -> rusqlite::Result<Value> {
        let id = Uuid::now_v7().to_string();
        tx.execute(
            "INSERT INTO gateway_jobs (id, team_id, gateway_id, job_type, payload, attempt,
                 idempotency_key, requested_via, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'sandbox', ?8, ?8)",
            params![
                id,
                team.as_str(),
                self.gateway_id,
                self.job_type,
                self.payload.to_string(),
                self.attempt,
                self.idempotency_key,
                now_micros()
            ],
        )?;
        rows::inserted(tx, TABLE, &id)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    status: Option<JobStatus>,
    limit: Option<u32>,
}

/// Jobs, newest first.
pub(super) async fn list(State(app): State<Shared>, Params(filter): Params<Filter>) -> Answer {
    let team = app.team_id.clone();
    app.store
        .read(move |connection| {
            let jobs = Store::rows(
                connection,
                TABLE,
                "WHERE team_id = ?1 AND (?2 IS NULL OR status = ?2)
                 ORDER BY created_at DESC, id DESC LIMIT ?3",
                params![
                    team.as_str(),
                    filter.status.map(JobStatus::as_str),
                    row_limit(filter.limit)
                ],
            )?;
            Ok(Json(Value::Array(jobs)))
        })
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    wait_ms: Option<u64>,
    after: Option<String>,
}

/// One job; with `wait_ms` and `after`, once its `updated_at` is no longer `after`.
pub(super) async fn show(
    State(app): State<Shared>,
    Id(id): Id,
    Params(query): Params<Watch>,
) -> Answer {
    let deadline = watch::deadline(query.wait_ms);
    // Before the first look: a change between look and wait must not be missed.
    let mut feed = app.store.changes();
    loop {
        let job = find(&app, &id).await?;
        if !is_unchanged(&job, query.after.as_deref()) {
            return Ok(Json(job));
        }
        // Cancel safe: the next look reads the row itself.
        tokio::select! {
            () = watch::changed(&mut feed, TABLE, "id", &id) => {}
            () = tokio::time::sleep_until(deadline) => return find(&app, &id).await.map(Json),
            () = app.stop.cancelled() => return Ok(Json(job)),
        }
    }
}

/// Whether the job's `updated_at` is still the instant `after`.
fn is_unchanged(job: &Value, after: Option<&str>) -> bool {
    // A `+` that was not percent-encoded arrives as a blank.
    let after = after.map(|text| text.trim().replace(' ', "+"));
    let updated = job["updated_at"].as_str().and_then(time::parse);
    updated.is_some() && updated == after.as_deref().and_then(time::parse)
}

async fn find(app: &App, id: &str) -> Result<Value, AdminError> {
    let (team, wanted) = (app.team_id.clone(), id.to_owned());
    app.store.read(move |connection| of_team(connection, &team, &wanted)).await
}

/// A job of the team; those of other teams are as unknown as none.
fn of_team(connection: &Connection, team: &TeamId, id: &str) -> Result<Value, AdminError> {
    let sql = "WHERE id = ?1 AND team_id = ?2";
    let mut found = Store::rows(connection, TABLE, sql, [id, team.as_str()])?;
    found.pop().ok_or_else(|| unknown(id))
}

/// Calls a job off that has not ended.
pub(super) async fn cancel(State(app): State<Shared>, Id(id): Id) -> Answer {
    let team = app.team_id.clone();
    app.store
        .write(move |write| {
            let now = now_micros();
            let cancelled = rows::update(
                write.tx,
                TABLE,
                &id,
                "UPDATE gateway_jobs SET status = 'cancelled', completed_at = ?2, updated_at = ?2
                 WHERE id = ?1 AND team_id = ?3 AND status IN ('queued', 'running')",
                params![id, now, team.as_str()],
            )?;
            if let Some(job) = cancelled {
                return Ok(Json(job));
            }
            let job = of_team(write.tx, &team, &id)?;
            let status = job["status"].as_str().unwrap_or_default();
            let message = format!("the job is {status} already");
            Err(AdminError::new(StatusCode::CONFLICT, "job_is_over", message).about(job))
        })
        .await
}

fn unknown(id: &str) -> AdminError {
    AdminError::not_found("job_not_found", format!("there is no job {id:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_compared_as_instants() {
        let job = json!({"updated_at": "2025-11-03T09:32:55.1+00:00"});
        for same in [
            "2025-11-03T09:32:55.1+00:00",
            "2025-11-03T09:32:55.1 00:00",
            "2025-11-03T09:32:55.100Z",
        ] {
            assert!(is_unchanged(&job, Some(same)), "{same}");
        }
        for other in [None, Some(""), Some("2025-11-03T09:32:55.101Z"), Some("yesterday")] {
            assert!(!is_unchanged(&job, other), "{other:?}");
        }
    }
}
