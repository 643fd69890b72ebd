//! Which gateways are there: one that is silent for 90 s is offline.
//!
//! Its running jobs stay `running`, since an outage of an hour must cost nothing; after a day of
//! silence they turn `failed`. A time when this server was down itself does not count.

use std::time::Duration;

use rusqlite::params;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::app::{Shared, micros, now_micros};
use super::rows;
use super::store::{StoreError, Write};

const SILENCE: Duration = Duration::from_secs(90);
const ABANDONED: Duration = Duration::from_hours(24);
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// Whether a gateway that was last seen then (microseconds) counts as gone at `now`.
pub(super) fn is_silent(last_seen_at: Option<i64>, now: i64) -> bool {
    last_seen_at.is_none_or(|seen| now.saturating_sub(seen) > micros(SILENCE))
}

/// Sweeps until `stop`.
pub(super) async fn run(app: Shared, stop: CancellationToken) {
    let started_at = now_micros();
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Cancel safe: a tick that was not taken comes again.
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let swept = app.store.write(move |write| sweep(write, started_at, now_micros())).await;
        if let Err(error) = swept {
            tracing::warn!(error = &error as &dyn std::error::Error, "could not sweep gateways");
        }
    }
}

/// Marks silent gateways, and fails what was abandoned.
fn sweep(write: &mut Write<'_>, started_at: i64, now: i64) -> Result<(), StoreError> {
    let silent = ids(
        write,
        "SELECT id FROM team_gateways WHERE status <> 'offline' AND last_seen_at < ?1",
        now.saturating_sub(micros(SILENCE)),
    )?;
    for id in silent {
        tracing::info!(gateway_id = %id, "a gateway has gone silent");
        rows::update(
            write,
            "team_gateways",
            &id,
            "UPDATE team_gateways SET status = 'offline', updated_at = ?2 WHERE id = ?1",
            params![id, now],
        )?;
    }
    let day_ago = now.saturating_sub(micros(ABANDONED));
    if started_at > day_ago {
        return Ok(());
    }
    let abandoned = ids(
        write,
        "SELECT jobs.id FROM gateway_jobs AS jobs
         JOIN team_gateways AS gateways ON gateways.id = jobs.gateway_id
         WHERE jobs.status = 'running' AND coalesce(gateways.last_seen_at, 0) < ?1",
        day_ago,
    )?;
    for id in abandoned {
        tracing::warn!(job_id = %id, "a running job was abandoned by its gateway");
        rows::update(
            write,
            "gateway_jobs",
            &id,
            "UPDATE gateway_jobs SET status = 'failed', completed_at = ?2, updated_at = ?2,
                 error = 'the gateway has been silent for 24 hours'
             WHERE id = ?1 AND status = 'running'",
            params![id, now],
        )?;
    }
    Ok(())
}

fn ids(write: &Write<'_>, sql: &str, before: i64) -> rusqlite::Result<Vec<String>> {
    write.tx.prepare_cached(sql)?.query_map([before], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_begins_after_ninety_seconds() {
        let second = 1_000_000;
        assert!(!is_silent(Some(0), 90 * second));
        assert!(is_silent(Some(0), 90 * second + 1));
        assert!(is_silent(None, 0));
        assert!(!is_silent(Some(5 * second), 0), "a clock that was set back");
    }
}
