//! Rows of a tree as the planner compares them: most are the same on all sides, and nothing is
//! copied of those.

use crate::drive_sync::model::{Base, Kind, Remote, Stat};
use crate::drive_sync::path::RelPath;

/// One row of the remote tree or of the base. `E` is why it could not be read.
pub trait Row<E> {
    /// [`RelPath::key`] of its path.
    fn key(&self) -> Result<&str, E>;

    /// Where it is.
    fn path(&self) -> Result<RelPath, E>;

    /// The server's entry, and its version.
    fn names(&self) -> Result<(&str, &str), E>;

    /// What it is.
    fn kind(&self) -> Result<Kind, E>;

    /// How it looked on the disk; `None` also in the remote tree, which does not tell.
    fn stat(&self) -> Result<Option<Stat>, E>;

    /// The server's entry as a whole.
    fn remote(&self) -> Result<Remote, E> {
        let (id, version) = self.names()?;
        Ok(Remote { id: id.to_owned(), version: version.to_owned(), kind: self.kind()? })
    }
}

/// A row that is in memory.
impl<E> Row<E> for (RelPath, Base) {
    fn key(&self) -> Result<&str, E> {
        Ok(self.0.key())
    }

    fn path(&self) -> Result<RelPath, E> {
        Ok(self.0.clone())
    }

    fn names(&self) -> Result<(&str, &str), E> {
        Ok((&self.1.remote.id, &self.1.remote.version))
    }

    fn kind(&self) -> Result<Kind, E> {
        Ok(self.1.remote.kind)
    }

    fn stat(&self) -> Result<Option<Stat>, E> {
        Ok(self.1.stat)
    }
}

/// A row that is in memory.
impl<E> Row<E> for (RelPath, Remote) {
    fn key(&self) -> Result<&str, E> {
        Ok(self.0.key())
    }

    fn path(&self) -> Result<RelPath, E> {
        Ok(self.0.clone())
    }

    fn names(&self) -> Result<(&str, &str), E> {
        Ok((&self.1.id, &self.1.version))
    }

    fn kind(&self) -> Result<Kind, E> {
        Ok(self.1.kind)
    }

    fn stat(&self) -> Result<Option<Stat>, E> {
        Ok(None)
    }
}
