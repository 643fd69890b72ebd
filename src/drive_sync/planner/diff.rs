//! Finds the paths on which the three trees do not agree, without keeping the others.

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use crate::drive_sync::model::{Base, Kind, Local, Remote};
use crate::drive_sync::path::RelPath;

/// What the three trees have at one path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Triple {
    pub local: Option<Local>,
    pub remote: Option<Remote>,
    pub base: Option<Base>,
}

/// Where the three trees differ.
///
/// A file is left out when disk, server and base have the same content, the server's entry and
/// version are those of the base, and the disk's stat is that of the base; a folder, when all three
/// have it and the server's entry is that of the base, whatever is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Divergence {
    /// The paths, and what stands there.
    pub triples: BTreeMap<RelPath, Triple>,
    /// Folders that the server must have, since it told of something in them, but has not told of
    /// yet: nothing is planned at these paths and below them until it has.
    pub incomplete: BTreeSet<RelPath>,
    /// Every path that is in some tree and looks like a conflict name: they are not given again.
    pub conflict_names: BTreeSet<RelPath>,
    /// How many entries take part on the disk.
    pub local_entries: usize,
    /// How many entries the server has.
    pub remote_entries: usize,
    /// How many rows the base has.
    pub base_entries: usize,
}

/// Walks the three trees side by side. Each iterator gives its paths in their order, none twice.
/// Memory is taken for the differences only. The first error of an iterator ends it.
pub fn diff<'a, E>(
    local: impl IntoIterator<Item = (&'a RelPath, &'a Local)>,
    remote: impl IntoIterator<Item = Result<(RelPath, Remote), E>>,
    base: impl IntoIterator<Item = Result<(RelPath, Base), E>>,
) -> Result<Divergence, E> {
    let mut local = Head::new(local.into_iter().map(Ok))?;
    let mut remote = Head::new(remote.into_iter())?;
    let mut base = Head::new(base.into_iter())?;
    let mut divergence = Divergence::default();
    let mut folders = Folders::default();
    loop {
        let keys = [local.key(), remote.key(), base.key()];
        let Some(least) = keys.into_iter().flatten().min() else { break };
        let here = keys.map(|key| key == Some(least));
        let local = if here[0] { local.take()? } else { None };
        let remote = if here[1] { remote.take()? } else { None };
        let base = if here[2] { base.take()? } else { None };

        if let Some((_, entry)) = &local {
            divergence.local_entries += usize::from(!matches!(entry, Local::Opaque(_)));
        }
        divergence.base_entries += usize::from(base.is_some());
        if let Some((path, entry)) = &remote {
            divergence.remote_entries += 1;
            if let Some(missing) = folders.enter(path, entry.kind) {
                divergence.incomplete.insert(missing);
            }
        }
        divergence.add(local, remote, base);
    }
    Ok(divergence)
}

impl Divergence {
    /// Keeps what one path has, if its trees do not agree. At least one of them has it.
    fn add(
        &mut self,
        local: Option<(&RelPath, &Local)>,
        remote: Option<(RelPath, Remote)>,
        base: Option<(RelPath, Base)>,
    ) {
        let (local_path, local) = local.unzip();
        let (remote_path, remote) = remote.unzip();
        let (base_path, base) = base.unzip();
        let Some(path) = remote_path.or(base_path).or_else(|| local_path.cloned()) else { return };
        if names::is_conflict(path.name()) {
            self.conflict_names.insert(path.clone());
        }
        if !agree(local, remote.as_ref(), base.as_ref()) {
            self.triples.insert(path, Triple { local: local.copied(), remote, base });
        }
    }
}

/// Whether nothing at all is to be done or to be learned.
fn agree(local: Option<&Local>, remote: Option<&Remote>, base: Option<&Base>) -> bool {
    let (Some(local), Some(remote), Some(base)) = (local, remote, base) else { return false };
    if base.remote != *remote {
        return false;
    }
    match local {
        Local::File { content, stat, .. } => {
            remote.kind == Kind::File(*content) && base.stat.as_ref() == Some(stat)
        }
        // Its times change with whatever happens in it.
        Local::Directory { .. } => remote.kind.is_directory(),
        Local::Opaque(_) => false,
    }
}

/// An iterator and its next item.
struct Head<I, T> {
    rest: I,
    next: Option<T>,
}

impl<P: AsPath, V, E, I: Iterator<Item = Result<(P, V), E>>> Head<I, (P, V)> {
    fn new(mut rest: I) -> Result<Self, E> {
        let next = rest.next().transpose()?;
        Ok(Self { rest, next })
    }

    fn key(&self) -> Option<&str> {
        self.next.as_ref().map(|(path, _)| path.as_path().key())
    }

    fn take(&mut self) -> Result<Option<(P, V)>, E> {
        let next = self.rest.next().transpose()?;
        let taken = std::mem::replace(&mut self.next, next);
        debug_assert!(
            self.key()
                .zip(taken.as_ref())
                .is_none_or(|(next, (path, _))| path.as_path().key() < next),
            "the trees are sorted"
        );
        Ok(taken)
    }
}

/// A path, owned or not.
trait AsPath {
    fn as_path(&self) -> &RelPath;
}

impl AsPath for RelPath {
    fn as_path(&self) -> &RelPath {
        self
    }
}

impl AsPath for &RelPath {
    fn as_path(&self) -> &RelPath {
        self
    }
}

/// The server's folders that hold the entry looked at, the outermost first.
#[derive(Default)]
struct Folders(Vec<RelPath>);

impl Folders {
    /// Goes on to the next entry. Gives the outermost of its folders that the server has not told of.
    fn enter(&mut self, path: &RelPath, kind: Kind) -> Option<RelPath> {
        while self.0.last().is_some_and(|folder| !path.is_inside(folder)) {
            self.0.pop();
        }
        let known = self.0.last().map_or(0, |folder| folder.key().len() + 1);
        if let Some(end) = path.key()[known..].find('\0') {
            return RelPath::from_key(&path.key()[..known + end]).ok();
        }
        if kind.is_directory() {
            self.0.push(path.clone());
        }
        None
    }
}
