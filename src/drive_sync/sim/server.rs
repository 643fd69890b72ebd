//! The server's side in memory: entries with ids and versions, their history, a feed, operation ids.

use std::collections::{BTreeMap, BTreeSet};

use crate::drive_sync::model::{Content, EntryId, Kind, Remote, Sha256, VersionId};
use crate::drive_sync::planted::{Bug, planted};
use crate::drive_sync::ports::{RemoteEntry, RemoteError, What, Written};

use super::hash;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) version: VersionId,
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
}

/// What a backup holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub(super) entries: BTreeMap<EntryId, Node>,
    pub(super) sequence: u64,
    pub(super) feed: Vec<(u64, EntryId)>,
    /// The feed does not reach further back.
    pub(super) pruned: u64,
    /// Contents by version.
    pub(super) history: BTreeMap<VersionId, (Content, Vec<u8>)>,
    /// First answers by operation id.
    answers: BTreeMap<String, Result<Written, RemoteError>>,
}

/// An upload that is still on its way.
#[derive(Debug, Clone)]
pub(super) struct Delayed {
    pub(super) client: usize,
    pub(super) operation_id: String,
    pub(super) path: String,
    pub(super) expect: Option<VersionId>,
    pub(super) content: Content,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) tree: Tree,
    pub(super) epoch: u32,
    next: u64,
    /// Operations that will never be taken any more.
    burned: BTreeSet<String>,
    pub(super) delayed: Vec<Delayed>,
    pub(super) backup: Option<Tree>,
    /// What each operation id was used for, and how many versions came of it.
    pub(super) operations: BTreeMap<String, (String, u32)>,
    /// An operation id that was used for two things.
    pub(super) reused: Option<String>,
    /// Every place that an entry ever had, in every version.
    pub(super) facts: BTreeSet<(String, EntryId, VersionId)>,
    /// Every version's content, whatever became of it.
    pub(super) contents: BTreeMap<VersionId, (Sha256, bool)>,
    /// Every content that was ever here.
    pub(super) ever: BTreeSet<Vec<u8>>,
    /// What became of the last change: paths that changed.
    pub(super) touched: Vec<String>,
}

impl Tree {
    pub(super) fn at(&self, path: &str) -> Option<(&EntryId, &Node)> {
        self.entries.iter().find(|(_, node)| node.path == path)
    }

    pub(super) fn has_parent(&self, path: &str) -> bool {
        path.rsplit_once('/')
            .is_none_or(|(parent, _)| self.at(parent).is_some_and(|(_, n)| n.kind.is_directory()))
    }

    pub(super) fn below(&self, path: &str) -> Vec<EntryId> {
        let inside = format!("{path}/");
        let found = self.entries.iter().filter(|(_, node)| node.path.starts_with(&inside));
        found.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths: Vec<_> = self.entries.values().map(|node| node.path.clone()).collect();
        paths.sort();
        paths
    }

    pub(super) fn entry(&self, id: &EntryId) -> Option<RemoteEntry> {
        let node = self.entries.get(id)?;
        let remote = Remote { id: id.clone(), version: node.version.clone(), kind: node.kind };
        Some(RemoteEntry { path: node.path.clone(), remote })
    }

    fn conflict(&self, path: &str) -> RemoteError {
        let current = self.at(path).and_then(|(id, _)| self.entry(id));
        RemoteError::Conflict { current }
    }
}

impl Server {
    fn new_name(&mut self, letter: char) -> String {
        self.next += 1;
        format!("{letter}{}", self.next)
    }

    /// Tells a change of this entry.
    fn tell(&mut self, id: &EntryId) -> u64 {
        self.tree.sequence += 1;
        // Other drives have sequences of the same row.
        if self.tree.sequence % 7 == 3 {
            self.tree.sequence += 2;
        }
        self.tree.feed.push((self.tree.sequence, id.clone()));
        if let Some(node) = self.tree.entries.get(id) {
            self.facts.insert((node.path.clone(), id.clone(), node.version.clone()));
        }
        self.tree.sequence
    }

    fn written(&mut self, id: &EntryId) -> Written {
        let sequence = self.tell(id);
        Written { entry: self.tree.entry(id), sequence }
    }

    /// A file; `expect` as for an upload.
    pub(super) fn put(
        &mut self,
        path: &str,
        expect: Option<&VersionId>,
        content: Content,
        bytes: &[u8],
    ) -> Result<Written, RemoteError> {
        if !self.tree.has_parent(path) {
            return Err(RemoteError::Conflict { current: None });
        }
        let there = self.tree.at(path).map(|(id, node)| (id.clone(), node.clone()));
        let id = match (there, expect) {
            (None, None) => self.new_name('e'),
            (Some((id, node)), Some(version))
                if node.version == *version && !node.kind.is_directory() =>
            {
                id
            }
            (Some(_) | None, _) => return Err(self.tree.conflict(path)),
        };
        let version = self.new_name('v');
        let kind = Kind::File(content);
        let node =
            Node { path: path.to_owned(), version: version.clone(), kind, bytes: bytes.to_vec() };
        self.contents.insert(version.clone(), (content.sha256, content.executable));
        self.ever.insert(bytes.to_vec());
        self.tree.history.insert(version, (content, bytes.to_vec()));
        self.tree.entries.insert(id.clone(), node);
        self.touched.push(path.to_owned());
        Ok(self.written(&id))
    }

    pub(super) fn make_directory(&mut self, path: &str) -> Result<Written, RemoteError> {
        if !self.tree.has_parent(path) || self.tree.at(path).is_some() {
            return Err(self.tree.conflict(path));
        }
        let (id, version) = (self.new_name('e'), self.new_name('v'));
        let node =
            Node { path: path.to_owned(), version, kind: Kind::Directory, bytes: Vec::new() };
        self.tree.entries.insert(id.clone(), node);
        self.touched.push(path.to_owned());
        Ok(self.written(&id))
    }

    fn delete(&mut self, path: &str, id: &EntryId, version: &str) -> Result<Written, RemoteError> {
        let fits = self.tree.entries.get(id).is_some_and(|node| {
            node.path == path
                && !node.kind.is_directory()
                && (node.version == version || planted(Bug::DeletesAnyVersion))
        });
        if !fits {
            return Err(self.tree.conflict(path));
        }
        self.touched.push(path.to_owned());
        self.tree.entries.remove(id);
        Ok(self.written(id))
    }

    fn remove_directory(&mut self, path: &str, id: &EntryId) -> Result<Written, RemoteError> {
        let fits = self
            .tree
            .entries
            .get(id)
            .is_some_and(|node| node.path == path && node.kind.is_directory());
        if !fits || !self.tree.below(path).is_empty() {
            return Err(self.tree.conflict(path));
        }
        self.touched.push(path.to_owned());
        self.tree.entries.remove(id);
        Ok(self.written(id))
    }

    /// A file or folder with all that is in it.
    pub(super) fn relocate(
        &mut self,
        from: &str,
        to: &str,
        id: &EntryId,
        version: &str,
    ) -> Result<Written, RemoteError> {
        let fits = self
            .tree
            .entries
            .get(id)
            .is_some_and(|node| node.path == from && node.version == version);
        let inside = to.strip_prefix(from).is_some_and(|rest| rest.starts_with('/'));
        if !fits || inside || !self.tree.has_parent(to) {
            return Err(self.tree.conflict(from));
        }
        if self.tree.at(to).is_some() {
            return Err(self.tree.conflict(to));
        }
        let inside = self.tree.below(from);
        for one in std::iter::once(id).chain(&inside) {
            let node = self.tree.entries.get_mut(one).unwrap();
            let old = std::mem::take(&mut node.path);
            node.path = format!("{to}{}", &old[from.len()..]);
            self.touched.extend([old, node.path.clone()]);
        }
        let written = self.written(id);
        for one in &inside {
            self.tell(one);
        }
        Ok(written)
    }

    /// By somebody else, with a look at what is there. The contents that it saw and removed.
    pub(super) fn remove_all(&mut self, path: &str) -> Vec<Vec<u8>> {
        let mut ids = self.tree.below(path);
        ids.extend(self.tree.at(path).map(|(id, _)| id.clone()));
        ids.sort_by_key(|id| std::cmp::Reverse(self.tree.entries[id].path.clone()));
        let mut seen = Vec::new();
        for id in ids {
            if let Some(node) = self.tree.entries.remove(&id) {
                seen.push(node.bytes);
                self.touched.push(node.path);
                self.tell(&id);
            }
        }
        seen
    }

    // ------------------------------------------------------------ operation ids

    /// Whether an operation may go on: its first answer when it was here before.
    pub(super) fn first(
        &mut self,
        operation_id: &str,
        request: &str,
    ) -> Option<Result<Written, RemoteError>> {
        let known = self.operations.entry(operation_id.to_owned());
        let (before, _) = known.or_insert_with(|| (request.to_owned(), 0));
        if before != request {
            self.reused = Some(format!("{operation_id}: first {before}, then {request}"));
        }
        if self.burned.contains(operation_id) {
            let (code, message) = ("forgotten".to_owned(), "recalled before".to_owned());
            return Some(Err(RemoteError::Refused { code, message }));
        }
        self.tree.answers.get(operation_id).cloned()
    }

    pub(super) fn answered(&mut self, operation_id: &str, answer: &Result<Written, RemoteError>) {
        if answer.is_ok()
            && let Some((_, count)) = self.operations.get_mut(operation_id)
        {
            *count += 1;
        }
        self.tree.answers.insert(operation_id.to_owned(), answer.clone());
    }

    /// Its first answer, or never.
    pub(super) fn recall(&mut self, operation_id: &str) -> Option<Written> {
        if let Some(Ok(written)) = self.tree.answers.get(operation_id) {
            return Some(written.clone());
        }
        self.burned.insert(operation_id.to_owned());
        self.delayed.retain(|delayed| delayed.operation_id != operation_id);
        None
    }

    pub(super) fn take_upload(&mut self, upload: &Delayed) -> Result<Written, RemoteError> {
        let Delayed { operation_id, path, expect, content, bytes, .. } = upload;
        let request = upload.request();
        if let Some(answer) = self.first(operation_id, &request) {
            return answer;
        }
        let answer = self.put(path, expect.as_ref(), *content, bytes);
        self.answered(operation_id, &answer);
        answer
    }

    pub(super) fn take_write(
        &mut self,
        operation_id: &str,
        what: &What,
    ) -> Result<Written, RemoteError> {
        if let Some(answer) = self.first(operation_id, &format!("{what:?}")) {
            return answer;
        }
        let answer = match what {
            What::MakeDirectory { path } => self.make_directory(&path.to_string()),
            What::Delete { path, id, version } => self.delete(&path.to_string(), id, version),
            What::RemoveDirectory { path, id } => self.remove_directory(&path.to_string(), id),
            What::Move { from, to, id, version } => {
                self.relocate(&from.to_string(), &to.to_string(), id, version)
            }
        };
        self.answered(operation_id, &answer);
        answer
    }

    // ------------------------------------------------------------ accidents

    pub(super) fn restore(&mut self) {
        if let Some(tree) = self.backup.clone() {
            self.touched.extend([&self.tree, &tree].map(Tree::paths).concat());
            self.tree = tree;
            self.epoch += 1;
            self.delayed.clear();
            self.operations.clear();
        }
    }

    pub(super) fn prune(&mut self) {
        self.tree.pruned = self.tree.sequence;
        self.tree.feed.clear();
    }
}

impl Delayed {
    pub(super) fn request(&self) -> String {
        format!("{} {:?} {:?}", self.path, self.expect, self.content)
    }
}

pub(super) fn content(bytes: &[u8], executable: bool) -> Content {
    Content { sha256: hash(bytes), size: bytes.len() as u64, executable }
}
