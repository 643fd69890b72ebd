//! Where everything lies.

use std::path::PathBuf;

/// The gateway's files. All absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The config dir, `~/.panorama/gateway` by default.
    pub dir: PathBuf,
    /// `gateway.json`.
    pub config_file: PathBuf,
    /// `gateway.log`, beside the config file by default.
    pub log_file: PathBuf,
    /// `gateway.pid`, beside the config file by default.
    pub pid_file: PathBuf,
}

impl Paths {
    /// TMPDIR of shell children.
    pub fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Work dirs of runs, by kind.
    pub fn work(&self, kind: &str) -> PathBuf {
        self.dir.join("work").join(kind)
    }

    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("jobs")
    }

    /// The status socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("gateway.sock")
    }

    /// Held for the life of the gateway.
    pub fn instance_lock(&self) -> PathBuf {
        self.beside_config("gateway.lock")
    }

    /// Held for the milliseconds of one read-modify-write of `gateway.json`.
    pub fn config_lock(&self) -> PathBuf {
        self.beside_config("gateway.config.lock")
    }

    /// Held for one network call that rotates the session.
    pub fn refresh_lock(&self) -> PathBuf {
        self.beside_config("gateway.refresh.lock")
    }

    fn beside_config(&self, name: &str) -> PathBuf {
        self.config_file.with_file_name(name)
    }
}
