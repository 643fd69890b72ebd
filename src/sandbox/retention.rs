//! Old jobs: what ended long ago is deleted, so that the database does not grow for ever.
//!
//! Never a job that is queued or running. A job's age is that of its last change by this server's
//! clock; a gateway's may be wrong. Deletion is a batch at a time, with other writes between.

use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::app::{micros, now_micros};
use super::store::{Store, StoreError};

const INTERVAL: Duration = Duration::from_hours(1);
/// Between two batches, so that writes that wait get their turn.
const PAUSE: Duration = Duration::from_millis(100);
/// Jobs in a batch at most.
const BATCH: u32 = 200;
/// Their stored bytes at most, a first one that is larger aside: every deletion is told to those who
/// listen with the whole row.
const BATCH_BYTES: i64 = 16 * 1024 * 1024;

/// Deletes jobs that ended more than `keep` ago, until `stop`.
pub(super) async fn run(store: Store, keep: Duration, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Cancel safe: a tick that was not taken comes again.
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Cancel safe: each batch is a write of its own.
        tokio::select! {
            () = stop.cancelled() => return,
            swept = sweep(&store, keep) => match swept {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "deleted old jobs"),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "could not delete old jobs");
                }
            },
        }
    }
}

/// All batches; tells how many jobs went.
async fn sweep(store: &Store, keep: Duration) -> Result<usize, StoreError> {
    let before = now_micros().saturating_sub(micros(keep));
    let mut all = 0;
    loop {
        match store.write(move |write| delete_batch(write.tx, before)).await? {
            0 => return Ok(all),
            count => all += count,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Deletes some of the jobs that ended before then (microseconds), the oldest first.
fn delete_batch(connection: &Connection, before: i64) -> Result<usize, StoreError> {
    // What was changed before then was created before then, and creation has an index.
    let mut old = connection.prepare_cached(
        "SELECT rowid, octet_length(payload) + coalesce(octet_length(result), 0)
             + coalesce(octet_length(debug), 0)
         FROM gateway_jobs
         WHERE created_at < ?1 AND updated_at < ?1
             AND status IN ('completed', 'failed', 'cancelled')
         ORDER BY created_at, id LIMIT ?2",
    )?;
    let mut rows = old.query(params![before, BATCH])?;
    let (mut doomed, mut bytes) = (Vec::new(), 0_i64);
    while let Some(row) = rows.next()? {
        bytes = bytes.saturating_add(row.get(1)?);
        if bytes > BATCH_BYTES && !doomed.is_empty() {
            break;
        }
        doomed.push(row.get::<_, i64>(0)?);
    }
    let mut delete = connection.prepare_cached("DELETE FROM gateway_jobs WHERE rowid = ?1")?;
    let mut count = 0;
    for rowid in doomed {
        count += delete.execute([rowid])?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::store::ChangeKind;

    const DAY: Duration = Duration::from_hours(24);
    const KEEP: Duration = Duration::from_hours(30 * 24);

    struct Fixture {
        store: Store,
        _dir: tempfile::TempDir,
    }

    impl Fixture {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("sandbox.db")).unwrap();
            let team = store.write(|write| {
                write.tx.execute_batch(
                    "INSERT INTO teams VALUES ('t', 'team', 0);
                     INSERT INTO team_gateways (id, team_id, device_name, created_at, updated_at)
                         VALUES ('g', 't', 'box', 0, 0);",
                )?;
                Ok::<_, StoreError>(())
            });
            team.await.unwrap();
            Self { store, _dir: dir }
        }

        /// A job that was made `made` and last changed `changed` ago.
        async fn job(&self, id: String, status: &'static str, made: Duration, changed: Duration) {
            let (made, changed) = (now_micros() - micros(made), now_micros() - micros(changed));
            let result = "x".repeat(1000);
            let insert = self.store.write(move |write| {
                write.tx.execute(
                    "INSERT INTO gateway_jobs (id, team_id, gateway_id, job_type, status, result,
                         created_at, updated_at) VALUES (?1, 't', 'g', 'diagnostic', ?2, ?3, ?4, ?5)",
                    params![id, status, result, made, changed],
                )?;
                Ok::<_, StoreError>(())
            });
            insert.await.unwrap();
        }

        async fn left(&self) -> Vec<String> {
            let left = self.store.read(|connection| {
                let mut sql = connection.prepare("SELECT id FROM gateway_jobs ORDER BY id")?;
                let ids = sql.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
                Ok::<_, StoreError>(ids)
            });
            left.await.unwrap()
        }
    }

    #[tokio::test]
    async fn only_what_ended_long_ago_goes_and_that_is_told() {
        let fixture = Fixture::new().await;
        for status in ["queued", "running", "completed", "failed", "cancelled"] {
            fixture.job(format!("old-{status}"), status, 40 * DAY, 31 * DAY).await;
            fixture.job(format!("new-{status}"), status, 29 * DAY, 29 * DAY).await;
        }
        fixture.job("ended-late".to_owned(), "completed", 400 * DAY, DAY).await;
        let mut changes = fixture.store.changes();
        assert_eq!(sweep(&fixture.store, KEEP).await.unwrap(), 3);
        assert_eq!(
            fixture.left().await,
            [
                "ended-late",
                "new-cancelled",
                "new-completed",
                "new-failed",
                "new-queued",
                "new-running",
                "old-queued",
                "old-running",
            ]
        );
        for _ in 0..3 {
            assert_eq!(changes.try_recv().unwrap().kind, ChangeKind::Delete);
        }
        assert_eq!(sweep(&fixture.store, KEEP).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_batch_is_bounded_by_count() {
        let fixture = Fixture::new().await;
        let most = usize::try_from(BATCH).unwrap();
        for number in 0..=most {
            fixture.job(format!("{number:04}"), "failed", 31 * DAY, 31 * DAY).await;
        }
        let before = now_micros() - micros(KEEP);
        let batch = fixture.store.write(move |write| delete_batch(write.tx, before));
        assert_eq!(batch.await.unwrap(), most);
        assert_eq!(fixture.left().await, [format!("{most:04}")], "the oldest go first");
    }

    #[tokio::test]
    async fn the_task_sweeps_at_its_start_and_every_hour() {
        let fixture = Fixture::new().await;
        fixture.job("first".to_owned(), "completed", 31 * DAY, 31 * DAY).await;
        let mut changes = fixture.store.changes();
        let stop = CancellationToken::new();
        let task = run(fixture.store.clone(), KEEP, stop.clone());
        let story = async {
            assert_eq!(changes.recv().await.unwrap().kind, ChangeKind::Delete);
            tokio::time::pause();
            fixture.job("second".to_owned(), "completed", 31 * DAY, 31 * DAY).await;
            assert_eq!(changes.recv().await.unwrap().kind, ChangeKind::Insert);
            assert_eq!(changes.recv().await.unwrap().kind, ChangeKind::Delete);
            stop.cancel();
        };
        tokio::join!(task, story);
        assert_eq!(fixture.left().await, Vec::<String>::new());
    }
}
