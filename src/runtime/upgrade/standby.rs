//! The replacement's side: gets ready without taking anything, takes over when it is told to.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::gateway::{Gateway, GatewayOptions, Ready, StartError};
use super::super::notify::ServiceManager;
use super::super::shared::Shared;
use super::super::status::Phase;
use super::wire::{FromNew, FromOld, Line};
use crate::backend::{BackendError, BorrowedTokens, Endpoint, Http, RedactedTokens, Session};
use crate::config::{ConfigError, ConfigStore, FileLock, LockError, Purpose};
use crate::guest::Guest;
use crate::providers::{self, Asker, Attendant, Roster};

/// A backend that is away is asked again so often; the old process decides how long.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A CLI that is slow to answer is asked again after the hand-over.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// What a replacement holds of its predecessor until it is up.
#[derive(Debug)]
pub(in crate::runtime) struct Predecessor(Line);

/// Gets ready, tells the old process, and waits for its word. `None`: there is nothing left to do,
/// since the old process is gone and another gateway runs.
pub async fn wait(
    options: GatewayOptions,
    stream: UnixStream,
) -> Result<Option<Gateway>, StartError> {
    let mut line = Line::new(stream).context("use the line to the old process")?;
    let ready = tokio::select! {
        ready = get_ready(&options) => ready,
        // Cancel safe: nothing was taken yet.
        () = line.closed() => {
            tracing::info!("the gateway that was to hand over is gone");
            return alone(options, None);
        }
    };
    let outcome = match ready {
        Ok(ready) => take_over(options, ready, &mut line).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok((Some(mut gateway), true)) => {
            gateway.predecessor = Some(Predecessor(line));
            Ok(Some(gateway))
        }
        Ok((gateway, _)) => Ok(gateway),
        Err(error) => {
            let reason = if let StartError::Other(error) = &error {
                format!("{error:#}")
            } else {
                error.to_string()
            };
            // One that is gone does not mind.
            let _gone = line.say(&FromNew::Failed { reason }, None);
            Err(error)
        }
    }
}

/// With whether the old process is there still.
async fn take_over(
    mut options: GatewayOptions,
    ready: Ready,
    line: &mut Line,
) -> Result<(Option<Gateway>, bool), StartError> {
    let word = FromNew::Ready { version: crate::VERSION.to_owned() };
    line.say(&word, None).context("tell the old process")?;
    tracing::info!(version = crate::VERSION, "ready to take over");
    match line.hear().await.context("hear the old process")? {
        Some(FromOld::TakeOver { service: true }) => {
            options.service = ServiceManager::handed_over(&options.settings.environment);
        }
        Some(FromOld::TakeOver { service: false }) => {}
        None => {
            tracing::info!("the gateway that was to hand over is gone; taking its place");
            return Ok((alone(options, Some(ready))?, false));
        }
    }
    let path = options.settings.paths.instance_lock();
    let descriptor = line.descriptor().context("no lock came with the word to take over")?;
    let lock = FileLock::inherit(&path, descriptor).map_err(|error| match error {
        LockError::Held => StartError::AlreadyRunning { pid: None },
        LockError::Fs(error) => ConfigError::from(error).into(),
    })?;
    Ok((Some(Gateway::prepare_holding(options, lock, Some(ready))?), true))
}

/// As any gateway would start.
fn alone(options: GatewayOptions, ready: Option<Ready>) -> Result<Option<Gateway>, StartError> {
    match Gateway::prepare_with(options, ready) {
        Err(StartError::AlreadyRunning { .. }) => Ok(None),
        prepared => prepared.map(Some),
    }
}

/// Everything that takes nothing and changes nothing.
async fn get_ready(options: &GatewayOptions) -> Result<Ready, StartError> {
    let settings = &options.settings;
    let config = ConfigStore::new(settings.paths.clone());
    if !config.load()?.is_paired() {
        return Err(StartError::NotPaired);
    }
    let (url, anon_key) = settings.backend(Purpose::Start)?;
    let endpoint = Endpoint { url, anon_key: anon_key.expose_secret().into() };
    let http = Http::new(&endpoint).context("make the HTTP client")?;
    let roster = Roster::new(options.redactor.clone());
    let roster = Arc::new(roster);
    let (session, ()) = tokio::join!(
        check_session(options, &config, &endpoint, &http),
        probe(options, Arc::clone(&roster)),
    );
    session?;
    Ok(Ready { endpoint, http, roster })
}

/// Asks with the saved tokens. They are never rotated here: that is the old process's right, and a
/// token that needs it now is no reason not to take over.
async fn check_session(
    options: &GatewayOptions,
    config: &ConfigStore,
    endpoint: &Endpoint,
    http: &Http,
) -> Result<(), StartError> {
    loop {
        // Made anew each time: the old process may have rotated the tokens.
        let tokens = RedactedTokens::new(config.clone(), options.redactor.clone());
        let tokens = Arc::new(BorrowedTokens(tokens));
        let session =
            Session::new(http.clone(), endpoint.clone(), tokens).context("load the session")?;
        match session.authenticate().await {
            Ok(()) => return Ok(()),
            Err(BackendError::TokenStore(_)) => {
                tracing::info!("the session is due for a refresh, which is the old process's");
                return Ok(());
            }
            Err(error) if error.ends_session() => return Err(anyhow::Error::new(error).into()),
            Err(error) => {
                tracing::info!(%error, "the session could not be checked; trying again");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

async fn probe(options: &GatewayOptions, roster: Arc<Roster>) {
    let settings = &options.settings;
    let saved = ConfigStore::new(settings.paths.clone()).load().unwrap_or_default();
    let guest = Guest::to_look(&saved, &settings.guest);
    let tmp = settings.paths.tmp();
    let asker = Asker::in_guest(&settings.environment, &tmp, options.caller_umask, guest);
    let probes = providers::all().map(|provider| {
        let mut attendant = Attendant::new(provider, settings, asker.clone(), Arc::clone(&roster));
        async move { attendant.light().await }
    });
    if tokio::time::timeout(PROBE_LIMIT, join_all(probes)).await.is_err() {
        tracing::info!("a provider did not answer in time; it is asked again later");
    }
}

/// In the replacement, until it is up: tells the old process, or notices that it is gone.
pub(in crate::runtime) async fn confirm(
    shared: Arc<Shared>,
    service: ServiceManager,
    mut predecessor: Predecessor,
    stop: CancellationToken,
) {
    let mut phase: watch::Receiver<Phase> = shared.phase.subscribe();
    let up = tokio::select! {
        // Cancel safe, each arm.
        up = phase.wait_for(|phase| *phase == Phase::Up) => up.is_ok(),
        () = predecessor.0.closed() => false,
        () = stop.cancelled() => return,
    };
    if up {
        // One that is gone does not mind.
        let _gone = predecessor.0.say(&FromNew::Up, None);
        tracing::info!("took over");
    } else {
        tracing::info!("the gateway that handed over is gone; this one is on its own");
    }
    shared.provisional.send_replace(false);
    service.speak_again();
}
