//! Everything before the first task: lock, pid file, status socket, config, leftovers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::{Gateway, GatewayOptions, Ready, StartError};
use crate::clock::Clock;
use crate::config::{
    ConfigError, ConfigStore, FileLock, LockError, PidFile, PidRecord, Purpose, SavedConfig,
};
use crate::fs::acting_as;
use crate::guest::Guest;
use crate::jobs::MODEL_WORK;
use crate::jobs::journal::Journal;
use crate::observe::Audit;
use crate::providers::{Roster, VALIDATION_WORK, sweep_work_dirs, work};
use crate::runtime::shared::Shared;
use crate::runtime::status_socket;

/// A probe may hold the instance lock for a moment; a gateway holds it for life.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

impl Gateway {
    /// Everything that needs no network: lock, pid file, status socket, config. Blocks for
    /// milliseconds (for a second when another gateway holds the lock).
    pub fn prepare(options: GatewayOptions) -> Result<Self, StartError> {
        Self::prepare_with(options, None)
    }

    /// The same for one that got ready already.
    pub(in crate::runtime) fn prepare_with(
        options: GatewayOptions,
        ready: Option<Ready>,
    ) -> Result<Self, StartError> {
        let config = ConfigStore::new(options.settings.paths.clone());
        config.paths().prepare().map_err(ConfigError::from)?;
        let lock = claim_instance(&config)?;
        Self::prepare_holding(options, lock, ready)
    }

    /// The same for one that was handed the lock.
    pub(in crate::runtime) fn prepare_holding(
        options: GatewayOptions,
        lock: FileLock,
        ready: Option<Ready>,
    ) -> Result<Self, StartError> {
        let config = ConfigStore::new(options.settings.paths.clone());
        let paths = config.paths();
        let saved = config.load()?;
        if !saved.is_paired() {
            return Err(StartError::NotPaired);
        }
        let (url, key) = options.settings.backend(Purpose::Start)?;
        save_backend(&config, &saved, &url, key.expose_secret())?;
        crate::fs::ensure_private_dir(&paths.tmp()).map_err(ConfigError::from)?;
        let guest = Guest::of(&saved, &options.settings.guest);
        // Nobody works in there: the lock is ours. But for a `doctor`, perhaps, which then says that
        // its check failed.
        for kind in [MODEL_WORK, VALIDATION_WORK] {
            let dirs = work(&config, guest.as_ref(), kind);
            let owner = guest.as_ref().and_then(Guest::owner);
            if let Err(error) = acting_as(owner, || sweep_work_dirs(&dirs)) {
                tracing::warn!(%error, "work dirs of an earlier gateway are left");
            }
        }
        let journal = Journal::open(&paths.journal()).map_err(ConfigError::from)?;
        let pid_file = write_pid(&paths.pid_file)?;
        let socket = status_socket::open(&paths.socket());
        let (roster, http) = match ready {
            Some(ready) => (ready.roster, Some((ready.endpoint, ready.http))),
            None => (Arc::new(Roster::new(options.redactor.clone())), None),
        };
        let shared = Shared::new(
            options.settings.concurrency.value,
            saved.full_control(),
            saved.text("gatewayId").map(str::to_owned),
            journal,
            roster,
        );
        let audit = Audit::new(&paths.audit_file(), options.redactor.clone());
        let shared = shared.with_logs(options.log.clone(), audit.clone()).with_guest(guest);
        let shared = Arc::new(shared);
        let clock = Clock::system();
        Ok(Self {
            options,
            clock,
            config,
            audit,
            shared,
            socket,
            pid_file,
            lock,
            predecessor: None,
            http,
        })
    }
}

fn claim_instance(config: &ConfigStore) -> Result<FileLock, StartError> {
    let paths = config.paths();
    let running = PidFile::inspect(&paths.pid_file);
    let pid = match running {
        PidRecord::Gateway(pid) => Some(pid),
        PidRecord::None | PidRecord::Stale(_) => None,
    };
    match FileLock::acquire(&paths.instance_lock(), LOCK_PATIENCE) {
        // A live gateway without our lock is a foreign one: it would race us for the session.
        Ok(_) if pid.is_some() => Err(StartError::AlreadyRunning { pid }),
        Ok(lock) => Ok(lock),
        Err(LockError::Held) => Err(StartError::AlreadyRunning { pid }),
        Err(LockError::Fs(error)) => Err(ConfigError::from(error).into()),
    }
}

/// `None` on a disk that is full: the lock decides who runs, and the status socket tells our pid too.
fn write_pid(path: &Path) -> Result<Option<PidFile>, ConfigError> {
    match PidFile::write(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.is_full() => {
            tracing::warn!(path = %path.display(), %error, "no pid file");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// `start` saves what it resolved.
fn save_backend(
    config: &ConfigStore,
    saved: &SavedConfig,
    url: &str,
    key: &str,
) -> Result<(), ConfigError> {
    if saved.text("supabaseUrl") == Some(url) && saved.text("supabaseAnonKey") == Some(key) {
        return Ok(());
    }
    config.update(|saved| {
        saved.set("supabaseUrl", url);
        saved.set("supabaseAnonKey", key);
    })?;
    Ok(())
}
