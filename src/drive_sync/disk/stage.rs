//! Downloads under way: files in the hidden folder that are whole before anybody sees them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256 as Hasher};

use super::super::model::{Content, Sha256};
use super::super::ports::{FsError, StageWriter, Staged};
use super::{Disk, error, hash};

/// A download under way.
pub(super) struct Writer {
    folder: Arc<OwnedFd>,
    file: OwnedFd,
    name: String,
    key: String,
    content: Content,
    hasher: Hasher,
    written: u64,
}

impl Writer {
    pub(super) fn open(disk: &Disk, key: &str, content: &Content) -> Result<Self, FsError> {
        let folder = disk.stages()?;
        let name = name_of(key);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&*folder, &name, flags, Mode::RUSR | Mode::WUSR).map_err(error)?;
        let mut hasher = Hasher::new();
        let there = rustix::fs::fstat(&file).map_err(error)?.st_size.cast_unsigned();
        let mut writer = Self {
            folder,
            file,
            name,
            key: key.to_owned(),
            content: *content,
            hasher: hasher.clone(),
            written: 0,
        };
        if there > content.size {
            writer.restart()?;
        } else if there > 0 {
            writer.written = hash::feed(&mut hasher, &writer.file, there).map_err(error)?;
            writer.hasher = hasher;
        }
        Ok(writer)
    }

    fn remove(&self) {
        rustix::fs::unlinkat(&*self.folder, &self.name, AtFlags::empty()).ok();
    }
}

impl StageWriter for Writer {
    fn written(&self) -> u64 {
        self.written
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        if self.written + bytes.len() as u64 > self.content.size {
            self.remove();
            return Err(FsError::WrongContent);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::pwrite(&self.file, rest, self.written) {
                Ok(count) => {
                    self.hasher.update(&rest[..count]);
                    self.written += count as u64;
                    rest = &rest[count..];
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    // What cannot be finished must not keep the space that is missing.
                    self.remove();
                    return Err(error(errno));
                }
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), FsError> {
        rustix::fs::ftruncate(&self.file, 0).map_err(error)?;
        self.hasher = Hasher::new();
        self.written = 0;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Staged, FsError> {
        let sha256 = Sha256(self.hasher.clone().finalize().into());
        if self.written != self.content.size || sha256 != self.content.sha256 {
            self.remove();
            return Err(FsError::WrongContent);
        }
        Ok(Staged { key: self.key, content: self.content })
    }
}

/// A file name for any key.
pub(super) fn name_of(key: &str) -> String {
    Sha256(Hasher::digest(key).into()).hex()
}

/// Writes a small file of the engine's own: whole or not at all, and for good.
pub(super) fn write_whole(folder: &OwnedFd, name: &str, bytes: &[u8]) -> Result<(), FsError> {
    let temp = format!("{name}.new");
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, &temp, flags, Mode::RUSR | Mode::WUSR).map_err(error)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(error(errno)),
        }
    }
    rustix::fs::fsync(&file).map_err(error)?;
    rustix::fs::renameat(folder, &temp, folder, name).map_err(error)?;
    rustix::fs::fsync(folder).map_err(error)
}
