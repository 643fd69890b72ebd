//! Drives over HTTP, by a real server.

mod feed;
mod input;
mod keeping;
mod races;
mod transfers;
mod writes;

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use rusqlite::params;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::{DriveLimits, Failure, NewDrive};
use crate::model::GatewayId;
use crate::sandbox::access::{DriveToken, Identity};
use crate::sandbox::{Server, ServerOptions, auth};

/// A server with a drive `Shared`, and a VM that may write there.
pub(super) struct Fixture {
    pub(super) server: Server,
    pub(super) http: Client,
    pub(super) drive: String,
    pub(super) token: String,
    dir: TempDir,
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    crate::sandbox::contents::ContentHash::of_bytes(bytes).to_string()
}

pub(super) fn id() -> String {
    Uuid::new_v4().to_string()
}

impl Fixture {
    pub(super) async fn new() -> Self {
        Self::with(DriveLimits::default()).await
    }

    pub(super) async fn with(limits: DriveLimits) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let server = start(&dir, limits).await;
        let http = Client::builder().no_proxy().build().unwrap();
        let mut fixture = Self { server, http, drive: String::new(), token: String::new(), dir };
        fixture.drive = fixture.new_drive("Shared", "write").await;
        fixture.token = fixture.vm("vm-1").await;
        fixture
    }

    /// The same data dir under another server.
    pub(super) async fn restarted(self) -> Self {
        let Self { server, http, drive, token, dir } = self;
        let limits = server.app.drives.limits;
        server.shutdown().await;
        let server = start(&dir, limits).await;
        Self { server, http, drive, token, dir }
    }

    pub(super) async fn new_drive(&self, name: &str, access: &str) -> String {
        let team = self.server.app.team_id.clone();
        let new = NewDrive { name: name.to_owned(), access: access.to_owned() };
        let made =
            self.server.app.store.write(move |write| super::create(write.tx, team.as_str(), &new));
        made.await.map_err(Failure::told).unwrap()["drive_id"].as_str().unwrap().to_owned()
    }

    /// A paired VM; its drive token.
    pub(super) async fn vm(&self, name: &str) -> String {
        let app = &self.server.app;
        let (gateway, team) = (GatewayId::new(id()), app.team_id.clone());
        let identity = Identity {
            user_id: id(),
            session_id: id(),
            gateway_id: gateway.clone(),
            team_id: team.clone(),
        };
        let paired = app.store.write(move |write| {
            write.tx.execute(
                "INSERT INTO team_gateways (id, team_id, device_name, created_at, updated_at)
                 VALUES (?1, ?2, 'vm', 0, 0)",
                params![identity.gateway_id.as_str(), identity.team_id.as_str()],
            )?;
            auth::open_session(write.tx, &identity, &id(), 0)?;
            Ok::<_, Failure>(())
        });
        paired.await.map_err(Failure::told).unwrap();
        let vm = DriveToken { gateway_id: gateway, team_id: team, vm_id: Some(name.to_owned()) };
        super::mint_token(app, &vm).token
    }

    pub(super) async fn post(&self, token: &str, body: String) -> Response {
        let url = format!("{}/functions/v1/vm-drive-sync", self.server.url());
        let request = self.http.post(url).bearer_auth(token);
        request.header("content-type", "application/json").body(body).send().await.unwrap()
    }

    /// Status and body of the answer to an action of a VM.
    pub(super) async fn call_as(&self, token: &str, mut action: Value) -> (StatusCode, Value) {
        if action.get("client_key").is_none() {
            action["client_key"] = json!("test");
        }
        if action.get("drive_id").is_none() {
            action["drive_id"] = json!(self.drive);
        }
        let response = self.post(token, action.to_string()).await;
        let status = response.status();
        (status, response.json().await.unwrap())
    }

    pub(super) async fn call(&self, action: Value) -> (StatusCode, Value) {
        self.call_as(&self.token, action).await
    }

    /// The answer to an action that must succeed.
    pub(super) async fn done(&self, action: Value) -> Value {
        let (status, answer) = self.call(action.clone()).await;
        assert_eq!(status, 200, "{action} {answer}");
        answer
    }

    /// The code of the refusal of an action that must be refused.
    pub(super) async fn refused(&self, action: Value) -> String {
        let (status, answer) = self.call(action.clone()).await;
        assert!(!status.is_success(), "{action} {answer}");
        answer["error"]["code"].as_str().unwrap().to_owned()
    }

    /// Everything at the moment, by path.
    pub(super) async fn snapshot(&self) -> (u64, Vec<Value>) {
        let (mut page_token, mut all) = (Value::Null, Vec::new());
        loop {
            let mut action = json!({"action": "snapshot"});
            if !page_token.is_null() {
                action["page_token"] = page_token;
            }
            let page = self.done(action).await;
            all.extend(page["entries"].as_array().unwrap().iter().cloned());
            page_token = page["next_page"].clone();
            if page_token.is_null() {
                return (page["as_of_sequence"].as_u64().unwrap(), all);
            }
        }
    }

    /// A number that SQL selects.
    pub(super) async fn number(&self, sql: &'static str) -> i64 {
        let read = self.server.app.store.read(move |connection| {
            Ok::<i64, Failure>(connection.query_row(sql, [], |row| row.get(0))?)
        });
        read.await.map_err(Failure::told).unwrap()
    }

    pub(super) async fn sweep(&self) -> usize {
        super::sweep(&self.server.app).await.map_err(Failure::told).unwrap()
    }

    /// A call of the admin API that must succeed.
    pub(super) async fn admin(&self, path: &str, body: &Value) -> Value {
        use secrecy::ExposeSecret as _;
        let url = format!("{}/admin/v1/{path}", self.server.url());
        let token = self.server.admin_token().expose_secret();
        let response = self.http.post(url).bearer_auth(token).json(body).send().await.unwrap();
        let status = response.status();
        let answer = response.json().await.unwrap();
        assert!(status.is_success(), "{path} {answer}");
        answer
    }

    /// Files of contents on the disk.
    pub(super) fn files(&self) -> usize {
        let list = |path: &std::path::Path| {
            let entries = std::fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        };
        list(&self.dir.path().join("s/objects")).iter().map(|part| list(part).len()).sum()
    }

    /// Waits until nothing that nobody names is left.
    pub(super) async fn collected(&self) {
        let sql = "SELECT count(*) FROM contents WHERE holders = 0";
        tokio::time::timeout(Duration::from_secs(20), async {
            while self.number(sql).await > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}

async fn start(dir: &TempDir, limits: DriveLimits) -> Server {
    let mut options = ServerOptions::new(dir.path().join("s"), "127.0.0.1:0".parse().unwrap());
    options.drives = limits;
    Server::start(options).await.unwrap()
}

/// A file with that content, in one step.
pub(super) fn put(path: &str, content: &[u8], expected: Option<&str>) -> Value {
    use base64::Engine as _;
    json!({
        "action": "put", "path": path, "size_bytes": content.len(),
        "content_sha256": sha256(content), "expected_version_id": expected, "operation_id": id(),
        "content": base64::engine::general_purpose::STANDARD.encode(content),
    })
}

pub(super) fn prepare(path: &str, content: &[u8]) -> Value {
    json!({
        "action": "prepare_upload", "path": path, "size_bytes": content.len(),
        "content_sha256": sha256(content), "expected_version_id": null, "operation_id": id(),
    })
}

pub(super) fn mkdir(path: &str) -> Value {
    json!({"action": "mkdir", "path": path, "operation_id": id()})
}

pub(super) fn version(done: &Value) -> &str {
    done["entry"]["current_version_id"].as_str().unwrap()
}

pub(super) fn hash_lines(lines: &mut [String]) -> String {
    lines.sort_unstable();
    sha256(lines.concat().as_bytes())
}
