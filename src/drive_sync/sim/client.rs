//! One client of the world: its disk, its engine, its line to the server, and who works there.

use std::collections::{BTreeMap, BTreeSet};

use crate::drive_sync::model::{Content, EntryId, VersionId};
use crate::drive_sync::path::RelPath;

use super::actions::Line;
use super::disk::{Disk, Ino, Link, Sort};
use super::ledger::Left;
use super::world::Fault;
use super::{hash, machine};

/// A file that has been displaced.
#[derive(Debug, Clone)]
pub(super) struct Limbo {
    pub(super) path: RelPath,
    pub(super) aside: Link,
    pub(super) ino: Ino,
    pub(super) expected: [Content; 2],
}

pub(super) struct Client {
    pub(super) disk: Disk,
    pub(super) machine: Option<machine::Machine>,
    /// The engine knows which root is its own.
    pub(super) bound: bool,
    /// Crashed inside a tick: every call is answered with [`Stop`].
    pub(super) dead: bool,
    /// What the watcher would tell.
    pub(super) dirty: BTreeSet<RelPath>,
    /// What people have changed in the action at hand.
    pub(super) changed: Vec<String>,
    pub(super) outage: u32,
    pub(super) retry_after: bool,
    pub(super) faults: Vec<Fault>,
    pub(super) read_only: bool,
    /// Since the last rest.
    pub(super) was_read_only: bool,
    pub(super) access_lost: bool,
    /// Versions that this client was told of.
    pub(super) told: BTreeSet<(EntryId, VersionId)>,
    /// Paths of effects in the tick at hand.
    pub(super) effects: Vec<String>,
    pub(super) effect_count: u64,
    pub(super) calls: u64,
    /// An editor that saves by rename: its new file, its target, what it had read.
    pub(super) saving: Option<(String, String, Vec<u8>)>,
    /// Where files in the trash came from.
    pub(super) displaced: BTreeMap<Ino, String>,
    /// Displaced and not looked at yet: where from, where it is, what it may be.
    pub(super) limbo: Vec<Limbo>,
    /// What takes no part and only people may remove.
    pub(super) opaque: BTreeMap<Ino, String>,
}

impl Client {
    pub(super) fn new(index: usize) -> Self {
        Self {
            disk: Disk::new(40 + index as u32),
            machine: None,
            dead: false,
            bound: false,
            dirty: BTreeSet::new(),
            changed: Vec::new(),
            outage: 0,
            retry_after: false,
            faults: Vec::new(),
            read_only: false,
            was_read_only: false,
            access_lost: false,
            told: BTreeSet::new(),
            effects: Vec::new(),
            effect_count: 0,
            calls: 0,
            saving: None,
            displaced: BTreeMap::new(),
            limbo: Vec::new(),
            opaque: BTreeMap::new(),
        }
    }

    /// An engine has begun to change something there.
    pub(super) fn begun(&mut self, path: &RelPath) {
        self.effects.push(path.to_string());
    }

    pub(super) fn begin_tick(&mut self) {
        self.effects.clear();
        self.calls = 0;
    }

    pub(super) fn line(&mut self, line: &Line) {
        match *line {
            Line::Outage { calls, retry_after } => {
                self.outage = calls;
                self.retry_after = retry_after;
            }
            Line::Fault(fault) => self.faults.push(fault),
            Line::ReadOnly { on } => {
                self.read_only = on;
                self.was_read_only |= on;
            }
            Line::AccessLost { on } => self.access_lost = on,
        }
    }

    /// The line is good again, and the disk has room.
    pub(super) fn mend(&mut self) {
        self.outage = 0;
        self.faults.clear();
        self.read_only = false;
        self.access_lost = false;
        self.disk.full = false;
        self.disk.lose_root(false);
    }

    /// What stands at a path.
    pub(super) fn left(&self, path: &str) -> Left {
        match self.disk.find(path) {
            // Nobody can look into a folder that is not readable.
            None if self.paths().contains_key(path) => Left::Other,
            None => Left::Gone,
            Some(ino) => self.left_of(ino),
        }
    }

    pub(super) fn left_of(&self, ino: Ino) -> Left {
        let inode = &self.disk.inodes[&ino];
        match inode.sort {
            Sort::File if inode.suspicious => Left::Other,
            Sort::File => Left::File(hash(&inode.bytes), inode.executable),
            Sort::Directory => Left::Directory,
            Sort::Symlink | Sort::Special => Left::Other,
        }
    }

    /// All that stands on the drive's own folder.
    pub(super) fn paths(&self) -> BTreeMap<String, Left> {
        let all = self.disk.walk(self.disk.home()).into_iter();
        all.map(|(path, ino)| (path, self.left_of(ino))).collect()
    }

    pub(super) fn note_displaced(&mut self, paths: &[String]) {
        let Some(path) = paths.first() else { return };
        for (_, ino) in self.disk.inside(super::disk::TRASH) {
            self.displaced.entry(ino).or_insert_with(|| path.clone());
        }
    }

    /// Whatever takes no part now was put there by people.
    pub(super) fn know_opaque(&mut self) {
        // An empty folder holds nothing unknown, whoever may look into it.
        let empty = |ino: Ino| {
            self.disk.inodes[&ino].sort == Sort::Directory && self.disk.inside(ino).is_empty()
        };
        let all = self.opaque_now().into_iter().filter(|(_, ino)| !empty(*ino));
        self.opaque = all.map(|(path, ino)| (ino, path)).collect();
    }

    /// What takes no part: the entry itself, and what is hidden below it.
    pub(super) fn opaque_now(&self) -> Vec<(String, Ino)> {
        let mut found: Vec<(String, Ino)> = Vec::new();
        let mut hidden: Option<String> = None;
        for (path, ino) in self.disk.walk(self.disk.home()) {
            let inode = &self.disk.inodes[&ino];
            let below = hidden.as_ref().is_some_and(|hidden| path.starts_with(hidden));
            let ignored = path.rsplit('/').next().is_some_and(super::fs::is_ignored);
            let special = matches!(inode.sort, Sort::Symlink | Sort::Special);
            if below || ignored || special || inode.unreadable || inode.suspicious {
                if !below {
                    hidden = Some(format!("{path}/"));
                }
                found.push((path, ino));
            }
        }
        found
    }
}
