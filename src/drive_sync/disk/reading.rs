//! Reads many files of a scan side by side, and large ones when the others are done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::super::model::{Local, LocalTree, Opaque};
use super::super::path::RelPath;
use super::Disk;
use super::hash::{Outcome, Reader};

/// Threads that read files at the same time.
const READERS: usize = 4;
/// A file of at least so many bytes is read after the others.
const LARGE: u64 = 64 << 20;
/// Bytes of large files that are read in one scan: a still larger one is read in pieces of this size.
pub(super) const LARGE_AT_ONCE: u64 = 256 << 20;

/// Large files that have to be read: after all others, so that these need not wait.
#[derive(Default)]
pub(super) struct Large {
    /// Others were read in this scan.
    has_small: bool,
    /// With their sizes.
    files: BTreeMap<RelPath, u64>,
}

impl Large {
    /// Reads files side by side, but for large ones. `tree` has what was there before.
    pub(super) fn read_others<'p>(
        &mut self,
        disk: &Disk,
        path_of: impl Fn(usize) -> &'p RelPath + Sync,
        to_read: &[usize],
        tree: &LocalTree,
    ) -> Vec<(usize, Outcome)> {
        let outcomes = read_all(disk, path_of, to_read, tree, LARGE - 1);
        let is_small = |(_, outcome): &(usize, Outcome)| !matches!(outcome, Outcome::Large(_));
        self.has_small |= outcomes.iter().any(is_small);
        outcomes
    }

    /// This file is large.
    pub(super) fn put_off(&mut self, path: RelPath, size: u64) {
        self.files.insert(path, size);
    }

    /// Reads some, and puts off the rest. Where small ones were read, too, those that were put off
    /// before have their turn every second time: there may always be small ones, and what was found
    /// of these is not sent before the scan is over.
    pub(super) fn put_into(self, disk: &Disk, tree: &mut LocalTree) {
        let unread = Local::Opaque(Opaque::Unread);
        let (mut now, mut bytes) = (Vec::new(), 0);
        disk.unfinished.keep_only(|path| self.files.contains_key(path));
        // A file that is written to all the time must not come before all others.
        let (first, last): (Vec<_>, Vec<_>) =
            self.files.into_iter().partition(|(path, _)| tree.get(path) == Some(&unread));
        let is_none = first.is_empty() && last.is_empty();
        let have_turn = !is_none && disk.unfinished.have_their_turn(self.has_small);
        for (path, size) in first.into_iter().chain(last) {
            let is_its_turn = !self.has_small || (have_turn && tree.get(&path) == Some(&unread));
            if is_its_turn && (bytes == 0 || bytes + size <= LARGE_AT_ONCE) {
                bytes += size;
                now.push(path);
            } else {
                tree.insert(path, unread);
            }
        }
        let all: Vec<usize> = (0..now.len()).collect();
        for (index, outcome) in read_all(disk, |index| &now[index], &all, tree, u64::MAX) {
            match outcome {
                Outcome::Is(local) => drop(tree.insert(now[index].clone(), local)),
                Outcome::Gone => drop(tree.remove(&now[index])),
                // There is more of it.
                Outcome::Large(_) => drop(tree.insert(now[index].clone(), unread)),
            }
        }
    }
}

/// Reads files of at most `most` bytes side by side. `tree` has what was there before.
fn read_all<'p>(
    disk: &Disk,
    path_of: impl Fn(usize) -> &'p RelPath + Sync,
    to_read: &[usize],
    tree: &LocalTree,
    most: u64,
) -> Vec<(usize, Outcome)> {
    let one = |index: &usize, reader: &mut Reader| {
        let path = path_of(*index);
        (*index, reader.read(disk, path, tree.get(path)))
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let readers = cores.min(READERS).min(to_read.len());
    if readers < 2 {
        let mut reader = Reader::new(most, LARGE_AT_ONCE);
        return to_read.iter().map(|index| one(index, &mut reader)).collect();
    }
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::sync_channel(256);
    std::thread::scope(|scope| {
        for _ in 0..readers {
            let (send, next, one) = (send.clone(), &next, &one);
            scope.spawn(move || {
                let mut reader = Reader::new(most, LARGE_AT_ONCE);
                while let Some(index) = to_read.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if send.send(one(index, &mut reader)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        receive.iter().collect()
    })
}
