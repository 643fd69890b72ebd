//! Reading a file whole, and being sure that it was one state of it.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest, Sha256 as Hasher};

use super::super::model::{Content, Local, Opaque, Sha256, Stat};
use super::super::path::RelPath;
use super::{Disk, stat_of, wall};

/// Read at a time.
const PIECE: usize = 128 << 10;
/// How often a file that changes under the reader is read before it has to wait for the next scan.
const TRIES: u32 = 3;
/// A file that was changed less long ago than this may change again without showing it.
const RACY: i64 = 2_000_000_000;

/// Reads one file after the other, with one buffer.
pub(super) struct Reader(Vec<u8>);

impl Default for Reader {
    fn default() -> Self {
        Self(vec![0; PIECE])
    }
}

impl Reader {
    /// What a file of the drive holds. `before` is what the disk had at its place at the last look,
    /// if anything. `None`: it is not there.
    pub(super) fn read(
        &mut self,
        disk: &Disk,
        path: &RelPath,
        before: Option<&Local>,
    ) -> Option<Local> {
        for _ in 0..TRIES {
            let file = match disk.root.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
                Ok(file) => file,
                Err(Errno::NOENT | Errno::NOTDIR) => return None,
                Err(Errno::LOOP) => return Some(Local::Opaque(Opaque::Symlink)),
                Err(_) => return Some(Local::Opaque(Opaque::Unreadable)),
            };
            match read_open(&file, &mut self.0) {
                Ok(Some(read)) => return Some(judge(disk, &read, before)),
                Ok(None) => {}
                Err(_) => return Some(Local::Opaque(Opaque::Unreadable)),
            }
        }
        Some(Local::Opaque(Opaque::Unsettled))
    }
}

struct Read {
    stat: Stat,
    sha256: Sha256,
    only_zeros: bool,
}

/// `None`: it changed meanwhile.
fn read_open(file: &OwnedFd, buffer: &mut [u8]) -> Result<Option<Read>, Errno> {
    let stat = stat_of(&rustix::fs::fstat(file)?);
    if stat.mode & 0o170_000 != 0o100_000 {
        return Err(Errno::INVAL);
    }
    let mut hasher = Hasher::new();
    let (mut offset, mut only_zeros) = (0_u64, true);
    loop {
        let count = match rustix::io::pread(file, &mut *buffer, offset) {
            Ok(0) => break,
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        only_zeros = only_zeros && buffer[..count].iter().all(|byte| *byte == 0);
        hasher.update(&buffer[..count]);
        offset += count as u64;
    }
    let settled = offset == stat.size && stat_of(&rustix::fs::fstat(file)?) == stat;
    let sha256 = Sha256(hasher.finalize().into());
    Ok(settled.then_some(Read { stat, sha256, only_zeros }))
}

fn judge(disk: &Disk, read: &Read, before: Option<&Local>) -> Local {
    let stat = read.stat;
    let content =
        Content { sha256: read.sha256, size: stat.size, executable: stat.mode & 0o100 != 0 };
    let had_something = before.is_some_and(|before| match before {
        Local::File { content, .. } => content.size > 0 && content.sha256 != read.sha256,
        Local::Directory { .. } => false,
        Local::Opaque(why) => *why == Opaque::Suspicious,
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
