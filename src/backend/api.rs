//! Every call that a paired gateway makes, typed. Requests carry exactly what the contract names;
//! answers may carry more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::http::{Call, Limits};
use super::json::to_clean_body;
use super::pairing::succeeded;
use super::rest::{Prefer, Tables, read, write};
use super::{BackendError, Endpoint, Http, Session, realtime};
use crate::clock::Clock;
use crate::model::{Capabilities, GatewayId, GatewayStatus, JobId, ResourceId, TeamId, time};

/// Readers refuse longer event messages; counted as JavaScript counts.
const EVENT_MESSAGE_UNITS: usize = 2000;
/// While the backend is away, one warning a minute at most.
const WARN_EVERY: Duration = Duration::from_mins(1);

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

    /// What stands for the secrets that a job asks for, as stored; of a job that we run.
    pub async fn secret_placeholders(&self, job: &JobId) -> Result<Vec<Value>, BackendError> {
        let name = "rest/v1/rpc/resolve_secret_placeholders_for_job";
        let url = self.shared.endpoint.join(name)?;
        let call = Call::post(url, json!({"p_job_id": job}).to_string(), Limits::REST);
        let Value::Array(rows) = self.send(call).await?.json()? else {
            return Err(BackendError::Contract("the placeholders are no list".to_owned()));
        };
        Ok(rows)
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
