//! What is on the disk now, reading again only what may have changed.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::iter::Peekable;
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256 as Hasher};

use super::super::model::{Local, LocalTree, Opaque, Sha256, Stat, add_packed};
use super::super::path::{LONGEST_NAME, PathError, RESERVED_PREFIX, RelPath};
use super::super::ports::{FsError, Scope};
use super::entries::Entries;
use super::hash::Outcome;
use super::reading::Large;
use super::{Disk, ignore, stat_of};

/// Files after whose reading the results are taken.
const READ_AT_ONCE: usize = 4096;
/// Folders inside one another: each that is open takes a descriptor and a piece of the stack.
const DEEPEST: usize = 512;

/// The tree as it is now. `tree` is changed where the disk has changed, so that nothing is held
/// twice.
pub(super) fn scan(disk: &Disk, mut tree: LocalTree, scope: &Scope) -> Result<LocalTree, FsError> {
    let mut found = match scope {
        Scope::All => {
            let mut walk = Walk::new(disk, tree.iter_mut());
            walk.folder(&disk.root.duplicate().map_err(super::error)?, 0)?;
            walk.end()
        }
        Scope::Only(places) => only(disk, &mut tree, places)?,
    };
    // What is not there, or not known, is not read; and what is new is not read twice.
    found.take_away(&mut tree);
    let mut large = Large::default();
    read_again(disk, &mut tree, &mut large)?;
    found.put_into(disk, &mut tree, &mut large);
    large.put_into(disk, &mut tree);
    // What was not read because of that does not look as it is.
    if disk.is_stopped() { Err(FsError::Stopped) } else { Ok(tree) }
}

/// Looks at some places, and where nothing could be said at the last look.
fn only(disk: &Disk, tree: &mut LocalTree, places: &BTreeSet<RelPath>) -> Result<Found, FsError> {
    let mut look: BTreeSet<RelPath> =
        places.iter().map(|place| reachable(disk, known_place(tree, place))).collect();
    look.extend(unsettled(tree).map(|place| reachable(disk, place.clone())));
    at_all(disk, tree, look)
}

/// Looks at places that can be looked at.
fn at_all(disk: &Disk, tree: &mut LocalTree, look: BTreeSet<RelPath>) -> Result<Found, FsError> {
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
fn read_again(disk: &Disk, tree: &mut LocalTree, large: &mut Large) -> Result<(), FsError> {
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
        for (index, outcome) in large.read_others(disk, |index| &some[index], &all, tree) {
            let path = &some[index];
            match outcome {
                Outcome::Gone => drop(tree.remove(path)),
                Outcome::Large(size) => large.put_off(path.clone(), size),
                // It may be a folder by now, or in another one.
                Outcome::Is(Local::Opaque(Opaque::Unreadable | Opaque::Symlink)) => {
                    odd.push(path.clone());
                }
                Outcome::Is(local) => drop(tree.insert(path.clone(), local)),
            }
        }
        after = Bound::Excluded(last);
    }
    if disk.is_stopped() {
        return Err(FsError::Stopped);
    }
    for place in &odd {
        tree.remove(place);
    }
    let look = odd.into_iter().map(|place| reachable(disk, place)).collect();
    let mut found = at_all(disk, tree, look)?;
    found.take_away(tree);
    found.put_into(disk, tree, large);
    Ok(())
}

fn unsettled(tree: &LocalTree) -> impl Iterator<Item = &RelPath> {
    tree.iter().filter_map(|(path, local)| match local {
        Local::Opaque(
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
    entries: Entries,
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
        for (name, is_real) in &names {
            if *is_real {
                self.entry(folder, name, depth + 1)?;
            } else {
                self.made_up(name);
            }
        }
        Ok(())
    }

    /// Something whose name no path can hold. It is told of where the made up one is not too long.
    fn made_up(&mut self, name: &str) {
        let length = self.enter(name);
        let before = self.seen_before();
        self.note(before, Local::Opaque(Opaque::Name)).ok();
        self.at.truncate(length);
    }

    fn entry(&mut self, folder: &OwnedFd, name: &str, depth: usize) -> Result<(), FsError> {
        let length = self.enter(name);
        let done = self.entry_at(folder, name, depth);
        self.at.truncate(length);
        done
    }

    /// Goes on to a name in the folder. Gives the length of the folder's key.
    fn enter(&mut self, name: &str) -> usize {
        let length = self.at.len();
        if length > 0 {
            self.at.push('\0');
        }
        self.at.push_str(name);
        length
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
                    return self.directory(folder, name, before, stat, depth);
                }
                FileType::RegularFile => {
                    return self.file(before, stat);
                }
                FileType::Symlink => Opaque::Symlink,
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => Opaque::Special,
            }
        };
        self.note(before, Local::Opaque(opaque)).map(drop)
    }

    fn file(&mut self, before: Option<Known<'t>>, stat: Stat) -> Result<(), FsError> {
        match before {
            Some((_, Local::File { stat: known, racy: false, .. })) if *known == stat => {}
            before if !self.disk.takes(stat.size) => {
                self.note(before, Local::Opaque(Opaque::TooLarge))?;
            }
            // A mark, for it is read later.
            Some((_, Local::File { racy, .. })) => *racy = true,
            before => {
                let path = match before {
                    Some((path, _)) => path.clone(),
                    None => self.path()?,
                };
                self.found.to_read.push(self.found.entries.len());
                self.found.entries.push(path, Local::Opaque(Opaque::Unsettled));
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        folder: &OwnedFd,
        name: &str,
        before: Option<Known<'t>>,
        stat: Stat,
        depth: usize,
    ) -> Result<(), FsError> {
        let index = self.found.entries.len();
        let known = self.note(before, Local::Directory { stat })?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(folder, name, flags, rustix::fs::Mode::empty())
            .and_then(|inner| Ok((stat_of(&rustix::fs::fstat(&inner)?), inner)));
        let why = match opened {
            // Another one than was looked at: it is seen at the next look.
            Ok((found, _)) if !found.same_inode(&stat) => Opaque::Unsettled,
            Ok((_, inner)) => match self.folder(&inner, depth) {
                Ok(()) => return Ok(()),
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
            Noted::New(path) => self.found.entries.push(path, Local::Opaque(why)),
        }
        Ok(())
    }

    /// What was here at the last look. What stood before it did not come up again.
    fn seen_before(&mut self) -> Option<Known<'t>> {
        while let Some((path, _)) = self.before.next_if(|(path, _)| path.key() < self.at.as_str()) {
            self.found.gone.push(path.clone());
        }
        self.before.next_if(|(path, _)| path.key() == self.at)
    }

    /// This is here now.
    fn note(&mut self, before: Option<Known<'t>>, local: Local) -> Result<Noted<'t>, FsError> {
        if let Some((path, known)) = before {
            *known = local;
            return Ok(Noted::Before((path, known)));
        }
        let path = self.path()?;
        self.found.entries.push(path.clone(), local);
        Ok(Noted::New(path))
    }

    /// The path of the walk. That it is too long to be one of a drive makes the folder unreadable: a
    /// folder that holds more than can be told of is not known.
    fn path(&self) -> Result<RelPath, FsError> {
        RelPath::from_key(&self.at).map_err(|_| FsError::Name(PathError::TooLong))
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
        for (path, local) in other.entries.into_pieces().flatten() {
            self.entries.push(path, local);
        }
        self.to_read.extend(other.to_read.into_iter().map(|index| before + index));
        self.gone.extend(other.gone);
        self.closed.extend(other.closed);
    }

    /// Removes what is not there, and what is in folders of which it is not known.
    fn take_away(&mut self, tree: &mut LocalTree) {
        for path in self.gone.drain(..) {
            tree.remove(&path);
        }
        for folder in self.closed.drain(..) {
            let inside = (Bound::Excluded(&folder), Bound::Unbounded);
            let inside = tree.range::<RelPath, _>(inside).map(|(path, _)| path);
            let inside: Vec<RelPath> =
                inside.take_while(|path| path.is_inside(&folder)).cloned().collect();
            for path in inside {
                tree.remove(&path);
            }
        }
    }

    /// Reads what is new and not large, and puts it into the tree.
    fn put_into(self, disk: &Disk, tree: &mut LocalTree, large: &mut Large) {
        let Self { mut entries, to_read, .. } = self;
        let mut not_read = Vec::new();
        for some in to_read.chunks(READ_AT_ONCE) {
            let read = large.read_others(disk, |index| entries.path(index), some, tree);
            for (index, outcome) in read {
                match outcome {
                    Outcome::Is(local) => entries.set(index, local),
                    Outcome::Large(size) => not_read.push((index, Some(size))),
                    Outcome::Gone => not_read.push((index, None)),
                }
            }
        }
        not_read.sort_unstable();
        let mut not_read = not_read.into_iter().rev().peekable();
        let mut first = entries.len();
        // From the end, each piece that has become part of the tree is let go.
        for mut piece in entries.into_pieces().rev() {
            first -= piece.len();
            while let Some((index, size)) = not_read.next_if(|(index, _)| *index >= first) {
                let (path, _) = piece.swap_remove(index - first);
                match size {
                    Some(size) => large.put_off(path, size),
                    None => drop(tree.remove(&path)),
                }
            }
            add_packed(tree, piece);
        }
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
