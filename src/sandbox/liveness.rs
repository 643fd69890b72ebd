//! Which gateways are there: one that is silent for 90 s is offline.
//!
//! Its running jobs stay `running`, since an outage of an hour must cost nothing; after a day of
//! silence they turn `failed`. A time when this server was down itself does not count.

use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::app::{Shared, micros, now_micros};
use super::rows;
use super::store::StoreError;

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
        let swept = app.store.write(move |write| sweep(write.tx, started_at, now_micros())).await;
        if let Err(error) = swept {
            tracing::warn!(error = &error as &dyn std::error::Error, "could not sweep gateways");
        }
    }
}

/// Marks silent gateways, and fails what was abandoned.
fn sweep(connection: &Connection, started_at: i64, now: i64) -> Result<(), StoreError> {
    let silent = ids(
        connection,
        "SELECT id FROM team_gateways WHERE status <> 'offline' AND last_seen_at < ?1",
        now.saturating_sub(micros(SILENCE)),
    )?;
    for id in silent {
        tracing::info!(gateway_id = %id, "a gateway has gone silent");
        rows::update(
            connection,
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
        connection,
        "SELECT jobs.id FROM gateway_jobs AS jobs
         JOIN team_gateways AS gateways ON gateways.id = jobs.gateway_id
         WHERE jobs.status = 'running' AND coalesce(gateways.last_seen_at, 0) < ?1",
        day_ago,
    )?;
    for id in abandoned {
        tracing::warn!(job_id = %id, "a running job was abandoned by its gateway");
        rows::update(
            connection,
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

fn ids(connection: &Connection, sql: &str, before: i64) -> rusqlite::Result<Vec<String>> {
    connection.prepare_cached(sql)?.query_map([before], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    /// A gateway that was last seen at 0, with one running job.
    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("store/0001.sql")).unwrap();
        connection
            .execute_batch(
                "INSERT INTO teams VALUES ('t', 'team', 0);
                 INSERT INTO team_gateways
                     (id, team_id, device_name, status, last_seen_at, created_at, updated_at)
                     VALUES ('g', 't', 'box', 'ready', 0, 0, 0);
                 INSERT INTO gateway_jobs
                     (id, team_id, gateway_id, job_type, status, created_at, updated_at)
                     VALUES ('j', 't', 'g', 'diagnostic', 'running', 0, 0);",
            )
            .unwrap();
        connection
    }

    fn statuses(connection: &Connection) -> (String, String) {
        let sql = "SELECT g.status, j.status FROM team_gateways g, gateway_jobs j";
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    #[test]
    fn a_silent_gateway_turns_offline_and_keeps_its_jobs_for_a_day() {
        let connection = database();
        sweep(&connection, 0, micros(SILENCE)).unwrap();
        assert_eq!(statuses(&connection), ("ready".into(), "running".into()));
        sweep(&connection, 0, HOUR).unwrap();
        assert_eq!(statuses(&connection), ("offline".into(), "running".into()));
        sweep(&connection, 0, 25 * HOUR).unwrap();
        assert_eq!(statuses(&connection), ("offline".into(), "failed".into()));
    }

    #[test]
    fn a_time_when_the_server_was_down_fails_no_job() {
        let connection = database();
        sweep(&connection, 99 * HOUR, 100 * HOUR).unwrap();
        assert_eq!(statuses(&connection), ("offline".into(), "running".into()));
    }

    #[test]
    fn silence_begins_after_ninety_seconds() {
        let second = 1_000_000;
        assert!(!is_silent(Some(0), 90 * second));
        assert!(is_silent(Some(0), 90 * second + 1));
        assert!(is_silent(None, 0));
        assert!(!is_silent(Some(5 * second), 0), "a clock that was set back");
    }
}
