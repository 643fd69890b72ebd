//! A server with two teams' rows in it, and the callers who try to get at them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use rusqlite::{Connection, params};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::model::{GatewayId, TeamId};
use crate::sandbox::access::{AccessTokens, Identity};
use crate::sandbox::app::now_micros;
use crate::sandbox::jwt::Signer;
use crate::sandbox::rules::Rules;
use crate::sandbox::store::schema::Schema;
use crate::sandbox::{Server, ServerOptions, auth, functions};

pub(super) const OWNER: &str = "00000000-0000-4000-8000-0000000000a1";
pub(super) const SIBLING: &str = "00000000-0000-4000-8000-0000000000a2";
pub(super) const STRANGER: &str = "00000000-0000-4000-8000-0000000000b1";
pub(super) const OTHER_TEAM: &str = "00000000-0000-4000-8000-00000000000b";
pub(super) const SUBAGENT: &str = "00000000-0000-4000-8000-000000000301";
pub(super) const RUN: &str = "00000000-0000-4000-8000-000000000401";
pub(super) const CODE: &str = "GOODCODE";
pub(super) const USED_CODE: &str = "USEDCODE";
pub(super) const OLD_CODE: &str = "PASTCODE";

/// A column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    NoKey,
    KeyOnly,
    Owner,
    Sibling,
    Stranger,
    Moved,
    Expired,
    Forged,
    Drive,
    Admin,
}

impl Who {
    pub(super) const ALL: [(Self, &'static str); 10] = [
        (Self::NoKey, "no key"),
        (Self::KeyOnly, "key only"),
        (Self::Owner, "owner"),
        (Self::Sibling, "sibling"),
        (Self::Stranger, "stranger"),
        (Self::Moved, "moved"),
        (Self::Expired, "expired"),
        (Self::Forged, "forged"),
        (Self::Drive, "drive"),
        (Self::Admin, "admin"),
    ];

    /// The gateway that its token names, or would.
    pub(super) fn gateway(self) -> &'static str {
        match self {
            Self::Sibling => SIBLING,
            Self::Stranger => STRANGER,
            Self::NoKey
            | Self::KeyOnly
            | Self::Owner
            | Self::Moved
            | Self::Expired
            | Self::Forged
            | Self::Drive
            | Self::Admin => OWNER,
        }
    }
}

/// What a good answer to a probe looks like.
#[derive(Debug, Clone)]
pub(super) enum Expect {
    /// Any answer that is no error.
    Answer,
    /// A row that holds this text is among those shown.
    Shows(&'static str),
    /// Exactly these rows are other than before: table, and the first column where it is known.
    Writes(Vec<(&'static str, Option<String>)>),
}

/// One request of a cell.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) header: Option<(&'static str, &'static str)>,
    /// SQL that is run before it.
    pub(super) before: Option<String>,
    pub(super) expect: Expect,
}

impl Probe {
    pub(super) fn get(path: impl Into<String>, expect: Expect) -> Self {
        let path = path.into();
        Self { method: Method::GET, path, body: None, header: None, before: None, expect }
    }

    pub(super) fn post(path: impl Into<String>, body: Value, expect: Expect) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(path, expect) }
    }
}

/// All rows: table and rowid, first column, everything.
type Rows = BTreeMap<(String, i64), (String, String)>;

pub(super) struct World {
    pub(super) server: Server,
    pub(super) team: String,
    /// The owner's refresh tokens: long used, used, live.
    pub(super) refresh: [String; 3],
    http: reqwest::Client,
    database: Connection,
    tables: Vec<String>,
    rows: Rows,
    /// Removed when the world is dropped.
    dir: TempDir,
}

impl World {
    pub(super) async fn new(schema: Schema, rules: Rules) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Memory, where there is some: thousands of worlds are made.
        let memory = std::path::Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::tempdir_in(parent).unwrap();
        let mut options = ServerOptions::new(dir.path().join("s"), "127.0.0.1:0".parse().unwrap());
        options.schema = schema;
        options.rules = rules;
        let server = Server::start(options).await.unwrap();
        let database = Connection::open(dir.path().join("s/sandbox.db")).unwrap();
        database.busy_timeout(Duration::from_secs(5)).unwrap();
        database.execute_batch("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF;").unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let tables = names(&database);
        let team = server.app.team_id.as_str().to_owned();
        let mut world = Self {
            refresh: ["firstfirstfirst".into(), String::new(), String::new()],
            server,
            team,
            http,
            database,
            tables,
            rows: Rows::new(),
            dir,
        };
        seed(&world.database, &world.team, &world.refresh[0]);
        for step in 0..2 {
            world.refresh[step + 1] = world.rotated(&world.refresh[step]).await;
        }
        world
            .database
            .execute(
                "UPDATE refresh_tokens SET revoked_at = 1
                 WHERE parent_sha256 IS NULL AND revoked_at IS NOT NULL",
                [],
            )
            .unwrap();
        let path = world.dir.path().join("seed.db").display().to_string();
        world.database.execute("VACUUM INTO ?1", [&path]).unwrap();
        world.database.execute("ATTACH ?1 AS seed", [&path]).unwrap();
        world.rows = world.all();
        world
    }

    async fn rotated(&self, token: &str) -> String {
        let body = serde_json::json!({"refresh_token": token});
        let url = format!("{}/auth/v1/token?grant_type=refresh_token", self.server.url());
        let request = self.http.post(url).header("apikey", self.server.anon_key()).json(&body);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["refresh_token"].as_str().unwrap().to_owned()
    }

    /// The team that a caller's token names, or would.
    pub(super) fn team_of(&self, who: Who) -> &str {
        if matches!(who, Who::Stranger | Who::Moved) { OTHER_TEAM } else { &self.team }
    }

    fn token(&self, who: Who) -> String {
        let app = &self.server.app;
        let now = now_micros() / 1_000_000;
        let identity = identity(who.gateway(), self.team_of(who));
        match who {
            Who::KeyOnly => self.server.anon_key().to_owned(),
            Who::Admin => self.server.admin_token().expose_secret().to_owned(),
            Who::Expired => app.access.mint(&identity, now - 7200),
            Who::Forged => {
                let signer = Signer::new(b"somebody else's");
                AccessTokens::new(signer, "x".into(), 3600, Rules::default()).mint(&identity, now)
            }
            Who::Drive => self.server.drive_token(
                identity.gateway_id,
                identity.team_id,
                None,
                Duration::from_mins(1),
            ),
            Who::NoKey | Who::Owner | Who::Sibling | Who::Stranger | Who::Moved => {
                app.access.mint(&identity, now)
            }
        }
    }

    fn request(&self, who: Who, probe: &Probe) -> RequestBuilder {
        let url = format!("{}{}", self.server.url(), probe.path);
        let mut request = self.http.request(probe.method.clone(), url).bearer_auth(self.token(who));
        if who != Who::NoKey {
            request = request.header("apikey", self.server.anon_key());
        }
        if let Some((name, value)) = probe.header {
            request = request.header(name, value);
        }
        if let Some(body) = &probe.body { request.json(body) } else { request }
    }

    /// Makes the request and says what came of it in a word; the rows are as before afterwards.
    pub(super) async fn outcome(&mut self, who: Who, probe: &Probe) -> String {
        if let Some(sql) = &probe.before {
            self.database.execute_batch(sql).unwrap();
            self.rows = self.all();
        }
        let answer = self.request(who, probe).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        self.server.app.guesses.forgive(Ipv4Addr::LOCALHOST.into());
        let after = self.all();
        let wrote: Vec<(String, String)> = changed(&self.rows, &after);
        if !wrote.is_empty() || probe.before.is_some() {
            self.restore();
        }
        if !status.is_success() {
            let more = if wrote.is_empty() { "" } else { " wrote" };
            return format!("{}{more}", status.as_u16());
        }
        match &probe.expect {
            Expect::Answer if wrote.is_empty() => "yes".into(),
            Expect::Shows(id) if wrote.is_empty() => {
                if text.contains(id) { "yes" } else { "none" }.into()
            }
            Expect::Writes(_) if wrote.is_empty() => "none".into(),
            Expect::Writes(rows) if are(rows, &wrote) => "yes".into(),
            Expect::Answer | Expect::Shows(_) | Expect::Writes(_) => format!("wrote {wrote:?}"),
        }
    }

    fn all(&self) -> Rows {
        let mut all = Rows::new();
        for table in &self.tables {
            let sql = format!("SELECT rowid, * FROM main.\"{table}\"");
            let mut statement = self.database.prepare_cached(&sql).unwrap();
            let columns = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let cells: Vec<String> =
                    (1..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap())).collect();
                let first: String = row.get(1).unwrap();
                all.insert((table.clone(), row.get(0).unwrap()), (first, cells.join("|")));
            }
        }
        all
    }

    fn restore(&mut self) {
        let emptied_and_filled = self.tables.iter().map(|table| {
            format!(
                "DELETE FROM main.\"{table}\";
                 INSERT INTO main.\"{table}\" SELECT * FROM seed.\"{table}\";"
            )
        });
        let sql: String = emptied_and_filled.collect();
        self.database.execute_batch(&format!("BEGIN IMMEDIATE; {sql} COMMIT;")).unwrap();
        self.rows = self.all();
    }

    pub(super) async fn end(self) {
        self.server.shutdown().await;
    }
}

fn names(database: &Connection) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    let mut statement = database.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn changed(before: &Rows, after: &Rows) -> Vec<(String, String)> {
    let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| {
            let (first, _) = after.get(key).or_else(|| before.get(key)).unwrap();
            (key.0.clone(), first.clone())
        })
        .collect()
}

fn are(expected: &[(&'static str, Option<String>)], wrote: &[(String, String)]) -> bool {
    expected.len() == wrote.len()
        && expected.iter().zip(wrote).all(|((table, id), (wrote_table, wrote_id))| {
            table == wrote_table && id.as_ref().is_none_or(|id| id == wrote_id)
        })
}

fn identity(gateway: &str, team: &str) -> Identity {
    Identity {
        user_id: format!("user of {gateway}"),
        session_id: format!("session of {gateway}"),
        gateway_id: GatewayId::new(gateway),
        team_id: TeamId::new(team),
    }
}

/// The id of the owner's row of a table in a state.
pub(super) fn row_in(table: &str, state: &str) -> String {
    let area = match table {
        "gateway_jobs" => 1,
        "subagents" => 3,
        _ => 4,
    };
    let at = states(table).iter().position(|known| *known == state).unwrap();
    format!("00000000-0000-4000-8000-000000000{area}{:02}", at + 1)
}

/// The states of a table's rows; the first is the one that its rows work in.
pub(super) fn states(table: &str) -> &'static [&'static str] {
    if table == "subagents" {
        &["running", "idle", "completed", "failed", "cancelled"]
    } else {
        &["running", "queued", "completed", "failed", "cancelled"]
    }
}

fn seed(database: &Connection, team: &str, refresh: &str) {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| database.execute(sql, values).unwrap();
    run("INSERT INTO teams VALUES (?1, 'other', 0)", params![OTHER_TEAM]);
    for (id, team, code) in
        [(OWNER, team, CODE), (SIBLING, team, USED_CODE), (STRANGER, OTHER_TEAM, OLD_CODE)]
    {
        let sql = "INSERT INTO team_gateways (id, team_id, device_name, created_at, updated_at)
                   VALUES (?1, ?2, 'box', 0, 0)";
        run(sql, params![id, team]);
        let token = if id == OWNER { refresh } else { id };
        auth::open_session(database, &identity(id, team), token, 0).unwrap();
        let (used, expires) = (code == USED_CODE, if code == OLD_CODE { 1 } else { i64::MAX });
        let sql = "INSERT INTO pairing_codes VALUES (?1, ?2, NULL, 0, ?3, iif(?4, 1, NULL))";
        run(sql, params![functions::code_hash(code), team, expires, used]);
    }
    for state in states("gateway_jobs") {
        let sql = "INSERT INTO gateway_jobs
                   (id, team_id, gateway_id, job_type, status, created_at, updated_at)
                   VALUES (?1, ?2, ?3, 'diagnostic', ?4, 0, 0)";
        run(sql, params![row_in("gateway_jobs", state), team, OWNER, state]);
    }
    let sql = "INSERT INTO job_secret_placeholders SELECT id, 'TOKEN', 'a secret', 'pano_sec_1'
               FROM gateway_jobs";
    run(sql, &[]);
    for state in states("subagents") {
        let sql = "INSERT INTO subagents
                   (id, team_id, gateway_id, subagent_type, status, created_at, updated_at)
                   VALUES (?1, ?2, ?3, 'codex_gateway', ?4, 0, 0)";
        run(sql, params![row_in("subagents", state), team, OWNER, state]);
    }
    for (sequence, state) in (1_i64..).zip(states("subagent_runs")) {
        let sql = "INSERT INTO subagent_runs (id, subagent_id, team_id, gateway_id, run_sequence,
                   status, prompt, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'do it', 0)";
        let id = row_in("subagent_runs", state);
        run(sql, params![id, SUBAGENT, team, OWNER, sequence, state]);
    }
    for (table, columns, values) in [
        (
            "subagent_run_events",
            "run_id, subagent_id, gateway_id, sequence, event_type",
            format!("'{RUN}', '{SUBAGENT}', '{OWNER}', 0, 'system'"),
        ),
        ("gateway_events", "gateway_id, level, message", format!("'{OWNER}', 'info', 'm'")),
        (
            "team_resources",
            "resource_type, max_access_level, updated_at",
            "'remote_shell', 'execute', 0".to_owned(),
        ),
    ] {
        let sql = format!(
            "INSERT INTO {table} (id, team_id, created_at, {columns}) VALUES (?1, ?2, 0, {values})"
        );
        run(&sql, params![super::tables::ROW, team]);
    }
}
