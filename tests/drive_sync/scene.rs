//! Machines that keep a drive in step, in this process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use panorama_gateway::backend::{Endpoint, Http};
use panorama_gateway::drive_sync::keeper::report::{DriveReport, DriveState, Report};
use panorama_gateway::drive_sync::keeper::{self, Identity, SessionToken, Settings};
use panorama_gateway::drive_sync::model::Sha256 as Content256;
use panorama_gateway::sandbox::ServerOptions;
use panorama_gateway::task::{Ending, Group};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::common::{ControlPlane, Machine, wait_until};

/// A control plane with a drive, and a paired gateway that may use it.
pub(crate) struct Scene {
    pub(crate) control: ControlPlane,
    pub(crate) drive_id: String,
    gateway_id: String,
    machine: Machine,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let control = ControlPlane::start_with(change).await;
        let machine = Machine::new();
        let gateway_id = machine.pair(&control).await;
        let drive = admin(&control, "drives", Some(json!({"name": "Team"}))).await;
        let drive_id = drive["drive_id"].as_str().unwrap().to_owned();
        Self { control, drive_id, gateway_id, machine }
    }

    pub(crate) async fn mirror(&self, vm_id: &str) -> Mirror {
        let mut mirror = self.mirror_at_rest(vm_id);
        mirror.start(self).await;
        mirror
    }

    /// One that is not started yet.
    pub(crate) fn mirror_at_rest(&self, vm_id: &str) -> Mirror {
        let dir = tempfile::tempdir().unwrap();
        Mirror {
            vm_id: vm_id.to_owned(),
            root: dir.path().join("drives"),
            state_dir: dir.path().join("state"),
            url: self.control.url(),
            network_timeout: Settings::default().network_timeout,
            session: None,
            running: None,
            _dir: dir,
        }
    }

    /// What the gateway may do with the drive from now on: `none`, `read` or `write`.
    pub(crate) async fn allow(&self, access: &str) {
        let body = json!({"gateway_id": self.gateway_id, "access": access});
        admin(&self.control, &format!("drives/{}/access", self.drive_id), Some(body)).await;
    }

    /// The access token of the gateway's session.
    pub(crate) fn session(&self) -> String {
        self.machine.config()["accessToken"].as_str().unwrap().to_owned()
    }

    /// Gives the server a file, as a person there would.
    pub(crate) async fn put(&self, path: &str, bytes: &[u8]) {
        let sha256 = Content256(Sha256::digest(bytes).into()).hex();
        let known = at_server(self).await.into_iter().find(|(known, _)| known == path);
        let expected = known.map(|(_, entry)| entry["current_version_id"].clone());
        let id = uuid::Uuid::new_v4().to_string();
        let file = json!({
            "action": "prepare_upload", "drive_id": self.drive_id, "path": path,
            "size_bytes": bytes.len(), "content_sha256": sha256,
            "expected_version_id": expected, "operation_id": id,
        });
        let prepared = admin(&self.control, "drive-sync", Some(file)).await;
        if prepared["present"] != true {
            let part_size = prepared["part_size"].as_u64().unwrap_or(bytes.len() as u64);
            let part_size = usize::try_from(part_size).unwrap();
            for (number, part) in bytes.chunks(part_size.max(1)).enumerate() {
                let number = (number + 1).to_string();
                let url = prepared["url"].as_str().unwrap().replace("{part}", &number);
                let sent =
                    client(&self.control).await.put(url).body(part.to_vec()).send().await.unwrap();
                assert!(sent.status().is_success(), "{sent:?}");
            }
        }
        let commit = json!({"action": "commit_upload", "drive_id": self.drive_id,
                            "upload_id": prepared["upload_id"], "operation_id": id});
        admin(&self.control, "drive-sync", Some(commit)).await;
    }

    async fn identity(&self, mirror: &Mirror) -> Identity {
        let wanted = json!({"gateway_id": self.gateway_id, "vm_id": mirror.vm_id});
        let token = admin(&self.control, "drive-tokens", Some(wanted)).await;
        Identity {
            backend: mirror.url.parse().unwrap(),
            anon_key: self.control.server.anon_key().into(),
            client: client(&self.control).await,
            vm_id: mirror.vm_id.clone(),
            token: token["token"].as_str().unwrap().into(),
            keep_token: None,
            session: mirror.session.clone(),
        }
    }
}

/// A folder that mirrors the drive.
pub(crate) struct Mirror {
    vm_id: String,
    root: PathBuf,
    pub(crate) state_dir: PathBuf,
    /// Where it finds the control plane.
    pub(crate) url: String,
    pub(crate) network_timeout: Duration,
    pub(crate) session: Option<SessionToken>,
    running: Option<Group>,
    _dir: TempDir,
}

impl Mirror {
    /// With a token that is so old by then.
    pub(crate) async fn start_late(&mut self, scene: &Scene, age: Duration) {
        let identity = scene.identity(self).await;
        tokio::time::sleep(age).await;
        self.start_as(identity);
    }

    pub(crate) async fn start(&mut self, scene: &Scene) {
        let identity = scene.identity(self).await;
        self.start_as(identity);
    }

    fn start_as(&mut self, identity: Identity) {
        let settings = Settings {
            enabled: true,
            root: self.root.clone(),
            state_dir: self.state_dir.clone(),
            debounce: Duration::from_millis(50),
            poll_interval: Duration::from_millis(200),
            network_timeout: self.network_timeout,
            ..Settings::default()
        };
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
        let mut report = Report::read(&self.state_dir).ok()??;
        // What an earlier run has left says nothing of this one.
        let is_of_this = report.problem.as_deref() != Some("drive sync does not run");
        report.drives.pop().filter(|_| is_of_this)
    }

    pub(crate) async fn is(&self, state: DriveState) -> DriveReport {
        wait_until(&format!("{} to be {state:?}", self.vm_id), || async {
            self.report().filter(|report| report.state == state)
        })
        .await
    }

    /// All files by their paths.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        files_below(&self.at(""))
    }

    pub(crate) async fn has(&self, files: &[(&str, &str)]) {
        let wanted: BTreeMap<String, String> =
            files.iter().map(|(place, text)| ((*place).to_owned(), (*text).to_owned())).collect();
        let what = format!("{} to have {wanted:?}", self.vm_id);
        wait_until(&what, || async { (self.files() == wanted).then_some(()) }).await;
    }
}

/// All files of a drive by their paths.
pub(crate) fn files_below(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    collect(root, root, &mut files);
    files
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

/// What the server has at the top, by path.
pub(crate) async fn at_server(scene: &Scene) -> Vec<(String, Value)> {
    listed(scene, "").await
}

/// The same with all that is in folders.
pub(crate) async fn all_at_server(scene: &Scene) -> Vec<(String, Value)> {
    listed(scene, "?all=true").await
}

async fn listed(scene: &Scene, query: &str) -> Vec<(String, Value)> {
    let path = format!("drives/{}/entries{query}", scene.drive_id);
    let page = admin(&scene.control, &path, None).await;
    let entries = page["entries"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry.clone()))
        .collect()
}

async fn client(control: &ControlPlane) -> reqwest::Client {
    let anon_key = control.server.anon_key().into();
    Http::new(&Endpoint { url: control.url(), anon_key }).unwrap().another_client().await.unwrap()
}

/// A call of the operator's.
pub(crate) async fn admin(control: &ControlPlane, path: &str, body: Option<Value>) -> Value {
    let client = client(control).await;
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
