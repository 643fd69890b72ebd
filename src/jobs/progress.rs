//! How far a claimed job is, for the journal.

use tokio::sync::Mutex;

use super::journal::{Journal, Record};
use crate::process::RunIds;

/// What a handler tells of its work as it goes.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    journal: &'a Journal,
    record: Mutex<Record>,
}

impl<'a> Progress<'a> {
    /// Of the job that `record` names.
    pub(super) fn new(journal: &'a Journal, record: Record) -> Self {
        Self { journal, record: Mutex::new(record) }
    }

    /// A run carries the job out now. If the gateway dies and the run's shim too, the next gateway
    /// finds the processes by these names.
    pub(super) async fn run_started(&self, ids: &RunIds) {
        let mut record = self.record.lock().await;
        record.run = Some(ids.clone());
        if let Err(error) = self.journal.save_for_this_boot(&record).await {
            // The shim itself still ends the run when the gateway dies.
            tracing::warn!(%error, "the journal does not know the job's processes");
        }
    }

    /// The record as it is at the end of the work.
    pub(super) fn into_record(self) -> Record {
        self.record.into_inner()
    }
}
