//! Finds the paths on which the three trees do not agree, without keeping the others.

use std::collections::{BTreeMap, BTreeSet};

use fallible_streaming_iterator::FallibleStreamingIterator;

use super::names;
use super::rows::Row;
use crate::drive_sync::model::{Base, Kind, Local, Remote};
use crate::drive_sync::path::RelPath;

/// What the three trees have at one path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Triple {
    pub local: Option<Local>,
    /// Elsewhere, as the base is: in a first copy thousands have only one of the three.
    pub remote: Option<Box<Remote>>,
    pub base: Option<Box<Base>>,
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

    fn add(&mut self, side: Side, kind: Kind) {
        let length = kind.content().map_or(0, |content| content.size);
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

/// Walks the three trees side by side. Each gives its paths in their order, none twice. Memory is
/// taken for the differences only. The first error ends it.
pub fn diff<'a, E, R, B>(
    local: impl IntoIterator<Item = (&'a RelPath, &'a Local)>,
    remote: R,
    base: B,
) -> Result<Divergence, E>
where
    R: FallibleStreamingIterator<Item: Row<E> + Sized>,
    B: FallibleStreamingIterator<Item: Row<E> + Sized>,
    E: From<R::Error> + From<B::Error>,
{
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
pub fn diff_of_some<'a, E, R, B>(
    local: impl IntoIterator<Item = (&'a RelPath, &'a Local)>,
    mut remote: R,
    mut base: B,
    most: Most,
) -> Result<Option<Divergence>, E>
where
    R: FallibleStreamingIterator<Item: Row<E> + Sized>,
    B: FallibleStreamingIterator<Item: Row<E> + Sized>,
    E: From<R::Error> + From<B::Error>,
{
    let mut local = local.into_iter().peekable();
    remote.advance()?;
    base.advance()?;
    let mut divergence = Divergence::default();
    let mut folders = Folders::default();
    let mut choice = Choice { most, taken: Most { here: 0, there: 0 }, needs_all: false };
    loop {
        let keys = [
            local.peek().map(|(path, _)| path.key()),
            remote.get().map(Row::key).transpose()?,
            base.get().map(Row::key).transpose()?,
        ];
        let Some(least) = keys.into_iter().flatten().min() else { break };
        let [in_local, in_remote, in_base] = keys.map(|key| key == Some(least));
        let here = Here {
            local: local.peek().filter(|_| in_local).copied(),
            remote: remote.get().filter(|_| in_remote),
            base: base.get().filter(|_| in_base),
        };
        if let Some(remote) = here.remote {
            let is_folder = remote.kind()?.is_directory();
            divergence.incomplete.extend(folders.enter(least, is_folder));
        }
        if names::is_conflict(name_of(least)) {
            divergence.conflict_names.extend(here.path()?);
        }
        divergence.count(&here);
        if !here.agree()? {
            divergence.add(&here, &mut choice)?;
        }
        if choice.needs_all && !divergence.left_out.is_nothing() {
            return Ok(None);
        }
        if in_local {
            local.next();
        }
        if in_remote {
            remote.advance()?;
        }
        if in_base {
            base.advance()?;
        }
    }
    Ok(Some(divergence))
}

/// What stands at one path; at least one of the trees has it.
struct Here<'a, R, B> {
    local: Option<(&'a RelPath, &'a Local)>,
    remote: Option<&'a R>,
    base: Option<&'a B>,
}

impl<R, B> Here<'_, R, B> {
    fn path<E>(&self) -> Result<Option<RelPath>, E>
    where
        R: Row<E>,
        B: Row<E>,
    {
        Ok(match (self.local, self.remote, self.base) {
            (Some((path, _)), ..) => Some(path.clone()),
            (None, Some(remote), _) => Some(remote.path()?),
            (None, None, base) => base.map(Row::path).transpose()?,
        })
    }

    /// Whether nothing at all is to be done or to be learned.
    fn agree<E>(&self) -> Result<bool, E>
    where
        R: Row<E>,
        B: Row<E>,
    {
        let (Some((_, local)), Some(remote), Some(base)) = (self.local, self.remote, self.base)
        else {
            return Ok(false);
        };
        let kind = remote.kind()?;
        if base.kind()? != kind || base.names()? != remote.names()? {
            return Ok(false);
        }
        Ok(match local {
            Local::File { content, stat, .. } => {
                kind == Kind::File(*content) && base.stat()?.as_ref() == Some(stat)
            }
            // Its times change with whatever happens in it.
            Local::Directory { .. } => kind.is_directory(),
            Local::Opaque(_) => false,
        })
    }

    fn kinds<E>(&self) -> Result<Kinds<'_>, E>
    where
        R: Row<E>,
        B: Row<E>,
    {
        Ok(Kinds {
            local: self.local.map(|(_, local)| local),
            remote: self.remote.map(Row::kind).transpose()?,
            base: self.base.map(Row::kind).transpose()?,
        })
    }

    fn triple<E>(&self) -> Result<Triple, E>
    where
        R: Row<E>,
        B: Row<E>,
    {
        let base = match self.base {
            Some(base) => Some(Box::new(Base { remote: base.remote()?, stat: base.stat()? })),
            None => None,
        };
        Ok(Triple {
            local: self.local.map(|(_, local)| *local),
            remote: self.remote.map(Row::remote).transpose()?.map(Box::new),
            base,
        })
    }
}

/// The last name of a path, by its key.
fn name_of(key: &str) -> &str {
    key.rsplit('\0').next().unwrap_or(key)
}

/// What kinds of entries stand at one path.
struct Kinds<'a> {
    local: Option<&'a Local>,
    remote: Option<Kind>,
    base: Option<Kind>,
}

impl Kinds<'_> {
    /// Whether nothing else depends on what becomes of it: it takes no part, or both sides have the
    /// same kind of entry there, and the base too if it has any.
    fn stand_for_themselves(&self) -> bool {
        let is_folder = |kind: Kind| kind.is_directory();
        match (self.local.map(Local::kind), self.remote) {
            (Some(None), _) => true,
            (Some(Some(local)), Some(remote)) => {
                let here = is_folder(local);
                here == is_folder(remote) && self.base.is_none_or(|base| here == is_folder(base))
            }
            _ => false,
        }
    }
}

/// What is left out, and whether it may be.
struct Choice {
    most: Most,
    taken: Most,
    /// Something depends on all that is new.
    needs_all: bool,
}

impl Choice {
    /// Looks at a difference. Gives the side whose new entry is to be left out, and what it is.
    fn leaves_out(&mut self, kinds: &Kinds<'_>) -> Option<(Side, Kind)> {
        let local = kinds.local.map(Local::kind);
        let (side, kind, most, taken) = match (local, kinds.remote, kinds.base) {
            (Some(Some(kind)), None, None) => {
                (Side::Here, kind, self.most.here, &mut self.taken.here)
            }
            (None, Some(kind), None) => (Side::There, kind, self.most.there, &mut self.taken.there),
            _ => {
                self.needs_all |= !kinds.stand_for_themselves();
                return None;
            }
        };
        if *taken == most {
            return Some((side, kind));
        }
        *taken += 1;
        None
    }
}

impl Divergence {
    fn count<R, B>(&mut self, here: &Here<'_, R, B>) {
        let takes_part = |(_, local): (_, &Local)| !matches!(local, Local::Opaque(_));
        self.local_entries += usize::from(here.local.is_some_and(takes_part));
        self.remote_entries += usize::from(here.remote.is_some());
        self.base_entries += usize::from(here.base.is_some());
    }

    /// Keeps what one path has, or leaves it out.
    fn add<E, R, B>(&mut self, here: &Here<'_, R, B>, choice: &mut Choice) -> Result<(), E>
    where
        R: Row<E>,
        B: Row<E>,
    {
        match choice.leaves_out(&here.kinds()?) {
            Some((side, kind)) => self.left_out.add(side, kind),
            None => {
                if let Some(path) = here.path()? {
                    self.triples.insert(path, here.triple()?);
                }
            }
        }
        Ok(())
    }
}

/// The server's folders that hold the entry looked at, the outermost first: their keys.
#[derive(Default)]
struct Folders(Vec<Box<str>>);

impl Folders {
    /// Goes on to the next entry. Gives the outermost of its folders that the server has not told of.
    fn enter(&mut self, key: &str, is_folder: bool) -> Option<RelPath> {
        let is_inside =
            |folder: &str| key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('\0'));
        while self.0.last().is_some_and(|folder| !is_inside(folder)) {
            self.0.pop();
        }
        let known = self.0.last().map_or(0, |folder| folder.len() + 1);
        if let Some(end) = key[known..].find('\0') {
            return RelPath::from_key(&key[..known + end]).ok();
        }
        if is_folder {
            self.0.push(key.into());
        }
        None
    }
}
