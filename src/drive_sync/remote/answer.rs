//! What the server's answers mean to the engine.

use std::time::Duration;

use super::super::model::{Content, Kind, Remote, Sha256};
use super::super::ports::{RemoteEntry, RemoteError, Written};
use super::super::wire::{
    Code, Entry, EntryType, ErrorDetail, MAX_BATCH, MAX_INLINE_TOTAL, Metadata, Operation,
    OperationResult,
};

/// An entry as the engine knows it.
pub(super) fn entry(entry: Entry) -> Result<RemoteEntry, RemoteError> {
    let kind = match entry.entry_type {
        EntryType::Directory => Kind::Directory,
        EntryType::File => {
            let hash = entry.content_sha256.as_deref().and_then(Sha256::parse);
            let (Some(sha256), Some(size)) = (hash, entry.size_bytes) else {
                return Err(broken("a file without size and hash"));
            };
            let executable = entry.metadata.mode.is_some_and(|mode| mode & 0o100 != 0);
            Kind::File(Content { sha256, size, executable })
        }
    };
    let remote = Remote { id: entry.id, version: entry.current_version_id, kind };
    Ok(RemoteEntry { path: entry.path, remote })
}

/// The mode that is told of a file: of all bits only whether it may be executed means something on
/// another machine.
pub(super) fn metadata(content: &Content) -> Metadata {
    Metadata { mode: Some(if content.executable { 0o755 } else { 0o644 }) }
}

/// The end of a write.
pub(super) fn written(result: OperationResult, gone: bool) -> Result<Written, RemoteError> {
    match result {
        OperationResult::Done(done) => {
            let after = if gone { None } else { Some(entry(done.entry)?) };
            Ok(Written { entry: after, sequence: done.sequence })
        }
        OperationResult::Refused(refused) => Err(refusal(refused.error, None)),
        OperationResult::Prepared(_) => Err(broken("a preparation for a write")),
    }
}

/// A refusal inside a batch is an error like one outside.
pub(super) fn one_of_many(result: OperationResult) -> Result<OperationResult, RemoteError> {
    match result {
        OperationResult::Refused(refused) => Err(refusal(refused.error, None)),
        result @ (OperationResult::Done(_) | OperationResult::Prepared(_)) => Ok(result),
    }
}

/// What a refusal is to the engine.
pub(super) fn refusal(error: ErrorDetail, retry_after: Option<Duration>) -> RemoteError {
    let ErrorDetail { code, message, current } = error;
    match code {
        Code::VersionConflict | Code::NotEmpty => {
            match current.map(|current| entry(*current)).transpose() {
                Ok(current) => RemoteError::Conflict { current },
                Err(error) => error,
            }
        }
        // Something that was there is not there any more: the next look shows what is.
        Code::ParentMissing | Code::NotFound => RemoteError::Conflict { current: None },
        Code::CursorExpired => RemoteError::CursorExpired,
        Code::ContentMismatch => RemoteError::SourceChanged,
        Code::ReadOnly => RemoteError::ReadOnly,
        Code::DriveNotFound => RemoteError::AccessLost,
        Code::Unauthorized | Code::TokenExpired => RemoteError::TokenRefused { message },
        Code::UploadNotFound
        | Code::ContentMissing
        | Code::NoRoom
        | Code::Unavailable
        | Code::Internal
        | Code::Unknown => RemoteError::Unavailable { message, retry_after },
        Code::InvalidRequest
        | Code::InvalidPath
        | Code::UnsupportedProtocol
        | Code::OperationReused
        | Code::TooLarge => RemoteError::Refused { code: name(code), message },
    }
}

fn name(code: Code) -> String {
    match serde_json::to_value(code) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "unknown".to_owned(),
    }
}

/// An answer that is none of this protocol: worth another try, for it may come from something that
/// stands between.
pub(super) fn broken(what: &str) -> RemoteError {
    let message = format!("the server's answer makes no sense: {what}");
    RemoteError::Unavailable { message, retry_after: None }
}

/// As few requests as the server's bounds allow.
pub(super) fn split(operations: Vec<Operation>) -> Vec<Vec<Operation>> {
    let mut requests: Vec<Vec<Operation>> = Vec::new();
    let mut bytes = 0;
    for operation in operations {
        let size = match &operation {
            Operation::Put { content, .. } => content.0.len(),
            Operation::PrepareUpload(_)
            | Operation::CommitUpload(_)
            | Operation::Mkdir(_)
            | Operation::Delete(_)
            | Operation::Move(_) => 0,
        };
        match requests.last_mut() {
            Some(last) if last.len() < MAX_BATCH && bytes + size <= MAX_INLINE_TOTAL => {
                bytes += size;
                last.push(operation);
            }
            _ => {
                bytes = size;
                requests.push(vec![operation]);
            }
        }
    }
    requests
}
