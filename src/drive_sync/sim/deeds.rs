//! People at the disks and at the server do what an action says, and the ledger learns what they saw
//! and how they left it.

use crate::drive_sync::model::Kind;

use super::actions::{DiskAct, LOCK, ServerAct};
use super::disk::{Ino, Sort, TRASH};
use super::ledger::{Actor, Left};
use super::server::content;
use super::world::Sim;
use super::{fs, hash};

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
