//! A gateway from lock to exit.

mod identified;
mod life;
mod outside;
mod prepare;
mod supervisors;

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use life::IdentityEnd;
pub use outside::{ExitReason, GatewayHandle, GatewayOptions, StartError};

use super::house_audit;
use super::shared::Shared;
use super::status::Phase;
use super::upgrade::handing_over::HandOver;
use super::upgrade::standby::Predecessor;
use super::validation::Occasion;
use crate::backend::{Endpoint, Http};
use crate::clock::Clock;
use crate::config::{ConfigStore, FileLock, PidFile};
use crate::observe::Audit;
use crate::providers::Roster;
use crate::task::Group;

/// How long supervisors may take to stop.
const SUPERVISOR_BUDGET: Duration = Duration::from_secs(5);

/// A gateway that holds the instance lock.
#[derive(Debug)]
pub struct Gateway {
    pub(super) options: GatewayOptions,
    clock: Clock,
    pub(super) config: ConfigStore,
    pub(super) audit: Audit,
    pub(super) shared: Arc<Shared>,
    pub(super) socket: Option<Arc<StdListener>>,
    pub(super) pid_file: Option<PidFile>,
    pub(super) lock: FileLock,
    /// The old process, until this one is up.
    pub(super) predecessor: Option<Predecessor>,
    /// A client that has spoken to this backend already.
    http: Option<(Endpoint, Http)>,
}

/// What a replacement has got ready before it takes over.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) endpoint: Endpoint,
    pub(super) http: Http,
    pub(super) roster: Arc<Roster>,
}

impl Gateway {
    /// Goes by these clocks instead of the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Steers it.
    pub fn handle(&self) -> GatewayHandle {
        GatewayHandle { shared: Arc::clone(&self.shared) }
    }

    /// Lives until it is stopped. A pairing that replaces the identity meanwhile is adopted: the
    /// work in hand is finished first.
    pub async fn run(mut self) -> Result<ExitReason, StartError> {
        tracing::info!(version = crate::VERSION, pid = std::process::id(), "starting");
        house_audit::started(&self.audit, &self.shared).await;
        let stop = CancellationToken::new();
        let mut house = Group::new(stop.clone());
        self.keep_house(&mut house);
        let mut door = self.open_door();
        let (offer, mut offers) = mpsc::channel(1);
        let mut occasion = Occasion::Startup;
        let result = loop {
            let life = Box::pin(self.live_identity(occasion, &offer, &mut offers));
            match life.await {
                Ok(IdentityEnd::NewIdentity) => {
                    self.shared.begin_identity();
                    occasion = Occasion::Pairing;
                }
                Ok(IdentityEnd::Exit(reason)) => break Ok(reason),
                Ok(IdentityEnd::HandOver(offer)) => match Box::pin(self.hand_over(*offer)).await {
                    Ok(HandOver::Done) => break Ok(ExitReason::HandedOver),
                    Ok(HandOver::Back) => {
                        let old = std::mem::replace(&mut door, self.open_door());
                        old.stop(SUPERVISOR_BUDGET).await;
                    }
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        door.stop(SUPERVISOR_BUDGET).await;
        self.options.service.stopping();
        house.stop(SUPERVISOR_BUDGET).await;
        house_audit::stopped(&self.audit, &result).await;
        self.shared.phase.send_replace(Phase::Stopped);
        let is_ours =
            !matches!(result, Ok(ExitReason::HandedOver) | Err(StartError::AlreadyRunning { .. }));
        if self.socket.is_some() && is_ours {
            // Under the lock still, so it is ours.
            let _ = std::fs::remove_file(self.config.paths().socket());
        }
        if let Some(pid_file) = self.pid_file {
            pid_file.remove();
        }
        result
    }
}
