//! What is on the disk now, reading again only what may have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::iter::Peekable;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use super::super::model::{Local, LocalTree, Opaque, Stat};
use super::super::path::{RESERVED_PREFIX, RelPath};
use super::super::ports::{FsError, Scope};
use super::{Disk, hash, ignore, stat_of};

/// Threads that read files at the same time.
const READERS: usize = 4;
/// Folders inside one another: deeper ones are longer than a path may be.
const DEEPEST: usize = 2048;

/// The tree as it is now.
pub(super) fn scan(disk: &Disk, previous: LocalTree, scope: &Scope) -> Result<LocalTree, FsError> {
    match scope {
        Scope::All => {
            let mut walk = Walk::new(disk, previous.into_iter());
            walk.folder(&disk.root.duplicate().map_err(super::error)?, 0)?;
            Ok(walk.finish())
        }
        Scope::Only(places) => only(disk, previous, places),
    }
}

/// Looks at some places, and at files whose last reading may have been overtaken.
fn only(
    disk: &Disk,
    mut tree: LocalTree,
    places: &BTreeSet<RelPath>,
) -> Result<LocalTree, FsError> {
    let mut look: BTreeSet<RelPath> =
        places.iter().map(|place| known_place(&tree, place)).collect();
    look.extend(unsettled(&tree).cloned());
    let mut covered: Option<RelPath> = None;
    for place in look {
        if covered.as_ref().is_some_and(|folder| place.is_inside(folder)) {
            continue;
        }
        let before = take_subtree(&mut tree, &place);
        let mut walk = Walk::new(disk, before.into_iter());
        walk.place(&place)?;
        tree.append(&mut walk.finish());
        covered = Some(place);
    }
    Ok(tree)
}

fn unsettled(tree: &LocalTree) -> impl Iterator<Item = &RelPath> {
    tree.iter().filter_map(|(path, local)| match local {
        Local::File { racy: true, .. }
        | Local::Opaque(Opaque::Unsettled | Opaque::Unreadable | Opaque::Suspicious) => Some(path),
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
    /// Places in `found` that have to be read, with what was there before.
    to_read: Vec<(usize, Option<Local>)>,
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
        for name in &names {
            self.entry(folder, name, depth + 1)?;
        }
        Ok(())
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
        let Some(path) = self.path(before.as_ref()) else { return Ok(()) };
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
            before => {
                self.to_read.push((self.found.len(), before));
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
        self.to_read.retain(|(at, _)| *at < index);
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

    fn finish(mut self) -> LocalTree {
        drop(self.before);
        let mut gone = Vec::new();
        for (index, read) in read_all(self.disk, &self.found, &self.to_read) {
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

/// Names of a folder in the order of paths.
fn list(folder: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder.as_fd())? {
        let entry = entry?;
        if let Some(name) = own_name(entry.file_name()) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A name that can be one of a drive.
fn own_name(name: &CStr) -> Option<&str> {
    let name = name.to_str().ok()?;
    (name != "." && name != ".." && !name.starts_with(RESERVED_PREFIX)).then_some(name)
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
