//! Places of which the feed has told only a part: to the planner they take no part.
//!
//! A folder that moves is told entry by entry. In the middle of it what was inside stands without a
//! folder, and two entries may stand at one path; to take that for deletions would be wrong.

use std::collections::BTreeSet;
use std::ops::Bound;

use fallible_streaming_iterator::FallibleStreamingIterator;

use super::super::model::{Local, LocalTree, Opaque};
use super::super::path::RelPath;
use super::super::planner::Row;
use super::super::state::StateError;

/// What the planner sees there.
static UNKNOWN: Local = Local::Opaque(Opaque::Unsettled);

/// Places, none inside another; each stands for all that is below it.
#[derive(Debug, Clone, Default)]
pub(super) struct Unclear(pub(super) BTreeSet<RelPath>);

impl Unclear {
    /// The unclear place at or above this path. Only the last one before it can be: a folder and
    /// all below it stand together in the order.
    pub(super) fn place(&self, path: &RelPath) -> Option<&RelPath> {
        self.place_of(path.key())
    }

    fn place_of(&self, key: &str) -> Option<&RelPath> {
        if self.0.is_empty() {
            return None;
        }
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let before = self.0.range::<str, _>(up_to).next_back()?;
        let rest = key.strip_prefix(before.key())?;
        (rest.is_empty() || rest.starts_with('\0')).then_some(before)
    }

    /// The disk, with one entry of unknown kind for each unclear place.
    pub(super) fn local<'a>(
        &'a self,
        tree: &'a LocalTree,
    ) -> impl Iterator<Item = (&'a RelPath, &'a Local)> {
        tree.iter().filter_map(|(path, local)| match self.place(path) {
            None => Some((path, local)),
            Some(place) => (place == path).then_some((path, &UNKNOWN)),
        })
    }

    /// Rows that are not in an unclear place.
    pub(super) fn rows<'a, R>(
        &'a self,
        rows: R,
    ) -> impl FallibleStreamingIterator<Item = R::Item, Error = R::Error> + 'a
    where
        R: FallibleStreamingIterator<Item: Row<StateError> + Sized> + 'a,
    {
        // A row that cannot be read goes on to where that is said.
        rows.filter(|row| row.key().map_or(true, |key| self.place_of(key).is_none()))
    }
}
