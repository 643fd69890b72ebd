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
    /// From the first bytes that come until it is whole: many may be waiting, and descriptors are
    /// for others too.
    file: Option<OwnedFd>,
    name: String,
    key: String,
    content: Content,
    hasher: Hasher,
    written: u64,
}

impl Writer {
    pub(super) fn open(disk: &Disk, key: &str, content: &Content) -> Result<Self, FsError> {
        let mut writer = Self {
            folder: disk.stages()?,
            file: None,
            name: name_of(key),
            key: key.to_owned(),
            content: *content,
            hasher: Hasher::new(),
            written: 0,
        };
        let stat = rustix::fs::statat(&*writer.folder, &writer.name, AtFlags::SYMLINK_NOFOLLOW);
        match stat {
            Ok(stat) => writer.go_on(stat.st_size.cast_unsigned())?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(error(errno)),
        }
        Ok(writer)
    }

    /// Goes on after what is there from an earlier try.
    fn go_on(&mut self, there: u64) -> Result<(), FsError> {
        if (1..=self.content.size).contains(&there) {
            let file = self.open_file(OFlags::empty())?;
            self.written = hash::feed(&mut self.hasher, &file, there).map_err(error)?;
        }
        Ok(())
    }

    fn open_file(&self, besides: OFlags) -> Result<OwnedFd, FsError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::openat(&*self.folder, &self.name, flags | besides, mode).map_err(error)
    }

    /// What was read of it before must be all of it.
    fn open_again(&self) -> Result<OwnedFd, FsError> {
        let file = self.open_file(OFlags::empty())?;
        let there = rustix::fs::fstat(&file).map_err(error)?.st_size.cast_unsigned();
        if there == self.written { Ok(file) } else { Err(FsError::WrongContent) }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        let file = match self.file.take() {
            Some(file) => file,
            None if self.written == 0 => self.open_file(OFlags::TRUNC)?,
            None => self.open_again()?,
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::pwrite(&file, rest, self.written) {
                Ok(count) => {
                    self.hasher.update(&rest[..count]);
                    self.written += count as u64;
                    rest = &rest[count..];
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(error(errno)),
            }
        }
        if self.written < self.content.size {
            self.file = Some(file);
        }
        Ok(())
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
        // What cannot be finished must not keep the space that is missing.
        self.append(bytes).inspect_err(|_| self.remove())
    }

    fn restart(&mut self) -> Result<(), FsError> {
        self.file = Some(self.open_file(OFlags::TRUNC)?);
        self.hasher = Hasher::new();
        self.written = 0;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Staged, FsError> {
        if self.content.size == 0 {
            self.append(&[])?;
        }
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
