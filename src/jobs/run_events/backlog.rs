//! What was told and is not settled yet: in the spool, in memory while the disk takes nothing, and
//! the next few, read ahead.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::batch::{self, MAX_ROWS};
use super::spool::{self, Line, Owner, Spool};
use crate::fs::FsError;

/// Most bytes of a spool: past that, tellers wait.
const MAX_SPOOL: u64 = 256 * 1024 * 1024;
/// Most bytes that are held in memory while the disk takes nothing: past that, tellers wait.
const MAX_HELD: usize = 1024 * 1024;

/// The events of a run that wait, in order.
#[derive(Debug)]
pub(super) struct Backlog {
    path: PathBuf,
    owner: Owner,
    /// `None` while there is no file.
    spool: Option<Spool>,
    /// Whether it is worth trying to make one.
    wants_spool: bool,
    /// What the disk did not take; all of it comes after what is in the spool.
    held: VecDeque<Held>,
    held_bytes: usize,
    /// The spool could not be read the last time.
    unreadable: bool,
    /// The next events to send, the first unsettled one first.
    ahead: VecDeque<Arc<Line>>,
    /// The index after the last event that was read ahead.
    looked: u64,
    /// Every event before this index is settled.
    done: u64,
    /// The number of the next row.
    next: Option<i64>,
    /// The index of the next event that is told.
    told: u64,
    /// What `told` was at first: what lies before was told to an earlier gateway.
    first: u64,
    /// Most rows of the next batch: few while a bad event is looked for.
    limit: usize,
}

/// An event that waits in memory for the disk.
#[derive(Debug)]
struct Held {
    index: u64,
    /// With its end.
    text: String,
}

impl Backlog {
    /// What is left of the run. A disk that does not take the file is no error: events are then in
    /// memory only.
    pub(super) async fn open(path: PathBuf, owner: Owner) -> Self {
        let (spool, wants_spool) = match open_spool(&path, &owner).await {
            Ok(spool) => (Some(spool), false),
            Err(error) => {
                let full = error.is_full();
                let error = anyhow::Error::new(error);
                tracing::warn!("the events of a subagent's run are in memory only: {error:#}");
                (None, full)
            }
        };
        let progress = spool.as_ref().map(Spool::progress);
        let told = spool.as_ref().map_or(0, Spool::end);
        let done = progress.map_or(0, |progress| progress.done);
        Self {
            path,
            owner,
            spool,
            wants_spool,
            held: VecDeque::new(),
            held_bytes: 0,
            unreadable: false,
            ahead: VecDeque::new(),
            looked: done,
            done,
            next: progress.and_then(|progress| progress.next),
            told,
            first: told,
            limit: MAX_ROWS,
        }
    }

    /// The number of the next row, once it is known.
    pub(super) fn next(&self) -> Option<i64> {
        self.next
    }

    /// How many of the events that were told to this gateway are settled; negative while an earlier
    /// gateway's wait.
    pub(super) fn settled(&self) -> i64 {
        self.done.cast_signed() - self.first.cast_signed()
    }

    /// Nothing waits.
    pub(super) fn is_settled(&self) -> bool {
        self.done >= self.told
    }

    /// How many events would be lost if the process ended now.
    pub(super) fn only_in_memory(&self) -> usize {
        self.held.len()
    }

    /// Whether more may be told.
    pub(super) fn has_room(&self) -> bool {
        self.held_bytes < MAX_HELD && self.spool.as_ref().is_none_or(|file| file.len() < MAX_SPOOL)
    }

    /// Whether the disk is to be tried again after a while.
    pub(super) fn waits_for_disk(&self) -> bool {
        self.unreadable || (!self.held.is_empty() && (self.spool.is_some() || self.wants_spool))
    }

    /// Takes in events, type and payload each: on disk if that takes them, else in memory.
    pub(super) async fn keep(&mut self, events: impl Iterator<Item = (&'static str, String)>) {
        let was_empty = self.held.is_empty();
        for (event_type, payload) in events {
            let text = spool::encode(self.told, event_type, &payload);
            self.held_bytes += text.len();
            self.held.push_back(Held { index: self.told, text });
            self.told += 1;
        }
        // Else the disk did not take what came before: it is tried again after a while.
        if was_empty {
            self.try_disk().await;
        }
    }

    /// Brings to disk what is held in memory.
    pub(super) async fn try_disk(&mut self) {
        self.unreadable = false;
        if self.spool.is_none() && self.wants_spool {
            self.spool = open_spool(&self.path, &self.owner).await.ok();
        }
        let (Some(spool), false) = (&mut self.spool, self.held.is_empty()) else { return };
        let mut lines = Vec::with_capacity(self.held_bytes);
        for held in &self.held {
            lines.extend_from_slice(held.text.as_bytes());
        }
        match spool.append(lines, self.told).await {
            Ok(()) => {
                self.held.clear();
                self.held_bytes = 0;
            }
            Err(error) => tracing::debug!(%error, "events of a run wait in memory for the disk"),
        }
    }

    /// The next events to send, in order; none when nothing waits (or the disk cannot be read).
    pub(super) async fn next_batch(&mut self) -> Vec<Arc<Line>> {
        if !batch::is_full(&self.ahead) {
            self.look_ahead().await;
        }
        let length = batch::length(&self.ahead, self.limit);
        self.ahead.iter().take(length).cloned().collect()
    }

    async fn look_ahead(&mut self) {
        while let Some(spool) = self.spool.as_mut().filter(|spool| spool.has_more()) {
            if self.unreadable || batch::is_full(&self.ahead) {
                return;
            }
            match spool.read_on(self.looked).await {
                Ok(lines) => self.ahead.extend(lines.into_iter().map(Arc::new)),
                Err(error) => {
                    tracing::warn!(%error, "the events of a subagent's run cannot be read");
                    self.unreadable = true;
                    return;
                }
            }
            if let Some(last) = self.ahead.back() {
                self.looked = last.index + 1;
            }
        }
        if !self.ahead.is_empty() {
            return;
        }
        let unseen = self.held.iter().filter(|held| held.index >= self.looked);
        self.ahead.extend(unseen.filter_map(|held| spool::decode(&held.text)).map(Arc::new));
        self.looked = self.told;
        if self.ahead.is_empty() {
            // What is left was damaged.
            self.done = self.told;
        }
    }

    /// The number of the next row is known, or known to be another.
    pub(super) async fn number(&mut self, next: i64) {
        self.next = Some(next);
        self.save_progress().await;
    }

    /// The next so many events are in the table.
    pub(super) async fn arrived(&mut self, events: usize) {
        let rows = i64::try_from(events).unwrap_or(i64::MAX);
        self.next = self.next.map(|next| next.saturating_add(rows));
        self.limit = self.limit.saturating_mul(2).min(MAX_ROWS);
        self.pass(events).await;
    }

    /// A batch of so many events is refused for good: a smaller one tells which of them is bad, and
    /// that one is left out. True then.
    pub(super) async fn refused(&mut self, events: usize) -> bool {
        self.limit = (events / 2).max(1);
        let found = events <= 1;
        if found {
            self.pass(events).await;
        }
        found
    }

    async fn pass(&mut self, events: usize) {
        for line in self.ahead.drain(..events.min(self.ahead.len())) {
            self.done = line.index + 1;
        }
        while let Some(held) = self.held.pop_front_if(|held| held.index < self.done) {
            self.held_bytes -= held.text.len();
        }
        self.save_progress().await;
    }

    async fn save_progress(&mut self) {
        let (Some(spool), Some(next)) = (&mut self.spool, self.next) else { return };
        if let Err(error) = spool.settle(self.done, next).await {
            // The next gateway finds out by sending again with these numbers.
            tracing::debug!(%error, "the progress of a run's events cannot be kept");
        }
    }
}

async fn open_spool(path: &Path, owner: &Owner) -> Result<Spool, FsError> {
    let (target, owner) = (path.to_owned(), owner.clone());
    let opened = tokio::task::spawn_blocking(move || {
        if let Some(dir) = target.parent() {
            crate::fs::ensure_private_dir(dir)?;
        }
        Spool::open(&target, &owner)
    });
    match opened.await {
        Ok(opened) => opened,
        Err(_) => Err(FsError::io("open", path, std::io::ErrorKind::Interrupted.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GatewayId, RunId, SubagentId};

    async fn backlog(dir: &Path, payloads: impl Iterator<Item = String>) -> Backlog {
        let owner = Owner {
            gateway: GatewayId::new("gateway"),
            subagent: SubagentId::new("subagent"),
            run: RunId::new("run"),
        };
        let mut backlog = Backlog::open(dir.join("events/run.jsonl"), owner).await;
        backlog.keep(payloads.map(|payload| ("message", payload))).await;
        backlog
    }

    #[tokio::test]
    async fn little_more_is_read_ahead_than_one_insert_takes() {
        let dir = tempfile::tempdir().unwrap();
        let tiny = (0..20_000).map(|number| format!("{{\"n\":{number}}}"));
        let mut backlog = backlog(dir.path(), tiny).await;
        assert_eq!(backlog.next_batch().await.len(), MAX_ROWS);
        assert!(backlog.ahead.len() < 2_500, "{}", backlog.ahead.len());
    }

    #[tokio::test]
    async fn an_insert_of_larger_events_is_full_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let large = (0..200).map(|_| format!("{{\"text\":\"{}\"}}", "x".repeat(8_000)));
        let mut backlog = backlog(dir.path(), large).await;
        let mut sizes = Vec::new();
        for _ in 0..4 {
            let events = backlog.next_batch().await.len();
            sizes.push(events);
            backlog.pass(events).await;
        }
        assert_eq!(sizes, [MAX_ROWS; 4]);
    }
}
