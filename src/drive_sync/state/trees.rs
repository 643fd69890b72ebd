//! Remote tree and base, row by row, for a comparison.

use rusqlite::{Rows, Statement};

use super::{State, StateError, rows};
use crate::drive_sync::model::{Kind, Stat};
use crate::drive_sync::path::RelPath;
use crate::drive_sync::planner::Row;

/// Two trees, to be read side by side; nothing can be changed meanwhile.
pub struct Trees<'a> {
    remote: Statement<'a>,
    base: Statement<'a>,
}

impl Trees<'_> {
    /// Remote and base in path order, as [`Row`]s. An entry with a name that this disk cannot hold
    /// is not among the remote ones.
    pub fn both(&mut self) -> Result<(Rows<'_>, Rows<'_>), StateError> {
        Ok((self.remote.query([])?, self.base.query([])?))
    }
}

impl State {
    /// Remote and base, for one reading.
    pub fn trees(&self) -> Result<Trees<'_>, StateError> {
        Ok(Trees {
            remote: self.connection.prepare(
                "SELECT path, id, version, sha256, size, executable FROM remote \
                 WHERE holdable = 1 ORDER BY path, id",
            )?,
            base: self.connection.prepare(
                "SELECT path, id, version, sha256, size, executable, \
                 dev, ino, bytes, mtime, ctime, mode FROM base ORDER BY path",
            )?,
        })
    }
}

/// `path, id, version, sha256, size, executable`, and in the base the disk's stat.
impl Row<StateError> for rusqlite::Row<'_> {
    fn key(&self) -> Result<&str, StateError> {
        rows::key(self, 0)
    }

    fn path(&self) -> Result<RelPath, StateError> {
        rows::path(self, 0)
    }

    fn names(&self) -> Result<(&str, &str), StateError> {
        let text = |index| self.get_ref(index)?.as_str().map_err(rows::wrong);
        Ok((text(1)?, text(2)?))
    }

    fn kind(&self) -> Result<Kind, StateError> {
        rows::kind(self, 3)
    }

    fn stat(&self) -> Result<Option<Stat>, StateError> {
        rows::stat(self, 6)
    }
}
