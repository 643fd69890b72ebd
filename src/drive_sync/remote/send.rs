//! Sending contents: small ones inside requests, larger ones as streams, in parts that are resumed.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::super::model::Content;
use super::super::ports::{FsError, Recall, RemoteError, Source, Upload, Written};
use super::super::wire::{
    CommitUpload, Inline, MAX_INLINE, Operation, OperationResult, Prepared, PutFile,
};
use super::RemoteDrive;
use super::answer::{broken, entry, metadata, one_of_many, written};
use super::fetch::headers_of;
use super::link::{Link, PIECE, refusal_of, retry_after, unreachable};

/// Contents that go at the same time.
const STREAMS: usize = 3;
/// Requests with small contents that are under way at the same time, so that the server works while
/// the disk does.
const REQUESTS: usize = 3;
/// What one of them takes along, at most: so much may be in memory for each.
const FILES: usize = 100;
const BYTES: u64 = 512 << 10;

type Sent = Result<Written, RemoteError>;

/// Sends contents.
pub(super) fn send(drive: &RemoteDrive, uploads: Vec<Upload<'_>>) -> Vec<Sent> {
    let mut results: Vec<Option<Sent>> = uploads.iter().map(|_| None).collect();
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for (index, upload) in uploads.into_iter().enumerate() {
        if upload.content.size <= MAX_INLINE as u64 {
            small.push((index, upload));
        } else {
            large.push((index, upload));
        }
    }
    send_small(drive, small, &mut results);
    send_large(drive, large, &mut results);
    // Each was given its result: it was either small or large.
    results.into_iter().map(|result| result.unwrap_or(Err(RemoteError::SourceChanged))).collect()
}

/// Asks what became of uploads.
pub(super) fn recall(
    drive: &RemoteDrive,
    uploads: &[Recall],
) -> Vec<Result<Option<Written>, RemoteError>> {
    let operations = uploads
        .iter()
        .map(|upload| {
            let Recall { operation_id, path, content, expect } = upload;
            Operation::PrepareUpload(file(path.to_string(), content, expect.as_ref(), operation_id))
        })
        .collect();
    drive
        .batch(operations)
        .into_iter()
        .map(|result| match result {
            Ok(OperationResult::Prepared(prepared)) => match prepared.committed {
                Some(done) => written(OperationResult::Done(Box::new(done)), false).map(Some),
                None => Ok(None),
            },
            Ok(result) => written(result, false).map(Some),
            // It can be refused only if it was not done.
            Err(
                RemoteError::Conflict { .. }
                | RemoteError::Refused { .. }
                | RemoteError::SourceChanged,
            ) => Ok(None),
            Err(error) => Err(error),
        })
        .collect()
}

fn file(path: String, content: &Content, expect: Option<&String>, operation_id: &str) -> PutFile {
    PutFile {
        path,
        size_bytes: content.size,
        content_sha256: content.sha256.hex(),
        mime_type: None,
        metadata: metadata(content),
        expected_version_id: expect.cloned(),
        operation_id: operation_id.to_owned(),
    }
}

fn file_of(upload: &Upload<'_>) -> PutFile {
    file(upload.path.to_string(), &upload.content, upload.expect.as_ref(), &upload.operation_id)
}

/// Small contents, some to a request. They do not depend on one another, so that some requests are
/// under way at the same time; contents are read right before they go.
fn send_small(
    drive: &RemoteDrive,
    uploads: Vec<(usize, Upload<'_>)>,
    results: &mut [Option<Sent>],
) {
    let mut answered = Vec::with_capacity(uploads.len());
    let all: Vec<usize> = uploads.iter().map(|(index, _)| *index).collect();
    let done = drive.link.wait(async {
        let mut waiting = pieces(uploads).into_iter();
        let mut running = FuturesUnordered::new();
        let mut lost = None;
        loop {
            // Once the server cannot be reached there is no use in asking for more.
            if running.len() < REQUESTS && lost.is_none() {
                running.extend(waiting.next().map(|piece| send_some(drive, piece)));
            }
            let has_room = running.len() < REQUESTS && lost.is_none() && waiting.len() > 0;
            tokio::select! {
                biased;
                // Cancel safe, each arm: a stream, and nothing.
                some = running.next() => {
                    let Some((some, failed)) = some else { break };
                    answered.extend(some);
                    lost = lost.or(failed);
                }
                // What was begun is on its way before the next is read from the disk.
                () = tokio::task::yield_now(), if has_room => {}
            }
        }
        let left = waiting.flatten().map(|(index, _)| index);
        if let Some(lost) = lost {
            answered.extend(left.map(|index| (index, Err(lost.clone()))));
        }
        Ok(())
    });
    for (index, sent) in answered {
        results[index] = Some(sent);
    }
    if let Err(stopped) = done {
        for index in all {
            results[index].get_or_insert_with(|| Err(stopped.clone()));
        }
    }
}

/// What each request takes along.
fn pieces(uploads: Vec<(usize, Upload<'_>)>) -> Vec<Vec<(usize, Upload<'_>)>> {
    let mut pieces: Vec<Vec<(usize, Upload<'_>)>> = Vec::new();
    let mut bytes = 0;
    for (index, upload) in uploads {
        let size = upload.content.size;
        match pieces.last_mut() {
            Some(last) if last.len() < FILES && bytes + size <= BYTES => {
                bytes += size;
                last.push((index, upload));
            }
            _ => {
                bytes = size;
                pieces.push(vec![(index, upload)]);
            }
        }
    }
    pieces
}

/// One request, and what became of each; what failed as a whole is told besides.
async fn send_some(
    drive: &RemoteDrive,
    uploads: Vec<(usize, Upload<'_>)>,
) -> (Vec<(usize, Sent)>, Option<RemoteError>) {
    let mut results = Vec::with_capacity(uploads.len());
    let (mut indexes, mut operations) = (Vec::new(), Vec::new());
    for (index, mut upload) in uploads {
        match whole(upload.source.as_mut(), upload.content.size) {
            Ok(bytes) => {
                indexes.push(index);
                operations.push(Operation::Put { file: file_of(&upload), content: Inline(bytes) });
            }
            Err(error) => results.push((index, Err(error))),
        }
    }
    if operations.is_empty() {
        return (results, None);
    }
    match drive.batch_once(operations).await {
        Ok(done) => {
            let sent = done.into_iter().map(|result| written(one_of_many(result)?, false));
            results.extend(indexes.into_iter().zip(sent));
            (results, None)
        }
        Err(error) => {
            results.extend(indexes.into_iter().map(|index| (index, Err(error.clone()))));
            (results, Some(error))
        }
    }
}

/// A small content, and that it is still the file's.
fn whole(source: &mut dyn Source, size: u64) -> Result<Vec<u8>, RemoteError> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(MAX_INLINE)];
    let mut read = 0;
    while read < bytes.len() {
        match source.read_at(read as u64, &mut bytes[read..]).map_err(|error| changed(&error))? {
            0 => return Err(RemoteError::SourceChanged),
            count => read += count,
        }
    }
    source.check().map_err(|error| changed(&error))?;
    Ok(bytes)
}

fn send_large(
    drive: &RemoteDrive,
    uploads: Vec<(usize, Upload<'_>)>,
    results: &mut [Option<Sent>],
) {
    let operations =
        uploads.iter().map(|(_, upload)| Operation::PrepareUpload(file_of(upload))).collect();
    let mut waiting = VecDeque::new();
    for ((index, upload), prepared) in uploads.into_iter().zip(drive.batch(operations)) {
        match prepared {
            Ok(OperationResult::Prepared(prepared)) => match prepared.committed {
                Some(done) => {
                    let sequence = done.sequence;
                    let after = entry(done.entry);
                    results[index] =
                        Some(after.map(|entry| Written { entry: Some(entry), sequence }));
                }
                None => waiting.push_back((index, upload, prepared)),
            },
            Ok(result) => results[index] = Some(written(result, false)),
            Err(error) => results[index] = Some(Err(error)),
        }
    }
    let mut indexes = Vec::new();
    let mut commits = Vec::new();
    for (index, sent) in stream_all(&drive.link, waiting) {
        match sent {
            Ok(commit) => {
                indexes.push(index);
                commits.push(Operation::CommitUpload(commit));
            }
            Err(error) => results[index] = Some(Err(error)),
        }
    }
    for (index, result) in indexes.into_iter().zip(drive.batch(commits)) {
        results[index] = Some(result.and_then(|result| written(result, false)));
    }
}

type Ready<'a> = (usize, Upload<'a>, Box<Prepared>);

/// The bytes of all of them; what has arrived and is still the file's may be committed.
fn stream_all(
    link: &Link,
    mut waiting: VecDeque<Ready<'_>>,
) -> Vec<(usize, Result<CommitUpload, RemoteError>)> {
    let all: Vec<usize> = waiting.iter().map(|(index, ..)| *index).collect();
    let mut results: Vec<(usize, Result<CommitUpload, RemoteError>)> = Vec::new();
    let done = link.wait(async {
        let mut running = FuturesUnordered::new();
        let first = STREAMS.min(waiting.len());
        running.extend(waiting.drain(..first).map(|one| stream_one(link, one)));
        while let Some(done) = running.next().await {
            results.push(done);
            running.extend(waiting.pop_front().map(|one| stream_one(link, one)));
        }
        Ok(())
    });
    if let Err(stopped) = done {
        let missing =
            all.into_iter().filter(|index| !results.iter().any(|(done, _)| done == index));
        let missing: Vec<_> = missing.map(|index| (index, Err(stopped.clone()))).collect();
        results.extend(missing);
    }
    results
}

async fn stream_one(
    link: &Link,
    (index, mut upload, prepared): Ready<'_>,
) -> (usize, Result<CommitUpload, RemoteError>) {
    let sent = put_parts(link, &mut upload, &prepared).await.map(|()| CommitUpload {
        upload_id: prepared.upload_id.clone(),
        operation_id: upload.operation_id.clone(),
    });
    (index, sent)
}

async fn put_parts(
    link: &Link,
    upload: &mut Upload<'_>,
    prepared: &Prepared,
) -> Result<(), RemoteError> {
    let size = upload.content.size;
    if !prepared.present {
        let part_size = prepared.part_size.unwrap_or(size).max(1);
        let parts = u32::try_from(size.div_ceil(part_size)).map_err(|_| broken("tiny parts"))?;
        for part in (1..=parts).filter(|part| !prepared.parts.contains(part)) {
            let from = u64::from(part - 1) * part_size;
            let length = part_size.min(size - from);
            let url = prepared.url.replace("{part}", &part.to_string());
            put_part(link, upload.source.as_mut(), &url, prepared, (from, length)).await?;
        }
    }
    upload.source.check().map_err(|error| changed(&error))
}

/// One part of a content as a stream: a few pieces of it are in memory at a time.
async fn put_part(
    link: &Link,
    source: &mut dyn Source,
    url: &str,
    prepared: &Prepared,
    (from, length): (u64, u64),
) -> Result<(), RemoteError> {
    let request = link
        .client
        .put(link.url(url)?)
        .headers(headers_of(&prepared.headers)?)
        .header(reqwest::header::CONTENT_LENGTH, length);
    let mut done = 0;
    let pieces = || {
        if done == length {
            return Ok(None);
        }
        let wanted = usize::try_from((length - done).min(PIECE as u64)).unwrap_or(PIECE);
        let mut piece = vec![0; wanted];
        match source.read_at(from + done, &mut piece).map_err(|error| changed(&error))? {
            0 => Err(RemoteError::SourceChanged),
            count => {
                piece.truncate(count);
                done += count as u64;
                Ok(Some(Bytes::from(piece)))
            }
        }
    };
    let response = link.with_body(request, length, pieces).await?;
    if response.status().is_success() {
        return Ok(());
    }
    let (status, retry_after) = (response.status(), retry_after(&response));
    let body = link.patiently(response.bytes()).await?.map_err(unreachable)?;
    let refusal = refusal_of(status, &body, retry_after);
    if let RemoteError::TokenRefused { message } = refusal {
        // The address has ended; the next preparation gives a new one.
        return Err(RemoteError::Unavailable { message, retry_after: None });
    }
    Err(refusal)
}

/// Reading failed, or the file is not what it was: it is looked at again.
fn changed(error: &FsError) -> RemoteError {
    if matches!(error, FsError::Changed) {
        return RemoteError::SourceChanged;
    }
    RemoteError::Local(error.to_string())
}
