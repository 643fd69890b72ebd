//! The admin API from the other side: what the `sandbox` commands call.

mod drives;
mod subagents;
mod vms;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::secrets::{Secrets, SecretsError};
use super::server::ServerRecord;
use crate::fs::{self, FsError};
use crate::model::JobStatus;

pub use drives::DriveEntries;
pub use subagents::{NewRun, NewSubagent, StartedRun};
pub use vms::VmToken;

const CONNECT_TIME_LIMIT: Duration = Duration::from_secs(2);
/// Longer than the longest long poll.
const TIME_LIMIT: Duration = Duration::from_secs(40);
const FIND_TIME_LIMIT: Duration = Duration::from_secs(5);
/// A list may hold 1,000 jobs with their results.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
const MAX_RECORD: u64 = 64 * 1024;
const PATH_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminClientError {
    /// The HTTP client could not be made.
    #[error("could not make an HTTP client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No connection, or no answer in time.
    #[error("could not reach the sandbox at {url}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It refused: `{error: {code, message}}`.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What programs branch on, e.g. `no_gateway`, `job_is_over`, `job_not_found`.
        code: String,
        /// What people read.
        message: String,
        /// The job as it is, where the refusal is about one.
        job: Option<Value>,
    },
    /// An answer that is not the admin API's.
    #[error("the sandbox gave an answer that does not fit: {0}")]
    Contract(String),
    /// `server.json` does not parse.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// A file cannot be used.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The secrets cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
}

/// `GET info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// The one team.
    pub team_id: String,
    /// Base URL, for this machine.
    pub url: String,
    /// The project's key.
    pub anon_key: String,
    /// The server's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
}

/// A pairing code, with what a gateway needs to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingCode {
    /// Works once.
    pub code: String,
    /// Base URL, for the gateway's machine.
    pub url: String,
    /// The project's key.
    pub anon_key: String,
    /// Wire time.
    pub expires_at: String,
}

/// A job to submit. Absent fields get the server's defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NewJob {
    /// Default: the gateway that was seen most recently.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_id: Option<String>,
    /// E.g. `shell_exec`.
    pub job_type: String,
    /// What the type wants.
    pub payload: Map<String, Value>,
    /// Another job with the same key and attempt makes this one a duplicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// A resource to make.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NewResource {
    /// Whose it is.
    pub gateway_id: String,
    /// E.g. `remote_shell`.
    pub resource_type: String,
    /// E.g. `operator`.
    pub max_access_level: String,
    /// E.g. `{"full_control": true}`; the server adds `gateway_id`.
    pub metadata: Map<String, Value>,
}

/// A connection to a running server's admin API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdminClient {
    url: String,
    token: SecretString,
}

impl AdminClient {
    /// For a server whose address and token are known.
    pub fn new(url: impl Into<String>, token: SecretString) -> Self {
        Self { url: url.into(), token }
    }

    /// The server that runs on this data dir; `None` when there is none.
    ///
    /// Asks the server itself rather than its lock: to try a lock is to hold it for a moment, and a
    /// server that starts just then would think itself the second.
    pub async fn find(data_dir: &Path) -> Result<Option<Self>, AdminClientError> {
        let path = ServerRecord::path(data_dir);
        let Some(bytes) = fs::read_private(&path, MAX_RECORD)? else { return Ok(None) };
        let record: ServerRecord = serde_json::from_slice(&bytes)
            .map_err(|source| AdminClientError::Damaged { path, source })?;
        let Some(secrets) = Secrets::load(data_dir)? else { return Ok(None) };
        let client = Self::new(record.url, secrets.admin_token);
        match tokio::time::timeout(FIND_TIME_LIMIT, client.info()).await {
            Ok(Ok(info)) if info.pid == record.pid => Ok(Some(client)),
            // Left behind by a server that was killed; its port may be another's by now.
            Ok(Ok(_) | Err(AdminClientError::Refused { .. } | AdminClientError::Contract(_))) => {
                Ok(None)
            }
            Ok(Err(AdminClientError::Unreachable { source, .. })) if source.is_connect() => {
                Ok(None)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(AdminClientError::Contract(format!(
                "it did not answer within {FIND_TIME_LIMIT:?}"
            ))),
        }
    }

    /// Base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Who the server is.
    pub async fn info(&self) -> Result<ServerInfo, AdminClientError> {
        typed(self.get("info").await?)
    }

    /// Makes a pairing code; the name is used when the gateway gives none.
    pub async fn make_pairing_code(
        &self,
        device_name: Option<&str>,
    ) -> Result<PairingCode, AdminClientError> {
        let body = device_name.map_or_else(|| json!({}), |name| json!({"device_name": name}));
        typed(self.post("pairing-codes", &body).await?)
    }

    /// Rows of `team_gateways` with `online`, oldest first.
    pub async fn gateways(&self) -> Result<Vec<Value>, AdminClientError> {
        typed(self.get("gateways").await?)
    }

    /// Submits a job; its row.
    pub async fn submit_job(&self, job: &NewJob) -> Result<Value, AdminClientError> {
        self.post("jobs", job).await
    }

    /// Jobs, newest first; at most 1,000.
    pub async fn jobs(
        &self,
        status: Option<JobStatus>,
        limit: Option<u32>,
    ) -> Result<Vec<Value>, AdminClientError> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if let Some(status) = status {
            query.append_pair("status", status.as_str());
        }
        if let Some(limit) = limit {
            query.append_pair("limit", &limit.to_string());
        }
        typed(self.get(&format!("jobs?{}", query.finish())).await?)
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<Value, AdminClientError> {
        self.get(&format!("jobs/{}", segment(id))).await
    }

    /// One job once it is no longer as it was at `after` (its `updated_at`), or after `wait` (at
    /// most 25 s).
    pub async fn job_after(
        &self,
        id: &str,
        after: &str,
        wait: Duration,
    ) -> Result<Value, AdminClientError> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("wait_ms", &wait.as_millis().to_string())
            .append_pair("after", after)
            .finish();
        self.get(&format!("jobs/{}?{query}", segment(id))).await
    }

    /// Calls a job off; its row. A job that has ended is refused with `job_is_over` and its row.
    pub async fn cancel_job(&self, id: &str) -> Result<Value, AdminClientError> {
        self.post(&format!("jobs/{}/cancel", segment(id)), &json!({})).await
    }

    /// Sets the team's toggle of machine control; the gateway's row.
    pub async fn set_full_control(
        &self,
        gateway_id: Option<&str>,
        enabled: bool,
    ) -> Result<Value, AdminClientError> {
        let mut body = json!({"enabled": enabled});
        if let Some(id) = gateway_id {
            body["gateway_id"] = json!(id);
        }
        self.post("full-control", &body).await
    }

    /// Makes a resource; its row.
    pub async fn make_resource(&self, resource: &NewResource) -> Result<Value, AdminClientError> {
        self.post("resources", resource).await
    }

    /// The team's resources.
    pub async fn resources(&self) -> Result<Vec<Value>, AdminClientError> {
        typed(self.get("resources").await?)
    }

    /// What gateways reported, newest first.
    pub async fn events(&self, limit: Option<u32>) -> Result<Vec<Value>, AdminClientError> {
        let query = limit.map_or_else(String::new, |limit| format!("?limit={limit}"));
        typed(self.get(&format!("events{query}")).await?)
    }

    async fn get(&self, path: &str) -> Result<Value, AdminClientError> {
        self.send(self.request(Method::GET, path)?).await
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, AdminClientError> {
        self.send(self.request(Method::POST, path)?.json(body)).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
    ) -> Result<reqwest::RequestBuilder, AdminClientError> {
        let url = format!("{}/admin/v1/{path}", self.url);
        Ok(http_client()?.request(method, url).bearer_auth(self.token.expose_secret()))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, AdminClientError> {
        let unreachable = |source| AdminClientError::Unreachable { url: self.url.clone(), source };
        let mut answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if bytes.len().saturating_add(chunk.len()) > MAX_ANSWER {
                let reason = format!("it is larger than {MAX_ANSWER} bytes");
                return Err(AdminClientError::Contract(reason));
            }
            bytes.extend_from_slice(&chunk);
        }
        let body: Value = serde_json::from_slice(&bytes)
            .map_err(|_| AdminClientError::Contract(format!("{status}, and no JSON")))?;
        if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
    }
}

fn refused(status: StatusCode, body: &Value) -> AdminClientError {
    let text = |name: &str| body["error"][name].as_str().map(str::to_owned);
    match (text("code"), text("message")) {
        (Some(code), Some(message)) => AdminClientError::Refused {
            status: status.as_u16(),
            code,
            message,
            job: body.get("job").cloned(),
        },
        _ => AdminClientError::Contract(format!("{status} without an error")),
    }
}

fn typed<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, AdminClientError> {
    serde_json::from_value(answer).map_err(|error| AdminClientError::Contract(error.to_string()))
}

fn segment(id: &str) -> String {
    utf8_percent_encode(id, PATH_SEGMENT).to_string()
}

/// The one client of these calls, made when first needed. It never leaves this machine's network
/// by a proxy and never speaks TLS, so no root certificates are loaded for it.
fn http_client() -> Result<&'static reqwest::Client, AdminClientError> {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| AdminClientError::Client(error.into()))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIME_LIMIT)
        .timeout(TIME_LIMIT)
        .build()
        .map_err(|error| AdminClientError::Client(error.into()))?;
    Ok(CLIENT.get_or_init(|| client))
}
