//! What ended long ago is deleted, so that the database does not grow for ever.
//!
//! Never a job or a run that is queued or running, and never a subagent's last run. A job's age is
//! that of its last change by this server's clock; a gateway's may be wrong. Deletion is a batch at
//! a time, with other writes between.
//!
//! A refresh token that was used is remembered as long as its session lives, however long that is:
//! otherwise its reuse could not be noticed.

use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::app::{micros, now_micros};
use super::store::{Store, StoreError};

const INTERVAL: Duration = Duration::from_hours(1);
/// Between two batches, so that writes that wait get their turn.
const PAUSE: Duration = Duration::from_millis(100);
/// Rows in a batch at most.
const BATCH: u32 = 200;
/// Their stored bytes at most, a first one that is larger aside: every deletion is told to those who
/// listen with the whole row.
const BATCH_BYTES: i64 = 16 * 1024 * 1024;
/// How long a session that was ended is kept with its refresh tokens, for whoever looks into why.
/// To clients a session that is over and one that is unknown are the same.
const KEEP_SESSIONS: Duration = Duration::from_hours(30 * 24);
/// How long after its expiry a pairing code can be told from one that never was.
const KEEP_CODES: Duration = Duration::from_hours(24);

/// From when on something is kept.
#[derive(Debug, Clone, Copy)]
enum Age {
    /// What happened: as the operator says.
    History,
    Sessions,
    Codes,
}

/// Rows that go when they are old.
struct Kind {
    table: &'static str,
    age: Age,
    /// `rowid` and stored bytes of at most `?2` rows from before `?1` (microseconds).
    old: &'static str,
}

/// Runs that ended, with another after them. Their ends are told by gateways: a time that lies
/// ahead is none, and what the run's last event says counts as well.
macro_rules! old_runs {
    ($select:literal, $join:literal, $more:literal) => {
        concat!(
            "SELECT ",
            $select,
            " FROM subagent_runs AS run ",
            $join,
            " WHERE run.created_at < ?1 AND run.status IN ('completed', 'failed', 'cancelled')
                 AND NOT coalesce(run.completed_at BETWEEN ?1 AND unixepoch() * 1000000, 0)
                 AND coalesce((SELECT last.created_at FROM subagent_run_events AS last
                     WHERE last.run_id = run.id ORDER BY last.sequence DESC LIMIT 1), 0) < ?1
                 AND EXISTS (SELECT 1 FROM subagent_runs AS later
                     WHERE later.subagent_id = run.subagent_id
                         AND later.run_sequence > run.run_sequence) ",
            $more,
            " LIMIT ?2"
        )
    };
}

/// Rows come before those that they name.
const KINDS: [Kind; 8] = [
    Kind {
        table: "gateway_jobs",
        age: Age::History,
        // What was changed before then was created before then, and creation has an index.
        old: "SELECT rowid, octet_length(payload) + coalesce(octet_length(result), 0)
                  + coalesce(octet_length(debug), 0)
              FROM gateway_jobs
              WHERE created_at < ?1 AND updated_at < ?1
                  AND status IN ('completed', 'failed', 'cancelled')
              ORDER BY created_at, id LIMIT ?2",
    },
    Kind {
        table: "gateway_events",
        age: Age::History,
        old: "SELECT rowid, octet_length(message) + octet_length(details) FROM gateway_events
              WHERE created_at < ?1 ORDER BY created_at, id LIMIT ?2",
    },
    Kind {
        table: "subagent_run_events",
        age: Age::History,
        old: old_runs!(
            "event.rowid, octet_length(event.payload)",
            "JOIN subagent_run_events AS event ON event.run_id = run.id",
            ""
        ),
    },
    Kind {
        table: "subagent_runs",
        age: Age::History,
        old: old_runs!(
            "run.rowid, octet_length(run.prompt) + coalesce(octet_length(run.output), 0)
                 + coalesce(octet_length(run.error), 0) + octet_length(run.metadata)",
            "",
            "AND NOT EXISTS (SELECT 1 FROM subagent_run_events AS event
                 WHERE event.run_id = run.id)"
        ),
    },
    Kind {
        table: "refresh_tokens",
        age: Age::Sessions,
        old: "SELECT token.rowid, 0 FROM sessions AS session
              JOIN refresh_tokens AS token ON token.session_id = session.id
              WHERE session.ended_at < ?1 LIMIT ?2",
    },
    Kind {
        table: "sessions",
        age: Age::Sessions,
        old: "SELECT rowid, 0 FROM sessions AS session
              WHERE ended_at < ?1 AND NOT EXISTS (
                  SELECT 1 FROM refresh_tokens AS token WHERE token.session_id = session.id)
              LIMIT ?2",
    },
    Kind {
        table: "pairing_codes",
        age: Age::Codes,
        old: "SELECT rowid, 0 FROM pairing_codes WHERE expires_at < ?1 LIMIT ?2",
    },
    Kind {
        table: "vm_tokens",
        age: Age::Codes,
        old: "SELECT rowid, 0 FROM vm_tokens WHERE expires_at < ?1 LIMIT ?2",
    },
];

/// The first batch, before anything is served: a server that never runs for long cleans up as well.
/// Tells whether there may be more.
pub(super) async fn begin(store: &Store, keep: Option<Duration>) -> bool {
    let bounds = Bounds { now: now_micros(), keep };
    let batch = store.write(move |write| delete_batch(write.tx, bounds));
    batch.await.map_or_else(
        |error| {
            told(Err(error));
            true
        },
        |count| count > 0,
    )
}

/// Deletes what ended more than `keep` ago, and sessions and codes after their own times, every
/// hour and, if there is `more`, now, until `stop`. `None` keeps what happened for ever.
pub(super) async fn run(store: Store, keep: Option<Duration>, more: bool, stop: CancellationToken) {
    let first = if more { Duration::ZERO } else { INTERVAL };
    let mut ticks = tokio::time::interval_at(Instant::now() + first, INTERVAL);
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
            swept = sweep(&store, keep) => told(swept),
        }
    }
}

fn told(swept: Result<usize, StoreError>) {
    match swept {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "deleted old rows"),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "could not delete old rows");
        }
    }
}

/// All batches; tells how many rows went.
async fn sweep(store: &Store, keep: Option<Duration>) -> Result<usize, StoreError> {
    let bounds = Bounds { now: now_micros(), keep };
    let mut all = 0;
    loop {
        match store.write(move |write| delete_batch(write.tx, bounds)).await? {
            0 => return Ok(all),
            count => all += count,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is old.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Microseconds since 1970.
    now: i64,
    keep: Option<Duration>,
}

impl Bounds {
    /// What is from before then may go.
    fn before(self, age: Age) -> Option<i64> {
        let keep = match age {
            Age::History => self.keep?,
            Age::Sessions => KEEP_SESSIONS,
            Age::Codes => KEEP_CODES,
        };
        Some(self.now.saturating_sub(micros(keep)))
    }
}

/// Deletes some of what is old; tells how many rows.
fn delete_batch(connection: &Connection, bounds: Bounds) -> Result<usize, StoreError> {
    let (mut count, mut bytes) = (0, 0_i64);
    for kind in &KINDS {
        let Some(before) = bounds.before(kind.age) else { continue };
        let mut old = connection.prepare_cached(kind.old)?;
        let mut rows = old.query(params![before, BATCH.saturating_sub(count)])?;
        let mut doomed = Vec::new();
        let mut full = false;
        while let Some(row) = rows.next()? {
            bytes = bytes.saturating_add(row.get(1)?);
            full = bytes > BATCH_BYTES && count > 0;
            if full {
                break;
            }
            doomed.push(row.get::<_, i64>(0)?);
            count += 1;
        }
        drop(rows);
        let sql = format!("DELETE FROM {} WHERE rowid = ?1", kind.table);
        let mut delete = connection.prepare_cached(&sql)?;
        for rowid in doomed {
            delete.execute([rowid])?;
        }
        if full || count >= BATCH {
            break;
        }
    }
    Ok(count.try_into().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::store::ChangeKind;

    const DAY: Duration = Duration::from_hours(24);
    const KEEP: Duration = Duration::from_hours(30 * 24);
    /// More than a batch.
    const NUMBERS: &str = "numbers (value) AS (
        VALUES (1) UNION ALL SELECT value + 1 FROM numbers WHERE value < 300)";

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

        async fn sql(&self, sql: &str) {
            let sql = sql.to_owned();
            let run = move |connection: &Connection| connection.execute_batch(&sql);
            let done = self.store.write(move |write| Ok::<_, StoreError>(run(write.tx)?));
            done.await.unwrap();
        }

        async fn ids(&self, table: &'static str, key: &'static str) -> Vec<String> {
            let ids = self.store.read(move |connection| {
                let sql = format!("SELECT {key} FROM {table} ORDER BY 1");
                let mut sql = connection.prepare(&sql)?;
                let ids = sql.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
                Ok::<_, StoreError>(ids)
            });
            ids.await.unwrap()
        }

        async fn left(&self) -> Vec<String> {
            self.ids("gateway_jobs", "id").await
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
        assert_eq!(sweep(&fixture.store, Some(KEEP)).await.unwrap(), 3);
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
        assert_eq!(sweep(&fixture.store, Some(KEEP)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_batch_is_bounded_by_count() {
        let fixture = Fixture::new().await;
        let most = usize::try_from(BATCH).unwrap();
        for number in 0..=most {
            fixture.job(format!("{number:04}"), "failed", 31 * DAY, 31 * DAY).await;
        }
        let bounds = Bounds { now: now_micros(), keep: Some(KEEP) };
        let batch = fixture.store.write(move |write| delete_batch(write.tx, bounds));
        assert_eq!(batch.await.unwrap(), most);
        assert_eq!(fixture.left().await, [format!("{most:04}")], "the oldest go first");
    }

    #[tokio::test]
    async fn a_batch_is_bounded_by_bytes_across_tables() {
        let fixture = Fixture::new().await;
        fixture.job("1".to_owned(), "failed", 31 * DAY, 31 * DAY).await;
        fixture
            .sql(
                "UPDATE gateway_jobs SET payload = json_object('x', printf('%.*c', 16777216, 'x'));
                 INSERT INTO gateway_events (id, gateway_id, team_id, level, message, created_at)
                     VALUES ('e', 'g', 't', 'info', 'm', 0);
                 INSERT INTO pairing_codes VALUES ('c', 't', NULL, 0, 1, 1);",
            )
            .await;
        let bounds = Bounds { now: now_micros(), keep: Some(KEEP) };
        for expected in [1, 2, 0] {
            let batch = fixture.store.write(move |write| delete_batch(write.tx, bounds));
            assert_eq!(batch.await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn old_events_go_and_nothing_goes_that_is_to_be_kept_for_ever() {
        let fixture = Fixture::new().await;
        for (id, age) in [("old", 31), ("new", 29)] {
            let at = now_micros() - micros(age * DAY);
            fixture
                .sql(&format!(
                    "INSERT INTO gateway_events (id, gateway_id, team_id, level, message,
                         created_at) VALUES ('{id}', 'g', 't', 'info', 'm', {at})"
                ))
                .await;
        }
        fixture.job("j".to_owned(), "failed", 31 * DAY, 31 * DAY).await;
        assert_eq!(sweep(&fixture.store, None).await.unwrap(), 0);
        assert_eq!(sweep(&fixture.store, Some(KEEP)).await.unwrap(), 2);
        assert_eq!(fixture.ids("gateway_events", "id").await, ["new"]);
    }

    #[tokio::test]
    async fn old_runs_go_with_their_events_but_for_the_last() {
        let fixture = Fixture::new().await;
        fixture
            .sql(
                "INSERT INTO subagents (id, team_id, gateway_id, subagent_type, created_at,
                     updated_at) VALUES ('s', 't', 'g', 'codex_gateway', 0, 0)",
            )
            .await;
        let now = now_micros();
        let (old, new) = (now - micros(31 * DAY), now - micros(29 * DAY));
        let ahead = now + micros(400 * DAY);
        for (sequence, (id, status, made, ended, last_event)) in (1..).zip([
            ("old", "completed", old, old, old),
            ("clock-ahead", "failed", old, ahead, old),
            ("ended-late", "completed", old, new, old),
            ("told-late", "completed", old, old, new),
            ("new", "cancelled", new, new, new),
            ("running", "running", old, old, old),
            ("last", "completed", old, old, old),
        ]) {
            fixture
                .sql(&format!(
                    "INSERT INTO subagent_runs (id, subagent_id, team_id, gateway_id, run_sequence,
                         status, prompt, created_at, completed_at)
                         VALUES ('{id}', 's', 't', 'g', {sequence}, '{status}', 'p', {made}, {ended});
                     WITH RECURSIVE {NUMBERS}
                     INSERT INTO subagent_run_events (id, run_id, subagent_id, team_id, gateway_id,
                         sequence, event_type, created_at)
                         SELECT '{id}' || value, '{id}', 's', 't', 'g', value, 'message',
                             iif(value = 300, {last_event}, {old})
                         FROM numbers;"
                ))
                .await;
        }
        assert_eq!(sweep(&fixture.store, Some(KEEP)).await.unwrap(), 2 * 301);
        let left = ["ended-late", "last", "new", "running", "told-late"];
        assert_eq!(fixture.ids("subagent_runs", "id").await, left);
        assert_eq!(fixture.ids("subagent_run_events", "id").await.len(), 5 * 300);
    }

    #[tokio::test]
    async fn used_tokens_are_remembered_as_long_as_their_session_lives() {
        let fixture = Fixture::new().await;
        let now = now_micros();
        let (old, new) = (now - micros(31 * DAY), now - micros(29 * DAY));
        for (id, ended) in
            [("live", "NULL".to_owned()), ("over", new.to_string()), ("gone", old.to_string())]
        {
            fixture
                .sql(&format!(
                    "INSERT INTO sessions VALUES ('{id}', 'u', 'g', 't', 0, {ended});
                     WITH RECURSIVE {NUMBERS} INSERT INTO refresh_tokens
                         SELECT '{id}' || value, '{id}', NULL, 0, 1 FROM numbers;"
                ))
                .await;
        }
        assert_eq!(sweep(&fixture.store, None).await.unwrap(), 301);
        assert_eq!(fixture.ids("sessions", "id").await, ["live", "over"]);
        assert_eq!(fixture.ids("refresh_tokens", "token_sha256").await.len(), 600);
    }

    #[tokio::test]
    async fn a_code_is_known_for_a_day_after_its_end() {
        let fixture = Fixture::new().await;
        let now = now_micros();
        for (id, expires, used) in [
            ("usable", now + micros(DAY), "NULL"),
            ("expired", now - micros(DAY / 2), "NULL"),
            ("used", now - micros(DAY / 2), "1"),
            ("old", now - micros(2 * DAY), "NULL"),
            ("old-used", now - micros(2 * DAY), "1"),
        ] {
            let sql = format!(
                "INSERT INTO pairing_codes VALUES ('{id}', 't', NULL, 0, {expires}, {used})"
            );
            fixture.sql(&sql).await;
        }
        assert_eq!(sweep(&fixture.store, None).await.unwrap(), 2);
        let left = ["expired", "usable", "used"];
        assert_eq!(fixture.ids("pairing_codes", "code_sha256").await, left);
    }

    #[tokio::test]
    async fn the_task_sweeps_at_its_start_and_every_hour() {
        let fixture = Fixture::new().await;
        fixture.job("first".to_owned(), "completed", 31 * DAY, 31 * DAY).await;
        let mut changes = fixture.store.changes();
        let stop = CancellationToken::new();
        assert!(begin(&fixture.store, Some(KEEP)).await);
        assert!(!begin(&fixture.store, Some(KEEP)).await);
        let task = run(fixture.store.clone(), Some(KEEP), false, stop.clone());
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
