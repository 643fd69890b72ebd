//! Places of which the feed has told only a part: to the planner they take no part.
//!
//! A folder that moves is told entry by entry. In the middle of it what was inside stands without a
//! folder, and two entries may stand at one path; to take that for deletions would be wrong.

use std::collections::BTreeSet;

use super::super::model::{Local, LocalTree, Opaque};
use super::super::path::RelPath;

/// What the planner sees there.
static UNKNOWN: Local = Local::Opaque(Opaque::Unsettled);

/// Places, none inside another; each stands for all that is below it.
#[derive(Debug, Clone, Default)]
pub(super) struct Unclear(pub(super) BTreeSet<RelPath>);

impl Unclear {
    /// The unclear place at or above this path. Only the last one before it can be: a folder and
    /// all below it stand together in the order.
    pub(super) fn place(&self, path: &RelPath) -> Option<&RelPath> {
        if self.0.is_empty() {
            return None;
        }
        let before = self.0.range::<RelPath, _>(..=path).next_back()?;
        (before == path || path.is_inside(before)).then_some(before)
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
    pub(super) fn rows<T, E>(
        &self,
        rows: impl Iterator<Item = Result<(RelPath, T), E>>,
    ) -> impl Iterator<Item = Result<(RelPath, T), E>> {
        rows.filter(|row| !row.as_ref().is_ok_and(|(path, _)| self.place(path).is_some()))
    }
}
