//! A disk in memory that forgets at a loss of power what was not made durable.
//!
//! Links (names in folders) and bytes are kept twice: as programs see them, and as they would be
//! found after a loss of power. What lies between is a journal of link changes, each of them atomic,
//! and the unsynced bytes of single files.

use std::collections::{BTreeMap, BTreeSet};

use crate::drive_sync::model::Stat;
use crate::drive_sync::planted::{Bug, planted};

use super::chance::Chance;

/// Number of an inode.
pub(super) type Ino = u64;
/// A name in a folder.
pub(super) type Link = (Ino, String);

/// The folder that stands for all that is outside the roots.
pub(super) const OUTSIDE: Ino = 3;
/// Where displaced files go.
pub(super) const TRASH: Ino = 2;
pub(super) const FOREIGN: Ino = 4;
const FIRST: Ino = 10;
/// Clocks of file systems are this coarse.
const GRAIN: i64 = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    File,
    Directory,
    Symlink,
    Special,
}

#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) sort: Sort,
    pub(super) bytes: Vec<u8>,
    /// The bytes after a loss of power; `None` when they are anything.
    synced: Option<Vec<u8>>,
    pub(super) executable: bool,
    pub(super) unreadable: bool,
    /// Bytes that nobody wrote, after a loss of power.
    pub(super) suspicious: bool,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
}

/// An atomic change of links: what each was and what it is then.
type Move = Vec<(Link, Option<Ino>, Option<Ino>)>;

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) inodes: BTreeMap<Ino, Inode>,
    links: BTreeMap<Link, Ino>,
    durable: BTreeMap<Link, Ino>,
    journal: Vec<Move>,
    next: Ino,
    free: Vec<Ino>,
    pub(super) dev: u32,
    /// The folder that stands at the root's place now.
    pub(super) root: Ino,
    /// The drive's own.
    home: Ino,
    /// Markers by root.
    pub(super) markers: BTreeMap<Ino, (String, String)>,
    /// Files that programs hold open.
    pub(super) open: Vec<Ino>,
    /// Files that are being sent.
    pub(super) reading: Vec<Ino>,
    trashed: u64,
    /// Downloads under way: bytes, and how many of them are durable.
    pub(super) staged: BTreeMap<String, Vec<u8>>,
    pub(super) full: bool,
}

impl Disk {
    pub(super) fn new(dev: u32) -> Self {
        let mut disk = Self {
            inodes: BTreeMap::new(),
            links: BTreeMap::new(),
            durable: BTreeMap::new(),
            journal: Vec::new(),
            next: FIRST,
            free: Vec::new(),
            dev,
            root: 1,
            home: 1,
            markers: BTreeMap::new(),
            open: Vec::new(),
            reading: Vec::new(),
            trashed: 0,
            staged: BTreeMap::new(),
            full: false,
        };
        for ino in [1, TRASH, OUTSIDE, FOREIGN] {
            disk.inodes.insert(ino, Inode::new(Sort::Directory, Vec::new(), 0));
        }
        for (folder, name) in [(OUTSIDE, "a"), (OUTSIDE, "b"), (FOREIGN, "a"), (FOREIGN, "x")] {
            let ino = disk.inode(Sort::File, format!("outside {name}").into_bytes(), 0);
            disk.links.insert((folder, name.to_owned()), ino);
        }
        disk.durable = disk.links.clone();
        for inode in disk.inodes.values_mut() {
            inode.synced = Some(inode.bytes.clone());
        }
        disk
    }

    /// Another folder stands at the root's place, or the drive's own again.
    pub(super) fn lose_root(&mut self, lost: bool) {
        self.root = if lost { FOREIGN } else { self.home };
    }

    /// The drive's own root, wherever it is mounted now.
    pub(super) fn home(&self) -> Ino {
        self.home
    }

    pub(super) fn root_is_home(&self) -> bool {
        self.root == self.home
    }

    // ------------------------------------------------------------ looking

    pub(super) fn at(&self, folder: Ino, name: &str) -> Option<Ino> {
        self.links.get(&(folder, name.to_owned())).copied()
    }

    /// The folder and name of a path, if its folders are folders.
    pub(super) fn place(&self, path: &str) -> Option<Link> {
        let (folders, name) = path.rsplit_once('/').map_or((None, path), |(f, n)| (Some(f), n));
        let mut folder = self.root;
        for part in folders.into_iter().flat_map(|folders| folders.split('/')) {
            let ino = self.at(folder, part)?;
            folder = match self.inodes[&ino].sort {
                Sort::Directory if !self.inodes[&ino].unreadable => ino,
                Sort::Symlink if planted(Bug::FollowsLinks) => OUTSIDE,
                Sort::Symlink | Sort::File | Sort::Special | Sort::Directory => return None,
            };
        }
        Some((folder, name.to_owned()))
    }

    pub(super) fn find(&self, path: &str) -> Option<Ino> {
        self.links.get(&self.place(path)?).copied()
    }

    pub(super) fn inside(&self, folder: Ino) -> Vec<(String, Ino)> {
        self.links
            .range((folder, String::new())..(folder + 1, String::new()))
            .map(|((_, name), ino)| (name.clone(), *ino))
            .collect()
    }

    /// All below a folder, folders before what is in them.
    pub(super) fn walk(&self, folder: Ino) -> Vec<(String, Ino)> {
        let mut found = Vec::new();
        Self::walk_into(&self.links, &self.inodes, folder, "", &mut found);
        found
    }

    fn walk_into(
        links: &BTreeMap<Link, Ino>,
        inodes: &BTreeMap<Ino, Inode>,
        folder: Ino,
        before: &str,
        found: &mut Vec<(String, Ino)>,
    ) {
        for ((_, name), ino) in links.range((folder, String::new())..(folder + 1, String::new())) {
            let path = if before.is_empty() { name.clone() } else { format!("{before}/{name}") };
            found.push((path.clone(), *ino));
            if inodes[ino].sort == Sort::Directory {
                Self::walk_into(links, inodes, *ino, &path, found);
            }
        }
    }

    pub(super) fn stat(&self, ino: Ino) -> Stat {
        let inode = &self.inodes[&ino];
        Stat {
            dev: self.dev,
            ino,
            size: inode.bytes.len() as u64,
            mtime: inode.mtime,
            ctime: inode.ctime,
            mode: match (inode.sort, inode.executable) {
                (Sort::Directory, _) => 0o040_755,
                (_, true) => 0o100_755,
                (_, false) => 0o100_644,
            },
        }
    }

    /// Bytes of files that would be there after a loss of power, whichever way it goes.
    pub(super) fn surely_kept(&self) -> BTreeSet<Vec<u8>> {
        let mut found = Vec::new();
        for folder in [self.home, TRASH] {
            Self::walk_into(&self.durable, &self.inodes, folder, "", &mut found);
        }
        // A name that was taken away may be gone with the power, and its file with it.
        let removed = |ino: &Ino| {
            self.journal.iter().any(|change| {
                change.iter().any(|(_, before, _)| *before == Some(*ino))
                    && change.iter().all(|(_, _, after)| *after != Some(*ino))
            })
        };
        let inodes = found.iter().filter(|(_, ino)| !removed(ino));
        inodes
            .filter_map(|(_, ino)| self.inodes.get(ino))
            .filter(|inode| inode.sort == Sort::File && inode.is_synced())
            .map(|inode| inode.bytes.clone())
            .collect()
    }

    // ------------------------------------------------------------ changing

    pub(super) fn inode(&mut self, sort: Sort, bytes: Vec<u8>, now: i64) -> Ino {
        // Numbers are used again, as on real disks.
        let ino = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        self.inodes.insert(ino, Inode::new(sort, bytes, now));
        ino
    }

    /// Changes links, all at once.
    fn relink(&mut self, changes: Vec<(Link, Option<Ino>)>, now: i64) {
        let mut done = Move::new();
        for (link, after) in changes {
            let before = match after {
                Some(ino) => self.links.insert(link.clone(), ino),
                None => self.links.remove(&link),
            };
            for ino in after.iter().chain([&link.0]) {
                self.inodes.get_mut(ino).unwrap().ctime = grain(now);
            }
            self.inodes.get_mut(&link.0).unwrap().mtime = grain(now);
            done.push((link, before, after));
        }
        self.journal.push(done);
    }

    pub(super) fn link(&mut self, place: &Link, ino: Ino, now: i64) {
        self.relink(vec![(place.clone(), Some(ino))], now);
    }

    pub(super) fn unlink(&mut self, place: &Link, now: i64) {
        let ino = self.links[place];
        self.relink(vec![(place.clone(), None)], now);
        self.drop_if_gone(ino);
    }

    /// Replaces what is there.
    pub(super) fn rename(&mut self, from: &Link, to: &Link, now: i64) {
        let ino = self.links[from];
        let gone = self.links.get(to).copied();
        self.relink(vec![(from.clone(), None), (to.clone(), Some(ino))], now);
        if let Some(gone) = gone {
            self.drop_if_gone(gone);
        }
    }

    /// A new link to `ino` at `place`, and what was there to another place.
    pub(super) fn exchange(&mut self, place: &Link, ino: Ino, to: &Link, now: i64) {
        let old = self.links[place];
        self.relink(vec![(place.clone(), Some(ino)), (to.clone(), Some(old))], now);
    }

    pub(super) fn trash_place(&mut self) -> Link {
        self.trashed += 1;
        (TRASH, format!("{:06}", self.trashed))
    }

    fn drop_if_gone(&mut self, ino: Ino) {
        let linked = self.links.values().chain(self.durable.values()).any(|one| *one == ino);
        let pending =
            self.journal.iter().flatten().any(|(_, b, a)| *b == Some(ino) || *a == Some(ino));
        if !linked && !pending && !self.open.contains(&ino) && !self.reading.contains(&ino) {
            self.inodes.remove(&ino);
            self.free.push(ino);
        }
    }

    pub(super) fn write(&mut self, ino: Ino, bytes: Vec<u8>, now: i64) {
        let inode = self.inodes.get_mut(&ino).unwrap();
        inode.bytes = bytes;
        inode.suspicious = false;
        self.touch(ino, now);
    }

    pub(super) fn touch(&mut self, ino: Ino, now: i64) {
        let inode = self.inodes.get_mut(&ino).unwrap();
        (inode.mtime, inode.ctime) = (grain(now), grain(now));
    }

    pub(super) fn set_mode(&mut self, ino: Ino, executable: bool, now: i64) {
        let inode = self.inodes.get_mut(&ino).unwrap();
        inode.executable = executable;
        inode.ctime = grain(now);
    }

    // ------------------------------------------------------------ durability

    pub(super) fn sync_bytes(&mut self, ino: Ino) {
        let inode = self.inodes.get_mut(&ino).unwrap();
        inode.synced = Some(inode.bytes.clone());
    }

    /// Makes the links of a folder durable, and those on the way to it.
    pub(super) fn sync_links(&mut self, folder: Ino) {
        let mut wanted: BTreeSet<Link> = BTreeSet::new();
        let mut up = folder;
        while let Some((link, _)) = self.links.iter().find(|(_, ino)| **ino == up) {
            wanted.insert(link.clone());
            up = link.0;
        }
        // No journal keeps a name in a folder that it does not keep: a rename takes the making of the
        // folder that it goes to along.
        let mut folders: BTreeSet<Ino> = BTreeSet::new();
        let mut taken = vec![false; self.journal.len()];
        for (index, change) in self.journal.iter().enumerate().rev() {
            let touches = |(link, _, after): &(Link, Option<Ino>, Option<Ino>)| {
                link.0 == folder
                    || wanted.contains(link)
                    || after.is_some_and(|ino| folders.contains(&ino))
            };
            if change.iter().any(touches) {
                taken[index] = true;
                wanted.extend(change.iter().map(|(link, ..)| link.clone()));
                let filled = change.iter().filter(|(.., after)| after.is_some());
                folders.extend(filled.map(|(link, ..)| link.0));
            }
        }
        let mut taken = taken.into_iter();
        for change in std::mem::take(&mut self.journal) {
            if taken.next() == Some(true) {
                Self::keep(&mut self.durable, &change);
            } else {
                self.journal.push(change);
            }
        }
    }

    fn keep(durable: &mut BTreeMap<Link, Ino>, change: &Move) {
        for (link, _, after) in change {
            match after {
                Some(ino) => durable.insert(link.clone(), *ino),
                None => durable.remove(link),
            };
        }
    }

    /// Power is lost and comes back: every pending change of a link is there or not, every file's
    /// unsynced bytes are there, or not, or are rubbish.
    pub(super) fn lose_power(&mut self, chance: &mut Chance) {
        for change in std::mem::take(&mut self.journal) {
            // No journal keeps a name in a folder that it does not keep.
            let kept = |folder: Ino| {
                [self.home, TRASH, OUTSIDE, FOREIGN].contains(&folder)
                    || self.durable.values().any(|ino| *ino == folder)
            };
            let fits = change.iter().all(|(link, before, after)| {
                self.durable.get(link).copied() == *before && (after.is_none() || kept(link.0))
            });
            if fits && chance.one_in(2) {
                Self::keep(&mut self.durable, &change);
            }
        }
        self.links = self.durable.clone();
        self.open.clear();
        for inode in self.inodes.values_mut().filter(|inode| !inode.is_synced()) {
            match chance.below(4) {
                0 => {}
                1 if inode.synced.is_some() => {
                    inode.bytes = inode.synced.clone().unwrap();
                    // Rubbish of an earlier loss is rubbish still.
                    inode.suspicious = inode.bytes.iter().all(|byte| *byte == 0);
                }
                2 => inode.rot(Vec::new()),
                _ => inode.rot(vec![0; inode.bytes.len()]),
            }
        }
        let linked: BTreeSet<Ino> = self.links.values().copied().collect();
        let roots = [self.home, TRASH, OUTSIDE, FOREIGN];
        self.inodes.retain(|ino, _| linked.contains(ino) || roots.contains(ino));
        // Folders that lost their own name take what is in them along.
        loop {
            let inodes = &self.inodes;
            let before = self.links.len();
            self.links.retain(|(folder, _), _| inodes.contains_key(folder));
            let linked: BTreeSet<Ino> = self.links.values().copied().collect();
            self.inodes.retain(|ino, _| linked.contains(ino) || roots.contains(ino));
            if self.links.len() == before {
                break;
            }
        }
        self.durable = self.links.clone();
        for inode in self.inodes.values_mut() {
            inode.synced = Some(inode.bytes.clone());
        }
        self.free.clear();
        for bytes in self.staged.values_mut() {
            bytes.truncate(chance.below(bytes.len() as u64 + 1) as usize);
        }
    }
}

impl Inode {
    fn new(sort: Sort, bytes: Vec<u8>, now: i64) -> Self {
        Self {
            sort,
            bytes,
            synced: None,
            executable: false,
            unreadable: false,
            suspicious: false,
            mtime: grain(now),
            ctime: grain(now),
        }
    }

    pub(super) fn is_synced(&self) -> bool {
        self.sort != Sort::File || self.synced.as_deref() == Some(&self.bytes)
    }

    fn rot(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
        self.suspicious = true;
    }
}

pub(super) fn grain(now: i64) -> i64 {
    now / GRAIN * GRAIN
}
