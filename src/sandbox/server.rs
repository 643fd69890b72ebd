//! The control plane as a whole: start, addresses, shutdown.
//!
//! A data dir has one server at a time (`server.lock`, held for life). While one runs,
//! `server.json` says where. Shutdown: no new connections, long polls answer at once, realtime
//! sockets are closed, requests in hand get five seconds, then the database is closed and
//! `server.json` removed.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::access::{AccessTokens, DriveToken};
use super::app::{App, Shared, now_micros};
use super::auth::RefreshChain;
use super::contents::{self, ContentError, Contents};
use super::drives::{self, DriveLimits, DriveUrls, Drives};
use super::functions::EdgeFunction;
use super::guard::Hosts;
use super::health::Health;
use super::jwt::Signer;
use super::rate::GuessLimit;
use super::rules::Rules;
use super::secrets::{Secrets, SecretsError};
use super::storage::{Storage, StorageLimits, UrlTokens};
use super::store::schema::Schema;
use super::store::{Store, StoreError};
use super::{accept, liveness, realtime, retention, routes};
use crate::config::{FileLock, LockError};
use crate::fs::{self, FsError};
use crate::model::{GatewayId, TeamId};
use crate::task::{Ended, Group};

/// A little more than the connections' own drain, so that they end by themselves.
const STOP_BUDGET: Duration = accept::DRAIN.saturating_add(Duration::from_secs(1));

const KEEP_JOBS: Duration = Duration::from_hours(30 * 24);

/// How a server is to be run. Start from [`ServerOptions::new`].
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where everything is kept; made when absent, owner only.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 is any free one.
    pub listen: SocketAddr,
    /// Whether an address that other machines reach is allowed.
    pub allow_remote: bool,
    /// Host names that this server answers to besides the machine's own, when remote is allowed.
    pub host_names: Vec<String>,
    /// How long an access token lasts (whole seconds).
    pub access_token_lifetime: Duration,
    /// How long a refresh token that is neither live nor the live one's parent still works.
    pub reuse_interval: Duration,
    /// How far clocks may differ before tables refuse an access token (whole seconds).
    pub clock_leeway: Duration,
    /// How long a job or a subagent's run that has ended is kept, and what gateways reported;
    /// `None` is for ever.
    pub keep_jobs: Option<Duration>,
    /// How many realtime sockets may be open; further ones are refused.
    pub realtime_sockets: usize,
    /// The tables and functions that REST shows, and the buckets of storage.
    pub schema: Schema,
    /// Edge functions beyond the sandbox's own.
    pub edge_functions: Vec<&'static EdgeFunction>,
    /// How much storage takes.
    pub storage: StorageLimits,
    /// How long drives keep what.
    pub drives: DriveLimits,
    /// The rules that requests must pass.
    pub(crate) rules: Rules,
}

impl ServerOptions {
    /// The usual ones: tokens of an hour, ended jobs kept for 30 days, no remote access, the
    /// sandbox's own tables.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen,
            allow_remote: false,
            host_names: Vec::new(),
            access_token_lifetime: Duration::from_hours(1),
            reuse_interval: Duration::from_secs(10),
            clock_leeway: Duration::from_secs(30),
            keep_jobs: Some(KEEP_JOBS),
            realtime_sockets: 512,
            schema: Schema::built_in(),
            edge_functions: Vec::new(),
            storage: StorageLimits::default(),
            drives: DriveLimits::default(),
            rules: Rules::default(),
        }
    }
}

/// Why a server did not start. `Display` says what; [`ServerError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another server has this data dir.
    #[error("a sandbox is running on {} already", data_dir.display())]
    AlreadyRunning {
        /// The data dir.
        data_dir: PathBuf,
    },
    /// Something else listens there.
    #[error("{address} is in use by another program")]
    PortBusy {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The address is not one to listen on.
    #[error("could not listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Other machines would reach it, and that was not allowed.
    #[error("{address} can be reached from other machines")]
    RemoteNotAllowed {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// A file or directory cannot be used.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The secrets cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The contents of stored objects cannot be used.
    #[error(transparent)]
    Contents(#[from] ContentError),
    /// Writing `server.json` failed before it reached the disk.
    #[error("could not describe the running server")]
    Describe(#[from] serde_json::Error),
    /// The work of starting was cut short, which only a bug or a stopping runtime does.
    #[error("starting was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl From<rusqlite::Error> for ServerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl ServerError {
    /// One line that says what to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::AlreadyRunning { .. } => {
                "use it as it is, stop it first, or name another --data-dir".into()
            }
            Self::PortBusy { address } => format!(
                "`lsof -i :{}` shows which; stop it, or choose another address with --listen \
                 (127.0.0.1:0 takes any free port)",
                address.port()
            ),
            Self::Listen { .. } => "choose an address of this machine with --listen".into(),
            Self::RemoteNotAllowed { .. } => {
                "listen on 127.0.0.1, or pass --allow-remote: whoever has the admin token can \
                 then run commands on paired machines over an unencrypted connection"
                    .into()
            }
            Self::Fs(_) | Self::Contents(_) => "repair the file, or name another --data-dir".into(),
            Self::Secrets(_) | Self::Store(_) => {
                "nothing was changed: repair the file, restore a copy of it, or start anew with \
                 another --data-dir"
                    .into()
            }
            Self::Describe(_) | Self::Interrupted(_) => "try again".into(),
        }
    }
}

/// Where a running server is: the contents of `server.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ServerRecord {
    pub(super) url: String,
    pub(super) pid: u32,
    /// Wire time.
    pub(super) started_at: String,
    pub(super) version: String,
}

impl ServerRecord {
    /// Where a data dir keeps it.
    pub(super) fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("server.json")
    }
}

/// `server.json` while it is ours; removed when dropped.
#[derive(Debug)]
struct Advertisement {
    path: PathBuf,
}

impl Drop for Advertisement {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "could not remove server.json");
        }
    }
}

/// A running control plane. Dropping it aborts it; [`Server::shutdown`] is the polite way.
#[derive(Debug)]
pub struct Server {
    pub(super) app: Shared,
    address: SocketAddr,
    tasks: Group,
    // Dropped in this order: the lock goes last, or we might remove a successor's record.
    advertisement: Advertisement,
    lock: FileLock,
}

impl Server {
    /// Secures the data dir, opens the database, listens, and serves.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let address = options.listen;
        if !options.allow_remote && !address.ip().is_loopback() {
            return Err(ServerError::RemoteNotAllowed { address });
        }
        let data_dir = options.data_dir.clone();
        let (lock, secrets) = tokio::task::spawn_blocking(move || claim(&data_dir)).await??;
        let listener = listen(address).await?;
        let address = listener
            .local_addr()
            .map_err(|source| ServerError::Listen { address: options.listen, source })?;
        let database = options.data_dir.join("sandbox.db");
        let schema = options.schema.clone();
        let store =
            tokio::task::spawn_blocking(move || Store::open_with(&database, schema)).await??;
        let team_id = default_team(&store).await?;
        let more_is_old = retention::begin(&store, options.keep_jobs).await;
        let most = options.storage.max_total_bytes;
        let contents = contents::start(&options.data_dir, most, &store).await?;
        let stop = CancellationToken::new();
        let machine = host_name();
        let hosts = {
            let mut names = options.host_names.clone();
            names.extend(machine.iter().cloned());
            names.extend(machine.iter().map(|name| format!("{name}.local")));
            Hosts::new(address.ip(), options.allow_remote, &names)
        };
        let parts = (store, contents);
        let (app, newcomers) = make_app(&options, address, machine, parts, secrets, team_id, &stop);
        let app = Arc::new(app);
        let path = ServerRecord::path(&options.data_dir);
        let record = ServerRecord {
            url: app.url.clone(),
            pid: std::process::id(),
            started_at: crate::model::time::now_wire(),
            version: crate::VERSION.to_owned(),
        };
        let text = serde_json::to_vec_pretty(&record)?;
        let advertisement = tokio::task::spawn_blocking(move || {
            fs::save(&path, &text).map(|()| Advertisement { path })
        })
        .await??;
        let mut tasks = Group::new(stop);
        let router = routes::service(app.clone(), hosts);
        tasks.spawn("accept", |stop| accept::run(listener, router, stop));
        let (contents, store) = (app.storage.contents.clone(), app.store.clone());
        tasks.spawn("contents", |stop| contents::run(contents, store, stop));
        tasks.spawn("realtime", |stop| realtime::run(app.clone(), newcomers, stop));
        tasks.spawn("liveness", |stop| liveness::run(app.clone(), stop));
        tasks.spawn("drives", |stop| drives::run(app.clone(), stop));
        let (store, keep) = (app.store.clone(), options.keep_jobs);
        tasks.spawn("retention", |stop| retention::run(store, keep, more_is_old, stop));
        tracing::info!(url = %app.url, "the sandbox is up");
        Ok(Self { app, address, tasks, advertisement, lock })
    }

    /// Where programs on this machine reach it, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.app.url
    }

    /// The project's key: who has it may try to pair.
    pub fn anon_key(&self) -> &str {
        &self.app.secrets.anon_key
    }

    /// What the admin API wants.
    pub fn admin_token(&self) -> &SecretString {
        &self.app.secrets.admin_token
    }

    /// A token for drive sync: of a gateway of some team, in a VM or not, for that long (whole
    /// seconds). Nothing but drive sync takes it.
    pub fn drive_token(
        &self,
        gateway_id: GatewayId,
        team_id: TeamId,
        vm_id: Option<String>,
        lifetime: Duration,
    ) -> String {
        let token = DriveToken { gateway_id, team_id, vm_id };
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        self.app.access.mint_drive(&token, now_micros() / 1_000_000, lifetime)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits until one of its tasks ends, which none does by itself: then the server is broken and
    /// should be shut down. Cancel safe.
    pub async fn failed(&mut self) -> Option<Ended> {
        self.tasks.next().await
    }

    /// Stops: within about six seconds, whatever clients do.
    pub async fn shutdown(self) {
        let Self { app, tasks, advertisement, lock, .. } = self;
        app.stop.cancel();
        for ended in tasks.stop(STOP_BUDGET).await {
            tracing::debug!(task = %ended.name, ending = ?ended.ending, "stopped");
        }
        app.store.close().await;
        drop(advertisement);
        drop(lock);
        tracing::info!("the sandbox is down");
    }
}

/// Makes the data dir ours, alone.
fn claim(data_dir: &Path) -> Result<(FileLock, Secrets), ServerError> {
    fs::ensure_private_dir(data_dir)?;
    let lock =
        FileLock::try_acquire(&data_dir.join("server.lock")).map_err(|error| match error {
            LockError::Held => ServerError::AlreadyRunning { data_dir: data_dir.to_owned() },
            LockError::Fs(error) => ServerError::Fs(error),
        })?;
    Ok((lock, Secrets::load_or_make(data_dir, now_micros() / 1_000_000)?))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| {
        if source.kind() == std::io::ErrorKind::AddrInUse {
            ServerError::PortBusy { address }
        } else {
            ServerError::Listen { address, source }
        }
    })
}

async fn default_team(store: &Store) -> Result<TeamId, ServerError> {
    store
        .write(|write| {
            let first = "SELECT id FROM teams ORDER BY created_at, id LIMIT 1";
            let found: Option<String> =
                write.tx.query_row(first, [], |row| row.get(0)).optional()?;
            if let Some(id) = found {
                return Ok(TeamId::new(id));
            }
            let id = Uuid::new_v4().to_string();
            write.tx.execute(
                "INSERT INTO teams (id, name, created_at) VALUES (?1, 'Sandbox', ?2)",
                params![id, now_micros()],
            )?;
            Ok(TeamId::new(id))
        })
        .await
}

fn make_app(
    options: &ServerOptions,
    address: SocketAddr,
    machine: Option<String>,
    (store, contents): (Store, Contents),
    secrets: Secrets,
    team_id: TeamId,
    stop: &CancellationToken,
) -> (App, realtime::Newcomers) {
    let url = local_url(address);
    let public_url = match machine {
        Some(name) if address.ip().is_unspecified() => format!("http://{name}:{}", address.port()),
        _ => url.clone(),
    };
    let key = secrets.jwt_secret.expose_secret().as_bytes();
    let lifetime = i64::try_from(options.access_token_lifetime.as_secs()).unwrap_or(3600);
    let (realtime, newcomers) = realtime::entrance(options.realtime_sockets);
    let issuer = format!("{url}/auth/v1");
    let app = App {
        access: AccessTokens::new(Signer::new(key), issuer, lifetime, options.rules),
        chain: RefreshChain::new(key),
        guesses: GuessLimit::new(Instant::now()),
        storage: Storage {
            contents,
            tokens: UrlTokens::new(Signer::new(key), options.rules),
            limits: options.storage,
        },
        drives: Drives {
            urls: DriveUrls::new(Signer::new(key), options.rules),
            limits: options.drives,
        },
        clock_leeway: options.clock_leeway,
        reuse_interval: options.reuse_interval,
        edge_functions: options.edge_functions.clone(),
        health: Health::default(),
        realtime,
        stop: stop.clone(),
        rules: options.rules,
        store,
        secrets,
        team_id,
        url,
        public_url,
    };
    (app, newcomers)
}

/// `0.0.0.0` and `::` are reached over loopback from here.
fn local_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    Some(name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_url_is_one_that_can_be_dialled() {
        for (address, url) in [
            ("127.0.0.1:54321", "http://127.0.0.1:54321"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("192.168.1.2:80", "http://192.168.1.2:80"),
        ] {
            assert_eq!(local_url(address.parse().unwrap()), url);
        }
    }

    #[tokio::test]
    async fn an_address_that_others_reach_must_be_allowed() {
        let options = ServerOptions::new("/nonexistent", "0.0.0.0:0".parse().unwrap());
        let error = Server::start(options).await.unwrap_err();
        assert!(matches!(error, ServerError::RemoteNotAllowed { .. }), "{error:?}");
        assert!(error.hint().contains("--allow-remote"));
    }
}
