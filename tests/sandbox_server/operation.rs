//! The server as a process: killed, doubled, on damaged files and on a full disk.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use panorama_gateway::sandbox::{AdminClient, Server, ServerOptions};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::context::{Context, Paired, capabilities, client};

/// `sandbox serve`; killed when dropped.
struct Process {
    child: Child,
    url: String,
    anon_key: String,
    admin: AdminClient,
    http: reqwest::Client,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_panorama-gateway"));
    command
        .args(["sandbox", "serve", "--listen", "127.0.0.1:0", "--json", "--data-dir"])
        .arg(data_dir)
        .env_clear()
        .env("HOME", data_dir.parent().unwrap())
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// One that does not start: what it says.
fn refused(data_dir: &Path) -> (Output, String) {
    let output = serve(data_dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    (output, said)
}

impl Process {
    async fn start(data_dir: &Path) -> Self {
        let mut child = serve(data_dir).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("the server did not start: {said}");
        }
        // Its log must not fill the pipe.
        drop(child.stderr.take());
        let up: Value = serde_json::from_str(&line).unwrap();
        let admin = AdminClient::find(data_dir).await.unwrap().unwrap();
        let anon_key = admin.info().await.unwrap().anon_key;
        let url = up["url"].as_str().unwrap().to_owned();
        Self { child, url, anon_key, admin, http: client() }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).header("apikey", &self.anon_key)
    }

    async fn pair(&self) -> Paired {
        let code = self.admin.make_pairing_code(None).await.unwrap().code;
        let body: Value = self
            .request(Method::POST, "/functions/v1/exchange-gateway-pairing-code")
            .json(&json!({"code": code, "device_name": "bench"}))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Paired {
            gateway_id: text("gateway_id"),
            team_id: text("team_id"),
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }

    async fn refresh(&self, token: &str) -> (u16, Value) {
        let answer = self
            .request(Method::POST, "/auth/v1/token?grant_type=refresh_token")
            .json(&json!({"refresh_token": token}))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

/// Inserts events until the server is gone; tells the id of each that was acknowledged.
async fn insert_events(
    server: Arc<Process>,
    ours: Paired,
    acknowledged: mpsc::UnboundedSender<String>,
    killed: Arc<AtomicBool>,
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
                acknowledged.send(id).unwrap();
            }
            Err(error) => {
                assert!(killed.load(Ordering::SeqCst), "{error}");
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("sandbox");
    let first = Process::start(&data_dir).await;
    let mut ours = first.pair().await;
    drop(first);
    let mut all = Vec::new();
    for round in 0..3 {
        let server = Arc::new(Process::start(&data_dir).await);
        // What was handed out before the kill works after it.
        let (status, tokens) = server.refresh(&ours.refresh).await;
        assert_eq!(status, 200, "{tokens}");
        ours.access = tokens["access_token"].as_str().unwrap().to_owned();
        ours.refresh = tokens["refresh_token"].as_str().unwrap().to_owned();
        let killed = Arc::new(AtomicBool::new(false));
        let (sender, mut acknowledged) = mpsc::unbounded_channel();
        let writers = (0..8).map(|_| {
            insert_events(Arc::clone(&server), ours.clone(), sender.clone(), Arc::clone(&killed))
        });
        let writers = futures_util::future::join_all(writers);
        let pid = rustix::process::Pid::from_child(&server.child);
        let kill_in_the_midst = async {
            for _ in 0..100 + 37 * round {
                all.push(acknowledged.recv().await.unwrap());
            }
            killed.store(true, Ordering::SeqCst);
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        };
        tokio::join!(writers, kill_in_the_midst);
        drop(sender);
        while let Some(id) = acknowledged.recv().await {
            all.push(id);
        }
        drop(server);
        // Nobody wrote the log back into the database.
        assert!(data_dir.join("sandbox.db-wal").metadata().unwrap().len() > 0);
    }
    let server = Process::start(&data_dir).await;
    let database = Connection::open(data_dir.join("sandbox.db")).unwrap();
    let intact: String =
        database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(intact, "ok");
    for id in &all {
        let sql = "SELECT count(*) FROM gateway_events WHERE id = ?1";
        let there: i64 = database.query_row(sql, [id], |row| row.get(0)).unwrap();
        assert_eq!(there, 1, "{id} of {} is lost", all.len());
    }
    assert_eq!(server.refresh(&ours.refresh).await.0, 200);
}

#[tokio::test]
async fn a_second_server_on_the_data_dir_says_so_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("sandbox");
    let server = Process::start(&data_dir).await;
    let record = std::fs::read(data_dir.join("server.json")).unwrap();
    let (_, said) = refused(&data_dir);
    assert!(said.contains("is running on"), "{said}");
    assert_eq!(std::fs::read(data_dir.join("server.json")).unwrap(), record);
    assert!(server.admin.info().await.is_ok());
}

/// Every file below a directory with its bytes, locks aside.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.extension().is_none_or(|end| end != "lock"))
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_damaged_database_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("sandbox");
    drop(Process::start(&data_dir).await);
    let database = data_dir.join("sandbox.db");
    for entry in ["sandbox.db-wal", "sandbox.db-shm", "server.json"] {
        let _ = std::fs::remove_file(data_dir.join(entry));
    }
    let newer = {
        let copy = dir.path().join("newer.db");
        let connection = Connection::open(&copy).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        std::fs::read(copy).unwrap()
    };
    let garbage = "this is no database ".repeat(1000).into_bytes();
    for (bytes, part) in [(garbage, "sandbox.db is damaged"), (newer, "format 99")] {
        std::fs::write(&database, &bytes).unwrap();
        let before = contents(&data_dir);
        let (_, said) = refused(&data_dir);
        assert!(said.contains(part) && said.contains("sandbox"), "{said}");
        assert_eq!(contents(&data_dir), before);
    }
    std::fs::remove_file(&database).unwrap();
    std::fs::create_dir(&database).unwrap();
    let (_, said) = refused(&data_dir);
    assert!(said.contains("sandbox.db"), "{said}");
}

#[tokio::test]
async fn a_data_dir_that_is_too_open_is_closed_and_one_that_is_no_directory_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    drop(Process::start(&open).await);
    assert_eq!(open.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let (_, said) = refused(&file);
    assert!(said.contains("not a directory"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

/// A small file system of its own; unmounted when dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: only root may mount.
    pub(crate) fn mount(at: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"])
            .arg(&at)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Takes all that is left of a disk.
fn fill(disk: &Path) -> PathBuf {
    use std::io::Write as _;
    let path = disk.join("ballast");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[tokio::test]
async fn a_full_disk_passes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path().join("disk"), "8m") else { return };
    let data_dir = disk.0.join("sandbox");
    let context = Context::with(|options| options.data_dir.clone_from(&data_dir)).await;
    let ours = context.pair().await;
    let event = |size: usize| {
        let event = json!({"gateway_id": ours.gateway_id, "team_id": ours.team_id,
            "level": "info", "message": "m", "details": {"x": "y".repeat(size)}});
        let path = "/rest/v1/gateway_events";
        context.signed(Method::POST, path, &ours.access).json(&event).send()
    };
    assert_eq!(event(1000).await.unwrap().status(), 201);
    let ballast = fill(&disk.0);
    for _ in 0..20 {
        let answer = event(200_000).await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"], "53100", "{body}");
    }
    // Reading goes on, and what else writes says that it passes.
    let jobs = context.signed(Method::GET, "/rest/v1/gateway_jobs", &ours.access);
    assert_eq!(jobs.send().await.unwrap().status(), 200);
    let beat = json!({"status": "ready", "device_name": "bench",
        "capabilities": {"schema_version": "v1", "hosts": {"x": "y".repeat(500_000)}}});
    let answer = context.heartbeat(&ours.access, &beat).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    // Smaller writes may find room; what is too large for it is refused in each API's own words.
    let (status, _) = context.refresh(&ours.refresh).await;
    assert!(matches!(status, 200 | 503), "{status}");
    let job = json!({"job_type": "diagnostic", "payload": {"x": "y".repeat(500_000)}});
    let answer = context.admin_request(Method::POST, "jobs").json(&job).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(event(200_000).await.unwrap().status(), 201);
    let beat = json!({"status": "ready", "device_name": "bench", "capabilities": capabilities()});
    assert_eq!(context.heartbeat(&ours.access, &beat).await.status(), 200);
    assert_eq!(context.refresh(&ours.refresh).await.0, 200);
    let database = Connection::open(data_dir.join("sandbox.db")).unwrap();
    let events: i64 =
        database.query_row("SELECT count(*) FROM gateway_events", [], |row| row.get(0)).unwrap();
    assert_eq!(events, 2);
    context.server.shutdown().await;
    drop(database);
    // A disk without any room: it does not start, and says why.
    let _ballast = fill(&disk.0);
    let elsewhere = ServerOptions::new(disk.0.join("new"), "127.0.0.1:0".parse().unwrap());
    let error = Server::start(elsewhere).await.unwrap_err();
    assert!(error.to_string().starts_with("could not write"), "{error:?}");
}
