//! Reading a file whole, and being sure that it was one state of it.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest, Sha256 as Hasher};

use super::super::model::{Content, Local, Opaque, Sha256, Stat};
use super::super::path::RelPath;
use super::unfinished::Begun;
use super::{Disk, stat_of, wall};

/// Read at a time.
const PIECE: usize = 128 << 10;
/// How often a file that changes under the reader is read before it has to wait for the next scan.
const TRIES: u32 = 3;
/// A file that was changed less long ago than this may change again without showing it.
const RACY: i64 = 2_000_000_000;

/// Reads one file after the other, with one buffer.
pub(super) struct Reader {
    buffer: Vec<u8>,
    /// Larger files are not read.
    most: u64,
    /// So much of a file is read, and the rest the next time.
    piece: u64,
}

/// What came of reading a file.
pub(super) enum Outcome {
    /// It is not there.
    Gone,
    /// It was not read, for it has so many bytes.
    Large(u64),
    /// This is there.
    Is(Local),
}

impl Reader {
    /// One that reads no file of more than `most` bytes.
    pub(super) fn new(most: u64, piece: u64) -> Self {
        Self { buffer: vec![0; PIECE], most, piece }
    }

    /// What a file of the drive holds. `before` is what the disk had at its place at the last look,
    /// if anything.
    pub(super) fn read(&mut self, disk: &Disk, path: &RelPath, before: Option<&Local>) -> Outcome {
        let opaque = |why| Outcome::Is(Local::Opaque(why));
        for _ in 0..TRIES {
            let file = match disk.root.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
                Ok(file) => file,
                Err(Errno::NOENT | Errno::NOTDIR) => return Outcome::Gone,
                Err(Errno::LOOP) => return opaque(Opaque::Symlink),
                Err(_) => return opaque(Opaque::Unreadable),
            };
            match self.read_open(disk, path, &file) {
                Ok(Opened::Read(read)) => return Outcome::Is(judge(disk, &read, before)),
                Ok(Opened::Large(size)) if disk.takes(size) => return Outcome::Large(size),
                Ok(Opened::Large(_)) => return opaque(Opaque::TooLarge),
                Ok(Opened::Unsettled) => {}
                Ok(Opened::Changed) => break,
                Err(_) => return opaque(Opaque::Unreadable),
            }
        }
        opaque(Opaque::Unsettled)
    }

    fn read_open(&mut self, disk: &Disk, path: &RelPath, file: &OwnedFd) -> Result<Opened, Errno> {
        let stat = stat_of(&rustix::fs::fstat(file)?);
        if stat.mode & 0o170_000 != 0o100_000 {
            return Err(Errno::INVAL);
        }
        if stat.size > self.most || !disk.takes(stat.size) {
            return Ok(Opened::Large(stat.size));
        }
        let is_large = stat.size > self.piece;
        let begun = is_large.then(|| disk.unfinished.take(path, stat));
        let Some(begun) = begun.unwrap_or_else(|| Some(Begun::new(stat))) else {
            return Ok(Opened::Changed);
        };
        let enough = begun.offset.saturating_add(self.piece);
        let Begun { mut hasher, mut offset, mut only_zeros, .. } = begun;
        loop {
            if disk.is_stopped() {
                return Err(Errno::CANCELED);
            }
            if offset >= enough && offset < stat.size {
                disk.unfinished.put(path, Begun { stat, hasher, offset, only_zeros });
                return Ok(Opened::Large(stat.size));
            }
            let count = match rustix::io::pread(file, &mut *self.buffer, offset) {
                Ok(0) => break,
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            only_zeros = only_zeros && self.buffer[..count].iter().all(|byte| *byte == 0);
            hasher.update(&self.buffer[..count]);
            offset += count as u64;
        }
        let settled = offset == stat.size && stat_of(&rustix::fs::fstat(file)?) == stat;
        let sha256 = Sha256(hasher.finalize().into());
        let read = Read { stat, sha256, only_zeros };
        Ok(if settled { Opened::Read(read) } else { Opened::Unsettled })
    }
}

/// One try.
enum Opened {
    Read(Read),
    /// It has so many bytes, which is too much.
    Large(u64),
    /// It changed meanwhile.
    Unsettled,
    /// It changed since another piece of it was read: whoever writes is not done so soon.
    Changed,
}

struct Read {
    stat: Stat,
    sha256: Sha256,
    only_zeros: bool,
}

fn judge(disk: &Disk, read: &Read, before: Option<&Local>) -> Local {
    let stat = read.stat;
    let content =
        Content { sha256: read.sha256, size: stat.size, executable: stat.mode & 0o100 != 0 };
    let had_something = before.is_some_and(|before| match before {
        Local::File { content, .. } => content.size > 0 && content.sha256 != read.sha256,
        Local::Directory { .. } => false,
        // What stood before a large file was put off is not known any more.
        Local::Opaque(why) => matches!(why, Opaque::Suspicious | Opaque::Unread),
    });
    let by_crash = disk.crashed_before.is_some_and(|crash| stat.mtime < crash);
    if by_crash && had_something && read.only_zeros {
        return Local::Opaque(Opaque::Suspicious);
    }
    Local::File { content, stat, racy: wall().saturating_sub(stat.mtime.max(stat.ctime)) < RACY }
}

/// The hash of an open file, from its beginning.
pub(super) fn of_open(file: &OwnedFd) -> Result<Sha256, Errno> {
    let mut hasher = Hasher::new();
    feed(&mut hasher, file, u64::MAX)?;
    Ok(Sha256(hasher.finalize().into()))
}

/// Gives the first `most` bytes of an open file to a hasher; how many there were.
pub(super) fn feed(hasher: &mut Hasher, file: &OwnedFd, most: u64) -> Result<u64, Errno> {
    let mut buffer = vec![0; PIECE];
    let mut offset = 0_u64;
    while offset < most {
        let wanted = usize::try_from((most - offset).min(PIECE as u64)).unwrap_or(PIECE);
        match rustix::io::pread(file, &mut buffer[..wanted], offset) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(offset)
}
