//! Another process that runs under our identity: a config that was copied to a second machine.
//!
//! Both take the team's jobs, and each refresh of one takes the other nearer to a revoked pairing.
//! It shows where a claim is lost to a claim of the same gateway that this process never made.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, json};

use super::handlers::Host;
use super::journal::Record;
use crate::backend::GatewayEvent;

const MESSAGE: &str = "Another process takes jobs under this gateway's identity: its config was \
                       copied. Pair each machine with a code of its own";

/// Whether one was seen; it is told once.
#[derive(Debug, Default)]
pub(crate) struct Twin(AtomicBool);

/// After a claim that was lost: to whom? A look that fails tells nothing.
pub(super) async fn look(host: &Host, record: &Record) {
    if host.twin.0.load(Ordering::Relaxed)
        || !matches!(host.api.claimed_by_twin(&record.id, &record.started_at).await, Ok(true))
        || host.twin.0.swap(true, Ordering::Relaxed)
    {
        return;
    }
    tracing::error!("{MESSAGE}");
    let event = GatewayEvent {
        provider: None,
        level: "error",
        code: Some("identity_shared"),
        message: MESSAGE.to_owned(),
        details: Map::from_iter([("job_id".to_owned(), json!(record.id))]),
    };
    if let Err(error) = host.api.record_event(&event).await {
        tracing::debug!(%error, "the team is not told of it");
    }
}
