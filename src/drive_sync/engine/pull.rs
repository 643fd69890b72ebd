//! Reads the feed into the remote tree.

use super::super::ports::{Changes, Clock, Drive, Fs, RemoteError, Rng};
use super::super::state::{Cursor, Note};
use super::failure::Failure;
use super::{Engine, TickError};

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    /// Returns whether the remote tree may be planned with: while a snapshot is on its way it may
    /// not.
    pub(super) fn pull(&mut self) -> Result<bool, TickError> {
        if self.state.resync()?.is_some() {
            return self.resync();
        }
        let Some(mut cursor) = self.state.pass_over_ours()? else {
            return self.begin_resync(false);
        };
        self.head = None;
        for _ in 0..self.settings.max_batches {
            self.now.cursor = cursor.sequence;
            match self.drive.changes(cursor.sequence, self.settings.change_limit) {
                Ok(page) if page.epoch != cursor.epoch || page.head < cursor.sequence => {
                    return self.begin_resync(true);
                }
                Ok(page) => {
                    if !self.take_page(&page, &mut cursor)? {
                        self.head = Some(page.head);
                        return Ok(true);
                    }
                }
                Err(RemoteError::CursorExpired) => return self.begin_resync(false),
                Err(error) => return Err(self.server_failed(error)),
            }
        }
        self.now.more = true;
        Ok(true)
    }

    /// Returns whether there is more to read.
    fn take_page(&mut self, page: &Changes, cursor: &mut Cursor) -> Result<bool, TickError> {
        if page.changes.is_empty() {
            return Ok(false);
        }
        let last = last_sequence(page, cursor.sequence);
        let moved = last > cursor.sequence;
        cursor.sequence = last;
        if self.state.take_page(&page.epoch, &page.changes, last)? > 0 {
            self.remote_changed();
        }
        self.now.pulled += page.changes.len();
        self.now.cursor = last;
        Ok(page.has_more && moved)
    }

    /// What was found out about the remote tree is not true any more.
    pub(super) fn remote_changed(&mut self) {
        self.unclear = None;
        self.idle = None;
    }

    /// Compares what we know with what the server says that it has. Returns whether it is equal, or
    /// cannot be compared now.
    pub(super) fn check_digest(&mut self) -> Result<bool, TickError> {
        let Some(head) = self.head else { return Ok(true) };
        let told = match self.drive.digest() {
            Ok(told) => told,
            Err(error) => return Err(self.server_failed(error)),
        };
        if told.head != head && told.head != self.now.cursor {
            return Ok(true);
        }
        let own = self.state.digest()?;
        let equal = (own.count, own.sha256, own.paths) == (told.count, told.sha256, told.paths);
        self.now.digest = Some(equal);
        if equal {
            self.state.note(Note::Digest, self.clock.wall())?;
        } else {
            self.state.begin_resync(false)?;
            self.now.resyncing = true;
            self.now.more = true;
        }
        Ok(equal)
    }

    /// A server that did not answer a question about the whole drive.
    pub(super) fn server_failed(&mut self, error: RemoteError) -> TickError {
        match Failure::from(error) {
            Failure::Halt(error) => error,
            Failure::Unavailable { message, retry_after } => self.unavailable(message, retry_after),
            Failure::Stale(message) | Failure::Refused(message) | Failure::Full(message) => {
                self.unavailable(message, None)
            }
            Failure::ReadOnly => self.unavailable(RemoteError::ReadOnly.to_string(), None),
        }
    }

    pub(super) fn unavailable(
        &mut self,
        message: String,
        retry_after: Option<std::time::Duration>,
    ) -> TickError {
        let retry_in = self.patience.lost(retry_after, &mut self.rng);
        TickError::Unavailable { message, retry_in }
    }
}

/// The cursor after a page: what it tells is known, and nothing beyond.
pub(super) fn last_sequence(page: &Changes, before: u64) -> u64 {
    page.changes.iter().map(|change| change.sequence).fold(before, u64::max)
}
