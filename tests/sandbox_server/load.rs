//! The server as a process under write load: killed, and told to stop.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use panorama_gateway::sandbox::client::NewJob;
use reqwest::Method;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::context::Paired;
use crate::process::Process;

/// Clients of each kind.
const CLIENTS: usize = 4;

/// A row that was acknowledged: its table and its id.
type Written = (&'static str, String);

/// Inserts events by REST until the server is gone; tells of each that was acknowledged.
async fn insert_events(
    server: Arc<Process>,
    ours: Paired,
    acknowledged: mpsc::UnboundedSender<Written>,
    ending: Arc<AtomicBool>,
) {
    loop {
        let id = Uuid::new_v4().to_string();
        let event = json!({"id": id, "gateway_id": ours.gateway_id, "team_id": ours.team_id,
            "level": "info", "message": "m".repeat(500), "details": {}});
        let sent = server
            .request(Method::POST, "/rest/v1/gateway_events")
            .bearer_auth(&ours.access)
            .json(&event)
            .send()
            .await;
        match sent {
            Ok(answer) => {
                assert_eq!(answer.status(), 201);
                acknowledged.send(("gateway_events", id)).unwrap();
            }
            Err(error) => {
                assert!(ending.load(Ordering::SeqCst), "{error}");
                return;
            }
        }
    }
}

/// The same with jobs by the admin API.
async fn submit_jobs(
    server: Arc<Process>,
    ours: Paired,
    acknowledged: mpsc::UnboundedSender<Written>,
    ending: Arc<AtomicBool>,
) {
    let job = NewJob {
        gateway_id: Some(ours.gateway_id),
        job_type: "diagnostic".to_owned(),
        payload: Map::from_iter([("x".to_owned(), Value::from("y".repeat(500)))]),
        ..NewJob::default()
    };
    loop {
        match server.admin.submit_job(&job).await {
            Ok(row) => {
                let id = row["id"].as_str().unwrap().to_owned();
                acknowledged.send(("gateway_jobs", id)).unwrap();
            }
            Err(error) => {
                assert!(ending.load(Ordering::SeqCst), "{error}");
                return;
            }
        }
    }
}

/// Writes from many clients, sends `signal` after so many acknowledgements, and tells all of them.
async fn load_until(
    server: &Arc<Process>,
    ours: &Paired,
    count: usize,
    signal: Signal,
) -> Vec<Written> {
    let ending = Arc::new(AtomicBool::new(false));
    let (sender, mut acknowledged) = mpsc::unbounded_channel();
    let events = futures_util::future::join_all((0..CLIENTS).map(|_| {
        insert_events(Arc::clone(server), ours.clone(), sender.clone(), Arc::clone(&ending))
    }));
    let jobs = futures_util::future::join_all((0..CLIENTS).map(|_| {
        submit_jobs(Arc::clone(server), ours.clone(), sender.clone(), Arc::clone(&ending))
    }));
    let mut all = Vec::new();
    let end_in_the_midst = async {
        for _ in 0..count {
            all.push(acknowledged.recv().await.unwrap());
        }
        ending.store(true, Ordering::SeqCst);
        server.signal(signal);
    };
    tokio::join!(events, jobs, end_in_the_midst);
    drop(sender);
    while let Some(written) = acknowledged.recv().await {
        all.push(written);
    }
    all
}

/// What is in the database, which must be whole.
fn stored(data_dir: &Path) -> BTreeSet<Written> {
    let database = Connection::open(data_dir.join("sandbox.db")).unwrap();
    let intact: String =
        database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(intact, "ok");
    let mut rows = BTreeSet::new();
    for table in ["gateway_events", "gateway_jobs"] {
        let mut sql = database.prepare(&format!("SELECT id FROM {table}")).unwrap();
        let ids = sql.query_map([], |row| row.get(0)).unwrap();
        rows.extend(ids.map(|id| (table, id.unwrap())));
    }
    rows
}

#[expect(clippy::print_stderr, reason = "the counts are worth a look")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_it_acknowledged() {
    const ROUNDS: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("sandbox");
    let first = Process::start(&data_dir).await;
    let mut ours = first.pair().await;
    drop(first);
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let server = Arc::new(Process::start(&data_dir).await);
        // What was handed out before the kill works after it.
        let (status, tokens) = server.refresh(&ours.refresh).await;
        assert_eq!(status, 200, "{tokens}");
        ours.access = tokens["access_token"].as_str().unwrap().to_owned();
        ours.refresh = tokens["refresh_token"].as_str().unwrap().to_owned();
        all.extend(load_until(&server, &ours, 50 + 37 * round, Signal::KILL).await);
        drop(server);
        // Nobody wrote the log back into the database.
        assert!(data_dir.join("sandbox.db-wal").metadata().unwrap().len() > 0);
    }
    let server = Process::start(&data_dir).await;
    let stored = stored(&data_dir);
    let lost: Vec<_> = all.iter().filter(|written| !stored.contains(written)).collect();
    eprintln!(
        "{ROUNDS} kills: {} writes acknowledged, {} lost, {} stored",
        all.len(),
        lost.len(),
        stored.len()
    );
    assert_eq!(lost, Vec::<&Written>::new());
    assert_eq!(server.refresh(&ours.refresh).await.0, 200);
}

#[expect(clippy::print_stderr, reason = "the counts are worth a look")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_answers_what_it_has_done_and_does_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("sandbox");
    let first = Process::start(&data_dir).await;
    let ours = first.pair().await;
    drop(first);
    let mut all = BTreeSet::new();
    for round in 0..5 {
        let server = Arc::new(Process::start(&data_dir).await);
        all.extend(load_until(&server, &ours, 100 + 37 * round, Signal::TERM).await);
        let told = Instant::now();
        let mut server = Arc::into_inner(server).unwrap();
        assert!(server.child.wait().unwrap().success());
        // Clients that keep their connections do not hold it up.
        assert!(told.elapsed().as_secs() < 5, "{:?}", told.elapsed());
        assert!(!data_dir.join("sandbox.db-wal").exists(), "the log is written back");
        // A row without an answer would be submitted again by its client.
        let stored = stored(&data_dir);
        eprintln!("stopped: {} writes acknowledged, {} stored", all.len(), stored.len());
        assert_eq!(stored, all);
    }
}
