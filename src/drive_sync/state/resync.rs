//! A snapshot on its way: it gathers beside what is known, and takes its place only when whole.

use rusqlite::Connection;

use super::{State, StateError, meta, remote};
use crate::drive_sync::ports::{Changes, SnapshotPage};

/// How far a snapshot has come. It outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resync {
    /// What both sides agreed on is not to be believed any more: the server is another one, or an
    /// earlier one.
    pub drop_base: bool,
    /// Of the first page.
    pub epoch: Option<String>,
    /// The page to ask for next, while `cursor` is `None`.
    pub page: Option<String>,
    /// All pages are there; up to here the feed since the first was read too.
    pub cursor: Option<u64>,
}

/// Values of `meta` that a snapshot on its way has.
const NAMES: [&str; 6] =
    ["resync", "resync_drop_base", "resync_epoch", "resync_as_of", "resync_page", "resync_cursor"];

impl State {
    /// The snapshot that is on its way.
    pub fn resync(&self) -> Result<Option<Resync>, StateError> {
        let connection = &self.connection;
        if meta::get::<bool>(connection, "resync")?.is_none() {
            return Ok(None);
        }
        Ok(Some(Resync {
            drop_base: meta::get(connection, "resync_drop_base")?.unwrap_or(false),
            epoch: meta::get(connection, "resync_epoch")?,
            page: meta::get(connection, "resync_page")?,
            cursor: meta::get::<i64>(connection, "resync_cursor")?.map(i64::cast_unsigned),
        }))
    }

    /// Begins a snapshot, or begins it again. Once `drop_base` was asked for it stays so.
    pub fn begin_resync(&mut self, drop_base: bool) -> Result<(), StateError> {
        let transaction = self.connection.transaction()?;
        let drop_base = drop_base || meta::get(&transaction, "resync_drop_base")?.unwrap_or(false);
        clear(&transaction)?;
        meta::set(&transaction, "resync", true)?;
        meta::set(&transaction, "resync_drop_base", drop_base)?;
        Ok(transaction.commit()?)
    }

    /// A page of the snapshot. The feed will be read from where the server stood at the first one:
    /// what changed while the pages were read is in it.
    pub fn take_snapshot_page(&mut self, page: &SnapshotPage) -> Result<(), StateError> {
        let transaction = self.connection.transaction()?;
        for entry in &page.entries {
            remote::upsert(&transaction, remote::Table::Pending, entry)?;
        }
        let first: Option<i64> = meta::get(&transaction, "resync_as_of")?;
        let as_of = first.unwrap_or(page.as_of.cast_signed());
        meta::set(&transaction, "resync_as_of", as_of)?;
        meta::set(&transaction, "resync_epoch", &page.epoch)?;
        match &page.next_page {
            Some(next) => meta::set(&transaction, "resync_page", next)?,
            None => meta::set(&transaction, "resync_cursor", as_of)?,
        }
        Ok(transaction.commit()?)
    }

    /// A page of the feed since the snapshot. With the last one the snapshot takes the place of what
    /// was known, and the cursor moves, all at once.
    pub fn take_replayed_page(&mut self, page: &Changes, cursor: u64) -> Result<(), StateError> {
        let known_epoch = self.cursor()?.map(|cursor| cursor.epoch);
        let transaction = self.connection.transaction()?;
        for change in &page.changes {
            remote::take(&transaction, remote::Table::Pending, change)?;
        }
        if page.has_more {
            meta::set(&transaction, "resync_cursor", cursor.cast_signed())?;
            return Ok(transaction.commit()?);
        }
        transaction.execute_batch(
            "DELETE FROM remote; INSERT INTO remote SELECT * FROM pending; DELETE FROM ours;",
        )?;
        let told = meta::get(&transaction, "resync_drop_base")?.unwrap_or(false);
        if told || known_epoch.is_some_and(|known| known != page.epoch) {
            transaction.execute("DELETE FROM base", [])?;
            meta::unset(&transaction, "release_deletions")?;
        }
        clear(&transaction)?;
        meta::set_cursor(&transaction, &page.epoch, cursor)?;
        Ok(transaction.commit()?)
    }
}

fn clear(connection: &Connection) -> Result<(), StateError> {
    connection.execute("DELETE FROM pending", [])?;
    NAMES.iter().try_for_each(|name| meta::unset(connection, name))
}
