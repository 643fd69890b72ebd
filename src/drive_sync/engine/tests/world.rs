//! A small disk and server in memory: enough to see what the engine asks of them, and to cut it off
//! at any call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sha2::{Digest as _, Sha256 as Hasher};

use crate::drive_sync::model::{Content, Kind, Local, LocalTree, Opaque, Remote, Sha256, Stat};
use crate::drive_sync::path::RelPath;
use crate::drive_sync::plan::Replaced;
use crate::drive_sync::ports::{
    Change, Changes, Clock, Digest, Download, Drive, Fs, FsError, Install, Installed, Recall,
    RemoteEntry, RemoteError, Rng, Root, Scope, SnapshotPage, Source, StageWriter, Staged, Upload,
    What, Write, Written,
};

mod disk;

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

pub(super) fn content(bytes: &str) -> Content {
    let sha256 = Sha256(Hasher::digest(bytes).into());
    Content { sha256, size: bytes.len() as u64, executable: false }
}

/// What stands on the disk; `None`: a folder.
#[derive(Debug, Clone)]
struct Node {
    bytes: Option<String>,
    ino: u64,
    changed: i64,
}

impl Node {
    fn stat(&self) -> Stat {
        let size = self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Stat { dev: 1, ino: self.ino, size, mtime: self.changed, ctime: self.changed, mode: 0 }
    }
}

/// What the server has; `None`: a folder.
#[derive(Debug, Clone)]
struct Entry {
    path: String,
    version: String,
    bytes: Option<String>,
}

#[derive(Debug)]
pub(super) struct World {
    disk: BTreeMap<RelPath, Node>,
    pub(super) marker: Option<Root>,
    pub(super) trash: Vec<String>,
    pub(super) free: u64,
    /// When the next download is written, somebody else has left only so much.
    pub(super) filled: Option<u64>,
    /// Nothing that others wrote or renamed is on the disk for good.
    pub(super) volatile: bool,
    /// Large files that a look does not come to.
    pub(super) unread: BTreeSet<String>,
    entries: BTreeMap<String, Entry>,
    feed: Vec<(u64, String)>,
    pub(super) epoch: String,
    pub(super) head: u64,
    /// Between two changes.
    pub(super) step: u64,
    pub(super) forgotten: u64,
    answers: BTreeMap<String, Written>,
    /// Every version that was ever sent, by path.
    pub(super) sent: Vec<String>,
    pub(super) lose_answers: u32,
    pub(super) unreachable: u32,
    pub(super) read_only: bool,
    pub(super) no_access: bool,
    pub(super) refused: BTreeSet<String>,
    /// Somebody writes this at the server right before something is sent.
    pub(super) rival: Option<(String, String)>,
    pub(super) calls: Vec<&'static str>,
    pub(super) stop_at: Option<usize>,
    pub(super) now: Duration,
    number: u64,
}

impl World {
    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Counts a call; the engine may be stopped at it.
    fn call(&mut self, name: &'static str) -> bool {
        self.calls.push(name);
        self.stop_at.is_some_and(|at| self.calls.len() >= at)
    }

    pub(super) fn write(&mut self, at: &str, bytes: &str) {
        let at = path(at);
        if let Some(parent) = at.parent() {
            self.folder(&parent);
        }
        let ino = self.disk.get(&at).map(|node| node.ino);
        let (next, ino) = (self.next(), ino.unwrap_or(self.number));
        let changed = i64::try_from(next).unwrap();
        self.disk.insert(at, Node { bytes: Some(bytes.to_owned()), ino, changed });
    }

    fn folder(&mut self, at: &RelPath) {
        if let Some(parent) = at.parent() {
            self.folder(&parent);
        }
        if !self.disk.contains_key(at) {
            let ino = self.next();
            self.disk.insert(at.clone(), Node { bytes: None, ino, changed: 0 });
        }
    }

    pub(super) fn remove(&mut self, at: &str) {
        let at = path(at);
        self.disk.retain(|there, _| *there != at && !there.is_inside(&at));
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let node = self.disk.remove(&path(from)).unwrap();
        self.disk.insert(path(to), node);
    }

    pub(super) fn disk(&self) -> BTreeMap<String, Option<String>> {
        self.disk.iter().map(|(path, node)| (path.to_string(), node.bytes.clone())).collect()
    }

    pub(super) fn server(&self) -> BTreeMap<String, Option<String>> {
        self.entries.values().map(|entry| (entry.path.clone(), entry.bytes.clone())).collect()
    }

    fn at(&self, at: &str) -> Option<String> {
        self.entries.iter().find(|(_, entry)| entry.path == at).map(|(id, _)| id.clone())
    }

    fn tell(&mut self, id: &str) -> u64 {
        self.head += self.step;
        self.feed.push((self.head, id.to_owned()));
        self.head
    }

    fn told(&self, id: &str) -> Option<RemoteEntry> {
        let entry = self.entries.get(id)?;
        let kind = entry.bytes.as_ref().map_or(Kind::Directory, |bytes| Kind::File(content(bytes)));
        let remote = Remote { id: id.to_owned(), version: entry.version.clone(), kind };
        Some(RemoteEntry { path: entry.path.clone(), remote })
    }

    pub(super) fn put(&mut self, at: &str, bytes: Option<&str>) -> u64 {
        if let Some((parent, _)) = at.rsplit_once('/')
            && self.at(parent).is_none()
        {
            self.put(parent, None);
        }
        let number = self.next();
        let id = self.at(at).unwrap_or_else(|| format!("id{number}"));
        let bytes = bytes.map(str::to_owned);
        let version = format!("v{number}");
        self.entries.insert(id.clone(), Entry { path: at.to_owned(), version, bytes });
        self.tell(&id)
    }

    pub(super) fn drop_there(&mut self, at: &str) {
        let inside = format!("{at}/");
        let gone: Vec<String> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.path == at || entry.path.starts_with(&inside))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone.iter().rev() {
            self.entries.remove(id);
            self.tell(id);
        }
    }

    pub(super) fn move_there(&mut self, from: &str, to: &str) {
        let inside = format!("{from}/");
        let ids: Vec<String> = self.entries.keys().cloned().collect();
        for id in ids {
            let entry = self.entries.get_mut(&id).unwrap();
            if entry.path == from || entry.path.starts_with(&inside) {
                entry.path = format!("{to}{}", &entry.path[from.len()..]);
                self.tell(&id);
            }
        }
    }

    /// As if the server had been restored from a copy that had not got this yet.
    pub(super) fn never_had(&mut self, at: &str) {
        let id = self.at(at).unwrap();
        self.entries.remove(&id);
    }

    pub(super) fn moved_in_silence(&mut self, from: &str, to: &str) {
        let id = self.at(from).unwrap();
        if let Some(entry) = self.entries.get_mut(&id) {
            to.clone_into(&mut entry.path);
        }
    }

    pub(super) fn forget_feed(&mut self) {
        self.forgotten = self.head;
        self.feed.clear();
    }

    fn refuse(&self, at: &str) -> Result<(), RemoteError> {
        if self.no_access {
            Err(RemoteError::AccessLost)
        } else if self.read_only {
            Err(RemoteError::ReadOnly)
        } else if self.refused.contains(at) {
            let (code, message) = ("too_large".to_owned(), "no".to_owned());
            Err(RemoteError::Refused { code, message })
        } else {
            Ok(())
        }
    }

    fn conflict(&self, at: &str) -> RemoteError {
        RemoteError::Conflict { current: self.at(at).and_then(|id| self.told(&id)) }
    }

    fn answer(&mut self, operation: &str, written: Written) -> Result<Written, RemoteError> {
        self.answers.insert(operation.to_owned(), written.clone());
        if self.lose_answers > 0 {
            self.lose_answers -= 1;
            return Err(lost());
        }
        Ok(written)
    }

    fn store(&mut self, upload: &mut Upload<'_>) -> Result<Written, RemoteError> {
        if let Some((at, bytes)) = self.rival.take() {
            self.put(&at, Some(&bytes));
        }
        let at = upload.path.to_string();
        self.refuse(&at)?;
        upload.source.check().map_err(|_| RemoteError::SourceChanged)?;
        let current = self.at(&at).map(|id| self.entries[&id].version.clone());
        if current != upload.expect {
            return Err(self.conflict(&at));
        }
        let mut bytes = vec![0; usize::try_from(upload.content.size).unwrap()];
        upload.source.read_at(0, &mut bytes).unwrap();
        let sequence = self.put(&at, Some(&String::from_utf8(bytes).unwrap()));
        self.sent.push(at.clone());
        let entry = self.at(&at).and_then(|id| self.told(&id));
        self.answer(&upload.operation_id, Written { entry, sequence })
    }

    fn change(&mut self, write: &Write) -> Result<Written, RemoteError> {
        if let Some(written) = self.answers.get(&write.operation_id) {
            return Ok(written.clone());
        }
        let matches = |world: &Self, id: &str, version: Option<&str>| {
            world.entries.get(id).is_some_and(|entry| version.is_none_or(|it| it == entry.version))
        };
        let (id, sequence) = match &write.what {
            What::MakeDirectory { path } => {
                self.refuse(&path.to_string())?;
                if self.at(&path.to_string()).is_some() {
                    return Err(self.conflict(&path.to_string()));
                }
                let sequence = self.put(&path.to_string(), None);
                (self.at(&path.to_string()).unwrap(), sequence)
            }
            What::Delete { path, id, version } => {
                self.refuse(&path.to_string())?;
                if !matches(self, id, Some(version)) {
                    return Err(self.conflict(&path.to_string()));
                }
                self.entries.remove(id);
                (id.clone(), self.tell(id))
            }
            What::RemoveDirectory { path, id } => {
                let inside = format!("{path}/");
                let full = self.entries.values().any(|entry| entry.path.starts_with(&inside));
                if full || !matches(self, id, None) {
                    return Err(self.conflict(&path.to_string()));
                }
                self.entries.remove(id);
                (id.clone(), self.tell(id))
            }
            What::Move { to, id, version, .. } => {
                self.refuse(&to.to_string())?;
                if self.at(&to.to_string()).is_some() || !matches(self, id, Some(version)) {
                    return Err(self.conflict(&to.to_string()));
                }
                self.entries.get_mut(id).unwrap().path = to.to_string();
                (id.clone(), self.tell(id))
            }
        };
        let written = Written { entry: self.told(&id), sequence };
        self.answer(&write.operation_id, written)
    }
}

fn lost() -> RemoteError {
    RemoteError::Unavailable { message: "the line is cut".to_owned(), retry_after: None }
}

/// Everything outside of the engine.
#[derive(Debug, Clone)]
pub(super) struct Outside(Arc<Mutex<World>>);

impl Outside {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(World {
            disk: BTreeMap::new(),
            marker: None,
            trash: Vec::new(),
            free: u64::MAX,
            filled: None,
            volatile: false,
            unread: BTreeSet::new(),
            entries: BTreeMap::new(),
            feed: Vec::new(),
            epoch: "one".to_owned(),
            head: 0,
            step: 2,
            forgotten: 0,
            answers: BTreeMap::new(),
            sent: Vec::new(),
            lose_answers: 0,
            unreachable: 0,
            read_only: false,
            no_access: false,
            refused: BTreeSet::new(),
            rival: None,
            calls: Vec::new(),
            stop_at: None,
            now: Duration::ZERO,
            number: 0,
        })))
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn disk(&self, name: &'static str) -> Result<MutexGuard<'_, World>, FsError> {
        let mut world = self.world();
        if world.call(name) { Err(FsError::Stopped) } else { Ok(world) }
    }

    fn server(&self, name: &'static str) -> Result<MutexGuard<'_, World>, RemoteError> {
        let mut world = self.world();
        if world.call(name) {
            return Err(RemoteError::Stopped);
        }
        if world.unreachable > 0 {
            world.unreachable -= 1;
            return Err(lost());
        }
        if world.no_access { Err(RemoteError::AccessLost) } else { Ok(world) }
    }

    fn place(world: &World, at: &RelPath) -> Result<(), FsError> {
        if at.parent().is_some_and(|parent| !world.disk.contains_key(&parent)) {
            return Err(FsError::Io(std::io::ErrorKind::NotFound.into()));
        }
        if world.disk.contains_key(at) { Err(FsError::Exists) } else { Ok(()) }
    }
}

impl Drive for Outside {
    fn changes(&self, after: u64, limit: u32) -> Result<Changes, RemoteError> {
        let world = self.server("changes")?;
        if after < world.forgotten {
            return Err(RemoteError::CursorExpired);
        }
        let mut changes: Vec<Change> = world
            .feed
            .iter()
            .filter(|(sequence, _)| *sequence > after)
            .map(|(sequence, id)| Change {
                sequence: *sequence,
                id: id.clone(),
                entry: world.told(id),
            })
            .collect();
        let has_more = changes.len() > limit as usize;
        changes.truncate(limit as usize);
        Ok(Changes { epoch: world.epoch.clone(), changes, has_more, head: world.head })
    }

    fn snapshot(&self, page: Option<&str>) -> Result<SnapshotPage, RemoteError> {
        let world = self.server("snapshot")?;
        let from: usize = page.map_or(0, |page| page.parse().unwrap());
        let ids: Vec<&String> = world.entries.keys().collect();
        let entries = ids.iter().skip(from).take(2).filter_map(|id| world.told(id)).collect();
        let next_page = (from + 2 < ids.len()).then(|| (from + 2).to_string());
        Ok(SnapshotPage { epoch: world.epoch.clone(), as_of: world.head, entries, next_page })
    }

    fn digest(&self) -> Result<Digest, RemoteError> {
        let world = self.server("digest")?;
        let mut lines: Vec<String> =
            world.entries.iter().map(|(id, entry)| format!("{id}:{}\n", entry.version)).collect();
        lines.sort();
        let sha256 = Sha256(Hasher::digest(lines.concat()).into());
        let mut paths: Vec<String> = world
            .entries
            .iter()
            .map(|(id, entry)| format!("{id}:{}:{}\n", entry.version, entry.path))
            .collect();
        paths.sort();
        let paths = Sha256(Hasher::digest(paths.concat()).into());
        Ok(Digest { head: world.head, count: lines.len() as u64, sha256, paths })
    }

    fn apply(&self, changes: &[Write]) -> Vec<Result<Written, RemoteError>> {
        changes.iter().map(|write| self.server("apply")?.change(write)).collect()
    }

    fn send(&self, uploads: Vec<Upload<'_>>) -> Vec<Result<Written, RemoteError>> {
        let send = |mut upload| self.server("send")?.store(&mut upload);
        uploads.into_iter().map(send).collect()
    }

    fn recall(&self, uploads: &[Recall]) -> Vec<Result<Option<Written>, RemoteError>> {
        let recall =
            |upload: &Recall| Ok(self.server("recall")?.answers.get(&upload.operation_id).cloned());
        uploads.iter().map(recall).collect()
    }

    fn fetch(&self, downloads: Vec<Download<'_>>) -> Vec<Result<(), RemoteError>> {
        let fetch = |download: Download<'_>| {
            let world = self.server("fetch")?;
            let entry = world.entries.get(&download.id);
            let bytes = entry
                .filter(|entry| entry.version == download.version)
                .and_then(|entry| entry.bytes.clone())
                .ok_or(RemoteError::Conflict { current: None })?;
            drop(world);
            download.into.write(bytes.as_bytes()).unwrap();
            Ok(())
        };
        downloads.into_iter().map(fetch).collect()
    }
}

impl Clock for Outside {
    fn wall(&self) -> i64 {
        0
    }

    fn elapsed(&self) -> Duration {
        self.world().now
    }
}

impl Rng for Outside {
    fn bits(&mut self) -> u64 {
        self.world().next()
    }
}
