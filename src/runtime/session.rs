//! The session supervisor: proves the session at start, keeps it fresh, learns of its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::contact;
use super::identity::Identity;
use super::shared::{Login, Shared};
use crate::backend::BackendError;
use crate::backend::retry::Backoff;

const CHECK_EVERY: Duration = Duration::from_secs(30);
/// After a wake the others wait no longer for the session.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs until `stop`. A backend that is away is waited for, however long it takes; only a refusal
/// of the pairing ends a session.
pub(super) async fn run(identity: Arc<Identity>, stop: CancellationToken) {
    let shared = &identity.shared;
    let mut wake = shared.wake.subscribe();
    let mut backoff = Backoff::new();
    let mut log = contact::Log::default();
    let mut proven = *shared.login.borrow() == Login::Proven;
    let mut woken = false;
    loop {
        let pause = match check(&identity, &mut wake, proven, woken).await {
            Ok(()) => {
                if !proven {
                    tracing::info!("the session is valid");
                }
                proven = true;
                log.well(&identity);
                backoff.reset();
                shared.notes().session_error = None;
                shared.login.send_if_modified(|login| {
                    let first = *login == Login::Unknown;
                    if first {
                        *login = Login::Proven;
                    }
                    first
                });
                CHECK_EVERY
            }
            Err(error) if error.ends_session() => {
                note_ended(shared, &error);
                stop.cancelled().await;
                return;
            }
            Err(error) => {
                let text =
                    log.failed(&identity, "the session could not be checked; trying again", &error);
                shared.notes().session_error = Some(text);
                contact::pause(&mut backoff, &error)
            }
        };
        woken = tokio::select! {
            // Cancel safe, each arm: timers and watches.
            () = tokio::time::sleep(pause) => false,
            _ = wake.changed() => true,
            () = stop.cancelled() => return,
        };
    }
}

/// One check. After a wake it is made over new connections, and when it is done, or takes long, the
/// others follow: with a fresh token, where one can be had.
async fn check(
    identity: &Identity,
    wake: &mut watch::Receiver<u64>,
    proven: bool,
    mut woken: bool,
) -> Result<(), BackendError> {
    let session = identity.api.session();
    let wake_others = || identity.shared.woken.send_modify(|wakes| *wakes += 1);
    loop {
        if woken {
            identity.api.connect_anew().await;
        }
        let check = async {
            if proven { session.keep_fresh().await } else { session.authenticate().await }
        };
        let mut check = std::pin::pin!(check);
        let result = loop {
            tokio::select! {
                // Cancel safe: what is dropped at a wake is a refresh whose answer was lost.
                result = &mut check => break Some(result),
                Ok(()) = wake.changed() => break None,
                () = tokio::time::sleep(PATIENCE), if woken => {
                    woken = false;
                    wake_others();
                }
            }
        };
        match result {
            Some(result) => {
                if woken {
                    wake_others();
                }
                return result;
            }
            None => woken = true,
        }
    }
}

/// Any call may be the one that learns of a revoked pairing.
pub(super) fn note_ended(shared: &Shared, error: &BackendError) {
    let BackendError::SessionEnded(code) = error else { return };
    shared.login.send_if_modified(|login| {
        let first = !matches!(login, Login::Ended(_));
        if first {
            *login = Login::Ended(code.clone());
        }
        first
    });
}
