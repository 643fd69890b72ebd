//! The session supervisor: proves the session at start, keeps it fresh, learns of its end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::contact;
use super::identity::Identity;
use super::shared::{Login, Shared};
use crate::backend::BackendError;
use crate::backend::retry::Backoff;

const CHECK_EVERY: Duration = Duration::from_secs(30);

/// Runs until `stop`. A backend that is away is waited for, however long it takes; only a refusal
/// of the pairing ends a session.
pub(super) async fn run(identity: Arc<Identity>, stop: CancellationToken) {
    let shared = &identity.shared;
    let mut wake = shared.wake.subscribe();
    let mut backoff = Backoff::new();
    let mut proven = *shared.login.borrow() == Login::Proven;
    loop {
        let session = identity.api.session();
        let result = if proven { session.keep_fresh().await } else { session.authenticate().await };
        let pause = match result {
            Ok(()) => {
                if !proven {
                    tracing::info!("the session is valid");
                }
                proven = true;
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
                note_retry(&identity, &error);
                contact::pause(&mut backoff, &error)
            }
        };
        tokio::select! {
            // Cancel safe, each arm: timers and watches.
            () = tokio::time::sleep(pause) => {}
            _ = wake.changed() => {}
            () = stop.cancelled() => return,
        }
    }
}

fn note_retry(identity: &Identity, error: &BackendError) {
    let text = identity.host.redactor.text(&error.to_string());
    let mut notes = identity.shared.notes();
    if notes.session_error.as_ref() != Some(&text) {
        tracing::warn!(error = %text, "the session could not be checked; trying again");
    }
    notes.session_error = Some(text);
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
