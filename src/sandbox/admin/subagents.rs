//! Subagents: start one, go on with it, watch its conversation, call its run off.
//!
//! A subagent has one run at a time. A run and the job that tells its gateway are made together or
//! not at all. Only the gateway ends a run: to call one off is a job as well, which also reaches a
//! run whose own job still waits in the queue.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::AdminError;
use super::jobs::Queued;
use super::{Answer, Created, Id, Input, Params, gateways, row_limit, watch};
use crate::model::TeamId;
use crate::sandbox::app::{App, Shared, micros, now_micros};
use crate::sandbox::rows;
use crate::sandbox::store::Store;

const SUBAGENTS: &str = "subagents";
const RUNS: &str = "subagent_runs";
const EVENTS: &str = "subagent_run_events";
const REASON: &str = "Cancelled";
/// How long after its job a run may still be ended by its gateway.
const ABANDONED: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSubagent {
    gateway_id: Option<String>,
    subagent_type: String,
    prompt: String,
    #[serde(default)]
    config: Map<String, Value>,
}

/// Makes a subagent with its first run, and queues that: `{subagent, run, job}`.
pub(super) async fn create(State(app): State<Shared>, Input(new): Input<NewSubagent>) -> Created {
    if new.subagent_type.trim().is_empty() {
        return Err(AdminError::invalid("subagent_type is empty"));
    }
    check_prompt(&new.prompt)?;
    let team = app.team_id.clone();
    app.store
        .write(move |write| {
            let gateway = gateways::choose(write.tx, &team, new.gateway_id.as_deref())?;
            let id = Uuid::now_v7().to_string();
            write.tx.execute(
                "INSERT INTO subagents (id, team_id, gateway_id, subagent_type, status, config,
                     created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, 'idle', ?5, ?6, ?6)",
                params![
                    id,
                    team.as_str(),
                    gateway,
                    new.subagent_type,
                    Value::Object(new.config.clone()).to_string(),
                    now_micros()
                ],
            )?;
            let subagent = of_team(write.tx, &team, &id)?;
            start(write.tx, &team, &gateway, &subagent, &new.prompt)
        })
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRun {
    prompt: String,
    /// These keys from now on; the others stay.
    #[serde(default)]
    config: Map<String, Value>,
}

/// Gives a subagent another prompt, unless it is still at the last one: `{subagent, run, job}`.
pub(super) async fn go_on(
    State(app): State<Shared>,
    Id(id): Id,
    Input(new): Input<NewRun>,
) -> Created {
    check_prompt(&new.prompt)?;
    let team = app.team_id.clone();
    app.store
        .write(move |write| {
            let mut subagent = of_team(write.tx, &team, &id)?;
            end_abandoned(write.tx, &id)?;
            if let Some(run) = running(write.tx, &id)? {
                let message = format!("the subagent's run {run} has not ended yet");
                return Err(AdminError::new(StatusCode::CONFLICT, "subagent_is_running", message));
            }
            let gateway = gateway_of(&subagent)?;
            if let Some(config) = subagent["config"].as_object_mut() {
                config.extend(new.config.clone());
            }
            start(write.tx, &team, &gateway, &subagent, &new.prompt)
        })
        .await
}

fn check_prompt(prompt: &str) -> Result<(), AdminError> {
    if prompt.trim().is_empty() {
        return Err(AdminError::invalid("prompt is empty"));
    }
    Ok(())
}

/// Makes the next run of a subagent that has none running, and the job for it.
fn start(
    tx: &Connection,
    team: &TeamId,
    gateway: &str,
    subagent: &Value,
    prompt: &str,
) -> Result<(StatusCode, Json<Value>), AdminError> {
    let id = subagent["id"].as_str().unwrap_or_default();
    let run_id = Uuid::now_v7().to_string();
    let now = now_micros();
    let sequence: i64 = tx.query_row(
        "SELECT coalesce(max(run_sequence), 0) + 1 FROM subagent_runs WHERE subagent_id = ?1",
        [id],
        |row| row.get(0),
    )?;
    let mut metadata = subagent["metadata"].clone();
    metadata["current_run_id"] = json!(run_id);
    let input = json!({"prompt": prompt, "run_id": run_id, "run_sequence": sequence});
    tx.execute(
        "INSERT INTO subagent_runs (id, subagent_id, team_id, gateway_id, run_sequence, status,
             prompt, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, 'running', ?6, ?7)",
        params![run_id, id, team.as_str(), gateway, sequence, prompt, now],
    )?;
    let subagent = rows::update(
        tx,
        SUBAGENTS,
        id,
        "UPDATE subagents SET status = 'running', config = ?2, input = ?3, metadata = ?4,
             output = NULL, error = NULL, started_at = NULL, completed_at = NULL, updated_at = ?5
         WHERE id = ?1",
        params![id, subagent["config"].to_string(), input.to_string(), metadata.to_string(), now],
    )?;
    let job = Queued {
        gateway_id: gateway,
        job_type: "subagent_run",
        payload: &json!({"subagent_id": id, "run_id": run_id}),
        attempt: 1,
        idempotency_key: None,
    };
    let job = job.insert(tx, team)?;
    let run = rows::inserted(tx, RUNS, &run_id)?;
    Ok((StatusCode::CREATED, Json(json!({"subagent": subagent, "run": run, "job": job}))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    limit: Option<u32>,
}

/// Subagents, newest first.
pub(super) async fn list(State(app): State<Shared>, Params(limit): Params<Limit>) -> Answer {
    let team = app.team_id.clone();
    app.store
        .read(move |connection| {
            let sql = "WHERE team_id = ?1 ORDER BY created_at DESC, id DESC LIMIT ?2";
            let params = params![team.as_str(), row_limit(limit.limit)];
            Ok(Json(Value::Array(Store::rows(connection, SUBAGENTS, sql, params)?)))
        })
        .await
}

/// One subagent.
pub(super) async fn show(State(app): State<Shared>, Id(id): Id) -> Answer {
    let team = app.team_id.clone();
    app.store.read(move |connection| of_team(connection, &team, &id).map(Json)).await
}

/// A subagent's runs, newest first.
pub(super) async fn list_runs(
    State(app): State<Shared>,
    Id(id): Id,
    Params(limit): Params<Limit>,
) -> Answer {
    let team = app.team_id.clone();
    app.store
        .read(move |connection| {
            of_team(connection, &team, &id)?;
            let sql = "WHERE subagent_id = ?1 ORDER BY run_sequence DESC LIMIT ?2";
            let params = params![id, row_limit(limit.limit)];
            Ok(Json(Value::Array(Store::rows(connection, RUNS, sql, params)?)))
        })
        .await
}

/// One run.
pub(super) async fn show_run(State(app): State<Shared>, Id(id): Id) -> Answer {
    let team = app.team_id.clone();
    app.store.read(move |connection| run_of_team(connection, &team, &id).map(Json)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WatchEvents {
    /// Those with a higher sequence; all, when absent.
    after: Option<i64>,
    limit: Option<u32>,
    wait_ms: Option<u64>,
}

/// What happened in a run, in order; with `wait_ms`, once there is something.
pub(super) async fn events(
    State(app): State<Shared>,
    Id(id): Id,
    Params(query): Params<WatchEvents>,
) -> Answer {
    let deadline = watch::deadline(query.wait_ms);
    // Before the first look: an event between look and wait must not be missed.
    let mut feed = app.store.changes();
    loop {
        let events = find_events(&app, &id, &query).await?;
        if !events.is_empty() {
            return Ok(Json(Value::Array(events)));
        }
        // Cancel safe: the next look reads the rows themselves.
        tokio::select! {
            () = watch::changed(&mut feed, EVENTS, "run_id", &id) => {}
            () = tokio::time::sleep_until(deadline) => break,
            () = app.stop.cancelled() => break,
        }
    }
    Ok(Json(json!([])))
}

async fn find_events(app: &App, id: &str, query: &WatchEvents) -> Result<Vec<Value>, AdminError> {
    let (team, id) = (app.team_id.clone(), id.to_owned());
    let (after, limit) = (query.after.unwrap_or(-1), row_limit(query.limit));
    app.store
        .read(move |connection| {
            run_of_team(connection, &team, &id)?;
            let sql = "WHERE run_id = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3";
            Ok(Store::rows(connection, EVENTS, sql, params![id, after, limit])?)
        })
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancel {
    /// Only if this run is the one that runs.
    run_id: Option<String>,
    reason: Option<String>,
}

/// Asks the gateway to call off the run of a subagent; the row of the job that asks.
pub(super) async fn cancel(
    State(app): State<Shared>,
    Id(id): Id,
    Input(cancel): Input<Cancel>,
) -> Created {
    let team = app.team_id.clone();
    app.store
        .write(move |write| {
            let subagent = of_team(write.tx, &team, &id)?;
            let Some(run) = running(write.tx, &id)?
                .filter(|run| cancel.run_id.as_ref().is_none_or(|named| named == run))
            else {
                let what = if cancel.run_id.is_some() { "this run" } else { "the subagent" };
                let message = format!("{what} does not run");
                return Err(AdminError::new(StatusCode::CONFLICT, "run_not_running", message));
            };
            rows::update(
                write.tx,
                RUNS,
                &run,
                "UPDATE subagent_runs
                 SET cancellation_requested_at = coalesce(cancellation_requested_at, ?2)
                 WHERE id = ?1",
                params![run, now_micros()],
            )?;
            let reason = cancel.reason.as_deref().unwrap_or(REASON);
            let job = Queued {
                gateway_id: &gateway_of(&subagent)?,
                job_type: "subagent_cancel",
                payload: &json!({"subagent_id": id, "run_id": run, "reason": reason}),
                attempt: 1,
                idempotency_key: None,
            };
            Ok((StatusCode::CREATED, Json(job.insert(write.tx, &team)?)))
        })
        .await
}

/// The run of a subagent that has not ended.
fn running(connection: &Connection, subagent: &str) -> rusqlite::Result<Option<String>> {
    connection
        .query_row(
            "SELECT id FROM subagent_runs WHERE subagent_id = ?1 AND status IN ('queued', 'running')
             ORDER BY run_sequence DESC LIMIT 1",
            [subagent],
            |row| row.get(0),
        )
        .optional()
}

/// Ends runs whose job is long over, or gone: nobody else will. A gateway tells of a run's end
/// shortly after that of its job at the latest.
fn end_abandoned(tx: &Connection, subagent: &str) -> rusqlite::Result<()> {
    let now = now_micros();
    while let Some(run) = running(tx, subagent)? {
        let is_alive: bool = tx.query_row(
            "SELECT EXISTS (SELECT 1 FROM gateway_jobs AS job
                 JOIN subagent_runs AS run ON run.gateway_id = job.gateway_id
                 WHERE run.id = ?1 AND job.job_type = 'subagent_run'
                     AND (job.status IN ('queued', 'running') OR job.updated_at > ?2)
                     AND job.payload ->> 'run_id' = run.id)",
            params![run, now.saturating_sub(micros(ABANDONED))],
            |row| row.get(0),
        )?;
        if is_alive {
            break;
        }
        tx.execute(
            "UPDATE subagent_runs SET status = 'cancelled', completed_at = ?2,
                 error = 'its job ended without it' WHERE id = ?1",
            params![run, now],
        )?;
    }
    Ok(())
}

fn gateway_of(subagent: &Value) -> Result<String, AdminError> {
    subagent["gateway_id"].as_str().map(str::to_owned).ok_or_else(|| {
        let message = "the subagent is assigned to no gateway";
        AdminError::new(StatusCode::CONFLICT, "subagent_not_assigned", message)
    })
}

/// A subagent of the team; those of other teams are as unknown as none.
fn of_team(connection: &Connection, team: &TeamId, id: &str) -> Result<Value, AdminError> {
    let sql = "WHERE id = ?1 AND team_id = ?2";
    let mut found = Store::rows(connection, SUBAGENTS, sql, [id, team.as_str()])?;
    found.pop().ok_or_else(|| {
        AdminError::not_found("subagent_not_found", format!("there is no subagent {id:?}"))
    })
}

/// The same for a run.
fn run_of_team(connection: &Connection, team: &TeamId, id: &str) -> Result<Value, AdminError> {
    let sql = "WHERE id = ?1 AND team_id = ?2";
    let mut found = Store::rows(connection, RUNS, sql, [id, team.as_str()])?;
    found.pop().ok_or_else(|| {
        AdminError::not_found("run_not_found", format!("there is no run {id:?} of a subagent"))
    })
}
