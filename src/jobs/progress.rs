//! How far a claimed job is, for the journal and the audit log.

use tokio::sync::Mutex;

use super::audit::JobAudit;
use super::journal::{Journal, JournalError, Record, RunEnd, SubagentWork};
use crate::model::{RunId, SubagentId};
use crate::process::RunIds;

/// What a handler tells of its work as it goes.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    journal: &'a Journal,
    record: Mutex<Record>,
    audit: JobAudit,
}

impl<'a> Progress<'a> {
    /// Of the job that `record` names.
    pub(super) fn new(journal: &'a Journal, record: Record, audit: JobAudit) -> Self {
        Self { journal, record: Mutex::new(record), audit }
    }

    /// What the audit log is told of the job.
    pub(super) fn audit(&self) -> &JobAudit {
        &self.audit
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

    /// The job is for this run of a subagent. Kept with the next change: before the run has begun
    /// there is nothing that a later gateway could not find out.
    pub(super) async fn is_for(&self, subagent_id: &SubagentId, run_id: &RunId) {
        let (subagent_id, run_id) = (subagent_id.clone(), run_id.clone());
        self.record.lock().await.subagent = Some(SubagentWork { subagent_id, run_id, end: None });
    }

    /// The run that the job is for, once it is known.
    pub(super) async fn subagent(&self) -> Option<SubagentWork> {
        self.record.lock().await.subagent.clone()
    }

    /// The run is over, and this is its end: kept before the backend is told. An error means that
    /// it is in memory only.
    pub(super) async fn run_ended(&self, end: &RunEnd) -> Result<(), JournalError> {
        let mut record = self.record.lock().await;
        if let Some(work) = &mut record.subagent {
            work.end = Some(end.clone());
        }
        self.journal.save(&record).await
    }

    /// The record as it is at the end of the work.
    pub(super) fn into_parts(self) -> (Record, JobAudit) {
        (self.record.into_inner(), self.audit)
    }
}
