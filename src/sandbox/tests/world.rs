//! A server with two teams' rows in it, and the callers who try to get at them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use super::seed::{identity, seed, seed_objects};
use super::{drives, realtime, storage};

use crate::sandbox::access::{AccessTokens, DriveToken, Identity};
use crate::sandbox::app::now_micros;
use crate::sandbox::jwt::Signer;
use crate::sandbox::rules::Rules;
use crate::sandbox::store::schema::Schema;
use crate::sandbox::{Server, ServerOptions};

pub(super) const OWNER: &str = "00000000-0000-4000-8000-0000000000a1";
pub(super) const SIBLING: &str = "00000000-0000-4000-8000-0000000000a2";
pub(super) const STRANGER: &str = "00000000-0000-4000-8000-0000000000b1";
pub(super) const OTHER_TEAM: &str = "00000000-0000-4000-8000-00000000000b";
pub(super) const SUBAGENT: &str = "00000000-0000-4000-8000-000000000301";
pub(super) const RUN: &str = "00000000-0000-4000-8000-000000000401";
pub(super) const CODE: &str = "GOODCODE";
pub(super) const USED_CODE: &str = "USEDCODE";
pub(super) const OLD_CODE: &str = "PASTCODE";
pub(super) const VM_TOKEN: &str = "good-token";
pub(super) const USED_VM_TOKEN: &str = "used-token";
pub(super) const OLD_VM_TOKEN: &str = "past-token";

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
    /// A word for each set of rows and files that may be other than before.
    Files(Vec<(&'static str, Files)>),
    /// A signed URL: `yes` for objects of the owner's team, `own` for those of the other one.
    Signs,
}

/// Rows by table and first column; files of contents are in the table `files`, objects are
/// named by team, bucket and name.
pub(super) type Files = BTreeSet<(&'static str, String)>;

/// What a request carries.
#[derive(Debug, Clone)]
pub(super) enum Body {
    None,
    Json(Value),
    /// Of that content type.
    Bytes(&'static str, String),
    /// Of a length that is not announced.
    Stream(Vec<String>),
}

/// One request of a cell.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Body,
    /// An `apikey` among them stands for the project's.
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// SQL that is run before it.
    pub(super) before: Option<String>,
    /// Wrong pairing codes that were tried before it.
    pub(super) guesses: u32,
    /// Whether the caller's token is a session's that begins tomorrow.
    pub(super) is_early: bool,
    /// Whether the caller shows a drive token where it would show a session's.
    pub(super) is_drive: bool,
    pub(super) expect: Expect,
}

impl Probe {
    pub(super) fn get(path: impl Into<String>, expect: Expect) -> Self {
        let path = path.into();
        let (method, body) = (Method::GET, Body::None);
        let headers = Vec::new();
        Self {
            method,
            path,
            body,
            headers,
            before: None,
            guesses: 0,
            is_early: false,
            is_drive: false,
            expect,
        }
    }

    pub(super) fn post(path: impl Into<String>, body: Value, expect: Expect) -> Self {
        Self { method: Method::POST, body: Body::Json(body), ..Self::get(path, expect) }
    }
}

/// All rows: table and rowid, first column, everything. Files of contents are among them.
type Rows = BTreeMap<(String, String), (String, String)>;

pub(super) struct World {
    pub(super) server: Server,
    pub(super) team: String,
    /// The owner's refresh tokens: long used, used, live.
    pub(super) refresh: [String; 3],
    http: reqwest::Client,
    database: Connection,
    tables: Vec<String>,
    rows: Rows,
    /// The files that there were at the beginning, and what was in them.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// What was seen of the rows about realtime: a word for each caller.
    pub(super) heard: BTreeMap<String, Vec<String>>,
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
        options.schema = storage::BUCKETS.iter().fold(schema, Schema::with_bucket);
        // The fixture's are as old as can be.
        options.keep_jobs = None;
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
            files: BTreeMap::new(),
            heard: BTreeMap::new(),
            dir,
        };
        seed(&world.database, &world.team, &world.refresh[0]);
        drives::seed(&world.database, &world.team);
        seed_objects(&world.database, &world.team, &world.objects());
        world.files = files(&world.objects());
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

    /// Where contents are.
    fn objects(&self) -> PathBuf {
        self.dir.path().join("s/objects")
    }

    pub(super) fn token(&self, who: Who) -> String {
        let app = &self.server.app;
        let now = now_micros() / 1_000_000;
        let identity = self.identity(who);
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

    /// What a caller shows where drive tokens are taken.
    fn drive_token(&self, who: Who) -> String {
        let Identity { gateway_id, team_id, .. } = self.identity(who);
        let token = DriveToken { gateway_id, team_id, vm_id: None };
        let now = now_micros() / 1_000_000;
        let access = &self.server.app.access;
        match who {
            Who::KeyOnly | Who::Admin => self.token(who),
            Who::Expired => access.mint_drive(&token, now - 7200, 3600),
            Who::Forged => {
                let signer = Signer::new(b"somebody else's");
                let forger = AccessTokens::new(signer, "x".into(), 3600, Rules::default());
                forger.mint_drive(&token, now, 3600)
            }
            Who::NoKey | Who::Owner | Who::Sibling | Who::Stranger | Who::Moved | Who::Drive => {
                access.mint_drive(&token, now, 3600)
            }
        }
    }

    pub(super) fn identity(&self, who: Who) -> Identity {
        identity(who.gateway(), self.team_of(who))
    }

    fn request(&self, who: Who, probe: &Probe) -> RequestBuilder {
        let url = format!("{}{}", self.server.url(), probe.path);
        let token = if probe.is_early {
            let tomorrow = now_micros() / 1_000_000 + 24 * 3600;
            self.server.app.access.mint(&self.identity(who), tomorrow)
        } else if probe.is_drive {
            self.drive_token(who)
        } else {
            self.token(who)
        };
        let mut request = self.http.request(probe.method.clone(), url).bearer_auth(token);
        if who != Who::NoKey && probe.headers.iter().all(|(name, _)| *name != "apikey") {
            request = request.header("apikey", self.server.anon_key());
        }
        for (name, value) in &probe.headers {
            request = request.header(*name, *value);
        }
        match &probe.body {
            Body::None => request,
            Body::Json(body) => request.json(body),
            Body::Bytes(kind, body) => request.header("content-type", *kind).body(body.clone()),
            Body::Stream(parts) => {
                let parts = parts.clone().into_iter().map(Ok::<_, std::io::Error>);
                request.body(reqwest::Body::wrap_stream(futures_util::stream::iter(parts)))
            }
        }
    }

    /// Makes the request and says what came of it in a word; the rows are as before afterwards.
    pub(super) async fn outcome(&mut self, who: Who, probe: &Probe) -> String {
        if let Some(sql) = &probe.before {
            self.database.execute_batch(sql).unwrap();
            self.rows = self.all();
        }
        for _ in 0..probe.guesses {
            let _ = self.server.app.guesses.admit(Ipv4Addr::LOCALHOST.into(), Instant::now());
        }
        let answer = self.request(who, probe).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        for _ in 0..=probe.guesses {
            self.server.app.guesses.forgive(Ipv4Addr::LOCALHOST.into());
        }
        self.swept().await;
        let after = self.all();
        let wrote: Vec<(String, String)> = changed(&self.rows, &after);
        if !wrote.is_empty() || probe.before.is_some() {
            self.restore();
        }
        if !status.is_success() && status != StatusCode::SWITCHING_PROTOCOLS {
            let more = if wrote.is_empty() { "" } else { " wrote" };
            return format!("{}{more}", status_in(&text).unwrap_or(status.as_str().to_owned()));
        }
        self.word(&probe.expect, &wrote, &text)
    }

    /// What a good answer comes to.
    fn word(&self, expect: &Expect, wrote: &[(String, String)], text: &str) -> String {
        let word = match expect {
            Expect::Answer if wrote.is_empty() => Some("yes"),
            Expect::Shows(id) if wrote.is_empty() => {
                Some(if text.contains(id) { "yes" } else { "none" })
            }
            Expect::Signs if wrote.is_empty() => match storage::signed_team(text).as_deref() {
                None => Some("none"),
                Some(team) if team == self.team => Some("yes"),
                Some(team) => (team == OTHER_TEAM).then_some("own"),
            },
            Expect::Writes(_) | Expect::Files(_) if wrote.is_empty() => Some("none"),
            Expect::Writes(rows) => are(rows, wrote).then_some("yes"),
            Expect::Files(words) => {
                let seen: Vec<_> = wrote.iter().map(|(table, id)| (table.as_str(), id)).collect();
                let fits = |rows: &Files| {
                    rows.len() == seen.len()
                        && rows.iter().all(|(table, id)| seen.contains(&(*table, id)))
                };
                words.iter().find(|(_, rows)| fits(rows)).map(|(word, _)| *word)
            }
            Expect::Answer | Expect::Shows(_) | Expect::Signs => None,
        };
        word.map_or_else(|| format!("wrote {wrote:?}, answered {text:?}"), str::to_owned)
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
                let text = |at| match row.get_ref(at).unwrap() {
                    ValueRef::Integer(number) => number.to_string(),
                    ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => String::new(),
                };
                let first = match table.as_str() {
                    "objects" => format!("{}/{}/{}", text(2), text(3), text(4)),
                    _ => text(1),
                };
                let rowid = format!("{:020}", row.get::<_, i64>(0).unwrap());
                all.insert((table.clone(), rowid), (first, cells.join("|")));
            }
        }
        for (path, content) in files(&self.objects()) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let content = String::from_utf8_lossy(&content).into_owned();
            all.insert(("files".into(), path.display().to_string()), (name, content));
        }
        all
    }

    /// Waits until the server has removed the contents that nobody names any more.
    async fn swept(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let unheld = || -> bool {
            let sql = "SELECT EXISTS (SELECT 1 FROM main.contents WHERE holders = 0)";
            self.database.prepare_cached(sql).unwrap().query_row([], |row| row.get(0)).unwrap()
        };
        while unheld() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// For what changes rows by itself.
    pub(super) fn execute(&self, sql: &str) {
        self.database.execute_batch(sql).unwrap();
    }

    /// The word for a caller in a row about realtime.
    pub(super) async fn hears(&mut self, row: &str, who: Who) -> String {
        if !self.heard.contains_key(row) {
            let heard = realtime::hear(self, row).await;
            self.heard.extend(heard);
            self.restore();
        }
        let at = Who::ALL.iter().position(|(known, _)| *known == who).unwrap();
        self.heard[row][at].clone()
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
        for path in files(&self.objects()).keys().filter(|path| !self.files.contains_key(*path)) {
            std::fs::remove_file(path).unwrap();
        }
        for (path, content) in &self.files {
            std::fs::write(path, content).unwrap();
        }
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

/// The status that an error of storage names in its body.
fn status_in(text: &str) -> Option<String> {
    let body: Value = serde_json::from_str(text).ok()?;
    body["statusCode"].as_str().map(str::to_owned)
}

/// All files of contents, those on their way in as well.
fn files(objects: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = |directory: &Path| {
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let all = entries(objects).into_iter().flat_map(|directory| entries(&directory));
    all.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn are(expected: &[(&'static str, Option<String>)], wrote: &[(String, String)]) -> bool {
    expected.len() == wrote.len()
        && expected.iter().zip(wrote).all(|((table, id), (wrote_table, wrote_id))| {
            table == wrote_table && id.as_ref().is_none_or(|id| id == wrote_id)
        })
}
