//! A long list of entries that were found on the disk.

use super::super::model::Local;
use super::super::path::RelPath;

/// Entries that are put into the tree at a time; few in tests, so that these see several pieces.
const ADD_AT_ONCE: usize = if cfg!(test) { 4 } else { 16_384 };

/// A list of entries in pieces, so that a long one is never copied to grow, nor to shrink.
#[derive(Default)]
pub(super) struct Entries(Vec<Vec<(RelPath, Local)>>);

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * ADD_AT_ONCE + last.len())
    }

    pub(super) fn push(&mut self, path: RelPath, local: Local) {
        if self.0.last().is_none_or(|last| last.len() == ADD_AT_ONCE) {
            self.0.push(Vec::new());
        }
        if let Some(last) = self.0.last_mut() {
            last.push((path, local));
        }
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.0.truncate(length.div_ceil(ADD_AT_ONCE));
        let before = self.0.len().saturating_sub(1) * ADD_AT_ONCE;
        if let Some(last) = self.0.last_mut() {
            last.truncate(length - before);
        }
    }

    pub(super) fn path(&self, index: usize) -> &RelPath {
        &self.0[index / ADD_AT_ONCE][index % ADD_AT_ONCE].0
    }

    pub(super) fn set(&mut self, index: usize, local: Local) {
        self.0[index / ADD_AT_ONCE][index % ADD_AT_ONCE].1 = local;
    }

    /// In the order in which they were pushed, a piece at a time.
    pub(super) fn into_pieces(self) -> impl DoubleEndedIterator<Item = Vec<(RelPath, Local)>> {
        self.0.into_iter()
    }
}
