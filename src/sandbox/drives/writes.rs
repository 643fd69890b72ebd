//! Operations: each is looked at, then done whole or refused with nothing done.
//!
//! All checks of an operation come before its first change, so that a batch needs no savepoint an
//! operation: a failure of the database ends the whole batch, and nothing of it remains.

use std::collections::HashMap;

use data_encoding::HEXLOWER;
use rusqlite::OptionalExtension as _;
use sha2::{Digest as _, Sha256};

use super::error::{Failure, Refused};
use super::path;
use super::tree::{self, By, Edit, NewFile};
use super::uploads::{self, Assembled};
use crate::drive_sync::wire::{
    Code, CommitUpload, Delete, Done, Entry, EntryType, Inline, MAX_INLINE, MAX_PATH, Mkdir, Move,
    Operation, OperationResult, Prepared, PutFile,
};
use crate::sandbox::contents::{ContentHash, Contents};

/// Bytes of an operation's id and of a client's key.
pub(super) const MAX_KEY: usize = 200;
/// Bytes of a content type.
const MAX_TYPE: usize = 255;
const DEFAULT_TYPE: &str = "application/octet-stream";

/// An operation that is well formed, whatever the drive may be.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) operation: Operation,
    fingerprint: String,
    /// Of a file.
    hash: Option<ContentHash>,
}

/// Looks at an operation by itself; hashes what is inline.
pub(super) fn check(operation: Operation, max_file: u64) -> Result<Checked, Refused> {
    let mut hash = None;
    let fingerprint = match &operation {
        Operation::PrepareUpload(file) => {
            hash = Some(check_file(file, max_file)?);
            fingerprint_of("file", file)
        }
        Operation::Put { file, content } => {
            let said = check_file(file, max_file)?;
            check_content(file, content, said)?;
            hash = Some(said);
            fingerprint_of("file", file)
        }
        Operation::CommitUpload(upload) => {
            check_key("operation_id", &upload.operation_id)?;
            String::new()
        }
        Operation::Mkdir(directory) => {
            path::check(&directory.path)?;
            check_key("operation_id", &directory.operation_id)?;
            fingerprint_of("mkdir", directory)
        }
        Operation::Delete(what) => {
            path::check(&what.path)?;
            check_key("operation_id", &what.operation_id)?;
            if what.expected_version_id.is_none() && !what.expect_empty {
                let message = "a deletion needs expected_version_id or expect_empty";
                return Err(Refused::invalid(message));
            }
            fingerprint_of("delete", what)
        }
        Operation::Move(what) => {
            path::check(&what.from)?;
            path::check(&what.to)?;
            check_key("operation_id", &what.operation_id)?;
            if what.from == what.to || path::is_below(&what.to, &what.from) {
                return Err(Refused::invalid("nothing can be moved to where it is, or below that"));
            }
            fingerprint_of("move", what)
        }
    };
    Ok(Checked { operation, fingerprint, hash })
}

/// Refuses a key that cannot be kept.
pub(super) fn check_key(name: &str, key: &str) -> Result<(), Refused> {
    if key.is_empty() || key.len() > MAX_KEY || key.contains('\0') {
        let message = format!("{name} must have 1 to {MAX_KEY} bytes, none of them NUL");
        return Err(Refused::invalid(message));
    }
    Ok(())
}

fn check_file(file: &PutFile, max_file: u64) -> Result<ContentHash, Refused> {
    path::check(&file.path)?;
    check_key("operation_id", &file.operation_id)?;
    if file.size_bytes > max_file {
        let message = format!("a file may have at most {max_file} bytes");
        return Err(Refused::new(Code::TooLarge, message));
    }
    if file.metadata.mode.is_some_and(|mode| mode > 0o777) {
        return Err(Refused::invalid("metadata.mode is at most 511 (octal 777)"));
    }
    let is_type = |text: &String| {
        text.len() <= MAX_TYPE
            && text.contains('/')
            && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
    };
    if !file.mime_type.as_ref().is_none_or(is_type) {
        return Err(Refused::invalid("mime_type is none, or too long"));
    }
    file.content_sha256
        .parse()
        .map_err(|_| Refused::invalid("content_sha256 must be 64 lower-case hex digits"))
}

fn check_content(file: &PutFile, content: &Inline, said: ContentHash) -> Result<(), Refused> {
    if content.0.len() > MAX_INLINE {
        let message = format!("an inline content has at most {MAX_INLINE} bytes");
        return Err(Refused::new(Code::TooLarge, message));
    }
    if content.0.len() as u64 != file.size_bytes || ContentHash::of_bytes(&content.0) != said {
        return Err(mismatch());
    }
    Ok(())
}

pub(super) fn mismatch() -> Refused {
    let message = "size or hash of the content are not what was said";
    Refused::new(Code::ContentMismatch, message)
}

/// Tells requests apart that bear the same operation id.
fn fingerprint_of(kind: &str, request: &impl serde::Serialize) -> String {
    let mut hasher = Sha256::new();
    hasher.update(kind);
    // These types have string keys and plain values only, which always become JSON.
    hasher.update(serde_json::to_vec(request).unwrap_or_default());
    HEXLOWER.encode(&hasher.finalize())
}

/// What a batch works with.
pub(super) struct Work<'a> {
    pub(super) edit: Edit<'a>,
    pub(super) contents: &'a Contents,
    /// Contents of uploads in parts, put together, by upload.
    pub(super) assembled: HashMap<String, Assembled>,
    pub(super) uploads: &'a uploads::Uploads,
}

impl Work<'_> {
    /// Does one operation. `Err` is about the server, and ends the batch.
    pub(super) fn run(&mut self, checked: &Checked) -> Result<OperationResult, Failure> {
        let result = match &checked.operation {
            Operation::PrepareUpload(file) => self
                .prepare(file, &checked.fingerprint)
                .map(|prepared| OperationResult::Prepared(Box::new(prepared))),
            Operation::CommitUpload(upload) => self.commit(upload).map(boxed),
            Operation::Put { file, content } => self.put(file, content, checked).map(boxed),
            Operation::Mkdir(directory) => self.mkdir(directory, checked).map(boxed),
            Operation::Delete(what) => self.delete(what, checked).map(boxed),
            Operation::Move(what) => self.rename(what, checked).map(boxed),
        };
        match result {
            Err(Failure::Refused(refused)) => Ok(OperationResult::Refused(refused.body())),
            other => other,
        }
    }

    fn prepare(&mut self, file: &PutFile, fingerprint: &str) -> Result<Prepared, Failure> {
        let committed = self.first_result(&file.operation_id, fingerprint)?;
        if committed.is_none() {
            // The commit looks again; this spares the sender a content that will not be taken.
            self.expected_file(file)?;
        }
        self.uploads.prepare(&self.edit, file, fingerprint, committed)
    }

    fn put(
        &mut self,
        file: &PutFile,
        content: &Inline,
        checked: &Checked,
    ) -> Result<Done, Failure> {
        if let Some(done) = self.first_result(&file.operation_id, &checked.fingerprint)? {
            return Ok(done);
        }
        let former = self.expected_file(file)?;
        let hash = checked.hash.ok_or_else(Refused::internal)?;
        self.contents.hold_small(self.edit.tx, hash, &content.0)?;
        let by = By {
            operation_id: &file.operation_id,
            fingerprint: &checked.fingerprint,
            upload_id: None,
        };
        self.edit.put(former.as_ref(), &new_file(file, hash), by)
    }

    fn commit(&mut self, upload: &CommitUpload) -> Result<Done, Failure> {
        let known = tree::remembered(self.edit.tx, &self.edit.drive, &upload.operation_id)?;
        if let Some(known) = known {
            if known.upload_id.as_deref() == Some(&upload.upload_id) {
                return Ok(known.done);
            }
            return Err(reused().into());
        }
        let row = uploads::find(self.edit.tx, &self.edit.drive, &upload.upload_id, self.edit.now)?
            .ok_or_else(Refused::no_upload)?;
        if row.file.operation_id != upload.operation_id {
            return Err(reused().into());
        }
        let former = self.expected_file(&row.file)?;
        let assembled = self.assembled.remove(&upload.upload_id);
        self.uploads.hold(&self.edit, self.contents, (&upload.upload_id, &row), assembled)?;
        uploads::forget(self.edit.tx, &upload.upload_id)?;
        let by = By {
            operation_id: &upload.operation_id,
            fingerprint: &row.fingerprint,
            upload_id: Some(&upload.upload_id),
        };
        self.edit.put(former.as_ref(), &new_file(&row.file, row.hash), by)
    }

    fn mkdir(&mut self, directory: &Mkdir, checked: &Checked) -> Result<Done, Failure> {
        let by = by(&directory.operation_id, checked);
        if let Some(done) = self.first_result(by.operation_id, by.fingerprint)? {
            return Ok(done);
        }
        self.has_parent(&directory.path)?;
        if let Some(current) = self.at(&directory.path)? {
            return Err(Refused::conflict(Some(current)).into());
        }
        self.edit.mkdir(&directory.path, by)
    }

    fn delete(&mut self, what: &Delete, checked: &Checked) -> Result<Done, Failure> {
        let by = by(&what.operation_id, checked);
        if let Some(done) = self.first_result(by.operation_id, by.fingerprint)? {
            return Ok(done);
        }
        let Some(current) = self.at(&what.path)? else {
            return Err(Refused::conflict(None).into());
        };
        let is_directory = current.entry_type == EntryType::Directory;
        let is_other = what
            .expected_version_id
            .as_ref()
            .is_some_and(|version| *version != current.current_version_id);
        if is_other || (what.expect_empty && !is_directory) {
            return Err(Refused::conflict(Some(current)).into());
        }
        if is_directory && tree::has_entries(self.edit.tx, &self.edit.drive, &what.path)? {
            return Err(Refused::not_empty(current).into());
        }
        self.edit.delete(current, by)
    }

    fn rename(&mut self, what: &Move, checked: &Checked) -> Result<Done, Failure> {
        let by = by(&what.operation_id, checked);
        if let Some(done) = self.first_result(by.operation_id, by.fingerprint)? {
            return Ok(done);
        }
        let current = self.at(&what.from)?;
        let Some(entry) =
            current.filter(|entry| entry.current_version_id == what.expected_version_id)
        else {
            let current = self.at(&what.from)?;
            return Err(Refused::conflict(current).into());
        };
        if let Some(current) = self.at(&what.to)? {
            return Err(Refused::conflict(Some(current)).into());
        }
        self.has_parent(&what.to)?;
        if entry.entry_type == EntryType::Directory {
            self.check_depth(what)?;
        }
        self.edit.rename(entry, &what.to, by)
    }

    /// No path may become too long by a move.
    fn check_depth(&self, what: &Move) -> Result<(), Failure> {
        let (from, to) = path::below(&what.from);
        let longest: Option<i64> = self
            .edit
            .tx
            .prepare_cached(
                "SELECT max(octet_length(path)) FROM drive_changes
                 WHERE drive = ?1 AND path > ?2 AND path < ?3
                     AND until IS NULL AND change <> 'delete'",
            )?
            .query_row(rusqlite::params![self.edit.drive.number, from, to], |row| row.get(0))
            .optional()?
            .flatten();
        let longest = usize::try_from(longest.unwrap_or(0)).unwrap_or(usize::MAX);
        let grown = longest.saturating_sub(what.from.len()).saturating_add(what.to.len());
        if grown > MAX_PATH {
            let message = "a path below it would be longer than 4096 bytes";
            return Err(Refused::new(Code::InvalidPath, message).into());
        }
        Ok(())
    }

    fn at(&self, path: &str) -> Result<Option<Entry>, Failure> {
        Ok(tree::find(self.edit.tx, &self.edit.drive, path)?)
    }

    fn has_parent(&self, path: &str) -> Result<(), Failure> {
        let Some(parent) = path::parent(path) else { return Ok(()) };
        let parent = self.at(parent)?;
        if parent.is_some_and(|parent| parent.entry_type == EntryType::Directory) {
            return Ok(());
        }
        let message = "no directory is where the parent would be";
        Err(Refused::new(Code::ParentMissing, message).into())
    }

    /// What a file is to replace, if that is there as expected.
    fn expected_file(&self, file: &PutFile) -> Result<Option<Entry>, Failure> {
        let current = self.at(&file.path)?;
        let is_expected = match (&current, &file.expected_version_id) {
            (None, None) => true,
            (Some(current), Some(version)) => {
                current.entry_type == EntryType::File && current.current_version_id == *version
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !is_expected {
            return Err(Refused::conflict(current).into());
        }
        if current.is_none() {
            self.has_parent(&file.path)?;
        }
        Ok(current)
    }

    /// What came of an operation if it was done before.
    fn first_result(&self, operation_id: &str, fingerprint: &str) -> Result<Option<Done>, Failure> {
        match tree::remembered(self.edit.tx, &self.edit.drive, operation_id)? {
            Some(known) if known.fingerprint != fingerprint => Err(reused().into()),
            known => Ok(known.map(|known| known.done)),
        }
    }
}

fn boxed(done: Done) -> OperationResult {
    OperationResult::Done(Box::new(done))
}

fn by<'a>(operation_id: &'a str, checked: &'a Checked) -> By<'a> {
    By { operation_id, fingerprint: &checked.fingerprint, upload_id: None }
}

fn new_file(file: &PutFile, hash: ContentHash) -> NewFile<'_> {
    NewFile {
        path: &file.path,
        hash,
        size: file.size_bytes,
        mime_type: file.mime_type.as_deref().unwrap_or(DEFAULT_TYPE),
        mode: file.metadata.mode,
    }
}

pub(super) fn reused() -> Refused {
    Refused::new(Code::OperationReused, "that operation_id belongs to another request")
}
