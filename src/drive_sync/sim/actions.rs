//! What happens around the engines: people at the disks and at the server, accidents, ticks. Each
//! action is data and makes sense (or does nothing) in every state, so that a failing list of them
//! can be cut down.

use crate::drive_sync::model::Kind;

use super::chance::Chance;
use super::disk::{Ino, Sort, TRASH};
use super::ledger::{Actor, Left};
use super::server::content;
use super::world::{Fault, Sim};
use super::{fs, hash};

/// What is in a file of the ignore list.
pub(super) const LOCK: &[u8] = b"locked";

/// An action, and how many pauses of the engines it lets pass before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) wait: u32,
    pub(super) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// An engine works; inside another one's tick too.
    Tick { client: usize, audit: bool },
    /// The engine that is at work (else this one) is killed.
    Kill { client: usize },
    /// Its machine loses power.
    Power { client: usize, seed: u64 },
    /// Somebody at a disk.
    Disk { client: usize, act: DiskAct, unseen: bool },
    /// Somebody at the server.
    Server(ServerAct),
    /// The line to the server.
    Line { client: usize, line: Line },
    /// Time passes, in milliseconds.
    Pass(u32),
    /// Between ticks: writers and accidents stop, and all must come to rest.
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DiskAct {
    Write { path: String, word: u32, sync: bool },
    Edit { pick: usize, word: u32, sync: bool },
    Delete { pick: usize },
    DeleteTree { pick: usize },
    Rename { pick: usize, path: String },
    MakeDirectory { path: String },
    SaveBegin { pick: usize, word: u32, sync: bool },
    SaveEnd,
    Open { pick: usize },
    WriteOpen { word: u32 },
    Close,
    Chmod { pick: usize },
    Touch { pick: usize },
    Symlink { path: String },
    SwapForLink { pick: usize },
    Ignored { pick: usize },
    Unreadable { pick: usize },
    Readable,
    Full { on: bool },
    LoseRoot { on: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerAct {
    Write { path: String, word: u32 },
    Delete { pick: usize },
    MakeDirectory { path: String },
    Move { pick: usize, path: String },
    BadName { which: usize, word: u32 },
    Prune,
    Backup,
    Restore,
    Deliver,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Outage { calls: u32, retry_after: bool },
    Fault(Fault),
    ReadOnly { on: bool },
    AccessLost { on: bool },
}

// ---------------------------------------------------------------- making them up

/// What a run is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flavour {
    pub(super) clients: usize,
    /// Contents come from a small pool, so that equal ones meet; else each is unique.
    pub(super) pool: bool,
    /// No crash, no other writers than one: nothing may come in conflict.
    pub(super) calm: bool,
}

pub(super) fn flavour(chance: &mut Chance) -> Flavour {
    Flavour { clients: 2 + chance.index(2), pool: chance.one_in(3), calm: chance.one_in(5) }
}

pub(super) fn invent(chance: &mut Chance, flavour: Flavour, count: usize) -> Vec<Entry> {
    let gap = chance.pick(&[2, 5, 12]);
    (0..count)
        .map(|_| {
            let wait = if chance.one_in(6) { 200 } else { chance.below(gap) as u32 };
            Entry { wait, action: action(chance, flavour) }
        })
        .collect()
}

fn action(chance: &mut Chance, flavour: Flavour) -> Action {
    let client = chance.index(flavour.clients);
    match chance.below(100) {
        0..=21 => Action::Tick { client, audit: chance.one_in(3) },
        22..=24 if !flavour.calm => Action::Kill { client },
        25..=26 if !flavour.calm => Action::Power { client, seed: chance.bits() },
        27..=68 => Action::Disk {
            client: if flavour.calm { 0 } else { client },
            act: disk_act(chance, flavour),
            unseen: chance.one_in(10),
        },
        69..=82 if !flavour.calm => Action::Server(server_act(chance, flavour)),
        83..=92 => Action::Line { client, line: line(chance) },
        _ => Action::Pass(chance.pick(&[1, 100, 1_500, 2_500, 10_000, 700_000])),
    }
}

fn word(chance: &mut Chance, flavour: Flavour) -> u32 {
    if flavour.pool { chance.below(4) as u32 } else { chance.below(90_000_000) as u32 + 10 }
}

fn path(chance: &mut Chance) -> String {
    let depth = chance.pick(&[1, 1, 1, 2, 2, 3]);
    let names: Vec<_> = (0..depth).map(|_| chance.pick(&["a", "b", "c.txt"])).collect();
    names.join("/")
}

fn disk_act(chance: &mut Chance, flavour: Flavour) -> DiskAct {
    let (pick, sync) = (chance.index(1000), chance.one_in(3));
    match chance.below(100) {
        0..=24 => DiskAct::Write { path: path(chance), word: word(chance, flavour), sync },
        25..=39 => DiskAct::Edit { pick, word: word(chance, flavour), sync },
        40..=47 => DiskAct::Delete { pick },
        48..=50 => DiskAct::DeleteTree { pick },
        51..=60 => DiskAct::Rename { pick, path: path(chance) },
        61..=65 => DiskAct::MakeDirectory { path: path(chance) },
        66..=70 => DiskAct::SaveBegin { pick, word: word(chance, flavour), sync },
        71..=75 => DiskAct::SaveEnd,
        76..=78 => DiskAct::Open { pick },
        79..=83 => DiskAct::WriteOpen { word: word(chance, flavour) },
        84 => DiskAct::Close,
        85..=86 => DiskAct::Chmod { pick },
        87 => DiskAct::Touch { pick },
        88..=89 => DiskAct::Symlink { path: path(chance) },
        90..=91 => DiskAct::SwapForLink { pick },
        92..=93 => DiskAct::Ignored { pick },
        94 => DiskAct::Unreadable { pick },
        95 => DiskAct::Readable,
        96..=97 => DiskAct::Full { on: chance.one_in(3) },
        _ => DiskAct::LoseRoot { on: chance.one_in(2) },
    }
}

fn server_act(chance: &mut Chance, flavour: Flavour) -> ServerAct {
    let pick = chance.index(1000);
    match chance.below(100) {
        0..=44 => ServerAct::Write { path: path(chance), word: word(chance, flavour) },
        45..=62 => ServerAct::Delete { pick },
        63..=69 => ServerAct::MakeDirectory { path: path(chance) },
        70..=82 => ServerAct::Move { pick, path: path(chance) },
        83..=84 => ServerAct::BadName { which: chance.index(3), word: word(chance, flavour) },
        85..=87 => ServerAct::Prune,
        88..=90 => ServerAct::Backup,
        91 => ServerAct::Restore,
        _ => ServerAct::Deliver,
    }
}

fn line(chance: &mut Chance) -> Line {
    match chance.below(20) {
        0..=3 => Line::Outage { calls: 1 + chance.below(4) as u32, retry_after: chance.one_in(2) },
        4..=6 => Line::Fault(Fault::LostBefore),
        7..=11 => Line::Fault(Fault::LostAfter),
        12..=13 => Line::Fault(Fault::Late),
        14..=15 => Line::Fault(Fault::Corrupt),
        16 => Line::Fault(Fault::Broken),
        17 => Line::AccessLost { on: chance.one_in(2) },
        _ => Line::ReadOnly { on: chance.one_in(2) },
    }
}

// ---------------------------------------------------------------- doing them

fn bytes(word: u32) -> Vec<u8> {
    format!("{word:08}").into_bytes()
}

fn nth<T: Clone>(all: &[T], pick: usize) -> Option<T> {
    (!all.is_empty()).then(|| all[pick % all.len()].clone())
}

impl Sim {
    /// What somebody at this disk can see: paths and inodes.
    fn seen(&self, client: usize, sort: Option<Sort>) -> Vec<(String, Ino)> {
        let disk = &self.clients[client].disk;
        let mut hidden: Option<String> = None;
        let mut seen = Vec::new();
        for (path, ino) in disk.walk(disk.home()) {
            if hidden.as_ref().is_some_and(|hidden| path.starts_with(hidden)) {
                continue;
            }
            let inode = &disk.inodes[&ino];
            if inode.unreadable {
                hidden = Some(format!("{path}/"));
            } else if sort.is_none_or(|sort| inode.sort == sort) {
                seen.push((path, ino));
            }
        }
        seen
    }

    /// Makes the folders that a path needs. False when something else is in the way.
    fn make_way(&mut self, client: usize, path: &str) -> bool {
        for (at, _) in path.match_indices('/') {
            let folder = &path[..at];
            let disk = &self.clients[client].disk;
            match disk.find(folder) {
                Some(ino)
                    if disk.inodes[&ino].sort == Sort::Directory
                        && !disk.inodes[&ino].unreadable => {}
                Some(_) => return false,
                None => self.make(client, folder, Sort::Directory, Vec::new()),
            }
        }
        true
    }

    fn make(&mut self, client: usize, path: &str, sort: Sort, bytes: Vec<u8>) {
        let now = self.now;
        let disk = &mut self.clients[client].disk;
        let Some(place) = disk.place(path) else { return };
        let ino = disk.inode(sort, bytes, now);
        disk.link(&place, ino, now);
        self.note_left(client, path);
    }

    /// Records how a path was left by somebody at this disk.
    fn note_left(&mut self, client: usize, path: &str) {
        let left = self.clients[client].left(path);
        self.ledger.leave(path, Actor::User(client), left);
        self.clients[client].changed.push(path.to_owned());
    }

    fn save(&mut self, client: usize, ino: Ino, path: &str, sync: bool) {
        let disk = &mut self.clients[client].disk;
        if sync {
            disk.sync_bytes(ino);
            if let Some(place) = disk.place(path) {
                disk.sync_links(place.0);
            }
        }
        self.note_left(client, path);
    }

    fn overwrite(&mut self, client: usize, ino: Ino, word: u32) {
        let now = self.now;
        let disk = &mut self.clients[client].disk;
        let old = disk.inodes[&ino].bytes.clone();
        disk.write(ino, bytes(word), now);
        if old != bytes(word) {
            self.ledger.replaced(&old);
            self.ledger.wrote(&bytes(word));
        }
    }

    fn remove(&mut self, client: usize, path: &str) {
        let now = self.now;
        let disk = &mut self.clients[client].disk;
        let Some(place) = disk.place(path) else { return };
        if let Some(ino) = disk.at(place.0, &place.1) {
            let inode = &disk.inodes[&ino];
            if inode.sort == Sort::File {
                let old = inode.bytes.clone();
                self.ledger.replaced(&old);
            }
            self.clients[client].disk.unlink(&place, now);
        }
        self.note_left(client, path);
    }

    fn remove_tree(&mut self, client: usize, path: &str) {
        let disk = &self.clients[client].disk;
        let Some(ino) = disk.find(path) else { return };
        if disk.inodes[&ino].sort == Sort::Directory {
            let closed = |(_, ino): &(String, Ino)| disk.inodes[ino].unreadable;
            if disk.walk(ino).iter().any(closed) {
                return;
            }
            for (inner, _) in disk.walk(ino).into_iter().rev() {
                self.remove(client, &format!("{path}/{inner}"));
            }
        }
        self.remove(client, path);
    }

    pub(super) fn at_disk(&mut self, client: usize, act: &DiskAct) {
        let now = self.now;
        if !self.clients[client].disk.root_is_home() && !matches!(act, DiskAct::LoseRoot { .. }) {
            return;
        }
        match act {
            DiskAct::Write { path, word, sync } => {
                if !self.make_way(client, path) {
                    return;
                }
                let disk = &self.clients[client].disk;
                match disk.find(path) {
                    Some(ino) if disk.inodes[&ino].sort == Sort::File => {
                        self.overwrite(client, ino, *word);
                        self.save(client, ino, path, *sync);
                    }
                    Some(_) => {}
                    None => {
                        self.ledger.wrote(&bytes(*word));
                        self.make(client, path, Sort::File, bytes(*word));
                        if let Some(ino) = self.clients[client].disk.find(path) {
                            self.save(client, ino, path, *sync);
                        }
                    }
                }
            }
            DiskAct::Edit { pick, word, sync } => {
                if let Some((path, ino)) = self.pick_file(client, *pick) {
                    self.overwrite(client, ino, *word);
                    self.save(client, ino, &path, *sync);
                }
            }
            DiskAct::Delete { pick } => {
                let mut all = self.seen(client, None);
                let disk = &self.clients[client].disk;
                all.retain(|(_, ino)| disk.inodes[ino].sort != Sort::Directory);
                if let Some((path, _)) = nth(&all, *pick) {
                    self.remove(client, &path);
                }
            }
            DiskAct::DeleteTree { pick } => {
                if let Some((path, _)) = nth(&self.seen(client, Some(Sort::Directory)), *pick) {
                    self.remove_tree(client, &path);
                }
            }
            DiskAct::Rename { pick, path } => {
                if let Some((from, _)) = nth(&self.seen(client, None), *pick) {
                    self.rename(client, &from, path);
                }
            }
            DiskAct::MakeDirectory { path } => {
                if self.make_way(client, path) && self.clients[client].disk.find(path).is_none() {
                    self.make(client, path, Sort::Directory, Vec::new());
                }
            }
            DiskAct::SaveBegin { pick, word, sync } => {
                if self.clients[client].saving.is_some() {
                    return;
                }
                if let Some((path, ino)) = self.pick_file(client, *pick) {
                    let temp = format!("{path}.tmp");
                    let disk = &self.clients[client].disk;
                    let old = disk.inodes[&ino].bytes.clone();
                    if disk.find(&temp).is_none() {
                        self.ledger.wrote(&bytes(*word));
                        self.make(client, &temp, Sort::File, bytes(*word));
                        if let Some(ino) = self.clients[client].disk.find(&temp) {
                            self.save(client, ino, &temp, *sync);
                        }
                        self.clients[client].saving = Some((temp, path, old));
                    }
                }
            }
            DiskAct::SaveEnd => {
                if let Some((temp, path, old)) = self.clients[client].saving.take() {
                    self.save_end(client, &temp, &path, &old);
                }
            }
            DiskAct::Open { pick } => {
                if let Some((_, ino)) = self.pick_file(client, *pick) {
                    self.clients[client].disk.open.push(ino);
                }
            }
            DiskAct::WriteOpen { word } => self.write_open(client, *word),
            DiskAct::Close => {
                self.clients[client].disk.open.clear();
            }
            DiskAct::Chmod { pick } => {
                if let Some((path, ino)) = self.pick_file(client, *pick) {
                    let disk = &mut self.clients[client].disk;
                    let executable = disk.inodes[&ino].executable;
                    disk.set_mode(ino, !executable, now);
                    self.note_left(client, &path);
                }
            }
            DiskAct::Touch { pick } => {
                if let Some((_, ino)) = self.pick_file(client, *pick) {
                    self.clients[client].disk.touch(ino, now);
                }
            }
            DiskAct::Symlink { path } => {
                if self.make_way(client, path) && self.clients[client].disk.find(path).is_none() {
                    let sort = if path.len() % 4 == 3 { Sort::Special } else { Sort::Symlink };
                    self.make(client, path, sort, Vec::new());
                }
            }
            DiskAct::SwapForLink { pick } => {
                if let Some((path, _)) = nth(&self.seen(client, Some(Sort::Directory)), *pick) {
                    self.remove_tree(client, &path);
                    if self.clients[client].disk.find(&path).is_none() {
                        self.make(client, &path, Sort::Symlink, Vec::new());
                    }
                }
            }
            DiskAct::Ignored { pick } => {
                let mut folders = vec![String::new()];
                folders.extend(
                    self.seen(client, Some(Sort::Directory)).into_iter().map(|(p, _)| p + "/"),
                );
                let path = format!("{}.~lock.x", nth(&folders, *pick).unwrap());
                if self.clients[client].disk.find(&path).is_none() {
                    self.make(client, &path, Sort::File, LOCK.to_vec());
                }
            }
            DiskAct::Unreadable { pick } => {
                if let Some((path, ino)) = nth(&self.seen(client, None), *pick) {
                    let inode = self.clients[client].disk.inodes.get_mut(&ino).unwrap();
                    if matches!(inode.sort, Sort::File | Sort::Directory) && !fs::is_ignored(&path)
                    {
                        inode.unreadable = true;
                        inode.ctime = super::disk::grain(now);
                        self.ledger.leave(&path, Actor::User(client), Left::Other);
                        self.clients[client].changed.push(path);
                    }
                }
            }
            DiskAct::Readable => self.make_readable(client),
            DiskAct::Full { on } => self.clients[client].disk.full = *on,
            DiskAct::LoseRoot { on } => {
                // Whoever has never seen its root cannot tell another one from it.
                if self.clients[client].bound {
                    self.clients[client].disk.lose_root(*on);
                }
            }
        }
        self.clients[client].know_opaque();
    }

    fn pick_file(&self, client: usize, pick: usize) -> Option<(String, Ino)> {
        let mut all = self.seen(client, Some(Sort::File));
        all.retain(|(path, _)| !path.rsplit('/').next().is_some_and(fs::is_ignored));
        nth(&all, pick)
    }

    pub(super) fn make_readable(&mut self, client: usize) {
        let now = self.now;
        let client = &mut self.clients[client];
        for (path, ino) in client.disk.walk(client.disk.home()) {
            let inode = client.disk.inodes.get_mut(&ino).unwrap();
            if std::mem::take(&mut inode.unreadable) {
                inode.ctime = super::disk::grain(now);
                client.changed.push(path);
            }
        }
    }

    fn rename(&mut self, client: usize, from: &str, to: &str) {
        let inside = to.strip_prefix(from).is_some_and(|rest| rest.starts_with('/'));
        if from == to || inside || !self.make_way(client, to) {
            return;
        }
        let now = self.now;
        let disk = &self.clients[client].disk;
        let (Some(old), Some(new)) = (disk.place(from), disk.place(to)) else { return };
        let Some(ino) = disk.at(old.0, &old.1) else { return };
        if let Some(there) = disk.at(new.0, &new.1) {
            let (from, there) = (&disk.inodes[&ino], &disk.inodes[&there]);
            if from.sort != Sort::File || there.sort != Sort::File || there.unreadable {
                return;
            }
            let old = there.bytes.clone();
            self.ledger.replaced(&old);
        }
        let closed = |(_, ino): &(String, Ino)| disk.inodes[ino].unreadable;
        if disk.inodes[&ino].unreadable || disk.walk(ino).iter().any(closed) {
            return;
        }
        let disk = &mut self.clients[client].disk;
        let below: Vec<_> = match disk.inodes[&ino].sort {
            Sort::Directory => disk.walk(ino).into_iter().map(|(path, _)| path).collect(),
            Sort::File | Sort::Symlink | Sort::Special => Vec::new(),
        };
        disk.rename(&old, &new, now);
        for path in [from, to] {
            self.note_left(client, path);
            for inner in &below {
                self.note_left(client, &format!("{path}/{inner}"));
            }
        }
    }

    fn save_end(&mut self, client: usize, temp: &str, path: &str, old: &[u8]) {
        let now = self.now;
        let disk = &self.clients[client].disk;
        let (Some(from), Some(to)) = (disk.place(temp), disk.place(path)) else { return };
        let Some(ino) = disk.at(from.0, &from.1) else { return };
        let there = disk.at(to.0, &to.1);
        let is_file = |ino: Ino| disk.inodes[&ino].sort == Sort::File;
        if !is_file(ino) || there.is_some_and(|there| !is_file(there)) {
            return;
        }
        if let Some(there) = there {
            // The editor knows what it has read; what came since it replaces unseen, and only the
            // server's history can help.
            let found = disk.inodes[&there].bytes.clone();
            if found == old || !self.server.ever.contains(&found) {
                // Two programs on one disk are not this engine's affair.
                self.ledger.replaced(&found);
            } else {
                self.ledger.cover(&found);
            }
        }
        self.clients[client].disk.rename(&from, &to, now);
        self.note_left(client, temp);
        self.note_left(client, path);
    }

    fn write_open(&mut self, client: usize, word: u32) {
        let disk = &self.clients[client].disk;
        let Some(ino) = disk.open.last().copied() else { return };
        let visible = disk.walk(disk.home()).into_iter().find(|(_, one)| *one == ino);
        let in_trash = disk.inside(TRASH).iter().any(|(_, one)| *one == ino);
        match visible {
            Some((path, _)) if !disk.inodes[&ino].unreadable => {
                self.overwrite(client, ino, word);
                self.note_left(client, &path);
            }
            None if in_trash => {
                self.overwrite(client, ino, word);
                self.ledger.late.insert(bytes(word));
                if let Some(path) = self.clients[client].displaced.get(&ino).cloned() {
                    self.ledger.touch(&path, Actor::User(client));
                    self.ledger.left.insert(path, Left::Other);
                }
            }
            Some(_) | None => {}
        }
    }

    // ------------------------------------------------------------ server

    pub(super) fn at_server(&mut self, act: &ServerAct) {
        let server = &mut self.server;
        match act {
            ServerAct::Write { path, word } => {
                if !self.server_way(path) {
                    return;
                }
                let server = &mut self.server;
                let there = server.tree.at(path).map(|(_, node)| node.clone());
                if there.as_ref().is_some_and(|node| node.kind.is_directory()) {
                    return;
                }
                let version = there.as_ref().map(|node| &node.version);
                let executable = there.as_ref().is_some_and(
                    |node| matches!(node.kind, Kind::File(content) if content.executable),
                );
                let bytes = bytes(*word);
                if server.put(path, version, content(&bytes, executable), &bytes).is_ok() {
                    if let Some(node) = there {
                        self.ledger.replaced(&node.bytes);
                    }
                    self.ledger.wrote(&bytes);
                }
            }
            ServerAct::Delete { pick } => {
                if let Some(path) = nth(&server.tree.paths(), *pick) {
                    for old in server.remove_all(&path) {
                        self.ledger.replaced(&old);
                    }
                }
            }
            ServerAct::MakeDirectory { path } => {
                if self.server_way(path) {
                    let _ = self.server.make_directory(path);
                }
            }
            ServerAct::Move { pick, path } => {
                if let Some(from) = nth(&server.tree.paths(), *pick)
                    && self.server_way(path)
                {
                    let server = &mut self.server;
                    let found =
                        server.tree.at(&from).map(|(id, n)| (id.clone(), n.version.clone()));
                    if let Some((id, version)) = found {
                        let _ = server.relocate(&from, path, &id, &version);
                    }
                }
            }
            ServerAct::BadName { which, word } => {
                let name = [".panorama-sync-x".to_owned(), "n".repeat(300), "a\0b".to_owned()]
                    [which % 3]
                    .clone();
                let bytes = bytes(*word);
                if server.put(&name, None, content(&bytes, false), &bytes).is_ok() {
                    self.ledger.wrote(&bytes);
                }
            }
            ServerAct::Prune => server.prune(),
            ServerAct::Backup => server.backup = Some(server.tree.clone()),
            ServerAct::Restore => self.restore(),
            ServerAct::Deliver => self.deliver(),
        }
        let restored = matches!(act, ServerAct::Restore);
        let actor = if restored { Actor::Restore } else { Actor::Server };
        for path in std::mem::take(&mut self.server.touched) {
            let left = match self.server.tree.at(&path) {
                _ if restored => Left::Other,
                None => Left::Gone,
                Some((_, node)) => match node.kind {
                    Kind::Directory => Left::Directory,
                    Kind::File(content) => Left::File(hash(&node.bytes), content.executable),
                },
            };
            self.ledger.leave(&path, actor, left);
        }
    }

    fn server_way(&mut self, path: &str) -> bool {
        for (at, _) in path.match_indices('/') {
            let there = self.server.tree.at(&path[..at]).map(|(_, node)| node.kind);
            match there {
                Some(Kind::Directory) => {}
                Some(Kind::File(_)) => return false,
                None => {
                    let _ = self.server.make_directory(&path[..at]);
                }
            }
        }
        true
    }

    /// The server is set back: what only it had since then is gone, and that is nobody's fault here.
    fn restore(&mut self) {
        self.server.restore();
        let all: Vec<_> = self.ledger.left.keys().cloned().collect();
        for path in all {
            self.ledger.touch(&path, Actor::Restore);
        }
        let kept = self.everywhere();
        self.ledger.live.retain(|bytes| kept.contains(bytes));
    }
}
