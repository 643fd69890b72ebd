//! The store from outside: what lasts, what is rolled back, what is told.

use std::os::unix::fs::PermissionsExt;

use rusqlite::types::Value as Sql;
use serde_json::json;
use tempfile::TempDir;

use super::*;

const TEAM: &str = "00000000-0000-4000-8000-00000000000a";
const GATEWAY: &str = "00000000-0000-4000-8000-0000000000a1";

struct Fixture {
    store: Store,
    dir: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("sandbox.db")).unwrap();
        let seeded = store.write(|write| {
            write.tx.execute("INSERT INTO teams VALUES (?1, 'team', 0)", [TEAM])?;
            let gateway = json!({"id": GATEWAY, "team_id": TEAM, "device_name": "d"});
            Store::insert(write.tx, "team_gateways", fields(&gateway))?;
            Ok::<_, Refused>(())
        });
        seeded.await.unwrap();
        Self { store, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("sandbox.db")
    }

    /// The same database with another limit.
    async fn reopen(&mut self, allowed: Duration) {
        self.store.close().await;
        self.store = Store::open_limited(&self.path(), Schema::built_in(), allowed).unwrap();
    }

    async fn jobs(&self) -> Vec<String> {
        let read = self.store.read(|connection| {
            let mut sql = connection.prepare("SELECT job_type FROM gateway_jobs ORDER BY rowid")?;
            let names = sql.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok::<Vec<String>, StoreError>(names)
        });
        read.await.unwrap()
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

fn fields(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap()
}

fn job(tx: &Connection, kind: &str) -> Result<Value, Refused> {
    let job =
        json!({"team_id": TEAM, "gateway_id": GATEWAY, "job_type": kind, "payload": {"k": 1}});
    Ok(Store::insert(tx, "gateway_jobs", fields(&job))?)
}

#[tokio::test]
async fn the_files_are_private() {
    let fixture = Fixture::new().await;
    for name in ["sandbox.db", "sandbox.db-wal", "sandbox.db-shm"] {
        let metadata = std::fs::metadata(fixture.dir.path().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn rows_survive_and_close_leaves_one_file() {
    let fixture = Fixture::new().await;
    fixture.store.write(|write| job(write.tx, "kept")).await.unwrap();
    tokio::join!(fixture.store.close(), fixture.store.close());
    let names: Vec<_> =
        std::fs::read_dir(fixture.dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(names, ["sandbox.db"]);
    let again = Store::open(&fixture.path()).unwrap();
    let count = again.read(|connection| {
        Ok::<i64, StoreError>(connection.query_row(
            "SELECT count(*) FROM gateway_jobs",
            [],
            |r| r.get(0),
        )?)
    });
    assert_eq!(count.await.unwrap(), 1);
}

#[tokio::test]
async fn a_newer_format_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sandbox.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE later (x); PRAGMA user_version = 99").unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn the_format_is_the_number_of_migrations() {
    let fixture = Fixture::new().await;
    let format =
        fixture.store.read(|c| Ok::<i64, StoreError>(crate::sqlite::format(c)?)).await.unwrap();
    assert_eq!(format, open::known_format());
}

#[tokio::test]
async fn work_that_fails_or_panics_rolls_back_alone() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let (first, failed, panicked, last) = tokio::join!(
        store.write(|write| job(write.tx, "first")),
        store.write(|write| {
            job(write.tx, "failed")?;
            Err::<Value, Refused>(rusqlite::Error::InvalidQuery.into())
        }),
        store.write(|write| -> Result<(), StoreError> {
            write.tx.execute("UPDATE gateway_jobs SET job_type = 'panicked'", [])?;
            panic!("broken")
        }),
        store.write(|write| job(write.tx, "last")),
    );
    assert!(first.is_ok() && last.is_ok());
    assert!(matches!(failed, Err(Refused::Sqlite(rusqlite::Error::InvalidQuery))));
    assert!(matches!(panicked, Err(StoreError::Panicked(text)) if text == "broken"));
    assert_eq!(fixture.jobs().await, ["first", "last"]);
}

#[tokio::test]
async fn a_commit_that_fails_is_told_to_all_who_shared_it_and_the_writer_goes_on() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let mut changes = store.changes();
    let broken = store.write(|write| {
        write.tx.execute_batch("PRAGMA defer_foreign_keys = ON")?;
        let orphan = "INSERT INTO gateway_jobs (id, team_id, gateway_id, job_type, created_at, \
                      updated_at) VALUES ('j', 'nobody', 'nothing', 'orphan', 0, 0)";
        Ok::<_, StoreError>(write.tx.execute(orphan, [])?)
    });
    assert!(matches!(broken.await, Err(StoreError::Commit(_))));
    store.write(|write| job(write.tx, "after")).await.unwrap();
    assert_eq!(fixture.jobs().await, ["after"]);
    assert_eq!(changes.recv().await.unwrap().row["job_type"], "after");
}

#[tokio::test]
async fn a_transaction_that_sqlite_rolled_back_takes_no_answer_with_it() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let lost = store.write(|write| {
        write.tx.execute_batch("ROLLBACK")?;
        Err::<(), StoreError>(StoreError::Closed)
    });
    let before = store.write(|write| {
        let sql = "UPDATE team_gateways SET device_name = 'other'";
        Ok::<_, StoreError>(write.tx.execute(sql, [])?)
    });
    // Both in one batch or not, the one does not harm the other.
    let (before, lost) = tokio::join!(before, lost);
    assert!(matches!(lost, Err(StoreError::Closed)) && before.is_ok());
    let name = store.read(|c| {
        Ok::<String, StoreError>(
            c.query_row("SELECT device_name FROM team_gateways", [], |r| r.get(0))?,
        )
    });
    assert_eq!(name.await.unwrap() == "other", before.is_ok());
}

/// The writer, kept from everything else: what is written meanwhile shares a batch.
struct Held {
    store: Store,
    hold: std::sync::mpsc::Sender<()>,
    blocked: tokio::task::JoinSet<Result<(), StoreError>>,
}

impl Held {
    async fn new(store: &Store) -> Self {
        let (hold, gone) = std::sync::mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let mut started = Some(started);
        let own = store.clone();
        let mut blocked = tokio::task::JoinSet::new();
        blocked.spawn(async move {
            let work = own.write(move |_| {
                started.take().map(|started| started.send(()));
                gone.recv().ok();
                Ok::<_, StoreError>(())
            });
            work.await
        });
        running.await.unwrap();
        Self { store: store.clone(), hold, blocked }
    }

    /// Lets it go when so many pieces wait.
    async fn until(mut self, waiting: usize) {
        while self.store.inner.work.capacity() > QUEUE - waiting {
            tokio::task::yield_now().await;
        }
        drop(self.hold);
        self.blocked.join_next().await.unwrap().unwrap().unwrap();
    }
}

/// A change of rows that does not end by itself.
fn endless(tx: &Connection) -> rusqlite::Result<usize> {
    tx.execute(
        "INSERT INTO teams WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
         SELECT 'endless' || i, 'team', 0 FROM n",
        [],
    )
}

#[tokio::test]
async fn a_write_whose_time_is_over_takes_nobody_else_with_it() {
    let mut fixture = Fixture::new().await;
    fixture.reopen(Duration::from_millis(100)).await;
    let store = &fixture.store;
    let mut changes = store.changes();
    let held = Held::new(store).await;
    let ((), before, failed, slow, deaf, after) = tokio::join!(
        biased;
        held.until(5),
        store.write(|write| job(write.tx, "before")),
        store.write(|write| {
            job(write.tx, "failed")?;
            Err::<Value, Refused>(rusqlite::Error::InvalidQuery.into())
        }),
        store.write(|write| Ok::<_, StoreError>(endless(write.tx)?)),
        store.write(|write| {
            assert!(endless(write.tx).is_err());
            // It takes no notice, and goes on without a transaction.
            job(write.tx, "deaf").ok();
            Ok::<_, StoreError>(())
        }),
        store.write(|write| job(write.tx, "after")),
    );
    assert!(before.is_ok() && after.is_ok(), "{before:?} {after:?}");
    assert!(matches!(failed, Err(Refused::Sqlite(rusqlite::Error::InvalidQuery))));
    let slow = slow.unwrap_err();
    assert!(matches!(slow, StoreError::Sqlite(_)) && slow.passes(), "{slow:?}");
    assert!(matches!(deaf, Err(StoreError::Commit(_))), "{deaf:?}");
    assert_eq!(fixture.jobs().await, ["before", "after"]);
    for told in ["before", "after"] {
        assert_eq!(changes.recv().await.unwrap().row["job_type"], told);
    }
    assert!(changes.try_recv().is_err());
}

#[tokio::test]
async fn a_full_disk_fails_whoever_needs_the_room() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let bounded = store.write(|write| {
        let pages: i64 = write.tx.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let sql = format!("PRAGMA max_page_count = {}", pages + 2);
        Ok::<i64, StoreError>(write.tx.query_row(&sql, [], |row| row.get(0))?)
    });
    bounded.await.unwrap();
    let held = Held::new(store).await;
    let ((), before, large, after) = tokio::join!(
        biased;
        held.until(3),
        store.write(|write| job(write.tx, "before")),
        store.write(|write| {
            let fill = "UPDATE gateway_jobs SET error = printf('%.*c', 1000000, 'x')";
            Ok::<_, StoreError>(write.tx.execute(fill, [])?)
        }),
        store.write(|write| job(write.tx, "after")),
    );
    assert!(before.is_ok() && after.is_ok(), "{before:?} {after:?}");
    let large = large.unwrap_err();
    assert!(matches!(large, StoreError::Sqlite(_)) && large.passes(), "{large:?}");
    assert_eq!(fixture.jobs().await, ["before", "after"]);
}

#[tokio::test]
async fn what_must_run_once_shares_no_transaction() {
    let mut fixture = Fixture::new().await;
    fixture.reopen(Duration::from_millis(100)).await;
    let store = &fixture.store;
    let once = "once".to_owned();
    let held = Held::new(store).await;
    let ((), alone, slow, slow_alone) = tokio::join!(
        biased;
        held.until(3),
        store.write_alone(move |write| {
            let made = job(write.tx, &once);
            drop(once);
            made
        }),
        store.write(|write| Ok::<_, StoreError>(endless(write.tx)?)),
        store.write_alone(|write| Ok::<_, StoreError>(endless(write.tx)?)),
    );
    assert!(alone.is_ok() && slow.unwrap_err().passes() && slow_alone.unwrap_err().passes());
    assert_eq!(fixture.jobs().await, ["once"]);
}

#[tokio::test]
async fn changes_come_after_the_commit_in_its_order_with_the_row_before() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let mut changes = store.changes();
    let id = store.write(|write| job(write.tx, "a")).await.unwrap()["id"].clone();
    let running = store.write(|write| {
        let sql = "UPDATE gateway_jobs SET status = 'running', started_at = 1762162375123400";
        Ok::<_, StoreError>(write.tx.execute(sql, [])?)
    });
    running.await.unwrap();
    let gone =
        store.write(|write| Ok::<_, StoreError>(write.tx.execute("DELETE FROM gateway_jobs", [])?));
    gone.await.unwrap();

    let insert = changes.try_recv().unwrap();
    assert_eq!((insert.table, insert.kind), ("gateway_jobs", ChangeKind::Insert));
    assert_eq!((&insert.row["id"], &insert.row["payload"]), (&id, &json!({"k": 1})));
    assert_eq!(insert.old, None);
    let update = changes.try_recv().unwrap();
    assert_eq!(update.kind, ChangeKind::Update);
    assert_eq!(update.old.as_ref(), Some(&insert.row));
    assert_eq!(update.row["started_at"], "2025-11-03T09:32:55.1234+00:00");
    let delete = changes.try_recv().unwrap();
    assert_eq!((delete.kind, &delete.row), (ChangeKind::Delete, &update.row));
    assert!(changes.try_recv().is_err());
}

#[tokio::test]
async fn what_did_not_happen_is_not_told() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let kept = store.write(|write| job(write.tx, "kept")).await.unwrap();
    let mut changes = store.changes();
    let swallowed = store.write(move |write| {
        // The second row conflicts, so the statement is undone; the error is swallowed.
        let sql = "INSERT INTO gateway_jobs (id, team_id, gateway_id, job_type, created_at, \
                   updated_at) VALUES (?1, ?2, ?3, 'new', 0, 0), (?4, ?2, ?3, 'same', 0, 0)";
        let same = kept["id"].as_str();
        let refused = write.tx.execute(sql, rusqlite::params!["x", TEAM, GATEWAY, same]);
        assert!(refused.is_err());
        write.tx.execute("INSERT OR IGNORE INTO team_gateways SELECT * FROM team_gateways", [])?;
        write.tx.execute("INSERT INTO teams VALUES ('t', 'not shown by REST', 0)", [])?;
        Ok::<_, StoreError>(())
    });
    swallowed.await.unwrap();
    store.write(|write| job(write.tx, "told")).await.unwrap();
    assert_eq!(changes.try_recv().unwrap().row["job_type"], "told");
    assert!(changes.try_recv().is_err());
}

#[tokio::test]
async fn a_closed_store_says_so_and_finishes_what_it_accepted() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        set.spawn(async move { store.write(|write| job(write.tx, "w")).await });
    }
    set.join_next().await.unwrap().unwrap().unwrap();
    let results = async { set.join_all().await };
    let (results, ()) = tokio::join!(results, store.close());
    let done = 1 + results.iter().filter(|result| result.is_ok()).count();
    let late = store.write(|_| Ok::<(), StoreError>(())).await;
    assert!(matches!(late, Err(StoreError::Closed)));
    let late = store.read(|_| Ok::<(), StoreError>(())).await;
    assert!(matches!(late, Err(StoreError::Closed)));
    let connection = Connection::open(fixture.path()).unwrap();
    let kept: i64 =
        connection.query_row("SELECT count(*) FROM gateway_jobs", [], |r| r.get(0)).unwrap();
    assert_eq!(usize::try_from(kept).unwrap(), done);
}

#[tokio::test]
async fn a_reader_cannot_write_and_its_panic_is_an_error() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let refused =
        store.read(|c| Ok::<_, StoreError>(c.execute("DELETE FROM team_gateways", [])?)).await;
    assert!(matches!(refused, Err(StoreError::Sqlite(_))));
    for _ in 0..2 * READERS {
        let broken = store.read(|_| -> Result<(), StoreError> { panic!("broken") }).await;
        assert!(matches!(broken, Err(StoreError::Panicked(_))));
    }
    assert!(fixture.jobs().await.is_empty());
}

#[tokio::test]
async fn rows_are_shown_as_rest_does() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let made = store.write(|write| job(write.tx, "shown")).await.unwrap();
    let id = made["id"].as_str().unwrap().to_owned();
    let (row, rows, none) = store
        .read(move |c| {
            Ok::<_, StoreError>((
                Store::row(c, "gateway_jobs", &id)?,
                Store::rows(c, "gateway_jobs", "WHERE team_id = ?1 ORDER BY created_at", [TEAM])?,
                Store::row(c, "gateway_jobs", "absent")?,
            ))
        })
        .await
        .unwrap();
    assert_eq!(row, Some(made.clone()));
    assert_eq!(rows, std::slice::from_ref(&made));
    assert_eq!(none, None);
    assert_eq!(made["status"], "queued");
    assert_eq!(made["attempt"], 1);
    assert_eq!(made["result"], Value::Null);
    let unknown = store.write(|write| {
        let row = json!({"colour": 1});
        Ok::<_, Refused>(Store::insert(write.tx, "team_resources", fields(&row))?)
    });
    assert!(matches!(unknown.await, Err(Refused::Row(RowError::Column { .. }))));
}

#[tokio::test]
async fn a_list_is_bounded_by_bytes_but_never_empty_for_it() {
    let mut fixture = Fixture::new().await;
    // So much text takes a busy machine longer than a request may take.
    fixture.reopen(Duration::from_mins(10)).await;
    let (large, small) = fixture
        .store
        .write(|write| {
            for kind in ["large", "larger"] {
                job(write.tx, kind)?;
            }
            let fill = "UPDATE gateway_jobs SET error = printf('%.*c', 68000000, 'x')";
            write.tx.execute(fill, [])?;
            let large = Store::rows(write.tx, "gateway_jobs", "ORDER BY rowid", [])?;
            let empty = "UPDATE gateway_jobs SET error = 'x'";
            write.tx.execute(empty, [])?;
            let small = Store::rows(write.tx, "gateway_jobs", "ORDER BY rowid", [])?;
            Ok::<_, Refused>((large, small))
        })
        .await
        .unwrap();
    assert_eq!((large.len(), small.len()), (1, 2));
    assert_eq!(large[0]["job_type"], "large");
}

#[test]
fn definitions_and_tables_agree() {
    let dir = tempfile::tempdir().unwrap();
    let (connection, _) = open::writer(&dir.path().join("db"), &Schema::built_in()).unwrap();
    for table in Schema::built_in().tables() {
        let sql = "SELECT name, type, \"notnull\" OR pk, pk FROM pragma_table_info(?1)";
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.query_map([table.name], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Sql>(1)?, row.get::<_, bool>(2)?))
        });
        let columns: Vec<_> = columns.unwrap().map(Result::unwrap).collect();
        let defined: Vec<_> = table
            .columns
            .iter()
            .map(|column| {
                use schema::Type;
                let stored = match column.kind {
                    Type::Uuid | Type::Text | Type::Jsonb => "TEXT",
                    Type::Int4 | Type::Int8 | Type::Bool | Type::Timestamptz => "INTEGER",
                };
                (column.name.to_owned(), Sql::Text(stored.to_owned()), !column.nullable)
            })
            .collect();
        assert_eq!(columns, defined, "{}", table.name);
    }
}

#[tokio::test]
async fn work_that_takes_too_long_ends_and_the_rest_goes_on() {
    const FOR_EVER: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
         SELECT count(*) FROM n";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sandbox.db");
    let allowed = Duration::from_millis(50);
    let store = Store::open_limited(&path, Schema::built_in(), allowed).unwrap();
    let costly = |connection: &Connection| {
        Ok::<i64, StoreError>(connection.query_row(FOR_EVER, [], |row| row.get(0))?)
    };
    let interrupted = |error: &StoreError| {
        matches!(error, StoreError::Sqlite(error)
            if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
    };
    // More than there are readers.
    for _ in 0..=READERS {
        let error = store.read(costly).await.unwrap_err();
        assert!(interrupted(&error), "{error:?}");
    }
    let error = store.write(move |write| costly(write.tx)).await.unwrap_err();
    assert!(interrupted(&error), "{error:?}");
    let matching = store.read(|connection| {
        let like = "SELECT pg_like(?1, ?2)";
        let (text, pattern) = ("a".repeat(1_000_000), format!("%{}b", "a".repeat(100_000)));
        Ok::<bool, StoreError>(connection.query_row(like, [text, pattern], |row| row.get(0))?)
    });
    let error = matching.await.unwrap_err();
    assert!(interrupted(&error), "{error:?}");
    let written = store.write(|write| {
        write.tx.execute("INSERT INTO teams VALUES (?1, 'team', 0)", [TEAM])?;
        Ok::<_, StoreError>(())
    });
    written.await.unwrap();
    let teams = store.read(|connection| {
        let count = "SELECT count(*) FROM teams";
        Ok::<i64, StoreError>(connection.query_row(count, [], |row| row.get(0))?)
    });
    assert_eq!(teams.await.unwrap(), 1);
}
