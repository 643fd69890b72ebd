//! `finalize-gateway-subagent-run`: how a subagent's run ended, said once by the gateway that ran
//! it.
//!
//! Run and subagent change in one transaction. The subagent follows its run only while it is
//! `running` and that run is its current one. Saying the same status again answers with what was
//! stored and changes nothing, since an answer may have been lost; another status is refused.

use axum::http::StatusCode;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::FunctionError;
use crate::model::{GatewayId, TeamId, time};
use crate::sandbox::app::{App, now_micros};
use crate::sandbox::rules::{Rule, Rules};
use crate::sandbox::{Caller, body, rows};

pub(super) const NAME: &str = "finalize-gateway-subagent-run";

/// Bytes of an envelope as JSON: 5,000,000 bytes of output, of which JSON may make six each.
const MAX_ENVELOPE: usize = 32 * 1024 * 1024;
/// Bytes: 5,000,000 of a stream, each of which may have become a replacement character.
const MAX_STDERR: usize = 15_000_000;
/// Bytes.
const MAX_ERROR: usize = 1024 * 1024;
/// Bytes as JSON.
const MAX_PATCH: usize = 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    subagent_id: Uuid,
    run_id: Uuid,
    final_status: FinalStatus,
    #[serde(default, deserialize_with = "present")]
    output: Option<Envelope>,
    failure_output: Option<Envelope>,
    final_error: Option<String>,
    #[serde(default, deserialize_with = "present")]
    completed_at: Option<String>,
    stderr: Option<String>,
    #[serde(default, deserialize_with = "present")]
    metadata_patch: Option<Map<String, Value>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum FinalStatus {
    Completed,
    Failed,
    Cancelled,
}

impl FinalStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a run gives, as readers take it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    schema_version: u64,
    content: Value,
    content_type: ContentType,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    sources: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<String>>,
}

#[derive(Deserialize, Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ContentType {
    Markdown,
    Text,
    Json,
}

/// A field that may be absent but not null.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// What is to be written.
#[derive(Clone)]
struct Ending {
    subagent_id: String,
    run_id: String,
    status: &'static str,
    /// An envelope as JSON text.
    output: String,
    error: Option<String>,
    /// Microseconds since 1970.
    completed_at: i64,
    stderr: Option<String>,
    patch: Map<String, Value>,
}

impl Request {
    /// Checks what the types do not say; `Err` is one line that says what is wrong.
    fn check(self, now: i64) -> Result<Ending, String> {
        let completed = self.final_status == FinalStatus::Completed;
        let output = match (completed, self.output, self.failure_output) {
            (true, Some(output), None) | (false, None, Some(output)) => output.check()?,
            (true, ..) => {
                return Err("a completed run has output, and failure_output null".into());
            }
            (false, ..) => {
                return Err(
                    "a run that failed or was cancelled has failure_output, and no output".into()
                );
            }
        };
        if completed == self.final_error.is_some() {
            return Err("final_error is null for a completed run and a text for others".into());
        }
        let completed_at = match self.completed_at.as_deref().map(time::parse) {
            None => now,
            Some(Some(at)) => at.as_microsecond(),
            Some(None) => return Err("completed_at must be a time with an offset".into()),
        };
        let patch = self.metadata_patch.unwrap_or_default();
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        for (name, length, most) in [
            ("final_error", length(&self.final_error), MAX_ERROR),
            ("stderr", length(&self.stderr), MAX_STDERR),
            ("metadata_patch", json!(patch).to_string().len(), MAX_PATCH),
        ] {
            if length > most {
                return Err(format!("{name} is larger than {most} bytes"));
            }
        }
        Ok(Ending {
            subagent_id: self.subagent_id.to_string(),
            run_id: self.run_id.to_string(),
            status: self.final_status.as_str(),
            output,
            error: self.final_error,
            completed_at,
            stderr: self.stderr,
            patch,
        })
    }
}

impl Envelope {
    /// Its JSON text.
    fn check(&self) -> Result<String, String> {
        if self.schema_version != 1 {
            return Err("an output's schema_version must be 1".into());
        }
        if self.content_type != ContentType::Json && !self.content.is_string() {
            return Err("an output's content must be a text unless content_type is json".into());
        }
        let text = json!(self).to_string();
        if text.len() > MAX_ENVELOPE {
            return Err(format!("an output is larger than {MAX_ENVELOPE} bytes"));
        }
        Ok(text)
    }
}

/// Records the end of a run of the caller, which must be a gateway.
pub(super) async fn finalize(
    app: &App,
    caller: &Caller,
    body: &[u8],
) -> Result<Value, FunctionError> {
    let (gateway_id, team_id) = super::gateway(caller)?;
    let request: Request = body::parse(body).map_err(FunctionError::invalid)?;
    let ending = request.check(now_micros()).map_err(FunctionError::invalid)?;
    let rules = app.rules;
    app.store
        .write(move |write| {
            let run = find(write.tx, &ending)?
                .filter(|run| run.belongs_to(&gateway_id, &team_id, rules))
                .ok_or_else(|| {
                    let message = "this gateway has no such run of that subagent";
                    FunctionError::new(StatusCode::NOT_FOUND, "run_not_found", message)
                })?;
            if run.status != "running" && rules.hold(Rule::RunOver) {
                return run.already(ending.status);
            }
            let answer = answer(ending.status, Some(&ending.output), ending.error.as_deref());
            apply(write.tx, &run, ending.clone())?;
            Ok(answer)
        })
        .await
}

/// A run with what its subagent says of it.
struct Run {
    team_id: String,
    gateway_id: String,
    status: String,
    output: Option<String>,
    error: Option<String>,
    metadata: String,
    subagent_gateway: Option<String>,
    subagent_status: String,
    subagent_metadata: String,
}

fn find(tx: &Connection, ending: &Ending) -> rusqlite::Result<Option<Run>> {
    tx.query_row(
        "SELECT runs.team_id, runs.gateway_id, runs.status, runs.output, runs.error,
             runs.metadata, subagents.gateway_id, subagents.status, subagents.metadata
         FROM subagent_runs AS runs JOIN subagents ON subagents.id = runs.subagent_id
         WHERE runs.id = ?1 AND subagents.id = ?2",
        [&ending.run_id, &ending.subagent_id],
        |row| {
            Ok(Run {
                team_id: row.get(0)?,
                gateway_id: row.get(1)?,
                status: row.get(2)?,
                output: row.get(3)?,
                error: row.get(4)?,
                metadata: row.get(5)?,
                subagent_gateway: row.get(6)?,
                subagent_status: row.get(7)?,
                subagent_metadata: row.get(8)?,
            })
        },
    )
    .optional()
}

impl Run {
    fn belongs_to(&self, gateway: &GatewayId, team: &TeamId, rules: Rules) -> bool {
        let assigned = self.subagent_gateway.as_deref() == Some(gateway.as_str());
        (self.team_id == team.as_str() || !rules.hold(Rule::RunTeam))
            && (self.gateway_id == gateway.as_str() || !rules.hold(Rule::RunGateway))
            && (assigned || !rules.hold(Rule::RunAssigned))
    }

    /// The answer about a run that does not run (any more).
    fn already(&self, asked: &str) -> Result<Value, FunctionError> {
        if self.status == asked {
            return Ok(answer(asked, self.output.as_deref(), self.error.as_deref()));
        }
        let message = format!("the run is {}, not running", self.status);
        Err(FunctionError::new(StatusCode::CONFLICT, "run_not_running", message))
    }
}

/// `output` is JSON text.
fn answer(status: &str, output: Option<&str>, error: Option<&str>) -> Value {
    let mut answer = json!({"success": true, "status": status});
    if let Some(output) = output.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        answer["output"] = output;
    }
    if let Some(error) = error {
        answer["error"] = json!(error);
    }
    answer
}

fn apply(tx: &Connection, run: &Run, ending: Ending) -> Result<(), FunctionError> {
    let mut run_metadata = patched(&run.metadata, &ending.patch);
    if let Some(stderr) = ending.stderr {
        run_metadata.insert("stderr".into(), stderr.into());
    }
    rows::update(
        tx,
        "subagent_runs",
        &ending.run_id,
        "UPDATE subagent_runs SET status = ?2, output = ?3, error = ?4, completed_at = ?5,
             metadata = ?6 WHERE id = ?1",
        params![
            ending.run_id,
            ending.status,
            ending.output,
            ending.error,
            ending.completed_at,
            Value::Object(run_metadata).to_string()
        ],
    )?;
    let subagent_metadata = patched(&run.subagent_metadata, &Map::new());
    let is_current = match subagent_metadata.get("current_run_id") {
        Some(Value::String(current)) => *current == ending.run_id,
        _ => true,
    };
    if run.subagent_status == "running" && is_current {
        rows::update(
            tx,
            "subagents",
            &ending.subagent_id,
            "UPDATE subagents SET status = ?2, output = ?3, error = ?4, completed_at = ?5,
                 metadata = ?6, updated_at = ?7 WHERE id = ?1",
            params![
                ending.subagent_id,
                ending.status,
                ending.output,
                ending.error,
                ending.completed_at,
                Value::Object(patched(&run.subagent_metadata, &ending.patch)).to_string(),
                now_micros()
            ],
        )?;
    }
    Ok(())
}

/// Metadata (JSON text) with the keys of `patch`, which win.
fn patched(metadata: &str, patch: &Map<String, Value>) -> Map<String, Value> {
    let mut all: Map<String, Value> = serde_json::from_str(metadata).unwrap_or_default();
    all.extend(patch.clone());
    all
}
