//! Files of a disk that the engine is writing or reading, while others do too.

use crate::drive_sync::model::{Content, Stat};
use crate::drive_sync::path::RelPath;
use crate::drive_sync::planted::{Bug, planted};
use crate::drive_sync::ports::{FsError, Source, StageWriter, Staged};

use super::disk::Ino;
use super::fs::SimFs;
use super::server::content;
use super::world::{Sim, with};

/// A download on its way.
pub(super) struct Writer {
    pub(super) fs: SimFs,
    pub(super) key: String,
    pub(super) content: Content,
}

impl Writer {
    fn staged<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.fs.disk(|disk, _| act(disk.staged.entry(self.key.clone()).or_default()))
    }
}

impl StageWriter for Writer {
    fn written(&self) -> u64 {
        self.staged(|bytes| bytes.len() as u64)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        self.fs.pause("write of a download")?;
        if self.fs.disk(|disk, _| disk.full) {
            return Err(FsError::Full);
        }
        self.staged(|staged| staged.extend_from_slice(bytes));
        Ok(())
    }

    fn restart(&mut self) -> Result<(), FsError> {
        self.fs.pause("restart of a download")?;
        self.staged(Vec::clear);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Staged, FsError> {
        self.fs.pause("end of a download")?;
        let found = self.staged(|bytes| content(bytes, self.content.executable));
        if found != self.content && !planted(Bug::FinishUnverified) {
            self.fs.disk(|disk, _| disk.staged.remove(&self.key));
            return Err(FsError::WrongContent);
        }
        Ok(Staged { key: self.key.clone(), content: self.content })
    }
}

/// A file to be sent.
pub(super) struct Reader {
    pub(super) fs: SimFs,
    pub(super) path: RelPath,
    pub(super) ino: Ino,
    pub(super) stat: Stat,
}

impl Source for Reader {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, FsError> {
        self.fs.pause("read of an upload")?;
        Ok(self.fs.disk(|disk, _| {
            let Some(inode) = disk.inodes.get(&self.ino) else { return 0 };
            let rest = inode.bytes.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            count
        }))
    }

    fn check(&mut self) -> Result<(), FsError> {
        self.fs.pause("check of an upload")?;
        let path = self.path.to_string();
        let same = self
            .fs
            .disk(|disk, _| disk.find(&path) == Some(self.ino) && disk.stat(self.ino) == self.stat);
        if planted(Bug::SendUnchecked) {
            return Ok(());
        }
        if !same {
            return Err(FsError::Changed);
        }
        self.fs.disk(|disk, _| {
            disk.sync_bytes(self.ino);
            if let Some(place) = disk.place(&path) {
                disk.sync_links(place.0);
            }
        });
        with(Sim::learn_facts);
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fs.disk(|disk, _| {
            if let Some(index) = disk.reading.iter().position(|ino| *ino == self.ino) {
                disk.reading.remove(index);
            }
        });
    }
}
