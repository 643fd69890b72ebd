//! The nine invariants, each a function of its own over the whole world.

use std::collections::{BTreeMap, BTreeSet};

use crate::drive_sync::model::{Kind, Sha256};
use crate::drive_sync::path::RelPath;

use super::client::Client;
use super::disk::{OUTSIDE, Sort, TRASH};
use super::ledger::{Actor, Left};
use super::world::Sim;
use super::{fs, hash};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Invariant {
    /// 1. Every content anyone wrote is at its path, in a conflict copy or history, or replaced by
    ///    someone who had seen it.
    NothingWrittenIsLost,
    /// 2. At rest disk, server and base are the same, and the plan is empty exactly then.
    AtRestAllAgree,
    /// 3. The base never leads.
    BaseNeverLeads,
    /// 4. One version per operation id.
    OneVersionPerOperation,
    /// 5. Nothing outside the root changes.
    NothingOutsideChanges,
    /// 6. Readers see whole files.
    ReadersSeeWholeFiles,
    /// 7. Uncontested deletions stay.
    DeletionsStay,
    /// 8. No concurrency, no conflict copy.
    NoConflictAlone,
    /// 9. Unknown content is never removed.
    UnknownIsNeverRemoved,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) invariant: Invariant,
    pub(super) what: String,
}

/// A path and what is there: a file's hash and mode, or `None` for a folder.
pub(super) type Paths = BTreeMap<String, Option<(Sha256, bool)>>;

impl Sim {
    /// After every effect and every action of others.
    pub(super) fn check_step(&mut self, after: &str) {
        if !self.violations.is_empty() {
            return;
        }
        self.learn_facts();
        let found: Vec<_> = [
            (Invariant::NothingWrittenIsLost, self.lost()),
            (Invariant::OneVersionPerOperation, self.taken_twice()),
            (Invariant::NothingOutsideChanges, self.changed_outside()),
            (Invariant::ReadersSeeWholeFiles, self.torn()),
            (Invariant::UnknownIsNeverRemoved, self.unknown_gone()),
        ]
        .into_iter()
        .collect();
        for (invariant, problem) in found {
            if let Some(problem) = problem {
                self.violate(invariant, format!("{problem}, after {after}"));
            }
        }
    }

    // ------------------------------------------------------------ 1

    /// Every content that is at a path, at the server or in its history, or was written into a file
    /// that was in the trash already.
    pub(super) fn everywhere(&self) -> BTreeSet<Vec<u8>> {
        let mut all = self.in_sight();
        all.extend(self.server.tree.history.values().map(|(_, bytes)| bytes.clone()));
        all
    }

    /// Without the history.
    fn in_sight(&self) -> BTreeSet<Vec<u8>> {
        let mut all = BTreeSet::new();
        for client in &self.clients {
            let disk = &client.disk;
            let files = disk.walk(disk.home()).into_iter().map(|(_, ino)| &disk.inodes[&ino]);
            all.extend(files.filter(|inode| inode.sort == Sort::File).map(|i| i.bytes.clone()));
            let trash = disk.inside(TRASH).into_iter().map(|(_, ino)| &disk.inodes[&ino]);
            all.extend(
                trash
                    .filter(|inode| self.ledger.late.contains(&inode.bytes))
                    .map(|inode| inode.bytes.clone()),
            );
            // An engine at work has just taken it away, and looks at it in a moment.
            all.extend(
                client.limbo.iter().filter_map(|limbo| {
                    disk.inodes.get(&limbo.ino).map(|inode| inode.bytes.clone())
                }),
            );
        }
        all.extend(self.server.tree.entries.values().map(|node| node.bytes.clone()));
        all
    }

    fn lost(&self) -> Option<String> {
        let all = self.everywhere();
        let lost = self.ledger.live.iter().find(|bytes| !all.contains(*bytes))?;
        Some(format!("{:?} is nowhere", String::from_utf8_lossy(lost)))
    }

    /// At rest nobody needs the history for what nobody has replaced.
    pub(super) fn check_nothing_out_of_sight(&mut self) {
        let all = self.in_sight();
        let lost = self
            .ledger
            .live
            .iter()
            .find(|bytes| !all.contains(*bytes) && !self.ledger.covered.contains(*bytes));
        if let Some(lost) = lost {
            let what = format!("{:?} is in the history only", String::from_utf8_lossy(lost));
            self.violate(Invariant::NothingWrittenIsLost, what);
        }
    }

    // ------------------------------------------------------------ 3

    pub(super) fn learn_facts(&mut self) {
        for (index, client) in self.clients.iter().enumerate() {
            let facts = self.ledger.facts.entry(index).or_default();
            let disk = &client.disk;
            for (path, ino) in disk.walk(disk.home()) {
                let inode = &disk.inodes[&ino];
                match inode.sort {
                    Sort::File if inode.is_synced() && !inode.suspicious => {
                        facts.insert((path, Some((hash(&inode.bytes), inode.executable))));
                    }
                    Sort::Directory => {
                        facts.insert((path, None));
                    }
                    Sort::File | Sort::Symlink | Sort::Special => {}
                }
            }
        }
    }

    /// Every row of the base was once true on the disk, durably, and at the server.
    pub(super) fn check_base(&mut self, client: usize, base: &[(String, super::machine::Row)]) {
        let mut problems = Vec::new();
        for (path, row) in base {
            let fact = (path.clone(), row.id.clone(), row.version.clone());
            if !self.server.facts.contains(&fact) {
                problems.push(format!("client {client}: base of {path}: the server never had it"));
            }
            // A file that was moved to where the server has it may have been edited just before: it
            // had this content where it came from.
            let facts = &self.ledger.facts[&client];
            let came_with_it = |(from, id, version): &(String, String, String)| {
                *id == row.id
                    && *version == row.version
                    && row.file.is_some()
                    && facts.contains(&(from.clone(), row.file))
            };
            let had = facts.contains(&(path.clone(), row.file));
            if !had && !self.server.facts.iter().any(came_with_it) {
                problems.push(format!("client {client}: base of {path}: the disk never had it"));
            }
            if row.file.is_some_and(|file| self.server.contents.get(&row.version) != Some(&file)) {
                problems
                    .push(format!("client {client}: base of {path}: not the version's content"));
            }
        }
        for problem in problems {
            self.violate(Invariant::BaseNeverLeads, problem);
        }
    }

    // ------------------------------------------------------------ 4

    fn taken_twice(&self) -> Option<String> {
        if let Some(reused) = &self.server.reused {
            return Some(reused.clone());
        }
        let twice = self.server.operations.iter().find(|(_, (_, count))| *count > 1)?;
        Some(format!("operation {} was taken {} times: {}", twice.0, twice.1.1, twice.1.0))
    }

    // ------------------------------------------------------------ 5

    fn changed_outside(&self) -> Option<String> {
        let before = Client::new(0).disk.outside();
        let changed = |client: &&Client| client.disk.outside() != before;
        let client = self.clients.iter().find(changed)?;
        Some(format!("outside the root there is {:?}", client.disk.outside()))
    }

    // ------------------------------------------------------------ 6

    fn torn(&self) -> Option<String> {
        let whole = &self.ledger.whole;
        for (index, client) in self.clients.iter().enumerate() {
            let disk = &client.disk;
            for (path, ino) in disk.walk(disk.home()) {
                let inode = &disk.inodes[&ino];
                let theirs =
                    path.rsplit('/').next().is_some_and(fs::is_ignored) || inode.suspicious;
                if inode.sort == Sort::File && !theirs && !whole.contains(&inode.bytes) {
                    let bytes = String::from_utf8_lossy(&inode.bytes);
                    return Some(format!("client {index} has {bytes:?} at {path}"));
                }
            }
        }
        let file = |node: &&super::server::Node| !node.kind.is_directory();
        let nodes = self.server.tree.entries.values().filter(file);
        let torn = nodes.into_iter().find(|node| !whole.contains(&node.bytes))?;
        Some(format!("the server has {:?} at {}", String::from_utf8_lossy(&torn.bytes), torn.path))
    }

    // ------------------------------------------------------------ 7

    /// At rest: what one person alone did at a path is how it is, everywhere; above all, what was
    /// deleted is gone.
    pub(super) fn check_deletions(&mut self) {
        let mut problems = Vec::new();
        let opaque: Vec<_> = self.clients.iter().map(Client::opaque_paths).collect();
        for (path, left) in &self.ledger.left {
            let actors = self.ledger.actors(path);
            // Where nothing may be sent, the server's state comes back.
            let unsent = |actor: &Actor| match actor {
                Actor::User(client) => self.clients[*client].was_read_only,
                _ => false,
            };
            let blocked =
                opaque.iter().any(|opaque| opaque.covers(path)) || actors.iter().any(unsent);
            if actors.len() != 1 || *left != Left::Gone || blocked {
                continue;
            }
            if self.server.tree.at(path).is_some() {
                problems.push(format!("{path} was deleted by {actors:?} alone, the server has it"));
            }
            for (index, client) in self.clients.iter().enumerate() {
                if client.disk.find(path).is_some() {
                    let by = format!("deleted by {actors:?} alone");
                    problems.push(format!("{path} was {by}, client {index} has it"));
                }
            }
        }
        for problem in problems {
            self.violate(Invariant::DeletionsStay, problem);
        }
    }

    // ------------------------------------------------------------ 8

    pub(super) fn check_conflict(&mut self, client: usize, from: &str, to: &str) {
        // It may be put there once more after somebody has deleted it.
        self.ledger.touch(to, Actor::Carried);
        let actors = self.ledger.actors(from);
        let states = self.ledger.states.get(from).map(Vec::as_slice).unwrap_or_default();
        let equal = match states {
            [Left::File(..)] => self.ledger.only_here(from),
            _ => false,
        };
        // What is left over from before the last rest, or from before the server was set back, is
        // somebody else's too.
        let leftover = actors.contains(&Actor::Carried) || actors.contains(&Actor::Restore);
        if (actors.len() < 2 && !leftover) || equal {
            let why = if equal { "all wrote the same" } else { "nobody else was there" };
            let what = format!("client {client} put {from} aside as {to}: {why} ({actors:?})");
            self.violate(Invariant::NoConflictAlone, what);
        }
    }

    // ------------------------------------------------------------ 9

    fn unknown_gone(&self) -> Option<String> {
        for (index, client) in self.clients.iter().enumerate() {
            let disk = &client.disk;
            let there: BTreeSet<_> =
                disk.walk(disk.home()).into_iter().map(|(_, ino)| ino).collect();
            let gone = client.opaque.iter().find(|(ino, _)| !there.contains(ino));
            if let Some((_, path)) = gone {
                return Some(format!("client {index}: {path}, which takes no part, is gone"));
            }
        }
        None
    }

    /// An engine put a file into the trash: the server must know its content.
    pub(super) fn check_trashed(&mut self, client: usize, path: &str, bytes: &[u8]) {
        let known = self.server.ever.contains(bytes) || self.ledger.late.contains(bytes);
        if !known {
            let bytes = String::from_utf8_lossy(bytes);
            let what = format!("client {client}: {path} with {bytes:?} was thrown away unsent");
            self.violate(Invariant::UnknownIsNeverRemoved, what);
            if let Some(lost) = self.lost() {
                self.violate(Invariant::NothingWrittenIsLost, lost);
            }
        }
    }

    // ------------------------------------------------------------ 2

    /// The server as a disk could hold it.
    pub(super) fn server_paths(&self) -> Paths {
        let mut paths = Paths::new();
        for node in self.server.tree.entries.values() {
            if RelPath::parse(&node.path).is_ok() {
                let file = match node.kind {
                    Kind::File(content) => Some((hash(&node.bytes), content.executable)),
                    Kind::Directory => None,
                };
                paths.insert(node.path.clone(), file);
            }
        }
        paths
    }

    /// At rest: where disk, base and server of a client differ, and no part is taken by neither.
    pub(super) fn differences(&self, client: usize, base: &Paths) -> Vec<String> {
        let one = &self.clients[client];
        let opaque = one.opaque_paths();
        let disk = one.disk_paths();
        let server = self.server_paths();
        let mut all: BTreeSet<&String> = disk.keys().chain(server.keys()).collect();
        all.extend(base.keys());
        let differs = |path: &&&String| {
            let sides = [disk.get(**path), server.get(**path), base.get(**path)];
            !opaque.covers(path) && (sides[0] != sides[1] || sides[1] != sides[2])
        };
        all.iter().filter(differs).map(|path| (*path).clone()).collect()
    }
}

/// Places of a disk that take no part.
pub(super) struct OpaquePaths(Vec<String>);

impl OpaquePaths {
    /// It, something above it, or something below it takes no part.
    pub(super) fn covers(&self, path: &str) -> bool {
        self.0.iter().any(|opaque| {
            opaque == path
                || path.strip_prefix(opaque.as_str()).is_some_and(|rest| rest.starts_with('/'))
                || opaque.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

impl Client {
    pub(super) fn opaque_paths(&self) -> OpaquePaths {
        OpaquePaths(self.opaque_now().into_iter().map(|(path, _)| path).collect())
    }

    pub(super) fn disk_paths(&self) -> Paths {
        let mut paths = Paths::new();
        for (path, ino) in self.disk.walk(self.disk.home()) {
            let inode = &self.disk.inodes[&ino];
            match inode.sort {
                Sort::File => {
                    paths.insert(path, Some((hash(&inode.bytes), inode.executable)));
                }
                Sort::Directory => {
                    paths.insert(path, None);
                }
                Sort::Symlink | Sort::Special => {}
            }
        }
        paths
    }
}

impl super::disk::Disk {
    /// All that is outside the drive's folder.
    pub(super) fn outside(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = self.walk(OUTSIDE);
        all.extend(self.walk(super::disk::FOREIGN));
        all.into_iter().map(|(path, ino)| (path, self.inodes[&ino].bytes.clone())).collect()
    }
}

impl super::ledger::Ledger {
    /// Whether nobody did anything above or below this path, and no accident happened at it.
    pub(super) fn only_here(&self, path: &str) -> bool {
        let people = |actor: &Actor| matches!(actor, Actor::User(_) | Actor::Server);
        let related = |other: &&String| {
            other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
                || path.strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        self.actors(path).iter().all(people) && !self.left.keys().any(|other| related(&other))
    }
}
