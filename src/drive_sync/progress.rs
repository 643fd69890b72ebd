//! What a drive's engine is doing at this moment, for those who want to see it move.
//!
//! A tick may take long, and its report comes at its end. The engine's thread writes here as it goes,
//! anybody reads; nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::engine::{Done, Pending};
use super::model::EntryId;
use super::path::RelPath;

/// What is told of one drive. Clones tell of the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Now>>);

/// How far a tick is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Between two ticks.
    #[default]
    Resting,
    /// The server is asked what is new.
    Asking,
    /// The server lists everything.
    Listing,
    /// The disk is looked at.
    Looking,
    /// What was found to do is done.
    Working,
}

/// Which way a content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the server.
    Fetch,
    /// To the server.
    Send,
}

/// A content on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Whose, if that is known.
    pub path: Option<RelPath>,
    /// Which way.
    pub direction: Direction,
    /// Bytes that are there already.
    pub moved: u64,
    /// Bytes of the whole.
    pub size: u64,
}

/// One moment.
#[derive(Debug, Clone, Default)]
pub struct Now {
    /// How far the tick is.
    pub phase: Phase,
    /// Entries that the server has listed so far.
    pub listed: usize,
    /// What there was to do when work began.
    pub planned: Pending,
    /// What of it is done.
    pub done: Done,
    /// Bytes of contents that arrived, or went, and are not among what is done yet.
    pub moving: u64,
    transfers: BTreeMap<u64, Transfer>,
    next: u64,
    fetched: BTreeMap<EntryId, RelPath>,
}

impl Progress {
    /// How it is now.
    pub fn now(&self) -> Now {
        self.lock().clone()
    }

    /// Another phase begins.
    pub fn enter(&self, phase: Phase) {
        let mut now = self.lock();
        if now.phase != phase && phase == Phase::Listing {
            now.listed = 0;
        }
        now.phase = phase;
    }

    /// The server has listed this many more entries.
    pub fn listed(&self, entries: usize) {
        self.lock().listed += entries;
    }

    /// Work begins.
    pub fn plan(&self, planned: Pending) {
        let next = self.lock().next;
        *self.lock() = Now { phase: Phase::Working, planned, next, ..Now::default() };
    }

    /// So much of it is done.
    pub fn done(&self, done: Done) {
        let mut now = self.lock();
        let before = now.done.fetched_bytes + now.done.sent_bytes;
        let counted = (done.fetched_bytes + done.sent_bytes).saturating_sub(before);
        now.moving = now.moving.saturating_sub(counted);
        now.done = done;
    }

    /// Which files the entries are that will be asked for next.
    pub fn names<'a>(&self, files: impl Iterator<Item = (&'a EntryId, &'a RelPath)>) {
        self.lock().fetched = files.map(|(id, path)| (id.clone(), path.clone())).collect();
    }

    /// The name of an entry that is fetched.
    pub fn name_of(&self, id: &EntryId) -> Option<RelPath> {
        self.lock().fetched.get(id).cloned()
    }

    /// The tick is over; its report says the rest.
    pub fn rest(&self) {
        let next = self.lock().next;
        *self.lock() = Now { next, ..Now::default() };
    }

    /// A content sets out.
    pub fn begin(&self, transfer: Transfer) -> u64 {
        let mut now = self.lock();
        let number = now.next;
        now.next += 1;
        now.transfers.insert(number, transfer);
        number
    }

    /// It has `bytes` more, and is at `moved` of its whole.
    pub fn moved(&self, number: u64, bytes: u64, moved: u64) {
        let mut now = self.lock();
        now.moving += bytes;
        if let Some(transfer) = now.transfers.get_mut(&number) {
            transfer.moved = moved;
        }
    }

    /// Bytes of a content that is too small to be shown.
    pub fn moved_small(&self, bytes: u64) {
        self.lock().moving += bytes;
    }

    /// It has arrived, or failed.
    pub fn end(&self, number: u64) {
        self.lock().transfers.remove(&number);
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    /// What is left to do.
    pub fn left(&self) -> Pending {
        self.planned.less(&self.done)
    }

    /// The contents on their way, the one first that set out first.
    pub fn transfers(&self) -> impl Iterator<Item = &Transfer> {
        self.transfers.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_once_whether_they_move_or_are_done() {
        let progress = Progress::default();
        progress.plan(Pending { downloads: 2, download_bytes: 100, ..Pending::default() });
        let transfer = Transfer { path: None, direction: Direction::Fetch, moved: 0, size: 70 };
        let number = progress.begin(transfer);
        progress.moved(number, 50, 50);
        progress.moved_small(30);
        let now = progress.now();
        assert_eq!((now.moving, now.transfers().next().unwrap().moved), (80, 50));
        progress.moved(number, 20, 70);
        progress.end(number);
        progress.done(Done { fetched: 1, fetched_bytes: 70, ..Done::default() });
        let now = progress.now();
        assert_eq!((now.moving, now.transfers().count()), (30, 0));
        assert_eq!((now.left().downloads, now.left().download_bytes), (1, 30));
        progress.rest();
        assert_eq!((progress.now().moving, progress.now().phase), (0, Phase::Resting));
    }
}
