//! The server as the engine sees it: answers that get lost, late or refused, pages that others change
//! between.

use std::time::Duration;

use sha2::{Digest as _, Sha256 as Hasher};

use crate::drive_sync::model::Sha256;
use crate::drive_sync::planted::{Bug, planted};
use crate::drive_sync::ports::{
    Change, Changes, Digest, Download, Drive, FsError, Recall, RemoteEntry, RemoteError,
    SnapshotPage, Upload, What, Write, Written,
};

use super::client::Client;
use super::server::{Delayed, Node, Server, content};
use super::world::{self, Fault, Stop, Where, with};

/// One client's way to the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimDrive {
    pub(super) client: usize,
}

impl From<Stop> for RemoteError {
    fn from(_: Stop) -> Self {
        Self::Stopped
    }
}

fn unavailable(retry_after: bool) -> RemoteError {
    RemoteError::Unavailable {
        message: "the line is cut".to_owned(),
        retry_after: retry_after.then(|| Duration::from_secs(2)),
    }
}

impl SimDrive {
    fn pause(self, what: &'static str) -> Result<(), Stop> {
        world::pause(self.client, what)
    }

    fn server<T>(self, act: impl FnOnce(&mut Server, &mut Client) -> T) -> T {
        with(|sim| act(&mut sim.server, &mut sim.clients[self.client]))
    }

    /// A request on its way: others act, then it may not arrive.
    fn begin(self, what: &'static str, writes: bool) -> Result<(), RemoteError> {
        self.pause(what)?;
        self.server(|_, client| {
            if client.outage > 0 {
                client.outage -= 1;
                return Err(unavailable(client.retry_after));
            }
            if client.access_lost {
                return Err(RemoteError::AccessLost);
            }
            if writes && client.read_only {
                return Err(RemoteError::ReadOnly);
            }
            Ok(())
        })
    }

    fn fault(self, fault: Fault) -> bool {
        self.server(|_, client| {
            let hit = client.faults.first() == Some(&fault);
            if hit {
                client.faults.remove(0);
            }
            hit
        })
    }

    /// An answer on its way back: others act, then it may be lost.
    fn end<T>(self, answer: T) -> Result<T, RemoteError> {
        self.pause("answer on its way")?;
        if self.fault(Fault::LostAfter) { Err(unavailable(false)) } else { Ok(answer) }
    }

    fn told(self, entry: Option<&RemoteEntry>) {
        if let Some(entry) = entry {
            let known = (entry.remote.id.clone(), entry.remote.version.clone());
            self.server(|_, client| client.told.insert(known));
        }
    }

    fn told_result(self, result: &Result<Written, RemoteError>) {
        match result {
            Ok(written) => self.told(written.entry.as_ref()),
            Err(RemoteError::Conflict { current }) => self.told(current.as_ref()),
            Err(_) => {}
        }
    }

    fn effect(self, what: &str) {
        let paths = self.server(|server, _| std::mem::take(&mut server.touched));
        if !paths.is_empty() {
            world::effect(self.client, Where::Server, what, &paths);
        }
    }

    fn apply_one(self, write: &Write) -> Result<Written, RemoteError> {
        self.begin("write", true)?;
        if self.fault(Fault::LostBefore) {
            return Err(unavailable(false));
        }
        if let What::Delete { path, id, .. } = &write.what {
            // The version that stands there must be one that this client was told of.
            let unknown = self.server(|server, client| {
                let node = server.tree.entries.get(id)?;
                let known = client.told.contains(&(id.clone(), node.version.clone()));
                (!known).then(|| (node.path.clone(), node.version.clone()))
            });
            let answer =
                self.server(|server, _| server.take_write(&write.operation_id, &write.what));
            if answer.is_ok()
                && let Some((at, version)) = unknown
            {
                world::unknown_removed(self.client, &format!("{path}: {at} in {version}"));
            }
            self.told_result(&answer);
            self.effect("delete at the server");
            return self.end(answer)?;
        }
        let answer = self.server(|server, _| server.take_write(&write.operation_id, &write.what));
        self.told_result(&answer);
        self.effect("write at the server");
        self.end(answer)?
    }

    fn send_one(self, mut upload: Upload<'_>) -> Result<Written, RemoteError> {
        self.begin("upload", true)?;
        if self.fault(Fault::LostBefore) {
            return Err(unavailable(false));
        }
        let mut bytes = Vec::new();
        let mut buffer = [0; 6];
        loop {
            match upload.source.read_at(bytes.len() as u64, &mut buffer) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(source_error(&error)),
            }
        }
        let found = content(&bytes, upload.content.executable);
        if found != upload.content && !planted(Bug::SendUnchecked) {
            return Err(RemoteError::SourceChanged);
        }
        upload.source.check().map_err(|error| source_error(&error))?;
        let upload = Delayed {
            client: self.client,
            operation_id: upload.operation_id,
            path: upload.path.to_string(),
            expect: upload.expect,
            content: found,
            bytes,
        };
        self.pause("commit of an upload")?;
        if self.fault(Fault::Late) {
            self.server(|server, _| server.delayed.push(upload));
            return Err(unavailable(false));
        }
        let answer = self.server(|server, _| server.take_upload(&upload));
        self.told_result(&answer);
        self.effect("upload");
        self.end(answer)?
    }

    fn fetch_one(self, download: &mut Download<'_>) -> Result<(), RemoteError> {
        self.begin("download", false)?;
        let found = self.server(|server, _| server.tree.history.get(&download.version).cloned());
        let Some((_, mut bytes)) = found else {
            return Err(RemoteError::Conflict { current: None });
        };
        if self.fault(Fault::Corrupt) {
            bytes.truncate(bytes.len() / 2);
        }
        let broken = self.fault(Fault::Broken);
        if download.into.written() > bytes.len() as u64 {
            download.into.restart().map_err(|error| source_error(&error))?;
        }
        let mut from = usize::try_from(download.into.written()).unwrap();
        while from < bytes.len() {
            let to = bytes.len().min(from + 5);
            download.into.write(&bytes[from..to]).map_err(|error| match error {
                FsError::Stopped => RemoteError::Stopped,
                error => RemoteError::Local(error.to_string()),
            })?;
            from = to;
            if broken {
                return Err(unavailable(false));
            }
        }
        Ok(())
    }
}

fn source_error(error: &FsError) -> RemoteError {
    match error {
        FsError::Stopped => RemoteError::Stopped,
        FsError::Changed => RemoteError::SourceChanged,
        error => RemoteError::Local(error.to_string()),
    }
}

impl Drive for SimDrive {
    fn changes(&self, after: u64, limit: u32) -> Result<Changes, RemoteError> {
        self.begin("changes", false)?;
        let changes = self.server(|server, _| {
            let tree = &server.tree;
            if after < tree.pruned {
                return Err(RemoteError::CursorExpired);
            }
            let mut rows = tree.feed.iter().filter(|(sequence, _)| *sequence > after);
            let changes: Vec<_> = rows
                .by_ref()
                .take(limit as usize)
                .map(|(sequence, id)| Change {
                    sequence: *sequence,
                    id: id.clone(),
                    entry: tree.entry(id),
                })
                .collect();
            let has_more = rows.next().is_some();
            let epoch = format!("epoch {}", server.epoch);
            Ok(Changes { epoch, changes, has_more, head: tree.sequence })
        })?;
        for change in &changes.changes {
            self.told(change.entry.as_ref());
        }
        self.end(changes)
    }

    fn snapshot(&self, page: Option<&str>) -> Result<SnapshotPage, RemoteError> {
        self.begin("snapshot", false)?;
        let page = self.server(|server, _| {
            let after = page.unwrap_or_default().to_owned();
            let tree = &server.tree;
            let mut ids = tree.entries.keys().filter(|id| **id > after);
            let ids: Vec<_> = ids.by_ref().take(3).cloned().collect();
            let more = ids.last().filter(|last| tree.entries.keys().any(|id| id > *last));
            SnapshotPage {
                epoch: format!("epoch {}", server.epoch),
                as_of: tree.sequence,
                entries: ids.iter().filter_map(|id| tree.entry(id)).collect(),
                next_page: more.cloned(),
            }
        });
        for entry in &page.entries {
            self.told(Some(entry));
        }
        self.end(page)
    }

    fn digest(&self) -> Result<Digest, RemoteError> {
        self.begin("digest", false)?;
        let digest = self.server(|server, _| {
            let tree = &server.tree;
            let line = |(id, node): (&String, &Node)| format!("{id}:{}\n", node.version);
            let placed =
                |(id, node): (&String, &Node)| format!("{id}:{}:{}\n", node.version, node.path);
            let hash = |lines: Vec<String>| {
                let sorted: std::collections::BTreeSet<String> = lines.into_iter().collect();
                let text: String = sorted.into_iter().collect();
                Sha256(Hasher::digest(text).into())
            };
            Digest {
                head: tree.sequence,
                count: tree.entries.len() as u64,
                sha256: hash(tree.entries.iter().map(line).collect()),
                paths: hash(tree.entries.iter().map(placed).collect()),
            }
        });
        self.end(digest)
    }

    fn apply(&self, changes: &[Write]) -> Vec<Result<Written, RemoteError>> {
        let all: Vec<_> = changes.iter().map(|write| self.apply_one(write)).collect();
        stopped(all)
    }

    fn send(&self, uploads: Vec<Upload<'_>>) -> Vec<Result<Written, RemoteError>> {
        stopped(uploads.into_iter().map(|upload| self.send_one(upload)).collect())
    }

    fn recall(&self, uploads: &[Recall]) -> Vec<Result<Option<Written>, RemoteError>> {
        let recall = |upload: &Recall| {
            self.begin("recall", false)?;
            let answer = self.server(|server, _| server.recall(&upload.operation_id));
            self.told(answer.as_ref().and_then(|written| written.entry.as_ref()));
            self.end(answer)
        };
        stopped(uploads.iter().map(recall).collect())
    }

    fn fetch(&self, mut downloads: Vec<Download<'_>>) -> Vec<Result<(), RemoteError>> {
        stopped(downloads.iter_mut().map(|download| self.fetch_one(download)).collect())
    }
}

/// After a crash nothing is known of the whole batch.
fn stopped<T>(results: Vec<Result<T, RemoteError>>) -> Vec<Result<T, RemoteError>> {
    let stopped = results.iter().any(|result| matches!(result, Err(RemoteError::Stopped)));
    let all = results.into_iter();
    all.map(|result| if stopped { Err(RemoteError::Stopped) } else { result }).collect()
}
