//! Upgrades: what is installed over a lane's gateway, and who is the gateway afterwards.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use panorama_gateway::VERSION;
use serde_json::Value;

use super::lane::{Lane, spawn};
use super::plan::{Stage, Upgrade, Victim};
use super::process::{self, Process};
use super::versions::{self, numbered};
use crate::common::Machine;

/// Two waits of the gateway's own (a minute each) and some time for a loaded machine.
const PATIENCE: Duration = Duration::from_mins(4);
/// Upgrades that a gateway begins within ten minutes.
const MOST_TRIES: usize = 3;
/// What the one that crashes calls itself in its file.
const CRASHES: &str = "9.9.000";

/// Versions that work: one more than a gateway tries in vain before it is started again.
static VERSIONS: LazyLock<BTreeMap<String, PathBuf>> = LazyLock::new(|| {
    let others = (1..=4).map(numbered).filter(|version| version != VERSION).take(3);
    let others = others.map(|version| (version.clone(), versions::other(&version)));
    others.chain([(VERSION.to_owned(), versions::ours())]).collect()
});
static CRASHING: LazyLock<PathBuf> =
    LazyLock::new(|| versions::impostor(CRASHES, "crashes-when-it-takes-over"));

/// Makes the files that will be installed, before anything is measured.
pub(crate) fn prepare() {
    LazyLock::force(&VERSIONS);
    LazyLock::force(&CRASHING);
}

/// A machine whose gateway can be upgraded.
pub(crate) fn installed(machine: Machine) -> Machine {
    let program = machine.home().join("bin/panorama-gateway");
    std::fs::create_dir(program.parent().unwrap()).unwrap();
    versions::put(&VERSIONS[VERSION], &program);
    machine.installed_at(program).with("PANORAMA_GATEWAY_RESTART_CHECK_MS", "1000")
}

/// What a SIGKILL has hit.
#[derive(Debug, Clone, Copy)]
struct Strike {
    since: Timestamp,
    old: bool,
    /// A replacement was there, and was spared.
    spared: bool,
}

impl Lane<'_> {
    pub(super) async fn upgrade(&self, upgrade: Upgrade) -> String {
        if self.gateway.lock().await.tries == MOST_TRIES {
            self.saw("upgrades: the gateway was started anew, so that it tries again", 1);
            self.kill().await;
        }
        let mut gateway = self.gateway.lock().await;
        self.is_up().await;
        match upgrade {
            Upgrade::Good => {
                let version = self.install_another(&mut gateway).await;
                self.follow(&mut gateway, &version, None).await;
                "upgrade: a good version".to_owned()
            }
            Upgrade::Truncated(thousandths) => {
                let bytes = std::fs::read(&VERSIONS[VERSION]).unwrap();
                let bytes = &bytes[..bytes.len() / 1000 * thousandths];
                self.is_refused(&mut gateway, bytes, None).await;
                "upgrade: a truncated one".to_owned()
            }
            Upgrade::Crashes => {
                gateway.tries += 1;
                let version = format!("9.9.{:03}", gateway.pid() % 900 + 1 + tries(&gateway));
                let bytes = versions::relabelled(&CRASHING, CRASHES, &version);
                self.is_refused(&mut gateway, &bytes, Some(&version)).await;
                gateway.failed.insert(version);
                "upgrade: one that crashes when asked to take over".to_owned()
            }
            Upgrade::Disturbed { what, at, lasts } => {
                let version = self.install_another(&mut gateway).await;
                if self.comes_to(&mut gateway, at).await {
                    self.disturb(what, lasts, false).await;
                }
                self.follow(&mut gateway, &version, None).await;
                "upgrade, and the backend disturbed".to_owned()
            }
            Upgrade::Killed { whom, at, after } => {
                let version = self.install_another(&mut gateway).await;
                if self.comes_to(&mut gateway, at).await {
                    tokio::time::sleep(after).await;
                    let strike = self.strike_at(&gateway, whom);
                    self.follow(&mut gateway, &version, strike).await;
                } else {
                    self.follow(&mut gateway, &version, None).await;
                }
                let whom = match whom {
                    Victim::Old => "the old gateway",
                    Victim::New => "the new gateway",
                    Victim::Both { .. } => "both gateways",
                };
                format!("upgrade, and {whom} SIGKILL")
            }
        }
    }

    /// Installs a version that does not run and has not failed; which.
    async fn install_another(&self, gateway: &mut Process) -> String {
        let runs = self.machine.status().await.unwrap_or_default()["version"].clone();
        let (version, file) = VERSIONS
            .iter()
            .find(|(version, _)| runs != version.as_str() && !gateway.failed.contains(*version))
            .unwrap();
        gateway.tries += 1;
        self.install(|program| versions::put(file, program));
        version.clone()
    }

    fn install(&self, put: impl FnOnce(&Path)) {
        put(self.machine.program());
    }

    /// Installs what cannot take over, waits until the gateway has seen that, and puts back what
    /// runs.
    async fn is_refused(&self, gateway: &mut Process, bytes: &[u8], version: Option<&str>) {
        let before = self.machine.status().await.unwrap_or_default();
        self.install(|program| put_bytes(bytes, program));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.machine.status().await.unwrap_or_default();
            let failed = &status["upgrade"]["last_failed"];
            if failed["at"] != before["upgrade"]["last_failed"]["at"]
                && failed["version"].as_str() == version
                && is_at_work(&status, gateway.pid())
            {
                self.saw("upgrades: fell back", 1);
                break;
            }
            if Instant::now() > deadline || gateway.ended().is_some() {
                self.violation(&format!(
                    "{version:?} of {} bytes was not refused: {status}: {}",
                    bytes.len(),
                    self.last_words()
                ));
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let runs = before["version"].as_str().unwrap_or(VERSION);
        self.install(|program| versions::put(&VERSIONS[runs], program));
        let all = process::of_program(self.machine.program());
        if all != [gateway.pid()] {
            self.violation(&format!("a bad upgrade left {all:?}, not {}", gateway.pid()));
        }
    }

    /// Waits until a hand-over has come so far, or its old process is gone; false when it never
    /// does.
    async fn comes_to(&self, gateway: &mut Process, stage: Stage) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && gateway.ended().is_none() {
            let status = self.machine.status().await.unwrap_or_default();
            if stage_of(&status, gateway.pid()) >= Some(stage) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        gateway.ended().is_some()
    }

    /// Kills who is there of old and new; `None` when nobody is hit.
    fn strike_at(&self, old: &Process, whom: Victim) -> Option<Strike> {
        let since = Timestamp::now();
        let all = process::of_program(self.machine.program());
        let (olds, news): (Vec<i32>, Vec<i32>) = all.iter().partition(|pid| **pid == old.pid());
        let victims = match whom {
            Victim::Old => olds.clone(),
            Victim::New => news.clone(),
            Victim::Both { old_first: true } => [olds.clone(), news.clone()].concat(),
            Victim::Both { old_first: false } => [news.clone(), olds.clone()].concat(),
        };
        for pid in &victims {
            process::signal(*pid, Signal::SIGKILL);
        }
        self.saw("upgrades: processes killed during one", victims.len());
        (!victims.is_empty()).then(|| Strike {
            since,
            old: whom != Victim::New && !olds.is_empty(),
            spared: whom == Victim::Old && !news.is_empty(),
        })
    }

    /// Waits until one gateway is at work, whichever it is; starts one if none is left.
    async fn follow(&self, gateway: &mut Process, version: &str, struck: Option<Strike>) {
        let old = gateway.pid();
        let deadline = Instant::now() + PATIENCE;
        let came = loop {
            let end = gateway.ended();
            let all = process::of_program(self.machine.program());
            if all.is_empty() {
                break None;
            }
            let status = self.machine.status().await.unwrap_or_default();
            let failed = status["upgrade"]["last_failed"]["version"] == version;
            if let [pid] = all.as_slice()
                && is_at_work(&status, *pid)
                && (if *pid == old { failed } else { end.is_some() })
            {
                break Some(*pid);
            }
            if Instant::now() > deadline {
                self.violation(&format!(
                    "the upgrade to {version} ({struck:?}) came to nothing: {all:?}: {status}: {}",
                    self.last_words()
                ));
                for pid in all {
                    process::signal(pid, Signal::SIGKILL);
                }
                gateway.kill().await;
                break None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        self.judge_hand_over(gateway, version, struck, came);
        // Whatever was not the gateway cannot have had a job.
        if came != Some(old)
            && let Some(strike) = struck
        {
            self.killed_since(strike.since);
        }
        match came {
            Some(pid) if pid == old => drop(gateway.failed.insert(version.to_owned())),
            Some(pid) => *gateway = Process::adopted(pid),
            None => *gateway = spawn(&self.machine),
        }
    }

    fn judge_hand_over(
        &self,
        gateway: &mut Process,
        version: &str,
        struck: Option<Strike>,
        came: Option<i32>,
    ) {
        let (old, end) = (gateway.pid(), gateway.ended());
        let ended_well = end.is_some_and(|end| end.success());
        if end.is_some() && !ended_well && !struck.is_some_and(|strike| strike.old) {
            self.violation(&format!("the old process ended with {end:?}: {}", self.last_words()));
        }
        let said = || self.last_words();
        if came == Some(old) && struck.is_none() {
            self.violation(&format!("the upgrade to {version} failed by itself: {}", said()));
        }
        if came.is_none() && struck.is_none_or(|strike| strike.spared) {
            self.violation(&format!("the upgrade to {version} left no gateway: {}", said()));
        }
        let what = match came {
            Some(pid) if pid == old => "killed, and the old process went on",
            Some(_) if ended_well => "handed over",
            Some(_) => "killed, and the new process took the place",
            None => "killed, and nobody was left",
        };
        self.saw(&format!("upgrades: {what}"), 1);
    }
}

/// An executable file of these bytes takes the place of the one that is there.
fn put_bytes(bytes: &[u8], path: &Path) {
    let draft = path.with_extension("new");
    std::fs::write(&draft, bytes).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&draft, path).unwrap();
}

fn tries(gateway: &Process) -> i32 {
    i32::try_from(gateway.tries).unwrap()
}

/// Whether this process is the gateway, and no hand-over is under way.
fn is_at_work(status: &Value, pid: i32) -> bool {
    status["pid"] == pid && status["phase"] == "up" && status["upgrade"]["state"] == "watching"
}

fn stage_of(status: &Value, old: i32) -> Option<Stage> {
    if status["pid"].is_number() && status["pid"] != old {
        return Some(Stage::HandingOver);
    }
    match status["upgrade"]["state"].as_str()? {
        "preparing" => Some(Stage::Preparing),
        "draining" => Some(Stage::Draining),
        "handing_over" => Some(Stage::HandingOver),
        _ => None,
    }
}
