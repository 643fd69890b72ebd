//! What is on the disk now, reading again only what may have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::iter::Peekable;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256 as Hasher};

use super::super::model::{Local, LocalTree, Opaque, Sha256, Stat};
use super::super::path::{LONGEST_NAME, PathError, RESERVED_PREFIX, RelPath};
use super::super::ports::{FsError, Scope};
use super::{Disk, hash, ignore, stat_of};

/// Threads that read files at the same time.
const READERS: usize = 4;
/// Folders inside one another: each that is open takes a descriptor and a piece of the stack.
const DEEPEST: usize = 512;
/// A file of at least so many bytes is read after the others.
const LARGE: u64 = 64 << 20;
/// Bytes of large files that are read in one scan, but at least one of them.
const LARGE_AT_ONCE: u64 = 1 << 30;

/// The tree as it is now.
pub(super) fn scan(disk: &Disk, previous: LocalTree, scope: &Scope) -> Result<LocalTree, FsError> {
    let mut budget = Budget::default();
    let tree = match scope {
        Scope::All => {
            let mut walk = Walk::new(disk, previous.into_iter());
            walk.folder(&disk.root.duplicate().map_err(super::error)?, 0)?;
            walk.finish(&mut budget)
        }
        Scope::Only(places) => only(disk, previous, places, &mut budget)?,
    };
    // What was not read because of that does not look as it is.
    if disk.is_stopped() { Err(FsError::Stopped) } else { Ok(tree) }
}

/// What a scan may still read of large files: first all others, so that they need not wait.
#[derive(Debug, Default)]
struct Budget {
    has_small: bool,
    large: u64,
}

impl Budget {
    /// Whether a file of this size is read now. It has its turn when it was put off before: there
    /// may always be others.
    fn takes(&mut self, size: u64, before: Option<&Local>) -> bool {
        if size < LARGE {
            return true;
        }
        let is_its_turn = !self.has_small || before == Some(&Local::Opaque(Opaque::Unread));
        let takes = is_its_turn && (self.large == 0 || self.large + size <= LARGE_AT_ONCE);
        if takes {
            self.large += size;
        }
        takes
    }
}

/// Looks at some places, and at files whose last reading may have been overtaken.
fn only(
    disk: &Disk,
    mut tree: LocalTree,
    places: &BTreeSet<RelPath>,
    budget: &mut Budget,
) -> Result<LocalTree, FsError> {
    let mut look: BTreeSet<RelPath> =
        places.iter().map(|place| reachable(disk, known_place(&tree, place))).collect();
    look.extend(unsettled(&tree).cloned());
    let mut covered: Option<RelPath> = None;
    for place in look {
        if covered.as_ref().is_some_and(|folder| place.is_inside(folder)) {
            continue;
        }
        let before = take_subtree(&mut tree, &place);
        let mut walk = Walk::new(disk, before.into_iter());
        walk.place(&place)?;
        tree.append(&mut walk.finish(budget));
        covered = Some(place);
    }
    Ok(tree)
}

fn unsettled(tree: &LocalTree) -> impl Iterator<Item = &RelPath> {
    tree.iter().filter_map(|(path, local)| match local {
        Local::File { racy: true, .. }
        | Local::Opaque(
            Opaque::Unsettled | Opaque::Unreadable | Opaque::Suspicious | Opaque::Unread,
        ) => Some(path),
        Local::File { .. } | Local::Directory { .. } | Local::Opaque(_) => None,
    })
}

/// The place itself, or the outermost folder on the way to it that the tree does not have yet.
fn known_place(tree: &LocalTree, place: &RelPath) -> RelPath {
    let mut look = place.clone();
    while let Some(parent) = look.parent() {
        if matches!(tree.get(&parent), Some(Local::Directory { .. })) {
            break;
        }
        look = parent;
    }
    look
}

/// The place itself, or the innermost folder on the way to it that can be looked at: what is in a
/// closed one is as unknown as the folder.
fn reachable(disk: &Disk, place: RelPath) -> RelPath {
    let mut look = place;
    while let Some(parent) = look.parent() {
        let is_open = match disk.parent_of(&look) {
            Ok(folder) => {
                let stat = Disk::stat_in(&folder, look.name());
                stat.is_ok() || stat == Err(Errno::NOENT)
            }
            Err(error) => matches!(error, FsError::Changed),
        };
        if is_open {
            break;
        }
        look = parent;
    }
    look
}

fn take_subtree(tree: &mut LocalTree, place: &RelPath) -> LocalTree {
    let mut from_there = tree.split_off(place);
    let after = from_there.keys().find(|path| *path != place && !path.is_inside(place)).cloned();
    if let Some(after) = after {
        tree.append(&mut from_there.split_off(&after));
    }
    from_there
}

/// One pass over the disk beside what was seen before, both in the order of paths.
struct Walk<'a, I: Iterator<Item = (RelPath, Local)>> {
    disk: &'a Disk,
    before: Peekable<I>,
    /// The path at which the walk is, as a key.
    at: String,
    found: Vec<(RelPath, Local)>,
    /// Places in `found` that have to be read, with what was there before, and their sizes.
    to_read: Vec<(usize, Option<Local>, u64)>,
}

impl<'a, I: Iterator<Item = (RelPath, Local)>> Walk<'a, I> {
    fn new(disk: &'a Disk, before: I) -> Self {
        Self {
            disk,
            before: before.peekable(),
            at: String::new(),
            found: Vec::new(),
            to_read: Vec::new(),
        }
    }

    /// A single entry, and what is below it.
    fn place(&mut self, path: &RelPath) -> Result<(), FsError> {
        let folder = match self.disk.parent_of(path) {
            Ok(folder) => folder,
            Err(FsError::Changed) => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(parent) = path.parent() {
            parent.key().clone_into(&mut self.at);
        }
        let name = path.name().to_owned();
        self.entry(&folder, &name, path.depth())
    }

    /// Everything in an open folder. That it cannot be listed to its end makes it unreadable: what
    /// it holds is not known, which is not the same as empty.
    fn folder(&mut self, folder: &OwnedFd, depth: usize) -> Result<(), FsError> {
        if depth > DEEPEST {
            return Err(FsError::Io(Errno::LOOP.into()));
        }
        let names = list(folder).map_err(super::error)?;
        for (name, is_real) in &names {
            if *is_real {
                self.entry(folder, name, depth + 1)?;
            } else {
                self.made_up(name);
            }
        }
        Ok(())
    }

    /// Something whose name no path can hold.
    fn made_up(&mut self, name: &str) {
        let separator = if self.at.is_empty() { "" } else { "\0" };
        if let Ok(path) = RelPath::from_key(&format!("{}{separator}{name}", self.at)) {
            self.found.push((path, Local::Opaque(Opaque::Name)));
        }
    }

    fn entry(&mut self, folder: &OwnedFd, name: &str, depth: usize) -> Result<(), FsError> {
        let length = self.at.len();
        if length > 0 {
            self.at.push('\0');
        }
        self.at.push_str(name);
        let done = self.entry_at(folder, name, depth);
        self.at.truncate(length);
        done
    }

    fn entry_at(&mut self, folder: &OwnedFd, name: &str, depth: usize) -> Result<(), FsError> {
        let before = self.seen_before();
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(super::error(errno)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let stat = stat_of(&stat);
        // A folder that holds more than can be told of is not known.
        let Some(path) = self.path(before.as_ref()) else {
            return Err(FsError::Name(PathError::TooLong));
        };
        let before = before.map(|(_, local)| local);
        if stat.dev != self.disk.dev {
            self.found.push((path, Local::Opaque(Opaque::Mount)));
        } else if ignore::is_ignored(name) {
            self.found.push((path, Local::Opaque(Opaque::Ignored)));
        } else {
            match kind {
                FileType::Directory => self.directory(folder, name, path, stat, depth),
                FileType::RegularFile => self.file(path, stat, before),
                FileType::Symlink => self.found.push((path, Local::Opaque(Opaque::Symlink))),
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => self.found.push((path, Local::Opaque(Opaque::Special))),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: RelPath, stat: Stat, before: Option<Local>) {
        match before {
            Some(seen @ Local::File { stat: known, racy: false, .. }) if known == stat => {
                self.found.push((path, seen));
            }
            _ if stat.size > self.disk.largest.load(Ordering::Relaxed) => {
                self.found.push((path, Local::Opaque(Opaque::TooLarge)));
            }
            before => {
                self.to_read.push((self.found.len(), before, stat.size));
                self.found.push((path, Local::Opaque(Opaque::Unsettled)));
            }
        }
    }

    fn directory(&mut self, folder: &OwnedFd, name: &str, path: RelPath, stat: Stat, depth: usize) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let index = self.found.len();
        self.found.push((path, Local::Directory { stat }));
        let opened = rustix::fs::openat(folder, name, flags, rustix::fs::Mode::empty())
            .and_then(|inner| Ok((stat_of(&rustix::fs::fstat(&inner)?), inner)));
        let why = match opened {
            // Another one than was looked at: it is seen at the next look.
            Ok((found, _)) if !found.same_inode(&stat) => Opaque::Unsettled,
            Ok((_, inner)) => match self.folder(&inner, depth) {
                Ok(()) => return,
                Err(_) => Opaque::Unreadable,
            },
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Opaque::Unsettled,
            Err(_) => Opaque::Unreadable,
        };
        // A half of it would look as if the other half had been deleted.
        self.found.truncate(index + 1);
        self.to_read.retain(|(at, ..)| *at < index);
        self.found[index].1 = Local::Opaque(why);
    }

    /// What was here at the last look, once what stood before it is passed.
    fn seen_before(&mut self) -> Option<(RelPath, Local)> {
        while self.before.next_if(|(path, _)| path.key() < self.at.as_str()).is_some() {}
        self.before.next_if(|(path, _)| path.key() == self.at)
    }

    /// The path of the walk, with the memory of the last look where there is one. `None`: too long
    /// to be one of a drive.
    fn path(&self, before: Option<&(RelPath, Local)>) -> Option<RelPath> {
        match before {
            Some((path, _)) => Some(path.clone()),
            None => RelPath::from_key(&self.at).ok(),
        }
    }

    fn finish(mut self, budget: &mut Budget) -> LocalTree {
        drop(self.before);
        budget.has_small |= self.to_read.iter().any(|(.., size)| *size < LARGE);
        let mut to_read = Vec::with_capacity(self.to_read.len());
        for (index, before, size) in self.to_read {
            if budget.takes(size, before.as_ref()) {
                to_read.push((index, before));
            } else {
                self.found[index].1 = Local::Opaque(Opaque::Unread);
            }
        }
        let mut gone = Vec::new();
        for (index, read) in read_all(self.disk, &self.found, &to_read) {
            match read {
                Some(local) => self.found[index].1 = local,
                None => gone.push(index),
            }
        }
        gone.sort_unstable_by(|one, other| other.cmp(one));
        for index in gone {
            self.found.remove(index);
        }
        BTreeMap::from_iter(self.found)
    }
}

/// Names of a folder in the order of paths, and whether each is one or was made up for one that no
/// path can hold.
fn list(folder: &OwnedFd) -> Result<Vec<(String, bool)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder.as_fd())? {
        let entry = entry?;
        match entry.file_name().to_str() {
            Ok(name) if name == "." || name == ".." || name.starts_with(RESERVED_PREFIX) => {}
            Ok(name) => names.push((name.to_owned(), true)),
            Err(_) => names.push((made_up(entry.file_name()), false)),
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A name to tell of one that is not UTF-8, and is no other one's.
fn made_up(name: &CStr) -> String {
    let told = String::from_utf8_lossy(name.to_bytes()).replace('\0', "");
    let mut keep = told.len().min(LONGEST_NAME - 24);
    while !told.is_char_boundary(keep) {
        keep -= 1;
    }
    let hash = Sha256(Hasher::digest(name.to_bytes()).into()).hex();
    format!("{} (not UTF-8 {})", &told[..keep], &hash[..8])
}

/// Reads files side by side.
fn read_all(
    disk: &Disk,
    found: &[(RelPath, Local)],
    to_read: &[(usize, Option<Local>)],
) -> Vec<(usize, Option<Local>)> {
    let one = |(index, before): &(usize, Option<Local>)| {
        (*index, hash::read(disk, &found[*index].0, before.as_ref()))
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let readers = cores.min(READERS).min(to_read.len());
    if readers < 2 {
        return to_read.iter().map(one).collect();
    }
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::sync_channel(256);
    std::thread::scope(|scope| {
        for _ in 0..readers {
            let (send, next, one) = (send.clone(), &next, &one);
            scope.spawn(move || {
                while let Some(job) = to_read.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if send.send(one(job)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        receive.iter().collect()
    })
}
