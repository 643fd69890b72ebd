//! Drives in managed VMs: the real binary, killed and started as it happens.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use panorama_gateway::drive_sync::keeper::report::{DriveReport, DriveState, Report};

use crate::common::{ControlPlane, Gateway, Machine, wait_until};

/// A VM with drive sync on.
pub(crate) struct Vm {
    pub(crate) machine: Machine,
    pub(crate) name: String,
    gateway: Option<Gateway>,
}

impl Vm {
    pub(crate) async fn new(machine: Machine, control: &ControlPlane, name: &str) -> Self {
        let token = control.admin.make_vm_token(Some(name), None).await.unwrap().token;
        let place = |name: &str| machine.home().join(name).display().to_string();
        let (root, state) = (place("drives"), place("drive-state"));
        let machine = machine
            .with("PANORAMA_SUPABASE_URL", control.url())
            .with("PANORAMA_SUPABASE_ANON_KEY", control.server.anon_key())
            .with("PANORAMA_VM_BOOTSTRAP_TOKEN", token)
            .with("PANORAMA_DRIVE_SYNC_ENABLED", "1")
            .with("PANORAMA_DRIVE_SYNC_ROOT", root)
            .with("PANORAMA_DRIVE_SYNC_STATE_DIR", state)
            .with("PANORAMA_DRIVE_SYNC_DEBOUNCE_MS", "50")
            .with("PANORAMA_DRIVE_SYNC_POLL_INTERVAL_MS", "200");
        Self { machine, name: name.to_owned(), gateway: None }
    }

    /// With a variable more, or another value of one.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.machine = self.machine.with(name, value);
        self
    }

    pub(crate) fn start(&mut self) {
        let args = ["start", "--foreground", "--mode", "managed"];
        self.gateway = Some(Gateway::silent(&mut self.machine.command(&args)));
    }

    pub(crate) async fn kill(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            gateway.kill().await;
        }
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            gateway.signal(Signal::SIGTERM);
            assert!(gateway.ended().await.success());
        }
    }

    /// The gateway that runs now.
    pub(crate) fn pid(&self) -> i32 {
        self.gateway.as_ref().unwrap().pid()
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.machine.home().join("drives/team")
    }

    pub(crate) fn report(&self) -> Option<DriveReport> {
        self.status()?.drives.pop()
    }

    /// Also where the machine is another user's, whose files the product would not read here.
    fn status(&self) -> Option<Report> {
        let file = self.machine.home().join("drive-state/status.json");
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }

    /// What the gateway that runs now has told, not the one before it.
    pub(crate) fn news(&self) -> Option<DriveReport> {
        let mut report = self.status()?;
        let pid = self.gateway.as_ref()?.pid();
        if report.pid.cast_signed() == pid { report.drives.pop() } else { None }
    }

    /// Whether the gateway that runs now has looked at its drive at least once.
    pub(crate) fn has_looked(&self) -> bool {
        self.news().is_some_and(|drive| drive.state != DriveState::Starting)
    }

    pub(crate) fn says_up_to_date(&self) -> bool {
        self.news().is_some_and(|drive| drive.state == DriveState::UpToDate)
    }

    /// The gateway stands still, its files as they are.
    pub(crate) async fn freeze(&self) {
        let gateway = self.gateway.as_ref().unwrap();
        gateway.signal(Signal::SIGSTOP);
        let threads = format!("/proc/{}/task", gateway.pid());
        let stands = |thread: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        wait_until("all of it to stand still", || async {
            std::fs::read_dir(&threads).ok()?.flatten().all(stands).then_some(())
        })
        .await;
    }

    pub(crate) async fn is_up_to_date(&self) -> DriveReport {
        wait_until(&format!("{} to be up to date", self.name), || async {
            self.news().filter(|report| report.state == DriveState::UpToDate)
        })
        .await
    }
}
