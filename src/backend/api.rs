//! Every call that a paired gateway makes, typed. Requests carry exactly what the contract names;
//! answers may carry more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::http::{Call, Limits, may_have_arrived};
use super::json::to_clean_body;
use super::pairing::succeeded;
use super::rest::{Prefer, Tables, quoted, read, read_at_most, write};
use super::{BackendError, Endpoint, Http, Session, realtime};
use crate::clock::Clock;
use crate::model::{
    Capabilities, GatewayId, GatewayStatus, Job, JobId, JobStatus, ResourceId, TeamId, time,
};

/// Readers refuse longer event messages; counted as JavaScript counts.
const EVENT_MESSAGE_UNITS: usize = 2000;
/// While the backend is away, one warning a minute at most.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Where the next page of a poll starts: the last row's `created_at` (verbatim) and `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageKey {
    /// The server's text, echoed percent-encoded.
    pub created_at: String,
    /// The row's id.
    pub id: JobId,
}

/// The outcome of a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// It is ours; the row as claimed.
    Won(Value),
    /// Somebody else has it, or it is gone.
    Lost,
}

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// `completed`, `failed` or `cancelled`.
    pub status: JobStatus,
    /// The handler's result.
    pub result: Value,
    /// A text on failure and cancellation, null on success.
    pub error: Option<String>,
    /// Wire time.
    pub completed_at: String,
}

/// What became of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// Written.
    Written,
    /// The row is no longer `running`: no longer ours.
    NotOurs,
}

/// Our `team_gateways` row.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlState {
    /// The team toggle.
    pub full_control_enabled: bool,
    /// `status`.
    pub status: String,
    /// `last_seen_at` against the server's `Date`; `None` when never seen.
    pub heartbeat_age: Option<Duration>,
    /// `capabilities` as stored.
    pub capabilities: Value,
    /// `vm_id`.
    pub vm_id: Option<String>,
}

/// A row for `gateway_events`.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayEvent {
    /// Provider id, when it is about one.
    pub provider: Option<String>,
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    /// E.g. `config_dir_fallback`.
    pub code: Option<&'static str>,
    /// One line, cut at 2,000 characters.
    pub message: String,
    /// Never null.
    pub details: Map<String, Value>,
}

/// A paired gateway's view of its backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    http: Http,
    endpoint: Endpoint,
    session: Arc<Session>,
    gateway: GatewayId,
    team: TeamId,
    tables: Tables,
    /// When it was last warned that the backend is away.
    warned: Mutex<Option<Instant>>,
}

impl Api {
    /// For this gateway of this team. `http` and `endpoint` are those of `session`.
    pub fn new(
        http: Http,
        endpoint: Endpoint,
        session: Arc<Session>,
        gateway: GatewayId,
        team: TeamId,
    ) -> Self {
        let (tables, warned) = (Tables::default(), Mutex::default());
        Self { shared: Arc::new(Shared { http, endpoint, session, gateway, team, tables, warned }) }
    }

    /// This gateway.
    pub fn gateway(&self) -> &GatewayId {
        &self.shared.gateway
    }

    /// Its team.
    pub fn team(&self) -> &TeamId {
        &self.shared.team
    }

    /// Its backend.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// The client that everything is sent with.
    pub fn http(&self) -> &Http {
        &self.shared.http
    }

    /// This machine's clock.
    pub fn clock(&self) -> &Clock {
        self.shared.http.clock().local()
    }

    /// Uses no connection again that was made before.
    pub async fn connect_anew(&self) {
        self.shared.http.connect_anew().await;
    }

    /// Whether to warn that the backend is away: true once a minute at most, whoever asks.
    pub fn may_warn(&self) -> bool {
        let mut warned = self.shared.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let may = warned.is_none_or(|at| at.elapsed() >= WARN_EVERY);
        if may {
            *warned = Some(Instant::now());
        }
        may
    }

    /// The session behind it.
    pub fn session(&self) -> &Arc<Session> {
        &self.shared.session
    }

    /// What keeps a realtime connection for this gateway; through these proxies, unless the backend
    /// is on loopback.
    pub fn realtime(&self, proxies: Matcher) -> Result<realtime::Client, BackendError> {
        let Shared { endpoint, session, gateway, team, .. } = self.shared.as_ref();
        let session = Arc::clone(session);
        realtime::Client::new(endpoint, session, gateway.clone(), team.clone(), proxies)
    }

    /// What time it is at the backend, by its last answer.
    pub fn server_time(&self) -> Timestamp {
        self.shared.http.clock().now()
    }

    /// How many requests were sent so far by everything that shares the HTTP client.
    pub fn requests_sent(&self) -> u64 {
        self.shared.http.requests_sent()
    }

    /// `POST functions/v1/gateway-heartbeat`, 20 s.
    pub async fn heartbeat(
        &self,
        status: GatewayStatus,
        capabilities: &Capabilities,
        device_name: &str,
    ) -> Result<(), BackendError> {
        #[derive(Serialize)]
        struct Heartbeat<'a> {
            status: GatewayStatus,
            capabilities: &'a Capabilities,
            device_name: &'a str,
        }
        let body = body(&Heartbeat { status, capabilities, device_name })?;
        let endpoint = &self.shared.endpoint;
        let call = Call::function(endpoint, "gateway-heartbeat", body, Limits::REST)?;
        let answer = self.send(call.clone()).await?;
        succeeded(&answer, &call).map(|_| ())
    }

    /// Up to `limit` queued jobs, raw rows, oldest first; fewer than `limit` = there are no more.
    ///
    /// An oversized answer is asked for again with half the page, down to a single row, and the
    /// rest of the page follows by key.
    pub async fn poll_jobs(
        &self,
        after: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<Value>, BackendError> {
        let mut rows: Vec<Value> = Vec::new();
        let mut after = after.cloned();
        let mut page = limit.max(1);
        loop {
            let wanted = page.min(limit.saturating_sub(count(&rows)).max(1));
            let mut found = match self.poll_page(after.as_ref(), wanted).await {
                Err(BackendError::TooLarge(_)) if wanted > 1 => {
                    page = wanted / 2;
                    continue;
                }
                result => result?,
            };
            let full = count(&found) >= wanted;
            let next = found.last().and_then(page_key);
            rows.append(&mut found);
            if !full || count(&rows) >= limit || next.is_none() {
                return Ok(rows);
            }
            after = next;
        }
    }

    async fn poll_page(
        &self,
        after: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<Value>, BackendError> {
        let mut query = self
            .jobs()
            .select("*")
            .eq("team_id", self.shared.team.as_str())
            .eq("status", "queued")
            .eq("gateway_id", self.shared.gateway.as_str())
            .order("created_at.asc,id.asc");
        if let Some(PageKey { created_at, id }) = after {
            let (at, id) = (quoted(created_at), quoted(id.as_str()));
            query = query.or(format!("created_at.gt.{at},and(created_at.eq.{at},id.gt.{id})"));
        }
        self.send(read_at_most(query, limit)?).await?.rows()
    }

    /// The conditional update. A lost answer is resolved by reading the row: `running` with our
    /// `gateway_id` and `started_at` = won. When that reading fails too, or finds the row still
    /// queued, the error of the update is returned.
    pub async fn claim(&self, job: &JobId, started_at: &str) -> Result<Claim, BackendError> {
        let gateway = self.shared.gateway.as_str();
        let change = json!({"status": "running", "gateway_id": gateway, "started_at": started_at});
        let query = self
            .jobs()
            .update("")
            .eq("id", job.as_str())
            .eq("team_id", self.shared.team.as_str())
            .eq("status", "queued")
            .eq("gateway_id", gateway);
        let claimed =
            match self.send(write(query, change.to_string(), Prefer::Representation)?).await {
                Ok(answer) => answer.rows(),
                Err(error) => Err(error),
            };
        match claimed {
            Ok(rows) => Ok(rows.into_iter().next().map_or(Claim::Lost, Claim::Won)),
            Err(error) if may_have_arrived(&error) => {
                tracing::debug!(job_id = %job, error = %error, "reading whether a claim was won");
                match self.resolve_claim(job, started_at).await {
                    Ok(Some(claim)) => Ok(claim),
                    Ok(None) | Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// What became of a claim without an answer; `None` when the row is still queued.
    pub async fn resolve_claim(
        &self,
        job: &JobId,
        started_at: &str,
    ) -> Result<Option<Claim>, BackendError> {
        let query =
            self.jobs().select("*").eq("id", job.as_str()).eq("team_id", self.shared.team.as_str());
        let Some(row) = self.first(read(query)?).await? else { return Ok(Some(Claim::Lost)) };
        if text_of(&row, "status") == JobStatus::Queued.as_str() {
            return Ok(None);
        }
        let ours = self.is_claim(&row, JobStatus::Running, started_at);
        Ok(Some(if ours { Claim::Won(row) } else { Claim::Lost }))
    }

    /// The row that we claimed at `started_at`, when it was cancelled since.
    pub async fn cancelled_claim(
        &self,
        job: &JobId,
        started_at: &str,
    ) -> Result<Option<Value>, BackendError> {
        let query =
            self.jobs().select("*").eq("id", job.as_str()).eq("team_id", self.shared.team.as_str());
        let row = self.first(read(query)?).await?;
        Ok(row.filter(|row| self.is_claim(row, JobStatus::Cancelled, started_at)))
    }

    /// Whether the row runs under our id, but by a claim at another time than `started_at`.
    pub async fn claimed_by_twin(
        &self,
        job: &JobId,
        started_at: &str,
    ) -> Result<bool, BackendError> {
        let query = self.jobs().select("status,gateway_id,started_at").eq("id", job.as_str());
        let row = self.first(read(query)?).await?;
        let runs = |row: &Value| {
            text_of(row, "status") == JobStatus::Running.as_str()
                && text_of(row, "gateway_id") == self.shared.gateway.as_str()
        };
        Ok(row
            .as_ref()
            .is_some_and(|row| runs(row) && !self.is_claim(row, JobStatus::Running, started_at)))
    }

    /// The backend writes our time in another way: instants are compared, not texts.
    fn is_claim(&self, row: &Value, status: JobStatus, started_at: &str) -> bool {
        let started = time::parse(text_of(row, "started_at"));
        text_of(row, "status") == status.as_str()
            && text_of(row, "gateway_id") == self.shared.gateway.as_str()
            && started.is_some()
            && started == time::parse(started_at)
    }

    /// Another job with the same key and attempt that is running or completed: its `id`, `status`,
    /// `result`, `error`. A job without a key has none, and nothing is asked.
    pub async fn duplicate_of(&self, job: &Job) -> Result<Option<Value>, BackendError> {
        let Some(key) = &job.idempotency_key else { return Ok(None) };
        let query = self
            .jobs()
            .select("id,status,result,error")
            .eq("team_id", job.team_id.as_str())
            .eq("idempotency_key", key)
            .eq("attempt", job.attempt.to_string())
            .in_("status", ["running", "completed"])
            .neq("id", job.id.as_str())
            .order("created_at.asc");
        self.first(read_at_most(query, 1)?).await
    }

    /// Writes the end of a job while its row is still `running`. A row that is not may have been
    /// written by an earlier attempt whose answer was lost: one that ended with our status at our
    /// `completed_at` is ours.
    pub async fn complete(
        &self,
        job: &JobId,
        completion: &Completion,
    ) -> Result<Confirmation, BackendError> {
        let query =
            self.jobs().update("").select("id").eq("id", job.as_str()).eq("status", "running");
        let call = write(query, body(completion)?, Prefer::Representation)?;
        let rows = self.send(call).await?.rows()?;
        if !rows.is_empty() || self.ended_so(job, completion).await? {
            return Ok(Confirmation::Written);
        }
        Ok(Confirmation::NotOurs)
    }

    /// Whether the row holds this very end.
    async fn ended_so(&self, job: &JobId, completion: &Completion) -> Result<bool, BackendError> {
        let query = self.jobs().select("status,completed_at").eq("id", job.as_str());
        let row = match self.first(read(query)?).await {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(false),
            // What may not be read tells nothing, and is no refusal of the result.
            Err(error) if error.is_permanent_refusal() => return Ok(false),
            Err(error) => return Err(error),
        };
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let ended = time::parse(text("completed_at"));
        Ok(text("status") == completion.status.as_str()
            && ended.is_some()
            && ended == time::parse(&completion.completed_at))
    }

    /// Writes the job's `debug` column, in whatever state the row is.
    pub async fn write_debug(&self, job: &JobId, debug: &Value) -> Result<(), BackendError> {
        let query = self.jobs().update("").eq("id", job.as_str());
        let body = body(&json!({"debug": debug}))?;
        self.send(write(query, body, Prefer::Minimal)?).await.map(|_| ())
    }

    /// The row's status; `None` when it is gone.
    pub async fn job_status(&self, job: &JobId) -> Result<Option<JobStatus>, BackendError> {
        let query = self.jobs().select("status").eq("id", job.as_str());
        let Some(row) = self.first(read(query)?).await? else { return Ok(None) };
        row.get("status").and_then(Value::as_str).and_then(JobStatus::parse).map(Some).ok_or_else(
            || BackendError::Contract("the job's status is missing or not known".to_owned()),
        )
    }

    /// Our gateway row; `None` when it cannot be seen.
    pub async fn control_state(&self) -> Result<Option<ControlState>, BackendError> {
        let query = self
            .table("team_gateways")
            .select("full_control_enabled,status,last_seen_at,capabilities,vm_id")
            .eq("id", self.shared.gateway.as_str())
            .eq("team_id", self.shared.team.as_str());
        let answer = self.send(read(query)?).await?;
        let Some(row) = answer.rows()?.into_iter().next() else { return Ok(None) };
        // Ages are told by the server's clock: this machine's may be wrong.
        let now = answer.date().unwrap_or_else(Timestamp::now);
        control_state(&row, now).map(Some)
    }

    /// A resource of our team, as stored.
    pub async fn resource(&self, id: &ResourceId) -> Result<Option<Value>, BackendError> {
        let query = self
            .table("team_resources")
            .select("*")
            .eq("id", id.as_str())
            .eq("team_id", self.shared.team.as_str());
        self.first(read(query)?).await
    }

    /// Inserts into `gateway_events`.
    pub async fn record_event(&self, event: &GatewayEvent) -> Result<(), BackendError> {
        let row = json!({
            "gateway_id": self.shared.gateway,
            "team_id": self.shared.team,
            "provider": event.provider,
            "level": event.level,
            "code": event.code,
            "message": event_message(&event.message),
            "details": event.details,
        });
        let query = self.table("gateway_events").insert("");
        self.send(write(query, body(&row)?, Prefer::Minimal)?).await.map(|_| ())
    }

    pub(super) fn table(&self, name: &str) -> postgrest::Builder {
        self.shared.tables.table(&self.shared.endpoint, name)
    }

    fn jobs(&self) -> postgrest::Builder {
        self.table("gateway_jobs")
    }

    pub(super) async fn send(&self, call: Call) -> Result<super::answer::Answer, BackendError> {
        self.shared.session.send(call).await
    }

    pub(super) async fn first(&self, call: Call) -> Result<Option<Value>, BackendError> {
        Ok(self.send(call).await?.rows()?.into_iter().next())
    }
}

pub(super) fn body(value: &impl Serialize) -> Result<String, BackendError> {
    to_clean_body(value).map_err(|error| BackendError::Unsendable(error.to_string()))
}

fn count(rows: &[Value]) -> u32 {
    u32::try_from(rows.len()).unwrap_or(u32::MAX)
}

/// Where the page after this row starts.
fn text_of<'a>(row: &'a Value, name: &str) -> &'a str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn page_key(row: &Value) -> Option<PageKey> {
    Some(PageKey {
        created_at: row.get("created_at")?.as_str()?.to_owned(),
        id: JobId::new(row.get("id")?.as_str()?),
    })
}

fn control_state(row: &Value, now: Timestamp) -> Result<ControlState, BackendError> {
    let text = |name: &str| row.get(name).and_then(Value::as_str);
    let status = text("status").ok_or_else(|| {
        BackendError::Contract("the gateway's status is missing or not a text".to_owned())
    })?;
    let age = |seen: Timestamp| now.duration_since(seen).try_into().unwrap_or_default();
    Ok(ControlState {
        // Anything but a plain yes leaves machine control off.
        full_control_enabled: row.get("full_control_enabled") == Some(&Value::Bool(true)),
        status: status.to_owned(),
        heartbeat_age: text("last_seen_at").and_then(time::parse).map(age),
        capabilities: row.get("capabilities").cloned().unwrap_or_default(),
        vm_id: text("vm_id").map(str::to_owned),
    })
}

/// One line within the bound.
fn event_message(text: &str) -> String {
    let mut left = EVENT_MESSAGE_UNITS;
    text.trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take_while(|c| {
            let fits = c.len_utf16() <= left;
            left = left.saturating_sub(c.len_utf16());
            fits
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_heartbeat_is_told_by_the_servers_clock() {
        let now = time::parse("2001-01-01T00:01:00Z").unwrap();
        let row = |seen: Value| {
            json!({"full_control_enabled": true, "status": "ready", "last_seen_at": seen,
                   "capabilities": {"a": 1}, "vm_id": null, "more": 1})
        };
        for (seen, age) in [
            (json!("2001-01-01T00:00:30.5+00:00"), Some(29_500)),
            (json!("2001-01-01T00:02:00+00:00"), Some(0)),
            (json!(null), None),
            (json!("soon"), None),
        ] {
            let state = control_state(&row(seen.clone()), now).unwrap();
            assert_eq!(state.heartbeat_age, age.map(Duration::from_millis), "{seen}");
            assert!(state.full_control_enabled && state.vm_id.is_none());
        }
        let row = json!({"status": "ready", "full_control_enabled": "true", "vm_id": "vm"});
        let state = control_state(&row, now).unwrap();
        assert_eq!((state.full_control_enabled, state.vm_id.as_deref()), (false, Some("vm")));
        assert!(control_state(&json!([]), now).is_err());
    }

    #[test]
    fn event_messages_are_one_bounded_line() {
        assert_eq!(event_message(" a\nb\t"), "a b");
        assert_eq!(event_message(&"x".repeat(5000)).len(), 2000);
        assert_eq!(event_message(&"😀".repeat(5000)).encode_utf16().count(), 2000);
        assert_eq!(event_message(&format!("{}😀", "x".repeat(1999))).len(), 1999);
    }
}
