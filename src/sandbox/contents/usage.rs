//! How many bytes all contents take, those on their way in included, and the bound on that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes in use.
#[derive(Debug)]
pub(super) struct Usage {
    used: AtomicU64,
    limit: u64,
}

/// No room is left below the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

/// Room for one content; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    usage: Arc<Usage>,
    bytes: u64,
}

impl Usage {
    /// With so many bytes in use, and at most `limit`.
    pub(super) fn new(used: u64, limit: u64) -> Self {
        Self { used: AtomicU64::new(used), limit }
    }

    /// Takes back what a content took that is gone.
    pub(super) fn give_back(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        // The closure never refuses.
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

impl Room {
    /// For nothing yet.
    pub(super) fn new(usage: Arc<Usage>) -> Self {
        Self { usage, bytes: 0 }
    }

    /// Takes room for `more` bytes.
    pub(super) fn grow(&mut self, more: u64) -> Result<(), NoRoom> {
        let limit = self.usage.limit;
        let grown = |used: u64| used.checked_add(more).filter(|used| *used <= limit);
        let used = &self.usage.used;
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| NoRoom)?;
        self.bytes = self.bytes.saturating_add(more);
        Ok(())
    }

    /// The content stays: its bytes remain in use.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.usage.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_exact_and_dropped_room_comes_back() {
        let usage = Arc::new(Usage::new(4, 10));
        let mut one = Room::new(Arc::clone(&usage));
        assert_eq!(one.grow(6), Ok(()));
        assert_eq!(one.grow(1), Err(NoRoom));
        drop(one);
        let mut other = Room::new(Arc::clone(&usage));
        assert_eq!(other.grow(u64::MAX), Err(NoRoom));
        assert_eq!(other.grow(5), Ok(()));
        other.keep();
        assert_eq!(usage.used.load(Ordering::Relaxed), 9);
        usage.give_back(9);
        assert_eq!(usage.used.load(Ordering::Relaxed), 0);
    }
}
