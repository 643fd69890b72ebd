//! Waits for a backend that is away: what a claimed job needs of it is asked for until it comes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::handlers::Host;
use crate::backend::BackendError;
use crate::backend::retry::Backoff;

/// Repeats a read, however long the backend is away: an outage must not fail a job that has not run
/// yet. An error means that repeating it cannot help. The future may be dropped at any time.
pub(super) async fn read<T, F>(host: &Host, mut call: impl FnMut() -> F) -> Result<T, BackendError>
where
    F: Future<Output = Result<T, BackendError>>,
{
    let mut backoff = Backoff::new();
    loop {
        match call().await {
            Err(error) if !error.ends_session() && !error.is_permanent_refusal() => {
                tracing::debug!(%error, "a job waits for the backend");
                pause(host, &error, backoff.after(&error)).await;
            }
            done => return done,
        }
    }
}

/// [`read`], but given up at this time: the error is then that of a time limit. For writes too that
/// may be repeated.
pub(super) async fn read_until<T, F>(
    host: &Host,
    until: Instant,
    call: impl FnMut() -> F,
) -> Result<T, BackendError>
where
    F: Future<Output = Result<T, BackendError>>,
{
    let began = Instant::now();
    match tokio::time::timeout_at(until, read(host, call)).await {
        Ok(done) => done,
        Err(_) => Err(BackendError::TimedOut(began.elapsed())),
    }
}

/// Waits `delay`, or until the backend is seen to be well again before that.
pub(super) async fn pause(host: &Host, refused: &BackendError, delay: Duration) {
    pause_unless_polled(&host.polled, refused, delay).await;
}

/// The same for who knows only when the backend last answered a poll.
pub(super) async fn pause_unless_polled(
    polled: &watch::Receiver<Option<Instant>>,
    refused: &BackendError,
    delay: Duration,
) {
    let failed_at = Instant::now();
    let mut polled = polled.clone();
    let well_again = polled.wait_for(|at| at.is_some_and(|at| at > failed_at));
    tokio::select! {
        // Cancel safe, each arm: a timer and a watch.
        () = tokio::time::sleep(delay) => {}
        Ok(_) = well_again, if !refused.asks_for_time() => {}
    }
}
