//! Learns the whole remote tree anew when the feed does not reach back far enough.
//!
//! The base stays as it is, so nothing is deleted because it was not listed; only a server that is
//! another or an earlier one makes us forget on what we agreed, and then both sides are kept.

use super::super::ports::{Clock, Drive, Fs, RemoteError, Rng};
use super::super::progress::Phase;
use super::super::state::Resync;
use super::pull::last_sequence;
use super::{Engine, TickError};

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    pub(super) fn begin_resync(&mut self, drop_base: bool) -> Result<bool, TickError> {
        self.state.begin_resync(drop_base)?;
        self.resync()
    }

    /// Goes on with the snapshot. Returns whether it is whole and in place.
    pub(super) fn resync(&mut self) -> Result<bool, TickError> {
        self.head = None;
        self.remote_changed();
        for _ in 0..self.settings.max_batches {
            let Some(resync) = self.state.resync()? else { return Ok(true) };
            match resync.cursor {
                None => self.list(&resync)?,
                Some(cursor) => self.catch_up(&resync, cursor)?,
            }
        }
        if self.state.resync()?.is_none() {
            return Ok(true);
        }
        self.now.resyncing = true;
        self.now.more = true;
        Ok(false)
    }

    fn list(&mut self, resync: &Resync) -> Result<(), TickError> {
        match self.drive.snapshot(resync.page.as_deref()) {
            Ok(page) if resync.epoch.as_ref().is_some_and(|epoch| *epoch != page.epoch) => {
                self.again("the server was restored while it was listed", false)
            }
            Ok(page) => {
                self.now.pulled += page.entries.len();
                self.progress.enter(Phase::Listing);
                self.progress.listed(page.entries.len());
                Ok(self.state.take_snapshot_page(&page)?)
            }
            // The list that was begun cannot be continued any more.
            Err(RemoteError::CursorExpired | RemoteError::Refused { .. })
                if resync.page.is_some() =>
            {
                self.again("the server has forgotten the list that it had begun", false)
            }
            Err(error) => Err(self.server_failed(error)),
        }
    }

    /// Reads what has changed since the first page.
    fn catch_up(&mut self, resync: &Resync, cursor: u64) -> Result<(), TickError> {
        match self.drive.changes(cursor, self.settings.change_limit) {
            Ok(page) if resync.epoch.as_ref() != Some(&page.epoch) || page.head < cursor => {
                let restored = resync.epoch.as_ref() == Some(&page.epoch);
                self.again("the server was restored while it was listed", restored)
            }
            Ok(mut page) => {
                let last = last_sequence(&page, cursor);
                page.has_more &= last > cursor;
                self.state.take_replayed_page(&page, last)?;
                self.now.pulled += page.changes.len();
                if !page.has_more {
                    self.head = Some(page.head);
                    self.now.cursor = last;
                    self.remote_changed();
                }
                Ok(())
            }
            Err(RemoteError::CursorExpired) => {
                self.again("listing took longer than the server remembers changes", false)
            }
            Err(error) => Err(self.server_failed(error)),
        }
    }

    /// Starts over, after a while.
    fn again(&mut self, why: &str, drop_base: bool) -> Result<(), TickError> {
        self.state.begin_resync(drop_base)?;
        Err(self.unavailable(why.to_owned(), None))
    }
}
