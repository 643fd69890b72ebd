//! What is on the disk now, reading again only what may have changed.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::iter::Peekable;
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use super::super::model::{Local, LocalTree, Opaque, Stat, add_packed};
use super::super::path::{RESERVED_PREFIX, RelPath};
use super::super::ports::{FsError, Scope};
use super::{Disk, hash, ignore, stat_of};

/// Threads that read files at the same time.
const READERS: usize = 4;
/// Files after whose reading the results are taken.
const READ_AT_ONCE: usize = 4096;
/// Entries that are put into the tree at a time.
const ADD_AT_ONCE: usize = 16_384;
/// Folders inside one another: deeper ones are longer than a path may be.
const DEEPEST: usize = 2048;

/// The tree as it is now. `tree` is changed where the disk has changed, so that nothing is held
/// twice.
pub(super) fn scan(disk: &Disk, mut tree: LocalTree, scope: &Scope) -> Result<LocalTree, FsError> {
    let found = match scope {
        Scope::All => {
            let mut walk = Walk::new(disk, tree.iter_mut());
            walk.folder(&disk.root.duplicate().map_err(super::error)?, 0)?;
            walk.end()
        }
        Scope::Only(places) => only(disk, &mut tree, places)?,
    };
    // First, so that what is new is not read twice.
    read_again(disk, &mut tree)?;
    found.put_into(disk, &mut tree);
    Ok(tree)
}

/// Looks at some places, and where nothing could be said at the last look.
fn only(disk: &Disk, tree: &mut LocalTree, places: &BTreeSet<RelPath>) -> Result<Found, FsError> {
    let mut look: BTreeSet<RelPath> = places.iter().map(|place| known_place(tree, place)).collect();
    look.extend(unsettled(tree).cloned());
    let mut covered: Option<RelPath> = None;
    let mut found = Found::default();
    for place in look {
        if covered.as_ref().is_some_and(|folder| place.is_inside(folder)) {
            continue;
        }
        found.join(at(disk, tree, &place)?);
        covered = Some(place);
    }
    Ok(found)
}

/// Looks at one place and what is below it.
fn at(disk: &Disk, tree: &mut LocalTree, place: &RelPath) -> Result<Found, FsError> {
    let there = |path: &RelPath| path == place || path.is_inside(place);
    let before = tree.range_mut::<RelPath, _>(place..).take_while(|(path, _)| there(path));
    let mut walk = Walk::new(disk, before);
    walk.place(place)?;
    Ok(walk.end())
}

/// Reads the files that are marked: those that have changed, and those whose last reading may have
/// been overtaken. There may be many; only some of them are looked at a time.
fn read_again(disk: &Disk, tree: &mut LocalTree) -> Result<(), FsError> {
    let mut odd = Vec::new();
    let mut after: Bound<RelPath> = Bound::Unbounded;
    loop {
        let marked = |(path, local): (&RelPath, &Local)| match local {
            Local::File { racy: true, .. } => Some(path.clone()),
            Local::File { .. } | Local::Directory { .. } | Local::Opaque(_) => None,
        };
        let rest = tree.range::<RelPath, _>((after.as_ref(), Bound::Unbounded));
        let some: Vec<RelPath> = rest.filter_map(marked).take(READ_AT_ONCE).collect();
        let Some(last) = some.last().cloned() else { break };
        let all: Vec<usize> = (0..some.len()).collect();
        for (index, read) in read_all(disk, |index| &some[index], &all, tree) {
            let path = &some[index];
            match read {
                None => drop(tree.remove(path)),
                // It may be a folder by now, or in another one.
                Some(Local::Opaque(Opaque::Unreadable | Opaque::Symlink)) => odd.push(path.clone()),
                Some(local) => drop(tree.insert(path.clone(), local)),
            }
        }
        after = Bound::Excluded(last);
    }
    for place in odd {
        tree.remove(&place);
        at(disk, tree, &place)?.put_into(disk, tree);
    }
    Ok(())
}

fn unsettled(tree: &LocalTree) -> impl Iterator<Item = &RelPath> {
    tree.iter().filter_map(|(path, local)| match local {
        Local::Opaque(Opaque::Unsettled | Opaque::Unreadable | Opaque::Suspicious) => Some(path),
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

/// One pass over the disk beside what was seen before, both in the order of paths.
struct Walk<'d, 't, I: Iterator<Item = (&'t RelPath, &'t mut Local)>> {
    disk: &'d Disk,
    before: Peekable<I>,
    /// The path at which the walk is, as a key.
    at: String,
    found: Found,
}

/// An entry that was seen before.
type Known<'t> = (&'t RelPath, &'t mut Local);

/// What a walk has to say of the tree, besides what it has changed in it already.
#[derive(Default)]
struct Found {
    /// Entries that were not there, and files where something else was.
    entries: Vec<(RelPath, Local)>,
    /// Which of them have to be read.
    to_read: Vec<usize>,
    /// What is not there any more.
    gone: Vec<RelPath>,
    /// Folders of which it is not known what they hold.
    closed: Vec<RelPath>,
}

impl<'d, 't, I: Iterator<Item = Known<'t>>> Walk<'d, 't, I> {
    fn new(disk: &'d Disk, before: I) -> Self {
        let before = before.peekable();
        Self { disk, before, at: String::new(), found: Found::default() }
    }

    /// What was seen before and did not come up again is gone.
    fn end(mut self) -> Found {
        self.found.gone.extend(self.before.map(|(path, _)| path.clone()));
        self.found
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
            Err(Errno::NOENT) => {
                self.found.gone.extend(before.map(|(path, _)| path.clone()));
                return Ok(());
            }
            Err(errno) => return Err(super::error(errno)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let stat = stat_of(&stat);
        let opaque = if stat.dev != self.disk.dev {
            Opaque::Mount
        } else if ignore::is_ignored(name) {
            Opaque::Ignored
        } else {
            match kind {
                FileType::Directory => {
                    self.directory(folder, name, before, stat, depth);
                    return Ok(());
                }
                FileType::RegularFile => {
                    self.file(before, stat);
                    return Ok(());
                }
                FileType::Symlink => Opaque::Symlink,
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => Opaque::Special,
            }
        };
        self.note(before, Local::Opaque(opaque));
        Ok(())
    }

    fn file(&mut self, before: Option<Known<'t>>, stat: Stat) {
        match before {
            // A mark, for it is read later.
            Some((_, Local::File { stat: known, racy, .. })) => *racy |= *known != stat,
            before => {
                let path = before.map(|(path, _)| path.clone());
                if let Some(path) = path.or_else(|| self.path()) {
                    self.found.to_read.push(self.found.entries.len());
                    self.found.entries.push((path, Local::Opaque(Opaque::Unsettled)));
                }
            }
        }
    }

    fn directory(
        &mut self,
        folder: &OwnedFd,
        name: &str,
        before: Option<Known<'t>>,
        stat: Stat,
        depth: usize,
    ) {
        let index = self.found.entries.len();
        let Some(known) = self.note(before, Local::Directory { stat }) else { return };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
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
        self.found.entries.truncate(index);
        self.found.to_read.retain(|at| *at < index);
        match known {
            Noted::Before((path, local)) => {
                *local = Local::Opaque(why);
                self.found.closed.push(path.clone());
            }
            Noted::New(path) => self.found.entries.push((path, Local::Opaque(why))),
        }
    }

    /// What was here at the last look. What stood before it did not come up again.
    fn seen_before(&mut self) -> Option<Known<'t>> {
        while let Some((path, _)) = self.before.next_if(|(path, _)| path.key() < self.at.as_str()) {
            self.found.gone.push(path.clone());
        }
        self.before.next_if(|(path, _)| path.key() == self.at)
    }

    /// This is here now. `None`: its path is too long to be one of a drive.
    fn note(&mut self, before: Option<Known<'t>>, local: Local) -> Option<Noted<'t>> {
        if let Some((path, known)) = before {
            *known = local;
            return Some(Noted::Before((path, known)));
        }
        let path = self.path()?;
        self.found.entries.push((path.clone(), local));
        Some(Noted::New(path))
    }

    /// The path of the walk, if it can be one of a drive.
    fn path(&self) -> Option<RelPath> {
        RelPath::from_key(&self.at).ok()
    }
}

/// Where an entry was noted.
enum Noted<'t> {
    /// Where it was before.
    Before(Known<'t>),
    /// Among the new ones.
    New(RelPath),
}

impl Found {
    fn join(&mut self, other: Self) {
        let before = self.entries.len();
        self.entries.extend(other.entries);
        self.to_read.extend(other.to_read.into_iter().map(|index| before + index));
        self.gone.extend(other.gone);
        self.closed.extend(other.closed);
    }

    /// Reads what has to be read, and brings the tree up to date.
    fn put_into(self, disk: &Disk, tree: &mut LocalTree) {
        let Self { mut entries, to_read, mut gone, closed } = self;
        let mut vanished = Vec::new();
        for some in to_read.chunks(READ_AT_ONCE) {
            for (index, read) in read_all(disk, |index| &entries[index].0, some, tree) {
                match read {
                    Some(local) => entries[index].1 = local,
                    None => vanished.push(index),
                }
            }
        }
        vanished.sort_unstable();
        gone.extend(vanished.into_iter().rev().map(|index| entries.swap_remove(index).0));
        for path in gone {
            tree.remove(&path);
        }
        for folder in closed {
            let inside = (Bound::Excluded(&folder), Bound::Unbounded);
            let inside = tree.range::<RelPath, _>(inside).map(|(path, _)| path);
            let inside: Vec<RelPath> =
                inside.take_while(|path| path.is_inside(&folder)).cloned().collect();
            for path in inside {
                tree.remove(&path);
            }
        }
        add(tree, entries);
    }
}

/// Adds many entries without having them twice: some of them at a time, from the end.
fn add(tree: &mut LocalTree, mut entries: Vec<(RelPath, Local)>) {
    while !entries.is_empty() {
        let some = entries.split_off(entries.len().saturating_sub(ADD_AT_ONCE));
        entries.shrink_to_fit();
        add_packed(tree, some);
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

/// Reads files side by side. `tree` has what was there before.
fn read_all<'p>(
    disk: &Disk,
    path_of: impl Fn(usize) -> &'p RelPath + Sync,
    to_read: &[usize],
    tree: &LocalTree,
) -> Vec<(usize, Option<Local>)> {
    let one = |index: &usize, reader: &mut hash::Reader| {
        let path = path_of(*index);
        (*index, reader.read(disk, path, tree.get(path)))
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let readers = cores.min(READERS).min(to_read.len());
    if readers < 2 {
        let mut reader = hash::Reader::default();
        return to_read.iter().map(|index| one(index, &mut reader)).collect();
    }
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::sync_channel(256);
    std::thread::scope(|scope| {
        for _ in 0..readers {
            let (send, next, one) = (send.clone(), &next, &one);
            scope.spawn(move || {
                let mut reader = hash::Reader::default();
                while let Some(index) = to_read.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if send.send(one(index, &mut reader)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        receive.iter().collect()
    })
}
