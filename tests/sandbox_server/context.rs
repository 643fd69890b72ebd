//! A server of its own for each test, and small helpers around it.

use std::time::Duration;

use panorama_gateway::sandbox::{AdminClient, Server, ServerOptions};
use reqwest::{Method, RequestBuilder, Response};
use rusqlite::Connection;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Context {
    pub(crate) server: Server,
    pub(crate) dir: TempDir,
    pub(crate) http: reqwest::Client,
}

/// A gateway as a code made it.
#[derive(Debug, Clone)]
pub(crate) struct Paired {
    pub(crate) gateway_id: String,
    pub(crate) team_id: String,
    pub(crate) access: String,
    pub(crate) refresh: String,
}

pub(crate) fn client() -> reqwest::Client {
    // Whichever test is first installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build().unwrap()
}

impl Context {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("sandbox");
        let mut options = ServerOptions::new(data_dir, "127.0.0.1:0".parse().unwrap());
        change(&mut options);
        let server = Server::start(options).await.unwrap();
        Self { server, dir, http: client() }
    }

    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("sandbox")
    }

    pub(crate) fn admin(&self) -> AdminClient {
        AdminClient::new(self.server.url(), self.server.admin_token().clone())
    }

    /// The database, behind the server's back.
    pub(crate) fn database(&self) -> Connection {
        Connection::open(self.data_dir().join("sandbox.db")).unwrap()
    }

    pub(crate) fn count(&self, table: &str) -> i64 {
        self.database()
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .unwrap()
    }

    /// A request with the anon key and nothing else.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.server.url()))
            .header("apikey", self.server.anon_key())
    }

    /// A request with a session.
    pub(crate) fn signed(&self, method: Method, path: &str, access: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(access)
    }

    /// A request to the admin API.
    pub(crate) fn admin_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/admin/v1/{path}", self.server.url()))
            .bearer_auth(self.server.admin_token().expose_secret())
    }

    pub(crate) async fn exchange(&self, code: &str) -> Response {
        self.request(Method::POST, "/functions/v1/exchange-gateway-pairing-code")
            .bearer_auth(self.server.anon_key())
            .json(&json!({"code": code, "device_name": "bench"}))
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn pair(&self) -> Paired {
        let code = self.admin().make_pairing_code(None).await.unwrap().code;
        let answer = self.exchange(&code).await;
        assert_eq!(answer.status(), 200);
        let body: Value = answer.json().await.unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Paired {
            gateway_id: text("gateway_id"),
            team_id: text("team_id"),
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }

    pub(crate) async fn heartbeat(&self, access: &str, body: &Value) -> Response {
        self.signed(Method::POST, "/functions/v1/gateway-heartbeat", access)
            .json(body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn refresh(&self, token: &str) -> (u16, Value) {
        let answer = self
            .request(Method::POST, "/auth/v1/token?grant_type=refresh_token")
            .header("X-Supabase-Api-Version", "2024-01-01")
            .json(&json!({"refresh_token": token}))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

/// Capabilities that readers take.
pub(crate) fn capabilities() -> Value {
    let provider = json!({"available": false, "supports":
        {"output_schema": false, "stream_json": false, "tool_disable": false}});
    json!({
        "schema_version": "v1",
        "providers": {"claude_code": provider, "codex": provider, "gemini": provider},
        "hosts": {"gateway": {"kind": "gateway", "available": true, "label": "bench",
                              "metadata": {"install_full_control_enabled": false}}},
        "services": {"model_execution": {"ready": false, "reason": "no provider"},
                     "remote_shell": {"ready": true}, "machine_control": {"ready": false}},
        "runtime": {"platform": "linux", "arch": "x64", "node_version": "none",
                    "gateway_version": "0"},
    })
}
