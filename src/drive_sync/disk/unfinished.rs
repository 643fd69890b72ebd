//! Large files that are read a piece at a time, so that other work has its turn in between.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256 as Hasher};

use super::super::model::Stat;
use super::super::path::RelPath;

/// How far a file has been read.
#[derive(Debug)]
pub(super) struct Begun {
    /// What it was when its reading began.
    pub(super) stat: Stat,
    pub(super) hasher: Hasher,
    pub(super) offset: u64,
    pub(super) only_zeros: bool,
}

impl Begun {
    pub(super) fn new(stat: Stat) -> Self {
        Self { stat, hasher: Hasher::new(), offset: 0, only_zeros: true }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    begun: Mutex<BTreeMap<RelPath, Begun>>,
    have_waited: AtomicBool,
}

impl Unfinished {
    /// What has been read of this file so far; `None`: it is not the same any more.
    pub(super) fn take(&self, path: &RelPath, stat: Stat) -> Option<Begun> {
        match self.lock().remove(path) {
            None => Some(Begun::new(stat)),
            begun => begun.filter(|begun| begun.stat == stat),
        }
    }

    /// The rest is for another time.
    pub(super) fn put(&self, path: &RelPath, begun: Begun) {
        self.lock().insert(path.clone(), begun);
    }

    /// Whether large files have their turn in a scan: where there are small ones, too, only if they
    /// had to wait the last time.
    pub(super) fn have_their_turn(&self, has_small: bool) -> bool {
        if has_small {
            return self.have_waited.fetch_xor(true, Ordering::Relaxed);
        }
        self.have_waited.store(false, Ordering::Relaxed);
        true
    }

    /// What is not to be read any more is forgotten.
    pub(super) fn keep_only(&self, is_wanted: impl Fn(&RelPath) -> bool) {
        self.lock().retain(|path, _| is_wanted(path));
    }

    #[cfg(test)]
    pub(super) fn read_of(&self, path: &RelPath) -> Option<u64> {
        self.lock().get(path).map(|begun| begun.offset)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RelPath, Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
