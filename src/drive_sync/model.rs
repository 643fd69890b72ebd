//! The entries of the three trees: what is on the disk, on the server, and in the base.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use super::path::RelPath;

/// SHA-256 of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Reads what [`Self::hex`] gives; upper case is taken too.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.hex()[..8])
    }
}

/// What a file is, apart from its place: two files with equal contents need no transfer and are
/// never in conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Content {
    pub sha256: Sha256,
    /// In bytes.
    pub size: u64,
    /// The owner may execute it.
    pub executable: bool,
}

/// What `stat` says of a file or folder on the disk: enough to see that it is not the one seen
/// before. The time of last change of the inode is part of it, for a program can set the other back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(missing_docs, reason = "the names of stat(2)")]
pub struct Stat {
    /// See [`device`].
    pub dev: u32,
    pub ino: u64,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// Nanoseconds since 1970.
    pub ctime: i64,
    pub mode: u32,
}

/// A device's number as it is kept. Kernels give theirs 32 bits; of a longer one the rest is folded
/// in, for a large drive has many of them in memory.
pub fn device(st_dev: u64) -> u32 {
    let folded = (st_dev >> 32) ^ (st_dev & u64::from(u32::MAX));
    // It fits.
    u32::try_from(folded).unwrap_or(u32::MAX)
}

impl Stat {
    /// Whether it names the same file on the disk, changed or not.
    pub fn same_inode(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

/// An entry on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// A plain file that was read whole.
    File {
        /// What it held.
        content: Content,
        /// As it was before and after it was read.
        stat: Stat,
        /// It was changed so shortly before it was read that a later change may show the same stat:
        /// it is read again at the next scan.
        racy: bool,
    },
    /// A folder that was listed whole.
    Directory {
        /// Its own.
        stat: Stat,
    },
    /// There is something that takes no part, with the reason. Nothing is done at this place or
    /// below it, and a folder that holds it is not removed.
    Opaque(Opaque),
}

/// Why an entry of the disk takes no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Opaque {
    /// A name of the ignore list. Does not count as something of the user's that blocks a sync, but
    /// is never removed.
    Ignored,
    /// A symbolic link.
    Symlink,
    /// A socket, pipe or device.
    Special,
    /// It cannot be read or listed: what it holds is not known, which is not the same as empty.
    Unreadable,
    /// It changed while it was read, again and again.
    Unsettled,
    /// Another file system is mounted there.
    Mount,
    /// After an unclean start of the machine it is empty or all zeros, and was not before.
    Suspicious,
    /// The server takes no file of this size.
    TooLarge,
    /// Its name is not UTF-8; the path is made up to tell of it.
    Name,
    /// A large file that is read when the others are done.
    Unread,
}

/// What the server calls an entry, whatever its path.
pub type EntryId = String;
/// One state of an entry's contents at the server.
pub type VersionId = String;

/// An entry at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Remote {
    pub id: EntryId,
    pub version: VersionId,
    pub kind: Kind,
}

/// What both sides have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file with this content.
    File(Content),
    /// A folder.
    Directory,
}

/// An entry on which disk and server agreed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The server's entry.
    pub remote: Remote,
    /// The disk's, when it was known: what a later scan is compared with, so as not to read every
    /// file again.
    pub stat: Option<Stat>,
}

/// What is on the disk.
pub type LocalTree = BTreeMap<RelPath, Local>;
/// What the server said.
pub type RemoteTree = BTreeMap<RelPath, Remote>;
/// On what both agreed.
pub type BaseTree = BTreeMap<RelPath, Base>;

/// Adds entries to a tree so that its nodes are full: entries that come in order one by one leave
/// them half empty, and a large tree would take nearly twice the memory.
pub(super) fn add_packed(tree: &mut LocalTree, entries: Vec<(RelPath, Local)>) {
    // All of the tree is gone through for it.
    if entries.len() < tree.len() / 256 {
        tree.extend(entries);
    } else {
        tree.append(&mut entries.into_iter().collect());
    }
}

impl Local {
    /// What could be sent to the server.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::File { content, .. } => Some(Kind::File(*content)),
            Self::Directory { .. } => Some(Kind::Directory),
            Self::Opaque(_) => None,
        }
    }

    /// As it stood on the disk.
    pub fn stat(&self) -> Option<&Stat> {
        match self {
            Self::File { stat, .. } | Self::Directory { stat } => Some(stat),
            Self::Opaque(_) => None,
        }
    }
}

impl Kind {
    /// A file's content.
    pub fn content(&self) -> Option<&Content> {
        match self {
            Self::File(content) => Some(content),
            Self::Directory => None,
        }
    }

    /// Whether it is a folder.
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_disk_takes_little() {
        // Eleven, with their paths, to a node of the tree: the allocator gives 1,280 bytes for one
        // of these and 1,536 for one of 104, which is 2.4 MB for 100,000 entries.
        assert_eq!(size_of::<Local>(), 96);
    }

    #[test]
    fn a_device_of_32_bits_is_its_own_number_and_others_are_told_apart() {
        let numbers = [0x803, u64::from(u32::MAX), 0x1_0000_0803, 0x2_0000_0803];
        assert_eq!(numbers.map(device), [0x803, u32::MAX, 0x802, 0x801]);
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = Sha256(std::array::from_fn(|index| u8::try_from(index * 7).unwrap_or(255)));
        assert_eq!(Sha256::parse(&hash.hex()), Some(hash));
        assert_eq!(Sha256::parse(&hash.hex().to_uppercase()), Some(hash));
        assert_eq!(Sha256::parse(&hash.hex()[1..]), None);
        assert_eq!(Sha256::parse(&"g".repeat(64)), None);
        assert_eq!(Sha256::parse(&"é".repeat(32)), None);
    }
}
