//! Machines that keep a drive in step, in this process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use panorama_gateway::backend::{Endpoint, Http};
use panorama_gateway::drive_sync::keeper::report::{DriveReport, DriveState, Report};
use panorama_gateway::drive_sync::keeper::{self, Identity, Settings};
use panorama_gateway::task::{Ending, Group};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::common::{ControlPlane, Machine, wait_until};

/// A control plane with a drive, and a paired gateway that may use it.
pub(crate) struct Scene {
    pub(crate) control: ControlPlane,
    pub(crate) drive_id: String,
    gateway_id: String,
    _machine: Machine,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let control = ControlPlane::start().await;
        let machine = Machine::new();
        let gateway_id = machine.pair(&control).await;
        let drive = admin(&control, "drives", Some(json!({"name": "Team"}))).await;
        let drive_id = drive["drive_id"].as_str().unwrap().to_owned();
        Self { control, drive_id, gateway_id, _machine: machine }
    }

    pub(crate) async fn mirror(&self, vm_id: &str) -> Mirror {
        let dir = tempfile::tempdir().unwrap();
        let mut mirror = Mirror {
            vm_id: vm_id.to_owned(),
            root: dir.path().join("drives"),
            state_dir: dir.path().join("state"),
            running: None,
            _dir: dir,
        };
        mirror.start(self).await;
        mirror
    }

    async fn identity(&self, vm_id: &str) -> Identity {
        let wanted = json!({"gateway_id": self.gateway_id, "vm_id": vm_id});
        let token = admin(&self.control, "drive-tokens", Some(wanted)).await;
        Identity {
            backend: self.control.url().parse().unwrap(),
            anon_key: self.control.server.anon_key().into(),
            client: client(&self.control),
            vm_id: vm_id.to_owned(),
            token: token["token"].as_str().unwrap().into(),
            keep_token: None,
        }
    }
}

/// A folder that mirrors the drive.
pub(crate) struct Mirror {
    vm_id: String,
    root: PathBuf,
    pub(crate) state_dir: PathBuf,
    running: Option<Group>,
    _dir: TempDir,
}

impl Mirror {
    pub(crate) async fn start(&mut self, scene: &Scene) {
        let settings = Settings {
            enabled: true,
            root: self.root.clone(),
            state_dir: self.state_dir.clone(),
            debounce: Duration::from_millis(50),
            poll_interval: Duration::from_millis(200),
            ..Settings::default()
        };
        let identity = scene.identity(&self.vm_id).await;
        let mut group = Group::new(CancellationToken::new());
        group.spawn("drive sync", |stop| async move {
            keeper::keep(settings, identity, stop).await.unwrap();
        });
        self.running = Some(group);
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let ended = running.stop(Duration::from_secs(30)).await;
            assert!(matches!(ended[0].ending, Ending::Returned), "{ended:?}");
        }
    }

    pub(crate) fn at(&self, place: &str) -> PathBuf {
        self.root.join("team").join(place)
    }

    pub(crate) fn write(&self, place: &str, text: &str) {
        fs::create_dir_all(self.at(place).parent().unwrap()).unwrap();
        fs::write(self.at(place), text).unwrap();
    }

    pub(crate) fn report(&self) -> Option<DriveReport> {
        Report::read(&self.state_dir).ok()??.drives.pop()
    }

    pub(crate) async fn is(&self, state: DriveState) -> DriveReport {
        wait_until(&format!("{} to be {state:?}", self.vm_id), || async {
            self.report().filter(|report| report.state == state)
        })
        .await
    }

    /// All files by their paths.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let root = self.at("");
        let mut files = BTreeMap::new();
        collect(&root, &root, &mut files);
        files
    }

    pub(crate) async fn has(&self, files: &[(&str, &str)]) {
        let wanted: BTreeMap<String, String> =
            files.iter().map(|(place, text)| ((*place).to_owned(), (*text).to_owned())).collect();
        let what = format!("{} to have {wanted:?}", self.vm_id);
        wait_until(&what, || async { (self.files() == wanted).then_some(()) }).await;
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.file_name().is_some_and(|name| name == ".panorama-sync") {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let place = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            files.insert(place, text);
        }
    }
}

/// The server's files, by path.
pub(crate) async fn at_server(scene: &Scene) -> Vec<(String, Value)> {
    let page = admin(&scene.control, &format!("drives/{}/entries", scene.drive_id), None).await;
    let entries = page["entries"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry.clone()))
        .collect()
}

fn client(control: &ControlPlane) -> reqwest::Client {
    let anon_key = control.server.anon_key().into();
    Http::new(&Endpoint { url: control.url(), anon_key }).unwrap().client()
}

/// A call of the operator's.
pub(crate) async fn admin(control: &ControlPlane, path: &str, body: Option<Value>) -> Value {
    let client = client(control);
    let url = format!("{}/admin/v1/{path}", control.url());
    let request = match body {
        Some(body) => client.post(url).json(&body),
        None => client.get(url),
    };
    let token = control.server.admin_token().expose_secret().to_owned();
    let answer = request.bearer_auth(token).send().await.unwrap();
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert!(status.is_success(), "{path}: {body}");
    body
}
