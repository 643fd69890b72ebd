//! What is old goes: changes, versions, uploads that were never committed. And the way back to an
//! earlier state.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::error::{Failure, Refused};
use super::tree::{self, DriveRow, unsigned};
use super::{feed, uploads};
use crate::drive_sync::wire::Code;
use crate::sandbox::app::{App, Shared, micros, now_micros};

const INTERVAL: Duration = Duration::from_mins(10);
/// Rows that go in one write at most.
const BATCH: u32 = 200;
/// Between two batches, so that writes that wait get their turn.
const PAUSE: Duration = Duration::from_millis(20);

/// Removes what is old, now and then, until `stop`.
pub(in crate::sandbox) async fn run(app: Shared, stop: CancellationToken) {
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
            swept = sweep(&app) => match swept {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "removed old rows of drives"),
                Err(failure) => {
                    let refused = failure.told();
                    tracing::warn!(reason = refused.message, "could not remove old rows of drives");
                }
            },
        }
    }
}

/// Removes all that is old; how many rows.
pub(in crate::sandbox) async fn sweep(app: &App) -> Result<usize, Failure> {
    let now = now_micros();
    let before = now.saturating_sub(micros(app.drives.limits.keep_history));
    let mut all = 0;
    loop {
        match app.store.write(move |write| remove_batch(write.tx, now, before)).await? {
            0 => return Ok(all),
            count => all += count,
        }
        app.storage.contents.remove_released();
        tokio::time::sleep(PAUSE).await;
    }
}

fn remove_batch(tx: &Connection, now: i64, before: i64) -> Result<usize, Failure> {
    let expired = uploads::expire(tx, now, BATCH)?;
    raise_floors(tx, before)?;
    // States that were over by then; a tombstone is over when it is made.
    let changes = tx
        .prepare_cached(
            "DELETE FROM drive_changes WHERE rowid IN (
                 SELECT change.rowid FROM drives JOIN drive_changes AS change
                     ON change.drive = drives.number AND change.until <= drives.floor
                 UNION ALL
                 SELECT change.rowid FROM drives JOIN drive_changes AS change
                     ON change.drive = drives.number AND change.change = 'delete'
                         AND change.sequence <= drives.floor
                 LIMIT ?1)",
        )?
        .execute([BATCH])?;
    let operations = tx
        .prepare_cached(
            "DELETE FROM drive_operations WHERE rowid IN (
                 SELECT operation.rowid FROM drives JOIN drive_operations AS operation
                     ON operation.drive = drives.number AND operation.sequence <= drives.floor
                 LIMIT ?1)",
        )?
        .execute([BATCH])?;
    let versions = tree::forget_versions(
        tx,
        "replaced_at IS NOT NULL AND replaced_at <= ?1 LIMIT ?2",
        &[&before, &BATCH],
    )?;
    Ok(expired + changes + operations + versions)
}

/// The floor of a drive is the last change that is old.
fn raise_floors(tx: &Connection, before: i64) -> rusqlite::Result<()> {
    let drives: Vec<(i64, i64, i64)> = tx
        .prepare_cached("SELECT number, head, floor FROM drives WHERE floor < head")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (drive, head, floor) in drives {
        let first_to_keep: Option<i64> = tx
            .prepare_cached(
                "SELECT sequence FROM drive_changes
                 WHERE drive = ?1 AND sequence > ?2 AND created_at > ?3
                 ORDER BY sequence LIMIT 1",
            )?
            .query_row(params![drive, floor, before], |row| row.get(0))
            .optional()?;
        let raised = first_to_keep.map_or(head, |sequence| sequence - 1);
        if raised > floor {
            tx.prepare_cached("UPDATE drives SET floor = ?2 WHERE number = ?1")?
                .execute(params![drive, raised])?;
        }
    }
    Ok(())
}

/// What became of a drive that was restored.
pub(in crate::sandbox) struct Restored {
    pub(in crate::sandbox) epoch: String,
    pub(in crate::sandbox) head_sequence: u64,
}

/// Takes a drive back to how it was at a sequence, as restoring a backup does: what came later
/// never was. `None`: it stays as it is. Either way it has a new epoch.
pub(in crate::sandbox) fn restore(
    tx: &Connection,
    team_id: &str,
    drive_id: &str,
    sequence: Option<u64>,
) -> Result<Restored, Failure> {
    let drive = feed::find_drive(tx, Some(team_id), drive_id)?.ok_or_else(Refused::no_drive)?;
    let head = sequence.map_or(drive.head, tree::signed);
    if head < drive.floor || head > drive.head {
        let message = "the drive has no such sequence, or not any more";
        return Err(Refused::new(Code::CursorExpired, message).into());
    }
    if head < drive.head {
        check_between(tx, &drive, head)?;
        forget_after(tx, &drive, head)?;
    }
    let epoch = tree::new_id();
    tx.execute(
        "UPDATE drives SET head = ?2, epoch = ?3 WHERE number = ?1",
        params![drive.number, head, epoch],
    )?;
    Ok(Restored { epoch, head_sequence: unsigned(head) })
}

/// An operation is visible whole or not at all.
fn check_between(tx: &Connection, drive: &DriveRow, head: i64) -> Result<(), Failure> {
    let inside: bool = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM drive_operations
             WHERE drive = ?1 AND entry_sequence <= ?2 AND sequence > ?2)",
        params![drive.number, head],
        |row| row.get(0),
    )?;
    if inside {
        return Err(Refused::invalid("that sequence lies inside one operation").into());
    }
    Ok(())
}

fn forget_after(tx: &Connection, drive: &DriveRow, head: i64) -> Result<(), Failure> {
    let both = params![drive.number, head];
    tx.execute("DELETE FROM drive_changes WHERE drive = ?1 AND sequence > ?2", both)?;
    tx.execute("UPDATE drive_changes SET until = NULL WHERE drive = ?1 AND until > ?2", both)?;
    tx.execute("DELETE FROM drive_operations WHERE drive = ?1 AND sequence > ?2", both)?;
    let which = "drive = ?1 AND sequence > ?2";
    tree::forget_versions(tx, which, &[&drive.number, &head])?;
    tx.execute(
        "UPDATE drive_versions SET replaced_at = NULL
         WHERE drive = ?1 AND replaced_at IS NOT NULL AND id IN (
             SELECT version_id FROM drive_changes
             WHERE drive = ?1 AND until IS NULL AND change <> 'delete')",
        [drive.number],
    )?;
    let uploads: Vec<String> = tx
        .prepare("SELECT id FROM drive_uploads WHERE drive = ?1")?
        .query_map([drive.number], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for upload_id in uploads {
        uploads::forget(tx, &upload_id)?;
    }
    Ok(())
}
