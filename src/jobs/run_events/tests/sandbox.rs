//! Against the sandbox, over HTTP: the calls fit the contract, and how fast it is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, params};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::{Api, Endpoint, Http, Session, TokenStore, Tokens, exchange_pairing_code};
use crate::config::{ConfigStore, Environment, Paths};
use crate::jobs::Subagents;
use crate::jobs::handlers::Host;
use crate::jobs::journal::Journal;
use crate::jobs::run_events::{Ended, Left, RunEvents, RunEventsDriver, finish, left, open};
use crate::model::{RunId, SubagentId};
use crate::observe::{Audit, Redactor};
use crate::providers::Roster;
use crate::sandbox::{AdminClient, Server, ServerOptions};

const SUBAGENT: &str = "00000000-0000-4000-8000-000000000001";
const RUN: &str = "00000000-0000-4000-8000-000000000002";

/// Keeps the tokens in memory.
#[derive(Debug)]
struct InMemory(Mutex<Tokens>);

impl TokenStore for InMemory {
    fn load(&self) -> anyhow::Result<Option<Tokens>> {
        Ok(Some(self.0.lock().unwrap().clone()))
    }

    fn save(&self, tokens: &Tokens, _: &SecretString) -> anyhow::Result<bool> {
        *self.0.lock().unwrap() = tokens.clone();
        Ok(true)
    }

    fn lock_refresh(&self) -> anyhow::Result<Box<dyn std::any::Any + Send>> {
        Ok(Box::new(()))
    }
}

struct World {
    _server: Server,
    host: Host,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let options = ServerOptions::new(dir.path().join("s"), "127.0.0.1:0".parse().unwrap());
        let server = Server::start(options).await.unwrap();
        let endpoint =
            Endpoint { url: server.url().to_owned(), anon_key: server.anon_key().into() };
        let admin = AdminClient::new(server.url(), server.admin_token().clone());
        let code = admin.make_pairing_code(None).await.unwrap().code;
        let http = Http::new(&endpoint).unwrap();
        let paired = exchange_pairing_code(&http, &endpoint, &code, "bench").await.unwrap();
        let store: Arc<dyn TokenStore> = Arc::new(InMemory(Mutex::new(paired.tokens)));
        let session = Arc::new(Session::new(http.clone(), endpoint.clone(), store).unwrap());
        let api = Api::new(http, endpoint, session, paired.gateway_id, paired.team_id);
        start_run(&database(dir.path()), &api);
        let redactor = Redactor::default();
        let host = Host {
            guest: None,
            api,
            config: ConfigStore::new(Paths::in_dir(&dir.path().join("gateway"))),
            environment: Environment::default(),
            redactor: redactor.clone(),
            audit: Audit::new(&dir.path().join("audit.jsonl"), redactor.clone()),
            caller_umask: 0o022,
            polled: watch::Sender::new(None).subscribe(),
            journal: Journal::open(&dir.path().join("jobs")).unwrap(),
            providers: Arc::new(Roster::new(redactor)),
            metrics: crate::observe::JobMetrics::default(),
            subagents: Subagents::default(),
            event_turns: super::super::Turns::default(),
            twin: crate::jobs::Twin::default(),
            live_events: true,
        };
        Self { _server: server, host, dir }
    }

    fn open(&self) -> (RunEvents, RunEventsDriver) {
        let (subagent, run) = ids();
        open(&self.host, &subagent, &run, CancellationToken::new())
    }

    fn spool(&self) -> PathBuf {
        self.dir.path().join("jobs/events").join(format!("{RUN}.jsonl"))
    }
}

fn ids() -> (SubagentId, RunId) {
    (SubagentId::new(SUBAGENT), RunId::new(RUN))
}

fn database(dir: &Path) -> Connection {
    let database = Connection::open(dir.join("s/sandbox.db")).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    database
}

/// A running subagent with a running run.
fn start_run(database: &Connection, api: &Api) {
    let (team, gateway) = (api.team().as_str(), api.gateway().as_str());
    database
        .execute(
            "INSERT INTO subagents (id, team_id, gateway_id, subagent_type, status, metadata,
                 created_at, updated_at)
             VALUES (?1, ?2, ?3, 'codex_gateway', 'running', '{}', 0, 0)",
            params![SUBAGENT, team, gateway],
        )
        .unwrap();
    database
        .execute(
            "INSERT INTO subagent_runs (id, subagent_id, team_id, gateway_id, run_sequence, prompt,
                 created_at)
             VALUES (?1, ?2, ?3, ?4, 1, 'do it', 0)",
            params![RUN, SUBAGENT, team, gateway],
        )
        .unwrap();
}

fn event(n: usize) -> Map<String, Value> {
    let mut payload = Map::new();
    payload.insert("role".into(), json!("assistant"));
    payload.insert("content".into(), json!(format!("{n} {}", "word ".repeat(60))));
    payload.insert("ratio".into(), json!(1.50));
    payload
}

/// Our numbers of the rows, and their payloads' first words.
fn rows(dir: &Path) -> Vec<(i64, String)> {
    let database = database(dir);
    let mut query = database
        .prepare(
            "SELECT sequence, payload ->> 'content' FROM subagent_run_events ORDER BY sequence",
        )
        .unwrap();
    let rows = query.query_map([], |row| {
        let content: Option<String> = row.get(1)?;
        Ok((row.get(0)?, content.unwrap_or_default()))
    });
    let first_word = |text: String| text.split(' ').next().unwrap_or_default().to_owned();
    rows.unwrap().map(|row| row.map(|(n, text)| (n, first_word(text))).unwrap()).collect()
}

#[tokio::test]
async fn events_reach_the_table_in_order_and_within_a_second() {
    const BULK: usize = 5_000;
    const SINGLE: usize = 200;
    let world = World::new().await;
    let (events, driver) = world.open();
    let told = async {
        let started = Instant::now();
        for n in 0..BULK {
            events.tell("message", event(n)).await;
        }
        assert!(events.settled().await);
        let took = started.elapsed();
        println!("{BULK} events in {took:?}; {:?}", events.figures());
        let mut latencies = Vec::new();
        for n in BULK..BULK + SINGLE {
            let told = Instant::now();
            events.tell("tool_call", event(n)).await;
            assert!(events.settled().await);
            latencies.push(told.elapsed());
        }
        latencies.sort_unstable();
        let (median, late) = (latencies[SINGLE / 2], latencies[SINGLE * 99 / 100]);
        println!("told to row: median {median:?}, p99 {late:?}");
        assert!(late < Duration::from_secs(1), "{late:?}");
        drop(events);
    };
    let (ended, ()) = tokio::join!(driver.run(), told);
    assert_eq!(ended, Ended::Settled);
    let wanted: Vec<(i64, String)> =
        (0i64..).zip((0..BULK + SINGLE).map(|n| n.to_string())).collect();
    assert_eq!(rows(world.dir.path()), wanted);
}

#[tokio::test]
async fn rows_that_arrived_unseen_are_known_again_and_others_are_passed_by() {
    let world = World::new().await;
    let (subagent, run) = ids();
    let (events, driver) = world.open();
    let api = &world.host.api;
    let told = async {
        // Once it knows its first number, that is taken by a row that says the same.
        let text = || std::fs::read_to_string(world.spool()).unwrap_or_default();
        while !text().contains("\"next\":0") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let same = Value::Object(event(0));
        api.insert_run_events(&subagent, &run, &[(0, "message", &same)]).await.unwrap();
        events.tell("message", event(0)).await;
        assert!(events.settled().await);
        // The next by one that says something else.
        let other = json!({"content": "foreign"});
        api.insert_run_events(&subagent, &run, &[(1, "system", &other)]).await.unwrap();
        events.tell("message", event(1)).await;
        assert!(events.settled().await);
        assert_eq!((events.figures().rows, events.figures().renumbered), (2, 1));
        // An event that the table does not take is left out.
        events.tell("no_such_type", event(2)).await;
        events.tell("run_completed", event(3)).await;
        assert!(events.settled().await);
        assert_eq!(events.figures().refused, 1);
        events.remove().await;
    };
    let (ended, ()) = tokio::join!(driver.run(), told);
    assert_eq!(ended, Ended::Settled);
    let words: Vec<(i64, String)> = rows(world.dir.path());
    let words: Vec<(i64, &str)> = words.iter().map(|(n, word)| (*n, word.as_str())).collect();
    assert_eq!(words, [(0, "0"), (1, "foreign"), (2, "1"), (3, "3")]);
}

#[tokio::test]
async fn what_was_left_is_found_and_brought_to_its_end() {
    let world = World::new().await;
    let (subagent_id, run_id) = ids();
    let (events, driver) = world.open();
    let stop = CancellationToken::new();
    let told = async {
        for n in 0..100 {
            events.tell("message", event(n)).await;
        }
        let kept = || std::fs::read_to_string(world.spool()).unwrap_or_default();
        while !kept().contains("\"i\":99,") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Killed wherever it is.
    tokio::select! {
        ended = driver.run() => panic!("{ended:?}"),
        () = told => {}
    }
    let found = left(&world.host, Vec::new()).await;
    assert_eq!(found, [Left { subagent_id, run_id }]);
    assert_eq!(finish(&world.host, &found[0], stop).await, Ended::Settled);
    assert_eq!(left(&world.host, Vec::new()).await, []);
    let wanted: Vec<(i64, String)> = (0..100).map(|n: i64| (n, n.to_string())).collect();
    assert_eq!(rows(world.dir.path()), wanted);
}
