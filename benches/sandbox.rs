//! The figures that the sandbox wants to reach, measured and printed; nothing here passes or
//! fails. `cargo bench --bench sandbox`. An argument picks sections by name.
//!
//! The server is the real binary in a process of its own; the load comes from this one, on the same
//! machine. Others' load shows: each figure is measured several times, best and median are printed.
#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "prints figures, measures real time, and has nobody to return errors to"
)]

#[path = "measured/server.rs"]
mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use panorama_gateway::sandbox::AdminClient;
use panorama_gateway::sandbox::client::NewJob;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use server::Server;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    let _ = rustls::crypto::ring::default_provider().install_default();
    println!("{:<44} {:>10} {:>10}   goal", "figure", "best", "median");
    if wanted("claims") {
        claims().await;
    }
    if wanted("realtime") {
        realtime().await;
    }
    if wanted("fanout") {
        fanout().await;
    }
    if wanted("memory") {
        memory().await;
    }
    if wanted("start") {
        start().await;
    }
    if wanted("drive") {
        drive().await;
    }
}

fn row(figure: &str, best: &str, median: &str, goal: &str) {
    println!("{figure:<44} {best:>10} {median:>10}   {goal}");
}

/// The smallest, and the one in the middle.
fn best_and_median(mut measured: Vec<f64>) -> (f64, f64) {
    measured.sort_unstable_by(f64::total_cmp);
    (measured[0], measured[measured.len() / 2])
}

/// One kept connection: a client that costs little itself.
struct Connected {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connected {
    async fn to(server: &Server) -> Self {
        let stream = TcpStream::connect(&server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Sends a whole request; the status and the body of the answer.
    async fn ask(&mut self, request: &str) -> (u16, Vec<u8>) {
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.read.clear();
        loop {
            assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "closed");
            let end = self.read.windows(4).position(|window| window == b"\r\n\r\n");
            let Some(body) = end.map(|end| end + 4) else { continue };
            let head = std::str::from_utf8(&self.read[..body]).unwrap();
            let mut lines = head.lines();
            let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
            let length = lines
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse::<usize>().unwrap());
            while self.read.len() < body + length {
                assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "closed");
            }
            return (status, self.read[body..].to_vec());
        }
    }
}

/// A data dir with a gateway that is paired.
struct Sandbox {
    dir: TempDir,
    anon_key: String,
    team_id: String,
    gateway_id: String,
    access: String,
}

impl Sandbox {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("sandbox");
        let server = Server::start(&data_dir);
        let admin = AdminClient::find(&data_dir).await.unwrap().unwrap();
        let anon_key = admin.info().await.unwrap().anon_key;
        let code = admin.make_pairing_code(None).await.unwrap().code;
        let body = json!({"code": code, "device_name": "bench"}).to_string();
        let request = format!(
            "POST /functions/v1/exchange-gateway-pairing-code HTTP/1.1\r\nhost: localhost\r\n\
             apikey: {anon_key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n\
             {body}",
            body.len()
        );
        let (status, body) = Connected::to(&server).await.ask(&request).await;
        assert_eq!(status, 200);
        let body: Value = serde_json::from_slice(&body).unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        server.stop();
        Self {
            dir,
            anon_key,
            team_id: text("team_id"),
            gateway_id: text("gateway_id"),
            access: text("access_token"),
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("sandbox")
    }

    fn serve(&self) -> Server {
        Server::start(&self.data_dir())
    }

    /// Puts jobs into the database as if they had been submitted (and done, with a result of 1 kB);
    /// tells their ids.
    fn store_jobs(&self, count: usize, status: &str) -> Vec<String> {
        let mut database = Connection::open(self.data_dir().join("sandbox.db")).unwrap();
        let transaction = database.transaction().unwrap();
        let payload = json!({"command": "true", "resource_id": Uuid::new_v4()}).to_string();
        let result = json!({"stdout": "x".repeat(1000), "exit_code": 0}).to_string();
        let result = (status == "completed").then_some(result);
        let now = jiff::Timestamp::now().as_microsecond();
        let ids: Vec<String> = (0..count).map(|_| Uuid::now_v7().to_string()).collect();
        for id in &ids {
            let sql = "INSERT INTO gateway_jobs (id, team_id, gateway_id, job_type, payload, \
                       status, result, created_at, updated_at) \
                       VALUES (?1, ?2, ?3, 'shell_exec', ?4, ?5, ?6, ?7, ?7)";
            let row = params![id, self.team_id, self.gateway_id, payload, status, result, now];
            transaction.prepare_cached(sql).unwrap().execute(row).unwrap();
        }
        transaction.commit().unwrap();
        ids
    }

    /// A request of the gateway.
    fn request(&self, method: &str, path: &str, body: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\napikey: {}\r\n\
             authorization: Bearer {}\r\naccept: application/json\r\n\
             content-type: application/json\r\nprefer: return=representation\r\n\
             content-length: {}\r\n\r\n{body}",
            self.anon_key,
            self.access,
            body.len()
        )
    }

    /// A socket that is told of the jobs that are inserted.
    async fn subscribe(&self, server: &Server) -> Socket {
        let stream = TcpStream::connect(&server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let url = format!(
            "ws://{}/realtime/v1/websocket?apikey={}&vsn=2.0.0",
            server.address, self.anon_key
        );
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let changes = [json!({"event": "INSERT", "schema": "public", "table": "gateway_jobs"})];
        let payload = json!({"config": {"postgres_changes": changes}, "access_token": self.access});
        let join = json!(["1", "1", "realtime:bench", "phx_join", payload]);
        socket.send(Message::text(join.to_string())).await.unwrap();
        frame_with(&mut socket, "\"system\"").await;
        socket
    }

    /// The claim that a gateway makes.
    fn claim(&self, job: &str) -> String {
        let now = panorama_gateway::model::time::now_wire();
        let gateway = &self.gateway_id;
        let body = json!({"status": "running", "gateway_id": gateway, "started_at": now});
        let path = format!(
            "/rest/v1/gateway_jobs?id=eq.{job}&team_id=eq.{}&status=eq.queued&gateway_id=eq.{gateway}",
            self.team_id
        );
        self.request("PATCH", &path, &body.to_string())
    }
}

async fn claims() {
    const CONNECTIONS: usize = 16;
    const JOBS: usize = 6_000;
    const RUNS: usize = 7;
    let sandbox = Sandbox::new().await;
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let requests: Vec<String> =
            sandbox.store_jobs(JOBS, "queued").iter().map(|id| sandbox.claim(id)).collect();
        let requests = Arc::new(requests);
        let server = sandbox.serve();
        let next = Arc::new(AtomicUsize::new(0));
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connected::to(&server).await);
        }
        let began = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for mut connection in connections {
            let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
            clients.spawn(async move {
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (status, body) = connection.ask(request).await;
                    assert!(status == 200 && body.len() > 2, "{status}");
                }
            });
        }
        clients.join_all().await;
        // Negative, so that the best is the smallest here as well.
        rates.push(-(JOBS as f64) / began.elapsed().as_secs_f64());
    }
    let (best, median) = best_and_median(rates);
    let shown = |rate: f64| format!("{:.0}/s", -rate);
    row("claims over HTTP, 16 connections", &shown(best), &shown(median), ">= 3000/s");
}

/// From the request that inserts a job to the frame that tells of it.
async fn realtime() {
    const RUNS: usize = 5;
    const JOBS: usize = 1_000;
    let sandbox = Sandbox::new().await;
    let (mut p50s, mut p99s) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let server = sandbox.serve();
        let admin = AdminClient::find(&sandbox.data_dir()).await.unwrap().unwrap();
        let mut socket = sandbox.subscribe(&server).await;
        let job = NewJob { job_type: "diagnostic".to_owned(), ..NewJob::default() };
        let mut delays = Vec::new();
        for _ in 0..JOBS {
            let began = Instant::now();
            let row = admin.submit_job(&job).await.unwrap();
            frame_with(&mut socket, row["id"].as_str().unwrap()).await;
            delays.push(began.elapsed().as_secs_f64() * 1e3);
        }
        delays.sort_unstable_by(f64::total_cmp);
        p50s.push(delays[JOBS / 2]);
        p99s.push(delays[JOBS * 99 / 100]);
    }
    let shown = |millis: f64| format!("{millis:.1} ms");
    for (figure, goal, measured) in [("p50", "", p50s), ("p99", "< 20 ms", p99s)] {
        let (best, median) = best_and_median(measured);
        row(&format!("insert to realtime, {figure}"), &shown(best), &shown(median), goal);
    }
}

/// What one socket got of a round of rows.
#[derive(Default)]
struct Heard {
    rows: usize,
    out_of_order: usize,
    closed: usize,
    /// From the request that inserts a row to its frame, seconds.
    delays: Vec<f64>,
}

/// Many sockets that all hear of every row, for a while, in rounds.
async fn fanout() {
    const SOCKETS: usize = 200;
    const ROWS: usize = 1_000;
    const ROUNDS: usize = 6;
    const PACE: Duration = Duration::from_millis(20);
    let sandbox = Sandbox::new().await;
    let server = sandbox.serve();
    let admin = AdminClient::find(&sandbox.data_dir()).await.unwrap().unwrap();
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(sandbox.subscribe(&server).await);
    }
    let mut memory = vec![rss(server.child.id())];
    let mut all = Heard::default();
    let (mut p50s, mut p99s, mut took) = (Vec::new(), Vec::new(), Vec::new());
    let origin = Instant::now();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let mut listeners = tokio::task::JoinSet::new();
        for socket in std::mem::take(&mut sockets) {
            listeners.spawn(hear(socket, ROWS, origin));
        }
        let mut pace = tokio::time::interval(PACE);
        for number in 0..ROWS {
            pace.tick().await;
            let at = origin.elapsed().as_secs_f64();
            let payload = json!({"bench_at": at, "bench_row": number});
            let payload = payload.as_object().unwrap().clone();
            let job_type = "diagnostic".to_owned();
            let job = NewJob { job_type, payload, ..NewJob::default() };
            admin.submit_job(&job).await.unwrap();
        }
        took.push(began.elapsed().as_secs_f64());
        let mut delays = Vec::new();
        for (socket, heard) in listeners.join_all().await {
            sockets.extend(socket);
            all.rows += heard.rows;
            all.out_of_order += heard.out_of_order;
            all.closed += heard.closed;
            delays.extend(heard.delays);
        }
        delays.sort_unstable_by(f64::total_cmp);
        p50s.push(delays[delays.len() / 2] * 1e3);
        p99s.push(delays[delays.len() * 99 / 100] * 1e3);
        memory.push(rss(server.child.id()));
    }
    let (_, took) = best_and_median(took);
    println!("{SOCKETS} sockets, {ROWS} rows in {took:.1} s, {ROUNDS} rounds:");
    let expected = SOCKETS * ROWS * ROUNDS;
    row("  delivered of expected", &all.rows.to_string(), &expected.to_string(), "all");
    row("  out of order", &all.out_of_order.to_string(), "", "0");
    row("  closed sockets", &all.closed.to_string(), "", "0");
    let shown = |millis: f64| format!("{millis:.1} ms");
    for (figure, measured) in [("p50", p50s), ("p99", p99s)] {
        let (best, median) = best_and_median(measured);
        row(&format!("  insert to realtime, {figure}"), &shown(best), &shown(median), "");
    }
    let memory: Vec<String> = memory.iter().map(|bytes| format!("{:.1}", bytes / 1e6)).collect();
    println!("  RSS before and after each round, MB: {}   (no growth)", memory.join(", "));
}

/// Reads until the last of so many rows, or until nothing has come for a while.
async fn hear(mut socket: Socket, rows: usize, origin: Instant) -> (Option<Socket>, Heard) {
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut heard = Heard::default();
    let mut next = 0;
    // The server closes a socket that says nothing for a minute.
    socket
        .send(Message::text(json!([null, "b", "phoenix", "heartbeat", {}]).to_string()))
        .await
        .unwrap();
    while next < rows {
        let Ok(message) = tokio::time::timeout(PATIENCE, socket.next()).await else { break };
        let Some(Ok(Message::Text(text))) = message else {
            heard.closed = 1;
            return (None, heard);
        };
        let now = origin.elapsed().as_secs_f64();
        let Some(number) = number_after::<usize>(&text, "\"bench_row\":") else { continue };
        heard.rows += 1;
        heard.out_of_order += usize::from(number != next);
        next = number + 1;
        heard.delays.extend(number_after::<f64>(&text, "\"bench_at\":").map(|at| now - at));
    }
    (Some(socket), heard)
}

/// The number behind a key: cheaper than reading the whole frame.
fn number_after<T: std::str::FromStr>(text: &str, key: &str) -> Option<T> {
    let (_, rest) = text.split_once(key)?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}

type Socket = WebSocketStream<TcpStream>;

/// Reads until a frame that holds `text`.
async fn frame_with(socket: &mut Socket, text: &str) {
    loop {
        let frame = socket.next().await.unwrap().unwrap();
        if frame.to_text().is_ok_and(|frame| frame.contains(text)) {
            return;
        }
    }
}

async fn memory() {
    const RUNS: usize = 5;
    let sandbox = Sandbox::new().await;
    sandbox.store_jobs(10_000, "completed");
    let (mut at_rest, mut in_use) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let server = sandbox.serve();
        let pid = server.child.id();
        Connected::to(&server).await.ask("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        at_rest.push(rss(pid));
        // Polls as a gateway makes them, and rows of finished jobs.
        let poll = sandbox.request(
            "GET",
            "/rest/v1/gateway_jobs?select=*&status=eq.queued&order=created_at,id&limit=200",
            "",
        );
        let page = sandbox.request("GET", "/rest/v1/gateway_jobs?select=*&limit=200", "");
        for request in std::iter::repeat_n(&poll, 50).chain(std::iter::repeat_n(&page, 50)) {
            assert_eq!(Connected::to(&server).await.ask(request).await.0, 200);
        }
        in_use.push(rss(pid));
    }
    let shown = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
    let (best, median) = best_and_median(at_rest);
    row("RSS, 10,000 jobs stored, just started", &shown(best), &shown(median), "<= 20 MB");
    let (best, median) = best_and_median(in_use);
    row("RSS after 50 polls and 50 pages of 200", &shown(best), &shown(median), "<= 20 MB");
}

/// Resident memory of a process, bytes.
fn rss(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

async fn start() {
    const RUNS: usize = 15;
    let sandbox = Sandbox::new().await;
    sandbox.store_jobs(100_000, "completed");
    for (figure, killed) in [("100,000 rows", false), ("the same, after a kill", true)] {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let began = Instant::now();
            let server = sandbox.serve();
            let health = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
            assert_eq!(Connected::to(&server).await.ask(health).await.0, 200);
            runs.push(began.elapsed().as_secs_f64() * 1e3);
            if killed {
                // Leaves work in the log for the next start.
                sandbox.store_jobs(1_000, "completed");
                drop(server);
            } else {
                server.stop();
            }
        }
        let (best, median) = best_and_median(runs);
        let shown = |millis: f64| format!("{millis:.1} ms");
        row(&format!("start with {figure}"), &shown(best), &shown(median), "< 100 ms");
    }
}

/// A VM's first sync of many small files: directories of 100, contents of 200 bytes, in batches of
/// 500; then another VM's, of the same files.
async fn drive() {
    const RUNS: usize = 5;
    const FILES: usize = 20_000;
    let sandbox = Sandbox::new().await;
    let server = sandbox.serve();
    let admin = AdminClient::find(&sandbox.data_dir()).await.unwrap().unwrap();
    let token = admin.make_drive_token(Some(&sandbox.gateway_id), None).await.unwrap();
    let token = token["token"].as_str().unwrap();
    let request = |body: &Value| {
        let body = body.to_string();
        format!(
            "POST /functions/v1/vm-drive-sync HTTP/1.1\r\nhost: localhost\r\n\
             authorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (mut up, mut feed, mut down) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        let drive = admin.create_drive(&format!("bench {run}"), "write").await.unwrap();
        let drive = &drive["drive_id"];
        let operations: Vec<Value> = (0..FILES).flat_map(|n| small_file(run, n)).collect();
        let batches: Vec<String> = operations
            .chunks(500)
            .map(|some| {
                request(&json!({"client_key": "bench", "action": "batch", "drive_id": drive,
                                "operations": some}))
            })
            .collect();
        let mut connected = Connected::to(&server).await;
        let began = Instant::now();
        for batch in &batches {
            let (status, body) = connected.ask(batch).await;
            assert!(status == 200 && !body.windows(7).any(|part| part == b"\"error\""));
        }
        up.push(operations.len() as f64 / began.elapsed().as_secs_f64());
        let began = Instant::now();
        let (mut after, mut wanted) = (0, Vec::new());
        loop {
            let asked = json!({"client_key": "bench", "action": "changes", "drive_id": drive,
                               "after_sequence": after});
            let page: Value =
                serde_json::from_slice(&connected.ask(&request(&asked)).await.1).unwrap();
            for change in page["changes"].as_array().unwrap() {
                after = change["sequence"].as_u64().unwrap();
                let entry = &change["entry"];
                if entry["entry_type"] == "file" {
                    wanted.push(json!({"entry_id": entry["id"],
                                       "version_id": entry["current_version_id"]}));
                }
            }
            if page["has_more"] == false {
                break;
            }
        }
        feed.push(after as f64 / began.elapsed().as_secs_f64());
        assert_eq!(wanted.len(), FILES);
        let asked: Vec<String> = wanted
            .chunks(500)
            .map(|some| {
                request(&json!({"client_key": "bench", "action": "downloads",
                                "drive_id": drive, "entries": some}))
            })
            .collect();
        let began = Instant::now();
        for one in &asked {
            assert_eq!(connected.ask(one).await.0, 200);
        }
        down.push(FILES as f64 / began.elapsed().as_secs_f64());
    }
    for (figure, measured) in [("up", up), ("feed", feed), ("down", down)] {
        let (_, median) = best_and_median(measured.clone());
        let best = measured.into_iter().fold(0.0, f64::max);
        let shown = |rate: f64| format!("{rate:.0}/s");
        let goal = if figure == "up" { ">= 5,000/s" } else { "" };
        row(&format!("drive, small entries {figure}"), &shown(best), &shown(median), goal);
    }
}

/// The directory, if it is the first one in it, and the file.
fn small_file(run: usize, number: usize) -> Vec<Value> {
    use base64::Engine as _;
    let directory = format!("d{}", number / 100);
    let content = format!("{run} {number} ").repeat(50).as_bytes()[..200].to_vec();
    let put = json!({
        "action": "put", "path": format!("{directory}/file {number}"), "size_bytes": content.len(),
        "content_sha256": sha256(&content), "expected_version_id": null,
        "operation_id": Uuid::new_v4(),
        "content": base64::engine::general_purpose::STANDARD.encode(&content),
    });
    let made = json!({"action": "mkdir", "path": directory, "operation_id": Uuid::new_v4()});
    if number.is_multiple_of(100) { vec![made, put] } else { vec![put] }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest: [u8; 32] = sha2::Sha256::digest(bytes).into();
    digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
