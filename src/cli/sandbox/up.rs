//! `sandbox up`: control plane and gateway in one process, and with `--exec` one job.
//!
//! The gateway's files lie in `gateway/` below the data dir, so that no other pairing is touched.
//! The end comes in the reverse order of the start: gateway, server, directory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::args::UpArgs;
use super::outcome::{self, text};
use super::serve::StopSignals;
use super::{INTERRUPTED, LISTEN, client_of, data_dir, log_filter, show_path, submit, team};
use crate::cli::audit;
use crate::cli::context::Context;
use crate::cli::drive_sync as cli_drive_sync;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::identity::{self, NewIdentity};
use crate::cli::{asynchronous, foreground, socket};
use crate::config::{ConfigStore, GlobalOptions, Paths, Purpose, Settings};
use crate::drive_sync::keeper;
use crate::observe::logging::{self, LogOptions, StderrLines};
use crate::runtime::notify::ServiceManager;
use crate::runtime::status::Phase;
use crate::runtime::{ExitReason, Gateway, GatewayHandle, GatewayOptions, StartError};
use crate::sandbox::{AdminClient, Server, ServerError, ServerOptions};

mod told;

/// A running gateway tells the team of a changed host toggle with its next heartbeat at the latest.
const TOGGLE_PATIENCE: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A server that starts on the same data dir needs so long until it answers.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// Runs the command.
pub(super) fn run(context: &Context, args: &UpArgs) -> Outcome {
    let temporary = if args.ephemeral { Some(temporary_dir()?) } else { None };
    let data_dir = match &temporary {
        Some(dir) => dir.path().to_owned(),
        None => data_dir(context, &args.common)?,
    };
    let outcome = with_runtime(context, args, data_dir);
    if let Some(dir) = temporary
        && let Err(error) = dir.close()
    {
        context.ui.warn(&format!("could not remove the temporary directory: {error}"));
    }
    outcome
}

fn temporary_dir() -> Result<TempDir, Failure> {
    tempfile::Builder::new().prefix("panorama-sandbox-").tempdir().map_err(|error| {
        Failure::new("could not make a temporary directory")
            .hint("see whether TMPDIR can be written, or name a --data-dir")
            .cause(error.to_string())
    })
}

fn with_runtime(context: &Context, args: &UpArgs, data_dir: PathBuf) -> Outcome {
    let paths = Paths::in_dir(&data_dir.join("gateway"));
    for dir in [&data_dir, &paths.dir] {
        crate::fs::ensure_private_dir(dir)?;
    }
    let stderr = if context.options.verbose {
        StderrLines::Human { colour: context.ui.colour_on_stderr() }
    } else {
        StderrLines::Off
    };
    let log = logging::init(LogOptions {
        filter: log_filter(context).to_owned(),
        redactor: context.redactor.clone(),
        stderr,
        file: Some(paths.log_file.clone()),
    })?;
    let outcome = asynchronous::long()?.block_on(async {
        let stop = StopSignals::listen()?;
        Box::pin(Up { context, args, data_dir, paths, stop }.run()).await
    });
    // Before the directory goes: what is still on its way to the log is written.
    drop(log);
    outcome
}

struct Up<'a> {
    context: &'a Context,
    args: &'a UpArgs,
    data_dir: PathBuf,
    paths: Paths,
    stop: StopSignals,
}

/// How the backend is reached.
struct Backend {
    client: AdminClient,
    url: String,
    anon_key: SecretString,
}

impl Up<'_> {
    async fn run(mut self) -> Outcome {
        let mut server = self.start_or_join().await?;
        let backend = match &server {
            Joined::Ours(server) => Backend {
                client: client_of(self.context, server),
                url: server.url().to_owned(),
                anon_key: server.anon_key().into(),
            },
            Joined::Theirs(client) => {
                let info = client.info().await?;
                Backend { client: client.clone(), url: info.url, anon_key: info.anon_key.into() }
            }
        };
        if matches!(server, Joined::Theirs(_)) && self.args.exec.is_none() {
            self.print_where(&backend, None, "runs already").await?;
            return Ok(Exit::Done);
        }
        let outcome = Box::pin(self.with_backend(&backend, &mut server)).await;
        if let Joined::Ours(server) = server {
            server.shutdown().await;
        }
        outcome
    }

    async fn start_or_join(&self) -> Result<Joined, Failure> {
        if let Some(client) = AdminClient::find(&self.data_dir).await? {
            return Ok(Joined::Theirs(client));
        }
        let options = ServerOptions::new(self.data_dir.clone(), self.listen()?);
        match Server::start(options).await {
            Ok(server) => Ok(Joined::Ours(server)),
            // Another one started at the same moment.
            Err(error @ ServerError::AlreadyRunning { .. }) => {
                let join = async {
                    loop {
                        if let Ok(Some(client)) = AdminClient::find(&self.data_dir).await {
                            return client;
                        }
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                };
                let joined = tokio::time::timeout(JOIN_PATIENCE, join).await;
                joined.map(Joined::Theirs).map_err(|_| error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn listen(&self) -> Result<SocketAddr, Failure> {
        let default = if self.args.exec.is_some() { "127.0.0.1:0" } else { LISTEN };
        match self.args.listen {
            Some(address) => Ok(address),
            None => default.parse().map_err(|_| Failure::new("the default address is wrong")),
        }
    }

    async fn with_backend(&mut self, backend: &Backend, server: &mut Joined) -> Outcome {
        let settings = self.settings(backend)?;
        let store = ConfigStore::new(self.paths.clone());
        let gateway_id = self.identity(backend, &settings, &store).await?;
        if self.args.exec.is_some() {
            self.allow_commands(backend, &store, &gateway_id).await?;
        }
        let options = GatewayOptions {
            settings,
            redactor: self.context.redactor.clone(),
            log: None,
            caller_umask: self.context.caller_umask,
            // The server of the same process could not go along.
            relaunch: None,
            service: ServiceManager::none(),
            drive_sync: self.drive_sync(backend, &store, &gateway_id).await?,
        };
        match Gateway::prepare(options) {
            Ok(gateway) => self.with_gateway(gateway, backend, server, &gateway_id).await,
            Err(StartError::AlreadyRunning { .. }) => match &self.args.exec {
                Some(command) => self.exec(command, backend, &gateway_id, None).await,
                None => Err(Failure::new("the gateway of this sandbox runs elsewhere already")
                    .hint(format!(
                        "stop it with `panorama-gateway stop --config-dir {}`",
                        show_path(&self.paths.dir)
                    ))),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// A drive to mirror, a token for it, and where the mirror is.
    async fn drive_sync(
        &self,
        backend: &Backend,
        store: &ConfigStore,
        gateway_id: &str,
    ) -> Result<Option<keeper::Settings>, Failure> {
        let Some(folder) = &self.args.drive_sync else { return Ok(None) };
        if backend.client.drives().await?.is_empty() {
            backend.client.create_drive("Team", "write").await?;
        }
        let minted = backend.client.make_drive_token(Some(gateway_id), None).await?;
        let (token, expires_at) = (text(&minted, "token"), text(&minted, "expires_at"));
        self.context.redactor.add_secret(token);
        let held = json!({"token": token, "expiresAt": expires_at, "vmId": gateway_id});
        store.update(|saved| saved.set("driveSync", held.clone()))?;
        let settings = cli_drive_sync::drive_settings(&self.context.environment)?;
        Ok(Some(keeper::Settings {
            enabled: true,
            root: std::path::absolute(folder)?,
            state_dir: self.drive_state(),
            ..settings
        }))
    }

    /// The sandbox's gateway has its own paths and backend; nothing of the user's pairing.
    fn settings(&self, backend: &Backend) -> Result<Settings, Failure> {
        let given = &self.context.options;
        let options = GlobalOptions {
            verbose: given.verbose,
            config_dir: Some(self.paths.dir.clone()),
            config_path: Some(self.paths.config_file.clone()),
            log_path: Some(self.paths.log_file.clone()),
            pid_path: Some(self.paths.pid_file.clone()),
            device_name: given.device_name.clone(),
            supabase_url: Some(backend.url.clone()),
            anon_key: Some(backend.anon_key.expose_secret().to_owned()),
            claude_cli: given.claude_cli.clone(),
            codex_cli: given.codex_cli.clone(),
            gemini_cli: given.gemini_cli.clone(),
            metrics_listen: None,
            env: None,
            env_file: None,
        };
        Context { options, ..self.context.clone() }.settings(Purpose::Start)
    }

    /// The saved identity if this backend still knows it, else a new one by a code of its own.
    async fn identity(
        &self,
        backend: &Backend,
        settings: &Settings,
        store: &ConfigStore,
    ) -> Result<String, Failure> {
        let saved = self.context.saved(settings)?;
        if saved.is_paired()
            && let Some(id) = saved.text("gatewayId")
            && backend.client.gateways().await?.iter().any(|row| text(row, "id") == id)
        {
            return Ok(id.to_owned());
        }
        let made = backend.client.make_pairing_code(None).await?;
        let identity = NewIdentity {
            url: backend.url.clone(),
            anon_key: backend.anon_key.clone(),
            device_name: settings.device_name.value.clone(),
            full_control: None,
        };
        let pairing = identity::exchange(self.context, &identity, &made.code).await?;
        let saved = identity::save(store, &identity, &pairing)?;
        audit::paired(self.context, store.paths(), &pairing, &saved);
        Ok(pairing.gateway_id.as_str().to_owned())
    }

    async fn allow_commands(
        &self,
        backend: &Backend,
        store: &ConfigStore,
        gateway_id: &str,
    ) -> Result<(), Failure> {
        if !store.load()?.full_control() {
            store.update(|saved| saved.set("full_control_enabled", true))?;
            let about = json!({"enabled": true});
            audit::tell(self.context, store.paths(), "full_control_changed", about);
        }
        backend.client.set_full_control(Some(gateway_id), true).await?;
        team::remote_shell(&backend.client, gateway_id).await?;
        self.context.ui.note(&format!(
            "machine control is on in {}: host toggle, team toggle, a remote-shell resource",
            show_path(&self.data_dir)
        ));
        Ok(())
    }

    async fn with_gateway(
        &mut self,
        gateway: Gateway,
        backend: &Backend,
        server: &mut Joined,
        gateway_id: &str,
    ) -> Outcome {
        let handle = gateway.handle();
        let run = gateway.run();
        tokio::pin!(run);
        let worked = {
            let work = self.work(backend, server, gateway_id, &handle);
            tokio::pin!(work);
            tokio::select! {
                // Pinned outside: it goes on below when the other arm is first.
                ended = &mut run => Err(ended),
                worked = &mut work => Ok(worked),
            }
        };
        let worked = match worked {
            Ok(worked) => worked,
            Err(ended) => {
                return Err(match foreground::outcome(ended) {
                    Ok(_) => Failure::new("the gateway stopped"),
                    Err(failure) => failure,
                });
            }
        };
        handle.stop();
        if worked.as_ref().is_ok_and(|exit| *exit == Exit::OfCommand(INTERRUPTED)) {
            self.cancel_work().await;
        }
        let ended = self.until_stopped(&handle, run).await;
        let worked = worked?;
        foreground::outcome(ended).map(|_| worked)
    }

    /// The job that Ctrl-C called off is not waited for.
    async fn cancel_work(&self) {
        let socket = self.paths.socket();
        let _taken = tokio::task::spawn_blocking(move || socket::cancel(&socket)).await;
    }

    async fn until_stopped(
        &mut self,
        handle: &GatewayHandle,
        mut run: std::pin::Pin<&mut impl Future<Output = Result<ExitReason, StartError>>>,
    ) -> Result<ExitReason, StartError> {
        loop {
            tokio::select! {
                ended = &mut run => return ended,
                // Cancel safe.
                () = self.stop.recv() => handle.stop(),
            }
        }
    }

    async fn work(
        &mut self,
        backend: &Backend,
        server: &mut Joined,
        gateway_id: &str,
        handle: &GatewayHandle,
    ) -> Outcome {
        let mut phase = handle.phase();
        tokio::select! {
            // Cancel safe, both; a gateway that is gone is told of elsewhere.
            up = phase.wait_for(|phase| *phase == Phase::Up) => { up.map(drop).ok(); }
            () = self.stop.recv() => return Ok(self.interrupted()),
        }
        if let Some(command) = &self.args.exec {
            return self.exec(command, backend, gateway_id, Some(handle)).await;
        }
        self.print_where(backend, Some(gateway_id), "is up").await?;
        let drives = self.show_drives();
        let broken = async {
            match server {
                Joined::Ours(server) => server.failed().await,
                Joined::Theirs(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cancel safe, all.
            () = self.stop.recv() => Ok(Exit::Done),
            never = drives => match never {},
            ended = broken => Err(Failure::new("the sandbox broke").cause(format!("{ended:?}"))),
        }
    }

    /// A first copy moves before a person's eyes. Lines of the log would get in between.
    fn show_drives(&self) -> impl Future<Output = std::convert::Infallible> + use<> {
        let (ui, state_dir) = (self.context.ui.clone(), self.drive_state());
        let shown = self.args.drive_sync.is_some() && !self.context.options.verbose;
        async move {
            if !shown {
                return std::future::pending().await;
            }
            cli_drive_sync::follow(&ui, &state_dir).await
        }
    }

    fn drive_state(&self) -> PathBuf {
        self.paths.dir.join("drive-sync")
    }

    fn interrupted(&self) -> Exit {
        if self.args.exec.is_some() { Exit::OfCommand(INTERRUPTED) } else { Exit::Done }
    }

    async fn exec(
        &mut self,
        command: &str,
        backend: &Backend,
        gateway_id: &str,
        handle: Option<&GatewayHandle>,
    ) -> Outcome {
        let client = &backend.client;
        let mut submitted = None;
        let work = async {
            until_ready_for_commands(client, gateway_id).await?;
            let (resource, _) = team::remote_shell(client, gateway_id).await?;
            let job = submit::shell_job(gateway_id, &resource, command, None);
            let row = client.submit_job(&job).await?;
            submitted = Some(text(&row, "id").to_owned());
            if let Some(handle) = handle {
                handle.wake();
            }
            outcome::follow(client, &self.context.ui, row).await
        };
        let finished = tokio::select! {
            // Not cancel safe, and need not be: the job is called off below.
            finished = work => Some(finished?),
            // Cancel safe.
            () = self.stop.recv() => None,
        };
        if let Some(row) = finished {
            return outcome::tell(&self.context.ui, &row, self.args.common.json);
        }
        if let Some(id) = submitted
            && let Err(error) = client.cancel_job(&id).await
        {
            self.context.ui.warn(&format!("the job was not called off: {error}"));
        }
        Ok(Exit::OfCommand(INTERRUPTED))
    }
}

/// Whose server it is.
enum Joined {
    Ours(Server),
    Theirs(AdminClient),
}

/// Waits until the team knows that the gateway takes commands.
async fn until_ready_for_commands(client: &AdminClient, gateway_id: &str) -> Result<(), Failure> {
    let ready = |row: &Value| {
        text(row, "id") == gateway_id
            && row["online"] == true
            && row["capabilities"]["services"]["machine_control"]["ready"] == true
    };
    let wait = async {
        while !client.gateways().await?.iter().any(ready) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    };
    tokio::time::timeout(TOGGLE_PATIENCE, wait).await.unwrap_or_else(|_| {
        Err(Failure::new("the gateway did not report that it takes commands")
            .hint("see its log; `panorama-gateway sandbox gateways` shows how it is"))
    })
}
