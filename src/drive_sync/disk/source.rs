//! A file on its way to the server: all its bytes are those of one file, whatever happens to its name.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::super::model::Stat;
use super::super::path::RelPath;
use super::super::ports::{FsError, Source};
use super::{Disk, SMALL, gone_or, stat_of};

pub(super) struct Opened<'a> {
    disk: &'a Disk,
    path: RelPath,
    /// It is opened when it is read, and a small one is closed when it was found to be the same
    /// then: many may be waiting, and descriptors are for others too.
    file: Option<OwnedFd>,
    stat: Stat,
}

impl<'a> Opened<'a> {
    pub(super) fn open(disk: &'a Disk, path: &RelPath, stat: &Stat) -> Result<Self, FsError> {
        let opened = Self { disk, path: path.clone(), file: None, stat: *stat };
        if opened.named()? == *stat { Ok(opened) } else { Err(FsError::Changed) }
    }

    /// The file of which the bytes were planned to be sent.
    fn file(&mut self) -> Result<&OwnedFd, FsError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open_now()?,
        };
        Ok(self.file.insert(file))
    }

    fn open_now(&self) -> Result<OwnedFd, FsError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = self.disk.root.open(&self.path, flags).map_err(gone_or)?;
        let found = stat_of(&rustix::fs::fstat(&file).map_err(gone_or)?);
        if found == self.stat { Ok(file) } else { Err(FsError::Changed) }
    }

    /// What stands in its place. A link on the way there does no harm: nothing is done but to compare.
    fn named(&self) -> Result<Stat, FsError> {
        let (root, flags) = (self.disk.root.as_fd(), AtFlags::SYMLINK_NOFOLLOW);
        match rustix::fs::statat(root, self.path.to_string(), flags) {
            Ok(stat) => Ok(stat_of(&stat)),
            Err(Errno::NAMETOOLONG) => {
                let folder = self.disk.parent_of(&self.path)?;
                Disk::stat_in(&folder, self.path.name()).map_err(gone_or)
            }
            Err(errno) => Err(gone_or(errno)),
        }
    }
}

impl Source for Opened<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, FsError> {
        let file = self.file()?;
        loop {
            match rustix::io::pread(file, &mut *buffer, offset) {
                Err(Errno::INTR) => {}
                read => return read.map_err(super::error),
            }
        }
    }

    fn check(&mut self) -> Result<(), FsError> {
        let file = self.file()?;
        // What the server has must not be gone from here after a loss of power.
        rustix::fs::fsync(file).map_err(super::error)?;
        let open = stat_of(&rustix::fs::fstat(file).map_err(gone_or)?);
        if open != self.stat || self.named()? != self.stat {
            return Err(FsError::Changed);
        }
        if self.stat.size <= SMALL {
            self.file = None;
        }
        Ok(())
    }
}
