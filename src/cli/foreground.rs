//! A gateway in this process: logging, signals, the end.

use std::io::IsTerminal;

use tokio::signal::unix::{SignalKind, signal};

use super::asynchronous;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::start::already_running;
use super::upgrade;
use crate::config::Settings;
use crate::observe::logging::{self, Colour, LogError, LogHandle};
use crate::runtime::notify::ServiceManager;
use crate::runtime::{ExitReason, Gateway, GatewayHandle, GatewayOptions, StartError};

/// Runs the gateway until it is stopped.
pub(crate) fn run(context: &Context, settings: Settings) -> Outcome {
    let terminal = std::io::stderr()
        .is_terminal()
        .then(|| if context.ui.colour_on_stderr() { Colour::On } else { Colour::Off });
    settings.paths.prepare()?;
    let log = logging::init_foreground(
        &settings.log_filter.value,
        &context.redactor,
        terminal,
        &settings.paths.log_file,
    )?;
    // The variables of a replacement name another process; the old one says whether they are ours.
    let service = if context.takes_over.is_some() {
        ServiceManager::none()
    } else {
        ServiceManager::from_environment(&context.environment)
    };
    let options = GatewayOptions {
        relaunch: upgrade::relaunch(context, &settings),
        settings,
        redactor: context.redactor.clone(),
        log: Some(log.handle()),
        caller_umask: context.caller_umask,
        service: service.clone(),
        drive_sync: None,
    };
    let hangup =
        if has_terminal() && !service.is_there() { Hangup::OfTerminal } else { Hangup::Reload };
    let ended = asynchronous::long()?.block_on(async {
        let Some(gateway) = upgrade::prepare(context, options, &log.handle()).await? else {
            return Ok(ExitReason::Stopped);
        };
        let signals = Signals::listen(gateway.handle(), log.handle(), hangup)?;
        run_with_signals(gateway, signals).await
    });
    match ended {
        Err(StartError::AlreadyRunning { pid }) => already_running(context, pid),
        ended => outcome(ended),
    }
}

/// Runs a gateway and passes signals on to it.
pub(crate) async fn run_with_signals(
    gateway: Gateway,
    mut signals: Signals,
) -> Result<ExitReason, StartError> {
    let run = gateway.run();
    tokio::pin!(run);
    loop {
        tokio::select! {
            ended = &mut run => return ended,
            // Cancel safe: a signal that came is kept until it is asked for.
            () = signals.pass_on() => {}
        }
    }
}

/// How the end of a gateway is told to the shell.
pub(crate) fn outcome(ended: Result<ExitReason, StartError>) -> Outcome {
    match ended? {
        ExitReason::Stopped | ExitReason::HandedOver => Ok(Exit::Done),
        ExitReason::PairingRevoked(reason) => Err(Failure::revoked(&reason)),
        ExitReason::Unpaired => Err(Failure::not_paired()),
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::File(error) => Self::from(error).context("could not open the log"),
            LogError::AlreadySet => Self::of(&error),
        }
    }
}

/// What SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// The terminal may be gone, which ends a gateway that runs in it.
    OfTerminal,
    /// Somebody asks for a reload.
    Reload,
}

/// What to do about a SIGHUP.
#[derive(Debug, PartialEq, Eq)]
enum HangupAction {
    Stop,
    Reload,
}

fn on_hangup(meaning: Hangup, terminal_is_there: bool) -> HangupAction {
    match (meaning, terminal_is_there) {
        (Hangup::OfTerminal, false) => HangupAction::Stop,
        (Hangup::OfTerminal, true) | (Hangup::Reload, _) => HangupAction::Reload,
    }
}

/// A process has a controlling terminal as long as this opens.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// The signals of a gateway.
#[derive(Debug)]
pub(crate) struct Signals {
    gateway: GatewayHandle,
    log: LogHandle,
    meaning: Hangup,
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on signals no longer kill this process.
    pub(crate) fn listen(
        gateway: GatewayHandle,
        log: LogHandle,
        meaning: Hangup,
    ) -> Result<Self, StartError> {
        let listen =
            |kind| signal(kind).map_err(|error| StartError::Other(anyhow::Error::new(error)));
        Ok(Self {
            gateway,
            log,
            meaning,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for one signal and passes it on. Cancel safe.
    pub(crate) async fn pass_on(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => self.stop("SIGINT"),
            _ = self.terminate.recv() => self.stop("SIGTERM"),
            _ = self.hangup.recv() => match on_hangup(self.meaning, has_terminal()) {
                HangupAction::Stop => self.stop("SIGHUP"),
                HangupAction::Reload => {
                    tracing::info!("SIGHUP: reading the config again");
                    self.log.reopen();
                    self.gateway.reload();
                }
            },
        }
    }

    fn stop(&self, signal: &'static str) {
        tracing::info!(signal, "asked to stop");
        self.gateway.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_ends_only_what_lived_in_a_terminal_that_is_gone() {
        assert_eq!(on_hangup(Hangup::OfTerminal, false), HangupAction::Stop);
        assert_eq!(on_hangup(Hangup::OfTerminal, true), HangupAction::Reload);
        assert_eq!(on_hangup(Hangup::Reload, false), HangupAction::Reload);
    }

    #[test]
    fn a_revoked_pairing_has_its_exit_code() {
        assert_eq!(outcome(Ok(ExitReason::Stopped)), Ok(Exit::Done));
        let revoked = outcome(Ok(ExitReason::PairingRevoked("session_not_found".into())));
        assert_eq!(revoked.unwrap_err().exit, Exit::NotPaired);
    }
}
