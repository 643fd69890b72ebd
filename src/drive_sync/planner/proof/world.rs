//! A disk, a server and a base in memory, and what each step does to them.

use std::collections::BTreeMap;
use std::convert::Infallible;

use fallible_streaming_iterator::{FallibleStreamingIterator, convert};

use crate::drive_sync::model::{
    Base, BaseTree, Content, Kind, Local, LocalTree, Remote, RemoteTree, Sha256, Stat,
};
use crate::drive_sync::path::RelPath;
use crate::drive_sync::plan::{Action, Plan, Step};
use crate::drive_sync::planner::{Access, Most, Rules, diff_of_some, plan};

/// The three trees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::drive_sync::planner) struct World {
    pub(in crate::drive_sync::planner) disk: LocalTree,
    pub(in crate::drive_sync::planner) server: RemoteTree,
    pub(in crate::drive_sync::planner) base: BaseTree,
    /// Counts inodes, entries and versions, so that none comes twice. `None`: they follow from path
    /// and content, so that equal states are equal.
    pub(in crate::drive_sync::planner) counter: Option<u64>,
}

/// A tree as a person sees it: a file's content, or `None` for a folder.
pub(in crate::drive_sync::planner) type Seen = BTreeMap<RelPath, Option<u32>>;

pub(in crate::drive_sync::planner) fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

/// Some bytes, called by a number.
pub(in crate::drive_sync::planner) fn content(number: u32) -> Content {
    let mut sha256 = [0xc0; 32];
    sha256[..4].copy_from_slice(&number.to_be_bytes());
    Content { sha256: Sha256(sha256), size: 1, executable: false }
}

pub(in crate::drive_sync::planner) fn number(content: &Content) -> u32 {
    let bytes = content.sha256.0;
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

pub(in crate::drive_sync::planner) fn stat(ino: u64, content: Option<&Content>) -> Stat {
    let mtime = content.map_or(0, |content| i64::from(number(content)) * 1_000_000_000);
    Stat { dev: 1, ino, size: 1, mtime, ctime: mtime, mode: 0o644 }
}

pub(in crate::drive_sync::planner) fn local(kind: Kind, ino: u64) -> Local {
    match kind {
        Kind::File(content) => {
            Local::File { content, stat: stat(ino, Some(&content)), racy: false }
        }
        Kind::Directory => Local::Directory { stat: stat(ino, None) },
    }
}

pub(in crate::drive_sync::planner) fn rules(access: Access) -> Rules {
    Rules { vm: "vm1".to_owned(), access, release_deletions: true }
}

/// A tree in a row.
pub(in crate::drive_sync::planner) fn listed<V: Clone>(
    tree: &BTreeMap<RelPath, V>,
) -> Vec<(RelPath, V)> {
    tree.iter().map(|(path, entry)| (path.clone(), entry.clone())).collect()
}

/// What [`listed`] gives, as it is compared.
pub(in crate::drive_sync::planner) fn rows<T>(
    listed: &[T],
) -> impl FallibleStreamingIterator<Item = T, Error = Infallible> {
    convert(listed.iter().map(Ok))
}

/// A number that follows from the path.
pub(in crate::drive_sync::planner) fn ino_of(path: &RelPath) -> u64 {
    path.key().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl World {
    pub(in crate::drive_sync::planner) fn plan(&self, rules: &Rules) -> Plan {
        self.plan_some(rules, Most::ALL).0
    }

    /// With so many new entries at most; all, where that cannot be. Tells whether some are left.
    pub(in crate::drive_sync::planner) fn plan_some(
        &self,
        rules: &Rules,
        most: Most,
    ) -> (Plan, bool) {
        let (remote, base) = (listed(&self.server), listed(&self.base));
        let Ok::<_, Infallible>(divergence) =
            diff_of_some(&self.disk, rows(&remote), rows(&base), most);
        match divergence {
            Some(divergence) => (plan(&divergence, rules), !divergence.left_out.is_nothing()),
            None => self.plan_some(rules, Most::ALL),
        }
    }

    /// Does what a step does to disk and server, if what it needs is true.
    pub(in crate::drive_sync::planner) fn effect(&mut self, step: &Step) -> Result<(), String> {
        let path = &step.path;
        let fail = |why: &str| Err(format!("{why}: {step:?}"));
        match &step.action {
            Action::Adopt { .. } | Action::Forget => {}
            Action::SetAside { to, stat } | Action::MoveLocal { to, stat, .. } => {
                if !self.disk_has(path, stat) || self.disk.contains_key(to) || !self.disk_holds(to)
                {
                    return fail("cannot rename");
                }
                self.rename_local(path, to);
            }
            Action::MakeLocalDirectory { .. } => {
                if self.disk.contains_key(path) || !self.disk_holds(path) {
                    return fail("cannot make a folder");
                }
                let ino = self.ino(path);
                self.disk.insert(path.clone(), local(Kind::Directory, ino));
            }
            Action::Fetch { remote, content, replaces } => {
                let there = self.disk.get(path);
                let expected = match replaces {
                    Some(replaced) => there.is_some_and(|there| {
                        there.stat() == Some(&replaced.stat)
                            && there.kind() == Some(Kind::File(replaced.content))
                    }),
                    None => there.is_none() && self.disk_holds(path),
                };
                if !expected || self.server.get(path) != Some(remote) {
                    return fail("cannot fetch");
                }
                let ino = self.ino(path);
                self.disk.insert(path.clone(), local(Kind::File(*content), ino));
            }
            Action::DeleteLocal { replaced } => {
                if self.disk.get(path).and_then(Local::stat) != Some(&replaced.stat) {
                    return fail("cannot delete");
                }
                self.disk.remove(path);
            }
            Action::RemoveLocalDirectory => {
                let empty = !self.disk.keys().any(|other| other.is_inside(path));
                if !empty || !matches!(self.disk.remove(path), Some(Local::Directory { .. })) {
                    return fail("cannot remove the folder");
                }
            }
            Action::MoveRemote { .. }
            | Action::MakeRemoteDirectory { .. }
            | Action::Send { .. }
            | Action::DeleteRemote { .. }
            | Action::RemoveRemoteDirectory { .. } => return self.effect_at_server(step),
        }
        Ok(())
    }

    fn effect_at_server(&mut self, step: &Step) -> Result<(), String> {
        let path = &step.path;
        let fail = |why: &str| Err(format!("{why}: {step:?}"));
        match &step.action {
            Action::MoveRemote { to, remote, .. } => {
                let free = !self.server.contains_key(to) && self.server_holds(to);
                if self.server.get(path) != Some(remote) || !free {
                    return fail("cannot move");
                }
                let entry = self.server.remove(path).unwrap();
                self.server.insert(to.clone(), entry);
            }
            Action::MakeRemoteDirectory { .. } => {
                if self.server.contains_key(path) || !self.server_holds(path) {
                    return fail("cannot make a folder");
                }
                let entry = self.entry(path, Kind::Directory, None);
                self.server.insert(path.clone(), entry);
            }
            Action::Send { content, stat, expect } => {
                let there = self.server.get(path);
                let expected = there.map(|there| &there.version) == expect.as_ref()
                    && there.is_none_or(|there| !there.kind.is_directory());
                let source = self.disk.get(path).is_some_and(|source| {
                    source.stat() == Some(stat) && source.kind() == Some(Kind::File(*content))
                });
                if !expected || !source || !self.server_holds(path) {
                    return fail("cannot send");
                }
                let id = there.map(|there| there.id.clone());
                let entry = self.entry(path, Kind::File(*content), id);
                self.server.insert(path.clone(), entry);
            }
            Action::DeleteRemote { id, version } => {
                let meant = |there: &Remote| (&there.id, &there.version) == (id, version);
                if !self.server.get(path).is_some_and(meant) {
                    return fail("cannot delete");
                }
                self.server.remove(path);
            }
            Action::RemoveRemoteDirectory { id } => {
                let empty = !self.server.keys().any(|other| other.is_inside(path));
                if !empty || self.server.get(path).is_none_or(|there| there.id != *id) {
                    return fail("cannot remove the folder");
                }
                self.server.remove(path);
            }
            Action::Adopt { .. }
            | Action::Forget
            | Action::SetAside { .. }
            | Action::MoveLocal { .. }
            | Action::MakeLocalDirectory { .. }
            | Action::Fetch { .. }
            | Action::DeleteLocal { .. }
            | Action::RemoveLocalDirectory => unreachable!("nothing at the server: {step:?}"),
        }
        Ok(())
    }

    /// Writes the base's row of a step whose effect is done.
    pub(in crate::drive_sync::planner) fn record(&mut self, step: &Step) {
        let path = &step.path;
        match &step.action {
            Action::Adopt { remote, stat } => {
                self.base.insert(path.clone(), Base { remote: remote.clone(), stat: Some(*stat) });
            }
            Action::SetAside { to, .. } => {
                if matches!(self.disk.get(to), Some(Local::Directory { .. })) {
                    self.base.retain(|other, _| !other.is_inside(path));
                }
                self.base.remove(path);
            }
            Action::MoveLocal { to, .. } | Action::MoveRemote { to, .. } => {
                self.base.remove(path);
                self.agree(to);
            }
            Action::MakeLocalDirectory { .. }
            | Action::Fetch { .. }
            | Action::MakeRemoteDirectory { .. }
            | Action::Send { .. } => self.agree(path),
            Action::Forget
            | Action::DeleteLocal { .. }
            | Action::RemoveLocalDirectory
            | Action::DeleteRemote { .. }
            | Action::RemoveRemoteDirectory { .. } => {
                self.base.remove(path);
            }
        }
    }

    /// The base takes what both sides have.
    fn agree(&mut self, path: &RelPath) {
        let stat = self.disk[path].stat().copied();
        let remote = self.server[path].clone();
        self.base.insert(path.clone(), Base { remote, stat });
    }

    pub(in crate::drive_sync::planner) fn rename_local(&mut self, from: &RelPath, to: &RelPath) {
        let moved: Vec<RelPath> = self
            .disk
            .keys()
            .filter(|path| *path == from || path.is_inside(from))
            .cloned()
            .collect();
        for path in moved {
            let entry = self.disk.remove(&path).unwrap();
            self.disk.insert(path.rebased(from, to).unwrap(), entry);
        }
    }

    fn disk_has(&self, path: &RelPath, stat: &Stat) -> bool {
        let there = self.disk.get(path).and_then(Local::stat);
        there.is_some_and(|there| there.same_inode(stat))
    }

    /// Whether the folder for a path is there.
    fn disk_holds(&self, path: &RelPath) -> bool {
        path.parent()
            .is_none_or(|folder| matches!(self.disk.get(&folder), Some(Local::Directory { .. })))
    }

    fn server_holds(&self, path: &RelPath) -> bool {
        path.parent().is_none_or(|folder| {
            self.server.get(&folder).is_some_and(|folder| folder.kind.is_directory())
        })
    }

    pub(in crate::drive_sync::planner) fn ino(&mut self, path: &RelPath) -> u64 {
        match &mut self.counter {
            None => ino_of(path),
            Some(counter) => {
                *counter += 1;
                *counter
            }
        }
    }

    pub(in crate::drive_sync::planner) fn entry(
        &mut self,
        path: &RelPath,
        kind: Kind,
        id: Option<String>,
    ) -> Remote {
        match &mut self.counter {
            None => {
                let version = kind.content().map_or(0, number);
                Remote {
                    id: id.unwrap_or_else(|| path.to_string()),
                    version: format!("v{version}"),
                    kind,
                }
            }
            Some(counter) => {
                *counter += 1;
                let id = id.unwrap_or_else(|| format!("e{counter}"));
                Remote { id, version: format!("v{counter}"), kind }
            }
        }
    }

    /// What a person sees on the disk; what takes no part is left out.
    pub(in crate::drive_sync::planner) fn seen_on_disk(&self) -> Seen {
        let seen = |local: &Local| local.kind().map(|kind| kind.content().map(number));
        self.disk.iter().filter_map(|(path, local)| Some((path.clone(), seen(local)?))).collect()
    }

    /// What a person sees at the server.
    pub(in crate::drive_sync::planner) fn seen_at_server(&self) -> Seen {
        let seen = |remote: &Remote| remote.kind.content().map(number);
        self.server.iter().map(|(path, remote)| (path.clone(), seen(remote))).collect()
    }

    /// What the base says.
    pub(in crate::drive_sync::planner) fn seen_in_base(&self) -> Seen {
        let seen = |base: &Base| base.remote.kind.content().map(number);
        self.base.iter().map(|(path, base)| (path.clone(), seen(base))).collect()
    }
}

/// Whether a step does something to disk or server.
pub(in crate::drive_sync::planner) fn has_effect(step: &Step) -> bool {
    !matches!(step.action, Action::Adopt { .. } | Action::Forget)
}
