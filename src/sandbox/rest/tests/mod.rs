//! REST against a real store, through [`handle`] only.

mod access;
mod claims;
mod grammar;
mod items;
mod property;
mod writes;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{RestRequest, handle};
use crate::model::{GatewayId, TeamId};
use crate::sandbox::Caller;
use crate::sandbox::store::schema::Schema;
use crate::sandbox::store::{RowError, Store, StoreError};

pub(super) const TEAM: &str = "00000000-0000-4000-8000-00000000000a";
pub(super) const OTHER_TEAM: &str = "00000000-0000-4000-8000-00000000000b";
pub(super) const GATEWAY: &str = "00000000-0000-4000-8000-0000000000a1";
pub(super) const TEAM_MATE: &str = "00000000-0000-4000-8000-0000000000a2";
pub(super) const STRANGER: &str = "00000000-0000-4000-8000-0000000000b1";
pub(super) const USER: &str = "00000000-0000-4000-8000-0000000000f1";
pub(super) const OTHER_USER: &str = "00000000-0000-4000-8000-0000000000f2";

#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Null for an empty body.
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and `code` of an error; checks that the four fields are there.
    pub(super) fn error(&self) -> (u16, &str) {
        let fields = self.body.as_object().unwrap_or_else(|| panic!("no error: {self:?}"));
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["code", "message", "details", "hint"]);
        let code = self.body["code"].as_str().unwrap();
        assert_eq!(self.header("proxy-status"), format!("PostgREST; error={code}"));
        (self.status.as_u16(), code)
    }

    /// One column of all rows.
    pub(super) fn column(&self, name: &str) -> Vec<Value> {
        let rows = self.body.as_array().unwrap_or_else(|| panic!("no rows: {self:?}"));
        rows.iter().map(|row| row[name].clone()).collect()
    }
}

/// A store with two teams and three gateways.
pub(super) struct Server {
    pub(super) store: Store,
    _dir: TempDir,
}

impl Server {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let schema = items::added_to(Schema::built_in());
        let store = Store::open_with(&dir.path().join("sandbox.db"), schema).unwrap();
        let server = Self { store, _dir: dir };
        let teams = server.store.write(|write| {
            for team in [TEAM, OTHER_TEAM] {
                write.tx.execute("INSERT INTO teams VALUES (?1, 'team', 0)", [team])?;
            }
            Ok::<_, StoreError>(())
        });
        teams.await.unwrap();
        for (id, team) in [(GATEWAY, TEAM), (TEAM_MATE, TEAM), (STRANGER, OTHER_TEAM)] {
            let row = json!({"id": id, "team_id": team, "device_name": "d"});
            server.insert("team_gateways", row).await;
        }
        server
    }

    /// Inserts without asking for rights; returns the row's id.
    pub(super) async fn insert(&self, table: &'static str, row: Value) -> String {
        let row = self.store.write(move |write| {
            Ok::<_, Refused>(Store::insert(write.tx, table, row.as_object().unwrap())?)
        });
        row.await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// A queued job.
    pub(super) async fn job(&self, gateway: &str, team: &str) -> String {
        let row = json!({"gateway_id": gateway, "team_id": team, "job_type": "diagnostic"});
        self.insert("gateway_jobs", row).await
    }

    pub(super) async fn row(&self, table: &'static str, id: &str) -> Value {
        let id = id.to_owned();
        let row = self.store.read(move |c| Ok::<_, StoreError>(Store::row(c, table, &id)?));
        row.await.unwrap().unwrap()
    }

    pub(super) async fn call(
        &self,
        caller: &Caller,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = headers.iter().map(|(name, value)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        });
        let request = RestRequest {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: headers.collect(),
            body: body.as_bytes().to_vec(),
        };
        let (parts, body) = handle(&self.store, caller, request).await.into_parts();
        let body =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(super) async fn get(&self, target: &str) -> Answer {
        self.call(&me(), Method::GET, target, &[], "").await
    }

    pub(super) async fn post(&self, target: &str, prefer: &str, body: &Value) -> Answer {
        self.send(Method::POST, target, prefer, body).await
    }

    pub(super) async fn patch(&self, target: &str, prefer: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, target, prefer, body).await
    }

    pub(super) async fn delete(&self, target: &str, prefer: &str) -> Answer {
        self.call(&me(), Method::DELETE, target, &[("prefer", prefer)], "").await
    }

    async fn send(&self, method: Method, target: &str, prefer: &str, body: &Value) -> Answer {
        let headers = [("prefer", prefer), ("content-type", "application/json")];
        self.call(&me(), method, target, &headers, &body.to_string()).await
    }
}

pub(super) fn gateway(id: &str, team: &str, user: &str) -> Caller {
    Caller::Gateway {
        user_id: user.to_owned(),
        session_id: "s".to_owned(),
        gateway_id: GatewayId::new(id),
        team_id: TeamId::new(team),
    }
}

pub(super) fn me() -> Caller {
    gateway(GATEWAY, TEAM, USER)
}

/// Percent-encodes everything.
pub(super) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
