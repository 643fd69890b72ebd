//! A file on its way to the server: one open file, whatever happens to its name.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::model::Stat;
use super::super::path::RelPath;
use super::super::ports::{FsError, Source};
use super::{Disk, gone_or, stat_of};

pub(super) struct Opened<'a> {
    disk: &'a Disk,
    path: RelPath,
    file: OwnedFd,
    stat: Stat,
}

impl<'a> Opened<'a> {
    pub(super) fn open(disk: &'a Disk, path: &RelPath, stat: &Stat) -> Result<Self, FsError> {
        let file = disk.root.open(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(gone_or)?;
        let found = stat_of(&rustix::fs::fstat(&file).map_err(gone_or)?);
        if found != *stat {
            return Err(FsError::Changed);
        }
        Ok(Self { disk, path: path.clone(), file, stat: *stat })
    }
}

impl Source for Opened<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, FsError> {
        loop {
            match rustix::io::pread(&self.file, &mut *buffer, offset) {
                Err(Errno::INTR) => {}
                read => return read.map_err(super::error),
            }
        }
    }

    fn check(&mut self) -> Result<(), FsError> {
        // What the server has must not be gone from here after a loss of power.
        rustix::fs::fsync(&self.file).map_err(super::error)?;
        let open = stat_of(&rustix::fs::fstat(&self.file).map_err(gone_or)?);
        let folder = self.disk.parent_of(&self.path)?;
        let named = Disk::stat_in(&folder, self.path.name()).map_err(gone_or)?;
        if open == self.stat && named == self.stat { Ok(()) } else { Err(FsError::Changed) }
    }
}
