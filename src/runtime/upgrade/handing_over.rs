//! The old process's side of a hand-over, when its work is done: lock, door, and the way back.

use tokio::sync::watch;

use super::super::gateway::{Gateway, StartError};
use super::super::shared::Shared;
use super::super::status_socket;
use super::{Offer, Stage};
use crate::config::{ConfigError, LockError, PidFile};

/// How a hand-over ended.
pub(in crate::runtime) enum HandOver {
    /// The replacement is up.
    Done,
    /// It is gone; everything is ours again.
    Back,
}

impl Offer {
    /// Why the replacement is no good, as soon as it shows. Cancel safe.
    pub(in crate::runtime) async fn gone(&mut self) -> String {
        self.replacement.gone().await
    }

    /// Which version.
    pub(in crate::runtime) fn version(&self) -> &str {
        &self.version
    }

    /// There is no upgrade after all.
    pub(in crate::runtime) async fn withdraw(self, shared: &Shared) {
        self.replacement.end().await;
        shared.upgrade.given_up();
    }

    /// The replacement is no good: the version is not tried again.
    pub(in crate::runtime) async fn fail(self, shared: &Shared, reason: &str) {
        self.replacement.end().await;
        shared.upgrade.failed(&self.version, reason);
    }
}

impl Gateway {
    /// Hands everything over. The work in hand is finished, and nobody beats or polls any more.
    pub(in crate::runtime) async fn hand_over(
        &mut self,
        mut offer: Offer,
    ) -> Result<HandOver, StartError> {
        self.shared.upgrade.reached(Stage::HandingOver, &offer.version);
        tracing::info!(pid = offer.replacement.pid(), version = offer.version, "handing over");
        let mut stops = self.shared.stops.subscribe();
        let service = self.options.service.clone();
        let told = offer.replacement.hand_over(self.lock.share(), service.is_there());
        let outcome = match told {
            Ok(()) => tokio::select! {
                // Cancel safe, each arm: what it says is heard only to be acted upon here.
                up = offer.replacement.up() => up.map_err(Some),
                () = asked_to_stop(&mut stops) => Err(None),
            },
            Err(reason) => Err(Some(reason)),
        };
        match outcome {
            Ok(()) => {
                // While this process is the one that the manager listens to.
                service.main_pid(offer.replacement.pid().unsigned_abs());
                service.fall_silent();
                tracing::info!(pid = offer.replacement.pid(), "handed over");
                offer.replacement.let_go();
                return Ok(HandOver::Done);
            }
            Err(None) => offer.withdraw(&self.shared).await,
            Err(Some(reason)) => {
                let reason = self.options.redactor.text(&reason);
                offer.fail(&self.shared, &reason).await;
            }
        }
        self.take_back()?;
        Ok(HandOver::Back)
    }

    /// After the replacement has ended: lock, pid file and socket are ours again.
    fn take_back(&mut self) -> Result<(), StartError> {
        let paths = self.config.paths();
        self.lock.hold_on(&paths.instance_lock()).map_err(|error| match error {
            LockError::Held => StartError::AlreadyRunning { pid: None },
            LockError::Fs(error) => ConfigError::from(error).into(),
        })?;
        match PidFile::write(&paths.pid_file) {
            Ok(file) => self.pid_file = Some(file),
            // Not a reason to be off-line.
            Err(error) => tracing::warn!(%error, "the pid file could not be written again"),
        }
        self.socket = status_socket::open(&paths.socket());
        self.shared.begin_again();
        Ok(())
    }
}

async fn asked_to_stop(stops: &mut watch::Receiver<u32>) {
    if stops.wait_for(|stops| *stops > 0).await.is_err() {
        std::future::pending::<()>().await;
    }
}
