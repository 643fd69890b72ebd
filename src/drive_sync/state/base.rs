//! On what both sides agreed, and what an effect makes of it.

use rusqlite::{Connection, params};

use super::{State, StateError, remote, rows};
use crate::drive_sync::model::{Base, Content, EntryId, Kind, Local, LocalTree, Stat, add_packed};
use crate::drive_sync::path::RelPath;
use crate::drive_sync::ports::RemoteEntry;

/// Rows that are put into a tree at a time.
const AT_ONCE: usize = 16_384;

/// What is true now that something has been done on the disk or at the server. Recorded after it,
/// never before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Both sides have this.
    Agree {
        /// Where.
        path: RelPath,
        /// What.
        base: Base,
        /// A later change of the file may show the same stat.
        racy: bool,
    },
    /// The two do not agree on this path any more.
    Forget {
        /// Where.
        path: RelPath,
    },
    /// The two do not agree on this path, nor on anything below it.
    ForgetTree {
        /// Where.
        path: RelPath,
    },
    /// The disk's file has been read again, long enough after its last change: its stat can be
    /// trusted.
    Calm {
        /// Where; nothing happens when something else was agreed on there.
        path: RelPath,
        /// What it holds.
        content: Content,
        /// As it looks.
        stat: Stat,
    },
    /// The server has this entry after a change of ours.
    Learn {
        /// The entry.
        entry: RemoteEntry,
        /// Of the change in the feed.
        sequence: u64,
    },
    /// The server has this entry no more after a change of ours.
    Gone {
        /// The entry.
        id: EntryId,
        /// Of the change in the feed.
        sequence: u64,
    },
    /// The server has answered, and the answer is known: the intent is dropped.
    Answered {
        /// Of the intent.
        operation_id: String,
    },
}

impl State {
    /// Records effects, all or none.
    pub fn commit(&mut self, effects: &[Effect]) -> Result<(), StateError> {
        if effects.is_empty() {
            return Ok(());
        }
        let read_up_to = self.cursor()?.map_or(0, |cursor| cursor.sequence);
        let transaction = self.connection.transaction()?;
        for effect in effects {
            record(&transaction, effect, read_up_to)?;
        }
        Ok(transaction.commit()?)
    }

    /// The disk as it was when both sides agreed last: where it still looks so, files need not be
    /// read again.
    pub fn remembered(&self) -> Result<LocalTree, StateError> {
        let mut statement = self.connection.prepare(
            "SELECT path, sha256, size, executable, dev, ino, bytes, mtime, ctime, mode, racy \
             FROM base WHERE dev IS NOT NULL ORDER BY path",
        )?;
        let mut rows = statement.query([])?;
        let (mut tree, mut some) = (LocalTree::new(), Vec::new());
        while let Some(row) = rows.next()? {
            if some.len() == AT_ONCE {
                add_packed(&mut tree, std::mem::take(&mut some));
            }
            let Some(stat) = rows::stat(row, 4)? else { continue };
            let local = match rows::kind(row, 1)?.content() {
                Some(content) => Local::File { content: *content, stat, racy: row.get(10)? },
                None => Local::Directory { stat },
            };
            some.push((rows::path(row, 0)?, local));
        }
        add_packed(&mut tree, some);
        Ok(tree)
    }

    /// Files that had changed shortly before they were read: some of them, after a path.
    pub fn racy(&self, after: Option<&RelPath>) -> Result<Vec<RelPath>, StateError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT path FROM base WHERE racy = 1 AND dev IS NOT NULL AND path > ? \
             ORDER BY path LIMIT 4096",
        )?;
        let after = after.map_or(&[][..], |path| path.key().as_bytes());
        statement.query_and_then([after], |row| rows::path(row, 0))?.collect()
    }

    /// How many entries both sides agree on.
    pub fn agreed(&self) -> Result<u64, StateError> {
        let count: i64 = self
            .connection
            .prepare_cached("SELECT count(*) FROM base")?
            .query_row([], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }
}

fn record(connection: &Connection, effect: &Effect, read_up_to: u64) -> Result<(), StateError> {
    match effect {
        Effect::Agree { path, base, racy } => agree(connection, path, base, *racy),
        Effect::Forget { path } => {
            connection
                .prepare_cached("DELETE FROM base WHERE path = ?")?
                .execute([path.key().as_bytes()])?;
            Ok(())
        }
        Effect::ForgetTree { path } => forget_tree(connection, path),
        Effect::Calm { path, content, stat } => calm(connection, path, content, stat),
        // What the feed has told already is not older than this.
        Effect::Learn { sequence, .. } | Effect::Gone { sequence, .. }
            if *sequence <= read_up_to =>
        {
            Ok(())
        }
        Effect::Learn { entry, sequence } => {
            remote::upsert(connection, remote::Table::Remote, entry)?;
            mark_ours(connection, &entry.remote.id, *sequence)
        }
        Effect::Gone { id, sequence } => {
            remote::delete(connection, remote::Table::Remote, id)?;
            mark_ours(connection, id, *sequence)
        }
        Effect::Answered { operation_id } => {
            connection
                .prepare_cached("DELETE FROM intent WHERE operation_id = ?")?
                .execute([operation_id])?;
            Ok(())
        }
    }
}

fn agree(
    connection: &Connection,
    path: &RelPath,
    base: &Base,
    racy: bool,
) -> Result<(), StateError> {
    let (sha256, size, executable) = rows::of_kind(&base.remote.kind);
    let [dev, ino, bytes, mtime, ctime, mode] = rows::of_stat(base.stat.as_ref());
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO base (path, id, version, sha256, size, executable, \
             dev, ino, bytes, mtime, ctime, mode, racy) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            path.key().as_bytes(),
            base.remote.id,
            base.remote.version,
            sha256,
            size,
            executable,
            dev,
            ino,
            bytes,
            mtime,
            ctime,
            mode,
            racy
        ])?;
    Ok(())
}

fn calm(
    connection: &Connection,
    path: &RelPath,
    content: &Content,
    stat: &Stat,
) -> Result<(), StateError> {
    let (sha256, size, executable) = rows::of_kind(&Kind::File(*content));
    let [dev, ino, bytes, mtime, ctime, mode] = rows::of_stat(Some(stat));
    connection
        .prepare_cached(
            "UPDATE base SET racy = 0 WHERE path = ? AND sha256 = ? AND size = ? \
             AND executable = ? AND dev = ? AND ino = ? AND bytes = ? AND mtime = ? \
             AND ctime = ? AND mode = ?",
        )?
        .execute(params![
            path.key().as_bytes(),
            sha256,
            size,
            executable,
            dev,
            ino,
            bytes,
            mtime,
            ctime,
            mode
        ])?;
    Ok(())
}

/// What is below a folder stands between `folder NUL` and `folder 0x01` in the order of paths.
fn forget_tree(connection: &Connection, path: &RelPath) -> Result<(), StateError> {
    let bound = |end: u8| {
        let mut bound = path.key().as_bytes().to_vec();
        bound.push(end);
        bound
    };
    connection
        .prepare_cached("DELETE FROM base WHERE path = ? OR (path > ? AND path < ?)")?
        .execute(params![path.key().as_bytes(), bound(0), bound(1)])?;
    Ok(())
}

fn mark_ours(connection: &Connection, id: &str, sequence: u64) -> Result<(), StateError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO ours (id, sequence) VALUES (?, ?)")?
        .execute(params![id, sequence.cast_signed()])?;
    Ok(())
}
