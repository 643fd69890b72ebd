//! What is about to be asked of the server: after a crash it is asked again, by the same id.

use rusqlite::{Row, params};

use super::{State, StateError, rows};
use crate::drive_sync::model::{Content, EntryId, Kind, Remote, Stat, VersionId};
use crate::drive_sync::path::RelPath;

/// Something that the server was, or is about to be, asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The server knows a repetition by it.
    pub operation_id: String,
    /// Where; for a move where from.
    pub path: RelPath,
    /// What.
    pub what: Intended,
}

/// What an [`Intent`] asks for, and how the disk looked when it did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the plan's actions")]
pub enum Intended {
    Send { content: Content, stat: Stat, expect: Option<VersionId> },
    MakeDirectory { stat: Stat },
    Delete { id: EntryId, version: VersionId },
    RemoveDirectory { id: EntryId },
    Move { to: RelPath, remote: Remote, stat: Stat },
}

/// The columns after operation id and path.
struct Columns<'a> {
    what: &'static str,
    target: Option<&'a RelPath>,
    id: Option<&'a str>,
    version: Option<&'a str>,
    kind: Kind,
    stat: Option<&'a Stat>,
}

impl Intended {
    fn columns(&self) -> Columns<'_> {
        let empty = Columns {
            what: "",
            target: None,
            id: None,
            version: None,
            kind: Kind::Directory,
            stat: None,
        };
        match self {
            Self::Send { content, stat, expect } => Columns {
                what: "send",
                version: expect.as_deref(),
                kind: Kind::File(*content),
                stat: Some(stat),
                ..empty
            },
            Self::MakeDirectory { stat } => Columns { what: "mkdir", stat: Some(stat), ..empty },
            Self::Delete { id, version } => {
                Columns { what: "delete", id: Some(id), version: Some(version), ..empty }
            }
            Self::RemoveDirectory { id } => Columns { what: "rmdir", id: Some(id), ..empty },
            Self::Move { to, remote, stat } => Columns {
                what: "move",
                target: Some(to),
                id: Some(&remote.id),
                version: Some(&remote.version),
                kind: remote.kind,
                stat: Some(stat),
            },
        }
    }
}

impl State {
    /// Records what is about to be asked, all or none.
    pub fn intend(&mut self, intents: &[Intent]) -> Result<(), StateError> {
        if intents.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        for intent in intents {
            let columns = intent.what.columns();
            let (sha256, size, executable) = rows::of_kind(&columns.kind);
            let [dev, ino, bytes, mtime, ctime, mode] = rows::of_stat(columns.stat);
            transaction
                .prepare_cached(
                    "INSERT INTO intent (operation_id, what, path, target, id, version, \
                     sha256, size, executable, dev, ino, bytes, mtime, ctime, mode) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    intent.operation_id,
                    columns.what,
                    intent.path.key().as_bytes(),
                    columns.target.map(|target| target.key().as_bytes()),
                    columns.id,
                    columns.version,
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
        }
        Ok(transaction.commit()?)
    }

    /// What was asked and not answered, in the order in which it was.
    pub fn intents(&self) -> Result<Vec<Intent>, StateError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT operation_id, what, path, target, id, version, sha256, size, executable, \
             dev, ino, bytes, mtime, ctime, mode FROM intent ORDER BY number",
        )?;
        statement.query_and_then([], intent)?.collect()
    }
}

fn intent(row: &Row<'_>) -> Result<Intent, StateError> {
    let text = |index| row.get::<_, String>(index);
    let stat = || rows::stat(row, 9)?.ok_or_else(|| rows::wrong("an intent without a stat"));
    let kind = rows::kind(row, 6)?;
    let what = match (&*text(1)?, kind) {
        ("send", Kind::File(content)) => {
            Intended::Send { content, stat: stat()?, expect: row.get(5)? }
        }
        ("mkdir", Kind::Directory) => Intended::MakeDirectory { stat: stat()? },
        ("delete", Kind::Directory) => Intended::Delete { id: text(4)?, version: text(5)? },
        ("rmdir", Kind::Directory) => Intended::RemoveDirectory { id: text(4)? },
        ("move", kind) => Intended::Move {
            to: rows::path(row, 3)?,
            remote: Remote { id: text(4)?, version: text(5)?, kind },
            stat: stat()?,
        },
        (other, _) => return Err(rows::wrong(format!("an intent to {other}"))),
    };
    Ok(Intent { operation_id: text(0)?, path: rows::path(row, 2)?, what })
}
