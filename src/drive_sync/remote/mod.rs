//! Drives at the real server, over HTTP.
//!
//! The engine's calls block; what is under way at the same time inside one of them runs on the
//! caller's thread. A call that makes no progress for a while is given up; one that is slow but moves
//! is not. Contents never stand in memory as a whole, but for small ones that travel inside requests.

mod answer;
mod fetch;
mod link;
mod send;

#[cfg(test)]
mod tests;

pub use link::{KeepToken, Link, SessionToken};

use super::model::Sha256;
use super::ports::{
    Change, Changes, Digest, Download, Drive, Recall, RemoteError, SnapshotPage, Upload, What,
    Write, Written,
};
use super::wire::{self, Action, Operation};
use answer::{broken, entry, written};

/// One drive at the server.
#[derive(Debug, Clone)]
pub struct RemoteDrive {
    link: Link,
    drive_id: String,
}

impl RemoteDrive {
    /// The drive of this id, over this link.
    pub fn new(link: Link, drive_id: &str) -> Self {
        Self { link, drive_id: drive_id.to_owned() }
    }

    fn drive_id(&self) -> String {
        self.drive_id.clone()
    }

    /// Many writes, in order; as many requests as it takes. When one of the requests fails, all of
    /// its operations have failed in the same way, and those after it as well.
    fn batch(&self, operations: Vec<Operation>) -> Vec<Result<wire::OperationResult, RemoteError>> {
        let mut results = Vec::with_capacity(operations.len());
        let mut failed: Option<RemoteError> = None;
        for operations in answer::split(operations) {
            let count = operations.len();
            if let Some(error) = &failed {
                results.extend(std::iter::repeat_n(error.clone(), count).map(Err));
                continue;
            }
            match self.link.wait(self.batch_once(operations)) {
                Ok(done) => results.extend(done.into_iter().map(answer::one_of_many)),
                Err(error) => {
                    results.extend(std::iter::repeat_n(error.clone(), count).map(Err));
                    failed = Some(error);
                }
            }
        }
        results
    }

    /// Writes of one request.
    async fn batch_once(
        &self,
        operations: Vec<Operation>,
    ) -> Result<Vec<wire::OperationResult>, RemoteError> {
        let count = operations.len();
        let action = Action::Batch { drive_id: self.drive_id(), operations };
        let done = self.link.ask::<wire::BatchDone>(action).await?;
        if done.results.len() == count { Ok(done.results) } else { Err(broken("a short batch")) }
    }
}

impl Drive for RemoteDrive {
    fn changes(&self, after: u64, limit: u32) -> Result<Changes, RemoteError> {
        let page: wire::Changes = self.link.call(Action::Changes {
            drive_id: self.drive_id(),
            after_sequence: after,
            limit: Some(limit),
        })?;
        let changes = page.changes.into_iter().map(|change| {
            let entry = change.entry.map(entry).transpose()?;
            Ok(Change { sequence: change.sequence, id: change.entry_id, entry })
        });
        Ok(Changes {
            epoch: page.epoch,
            changes: changes.collect::<Result<_, RemoteError>>()?,
            has_more: page.has_more,
            head: page.head_sequence,
        })
    }

    fn snapshot(&self, page: Option<&str>) -> Result<SnapshotPage, RemoteError> {
        let page: wire::Snapshot = self.link.call(Action::Snapshot {
            drive_id: self.drive_id(),
            page_token: page.map(str::to_owned),
        })?;
        Ok(SnapshotPage {
            epoch: page.epoch,
            as_of: page.as_of_sequence,
            entries: page.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
            next_page: page.next_page,
        })
    }

    fn digest(&self) -> Result<Digest, RemoteError> {
        let digest: wire::Digest = self.link.call(Action::Digest { drive_id: self.drive_id() })?;
        let hash = |text: &str| Sha256::parse(text).ok_or_else(|| broken("a digest"));
        let (sha256, paths) = (hash(&digest.sha256)?, hash(&digest.paths_sha256)?);
        Ok(Digest { head: digest.head_sequence, count: digest.count, sha256, paths })
    }

    fn apply(&self, changes: &[Write]) -> Vec<Result<Written, RemoteError>> {
        let operations = changes.iter().map(operation).collect();
        changes
            .iter()
            .zip(self.batch(operations))
            .map(|(change, result)| {
                let gone =
                    matches!(change.what, What::Delete { .. } | What::RemoveDirectory { .. });
                written(result?, gone)
            })
            .collect()
    }

    fn send(&self, uploads: Vec<Upload<'_>>) -> Vec<Result<Written, RemoteError>> {
        send::send(self, uploads)
    }

    fn recall(&self, uploads: &[Recall]) -> Vec<Result<Option<Written>, RemoteError>> {
        send::recall(self, uploads)
    }

    fn fetch(&self, downloads: Vec<Download<'_>>) -> Vec<Result<(), RemoteError>> {
        fetch::fetch(self, downloads)
    }
}

fn operation(write: &Write) -> Operation {
    let operation_id = write.operation_id.clone();
    match &write.what {
        What::MakeDirectory { path } => {
            Operation::Mkdir(wire::Mkdir { path: path.to_string(), operation_id })
        }
        What::Delete { path, version, .. } => Operation::Delete(wire::Delete {
            path: path.to_string(),
            expected_version_id: Some(version.clone()),
            expect_empty: false,
            operation_id,
        }),
        What::RemoveDirectory { path, .. } => Operation::Delete(wire::Delete {
            path: path.to_string(),
            expected_version_id: None,
            expect_empty: true,
            operation_id,
        }),
        What::Move { from, to, version, .. } => Operation::Move(wire::Move {
            from: from.to_string(),
            to: to.to_string(),
            expected_version_id: version.clone(),
            operation_id,
        }),
    }
}
