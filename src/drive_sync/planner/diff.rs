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
    /// New entries that are not among the triples, because there are so many of them.
    pub left_out: LeftOut,
}

/// New entries that wait for a later plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it; the bytes are of files")]
pub struct LeftOut {
    /// Only the disk has them.
    pub here: usize,
    pub here_bytes: u64,
    /// Only the server has them.
    pub there: usize,
    pub there_bytes: u64,
}

impl LeftOut {
    /// Whether everything is among the triples.
    pub fn is_nothing(&self) -> bool {
        self.here + self.there == 0
    }

    fn add(&mut self, side: Side, kind: Option<Kind>) {
        let length = kind.and_then(|kind| kind.content().map(|content| content.size)).unwrap_or(0);
        let (count, bytes) = match side {
            Side::Here => (&mut self.here, &mut self.here_bytes),
            Side::There => (&mut self.there, &mut self.there_bytes),
        };
        *count += 1;
        *bytes += length;
    }
}

/// How many new entries are planned at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Of those that only the disk has.
    pub here: usize,
    /// Of those that only the server has.
    pub there: usize,
}

impl Most {
    /// As many as there are.
    pub const ALL: Self = Self { here: usize::MAX, there: usize::MAX };
}

/// Who has a new entry.
#[derive(Clone, Copy)]
enum Side {
    Here,
    There,
}

/// Walks the three trees side by side. Each iterator gives its paths in their order, none twice.
/// Memory is taken for the differences only. The first error of an iterator ends it.
pub fn diff<'a, E>(
    local: impl IntoIterator<Item = (&'a RelPath, &'a Local)>,
    remote: impl IntoIterator<Item = Result<(RelPath, Remote), E>>,
    base: impl IntoIterator<Item = Result<(RelPath, Base), E>>,
) -> Result<Divergence, E> {
    // With no bound nothing is left out, and then there is always something.
    Ok(diff_of_some(local, remote, base, Most::ALL)?.unwrap_or_default())
}

/// The same with only the first `most` new entries of each side, so that a first copy does not take
/// memory for all of it. `None`: there are more, but something else differs for which the plan has
/// to know them all.
///
/// What is new depends on nothing but the folders above it, which come before it. On the new in
/// turn depend only moves, and folders that are to go or to give their place to a file: all of them
/// are differences in which one side lacks what the base has, or has another kind of entry.
pub fn diff_of_some<'a, E>(
    local: impl IntoIterator<Item = (&'a RelPath, &'a Local)>,
    remote: impl IntoIterator<Item = Result<(RelPath, Remote), E>>,
    base: impl IntoIterator<Item = Result<(RelPath, Base), E>>,
    most: Most,
) -> Result<Option<Divergence>, E> {
    let mut local = Head::new(local.into_iter().map(Ok))?;
    let mut remote = Head::new(remote.into_iter())?;
    let mut base = Head::new(base.into_iter())?;
    let mut divergence = Divergence::default();
    let mut folders = Folders::default();
    let mut choice = Choice { most, taken: Most { here: 0, there: 0 }, needs_all: false };
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
        divergence.add(local, remote, base, &mut choice);
        if choice.needs_all && !divergence.left_out.is_nothing() {
            return Ok(None);
        }
    }
    Ok(Some(divergence))
}

/// What is left out, and whether it may be.
struct Choice {
    most: Most,
    taken: Most,
    /// Something depends on all that is new.
    needs_all: bool,
}

impl Choice {
    /// Looks at a difference. Gives the side whose new entry is to be left out.
    fn leaves_out(&mut self, triple: &Triple) -> Option<Side> {
        let (side, most, taken) = match triple {
            Triple { local: Some(local), remote: None, base: None } if local.kind().is_some() => {
                (Side::Here, self.most.here, &mut self.taken.here)
            }
            Triple { local: None, remote: Some(_), base: None } => {
                (Side::There, self.most.there, &mut self.taken.there)
            }
            _ => {
                self.needs_all |= !stands_for_itself(triple);
                return None;
            }
        };
        if *taken == most {
            return Some(side);
        }
        *taken += 1;
        None
    }
}

/// Whether nothing else depends on what becomes of it: it takes no part, or both sides have the
/// same kind of entry there, and the base too if it has any.
fn stands_for_itself(triple: &Triple) -> bool {
    let is_folder = |kind: Kind| kind.is_directory();
    match (&triple.local, &triple.remote) {
        (Some(Local::Opaque(_)), _) => true,
        (Some(local), Some(remote)) => {
            let here = local.kind().map(is_folder);
            let base = triple.base.as_ref().map(|base| is_folder(base.remote.kind));
            here == Some(is_folder(remote.kind)) && base.is_none_or(|base| here == Some(base))
        }
        _ => false,
    }
}

impl Divergence {
    /// Keeps what one path has, if its trees do not agree. At least one of them has it.
    fn add(
        &mut self,
        local: Option<(&RelPath, &Local)>,
        remote: Option<(RelPath, Remote)>,
        base: Option<(RelPath, Base)>,
        choice: &mut Choice,
    ) {
        let (local_path, local) = local.unzip();
        let (remote_path, remote) = remote.unzip();
        let (base_path, base) = base.unzip();
        let Some(path) = remote_path.or(base_path).or_else(|| local_path.cloned()) else { return };
        if names::is_conflict(path.name()) {
            self.conflict_names.insert(path.clone());
        }
        if agree(local, remote.as_ref(), base.as_ref()) {
            return;
        }
        let triple = Triple { local: local.copied(), remote, base };
        match choice.leaves_out(&triple) {
            Some(side) => {
                let local = triple.local.as_ref().and_then(Local::kind);
                let remote = triple.remote.as_ref().map(|remote| remote.kind);
                self.left_out.add(side, local.or(remote));
            }
            None => {
                self.triples.insert(path, triple);
            }
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
