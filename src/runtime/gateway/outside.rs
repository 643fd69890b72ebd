//! What a gateway is started with, how it is steered, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{ConfigError, Settings};
use crate::jobs::Activity;
use crate::observe::Redactor;
use crate::observe::logging::LogHandle;
use crate::runtime::notify::ServiceManager;
use crate::runtime::shared::Shared;
use crate::runtime::status::Phase;
use crate::runtime::upgrade::Relaunch;

/// What a gateway is started with.
#[derive(Debug)]
pub struct GatewayOptions {
    /// The merged settings.
    pub settings: Settings,
    /// Shared with logging.
    pub redactor: Redactor,
    /// What status says of the log; `None` when there is none.
    pub log: Option<LogHandle>,
    /// The umask of whoever started the gateway; children get it.
    pub caller_umask: u32,
    /// How it is started once more when a new version is installed; `None`: it never is.
    pub relaunch: Option<Arc<Relaunch>>,
    /// Who started this process, if that is a service manager.
    pub service: ServiceManager,
    /// Drives to be kept in step outside a managed VM, where the environment has no say.
    pub drive_sync: Option<crate::drive_sync::keeper::Settings>,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another one holds the lock, or a foreign panorama-gateway runs.
    #[error("a gateway is running already")]
    AlreadyRunning {
        /// Its pid, when it is known.
        pid: Option<i32>,
    },
    /// No identity in `gateway.json`.
    #[error("this machine is not paired")]
    NotPaired,
    /// Bad configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Why a gateway ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It was asked to.
    Stopped,
    /// The backend refuses the pairing for good; the terminal code.
    PairingRevoked(String),
    /// The pairing was taken away on this machine.
    Unpaired,
    /// A new version runs in its place.
    HandedOver,
}

/// Steers a gateway from outside. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GatewayHandle {
    pub(super) shared: Arc<Shared>,
}

impl GatewayHandle {
    /// One request to stop: the first drains, the second cancels the work, the third goes at once.
    /// Requests within a second count once.
    pub fn stop(&self) {
        self.shared.request_stop();
    }

    /// Reads `gateway.json` again.
    pub fn reload(&self) {
        self.shared.reload.send_modify(|reloads| *reloads += 1);
    }

    /// What a wake of the machine does: over new connections, checks the session, then beats and
    /// joins realtime anew, then polls.
    pub fn wake(&self) {
        self.shared.wake.send_modify(|wakes| *wakes += 1);
    }

    /// True when the runtime has shown within this time that its tasks get their turn: what a
    /// watchdog asks before it says that all is well.
    pub fn alive_within(&self, limit: Duration) -> bool {
        self.shared.alive_within(limit)
    }

    /// How far the gateway is.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.shared.phase.subscribe()
    }

    /// What waits, runs and has ended.
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.shared.activity.subscribe()
    }
}
