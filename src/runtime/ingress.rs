//! The ingress supervisor: asks the backend for queued jobs and offers them to the controller.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::identity::Identity;
use super::{contact, session};
use crate::backend::retry::Backoff;
use crate::backend::{BackendError, PageKey};
use crate::jobs::{News, Offer};
use crate::model::{JobId, time};

const PAGE: u32 = 200;
/// Most pages of one poll: a queue of any length must not hold up the next poll for ever.
const MAX_PAGES: u32 = 50;

/// Polls until `stop`, draining included: cancel jobs still work then.
pub(super) async fn run(
    identity: Arc<Identity>,
    offers: mpsc::Sender<News>,
    stop: CancellationToken,
) {
    let shared = &identity.shared;
    let mut heard = shared.heard.subscribe();
    tokio::select! {
        // Cancel safe: a watch. The backend hears of us before we ask it for work.
        _ = heard.wait_for(Option::is_some) => {}
        () = stop.cancelled() => return,
    }
    let mut wake = shared.wake.subscribe();
    let mut poll_now = shared.poll_now.subscribe();
    let mut backoff = Backoff::new();
    let mut log = contact::Log::default();
    loop {
        let began = Instant::now();
        wake.mark_unchanged();
        let result = tokio::select! {
            // Cancel safe: a poll only reads, and an offer that is not taken comes again.
            result = poll(&identity, &offers, began) => Some(result),
            // Its connection is of before the wake. The next poll follows the heartbeat.
            Ok(()) = wake.changed() => None,
            () = stop.cancelled() => return,
        };
        let mut next = began + shared.poll_interval;
        match result {
            None => {}
            Some(Ok(())) => {
                backoff.reset();
                log.well(&identity);
                shared.polled.send_replace(Some(Instant::now()));
                shared.notes().poll.worked(time::now_wire());
                for job in shared.deliveries().settle(began) {
                    tracing::warn!(job_id = %job, "realtime did not tell of a job; a poll found it");
                }
            }
            Some(Err(error)) => {
                session::note_ended(shared, &error);
                let text = log.failed(&identity, "could not ask the backend for jobs", &error);
                shared.notes().poll.broke(text);
                let again = Instant::now() + contact::pause(&mut backoff, &error);
                // A backend that cannot be reached is tried more often than one that answers.
                next = if contact::is_out_of_reach(&error) {
                    next.min(again)
                } else {
                    next.max(again)
                };
            }
        }
        tokio::select! {
            // Cancel safe, each arm: timers and watches.
            () = sleep_until(next) => {}
            _ = poll_now.changed() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One poll: pages of queued rows, oldest first, so that old rows never hide a cancel job.
async fn poll(
    identity: &Identity,
    offers: &mpsc::Sender<News>,
    began: Instant,
) -> Result<(), BackendError> {
    let mut after: Option<PageKey> = None;
    for _ in 0..MAX_PAGES {
        let rows = identity.api.poll_jobs(after.as_ref(), PAGE).await?;
        // A page may be short because its full size was too large for one answer: only an empty
        // one is surely the last, but a short first page is the common case and costs no second
        // request.
        after = rows.last().and_then(page_key).filter(|_| rows.len() >= PAGE as usize);
        identity.shared.deliveries().polled(&rows, began);
        let offer = Offer { rows, seen_at: began };
        if !offer.rows.is_empty() && offers.send(News::Queued(offer)).await.is_err() {
            // The controller is being started again; the rows come with the next poll.
            return Ok(());
        }
        if after.is_none() {
            return Ok(());
        }
    }
    tracing::warn!(pages = MAX_PAGES, "the queue is very long; the rest comes with the next poll");
    Ok(())
}

/// Where the page after this row starts; `None` for a row that cannot be named.
fn page_key(row: &Value) -> Option<PageKey> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(PageKey { created_at: text("created_at")?, id: JobId::new(text("id")?) })
}
