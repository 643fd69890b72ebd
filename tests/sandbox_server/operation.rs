//! The server as a process: doubled, on damaged files and on a full disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use panorama_gateway::sandbox::{Server, ServerOptions};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::context::{Context, capabilities};
use crate::process::{Process, refused};

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
    assert_eq!(health_turns(&context, 503).await["error"]["code"], "database_unavailable");
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
    assert_eq!(health_turns(&context, 200).await["status"], "ok");
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

/// Asks until it is so: an answer may be a second old.
async fn health_turns(context: &Context, status: u16) -> Value {
    for _ in 0..100 {
        let url = format!("{}/healthz", context.server.url());
        let answer = context.http.get(url).send().await.unwrap();
        if answer.status() == status {
            assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
            return answer.json().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server's health has not become {status}");
}

#[tokio::test]
async fn a_database_that_takes_no_writes_shows_in_the_health() {
    let context = Context::new().await;
    health_turns(&context, 200).await;
    let other = context.database();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    health_turns(&context, 503).await;
    other.execute_batch("ROLLBACK").unwrap();
    health_turns(&context, 200).await;
}
