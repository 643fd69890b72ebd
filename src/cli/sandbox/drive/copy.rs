//! `sandbox drive put`, `get`: contents between this machine and a drive.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::args::{GetArgs, PutArgs};
use super::{Drive, change, clean, into, name_of, new_operation, nothing_at};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::table;
use crate::drive_sync::wire::{
    Action, CommitUpload, Done, Entry, EntryType, Inline, MAX_INLINE, Metadata, PART_SIZE, PutFile,
    Wanted,
};

/// `put`.
pub(super) async fn put(context: &Context, args: &PutArgs) -> Outcome {
    let drive = Drive::find(context, &args.of).await?;
    let mut source = Source::open(&args.file)?;
    let to = clean(&args.path);
    let is_directory = to.is_empty() || args.path.ends_with('/') || drive.is_directory(to).await?;
    let name = match (is_directory, args.file.file_name().and_then(|name| name.to_str())) {
        (true, Some(name)) if !source.is_stdin => name,
        (true, _) => return Err(Failure::usage("name the file in the drive, too")),
        (false, _) => "",
    };
    let path = into(&args.path, is_directory, name);
    if args.parents
        && let Some((above, _)) = path.rsplit_once('/')
    {
        change::make_all(&drive, above).await?;
    }
    let former = drive.at(&path).await?;
    if former.as_ref().is_some_and(|former| former.entry_type == EntryType::Directory) {
        return Err(Failure::new(format!("{path:?} is a directory")));
    }
    let file = PutFile {
        path,
        size_bytes: source.size,
        content_sha256: source.sha256.clone(),
        mime_type: None,
        metadata: Metadata { mode: source.mode },
        expected_version_id: former.map(|former| former.current_version_id),
        operation_id: new_operation(),
    };
    let done = send(&drive, file, &mut source).await?;
    change::tell(context, args.of.common.json, &done)
}

async fn send(drive: &Drive, file: PutFile, source: &mut Source) -> Result<Done, Failure> {
    if file.size_bytes <= MAX_INLINE as u64 {
        let content = Inline(source.next(MAX_INLINE as u64)?);
        let put = Action::Put { drive_id: drive.id.clone(), file, content };
        return Ok(drive.client.change_drive_once(&put).await?);
    }
    let operation_id = file.operation_id.clone();
    let prepared = drive.client.prepare_upload(&drive.id, file).await?;
    if !prepared.present {
        let mut number = 1_u32;
        loop {
            let part = source.next(prepared.part_size.unwrap_or(PART_SIZE))?;
            if part.is_empty() {
                break;
            }
            let url = prepared.url.replace("{part}", &number.to_string());
            drive.client.send_part(&url, part).await?;
            number += 1;
        }
    }
    let upload = CommitUpload { upload_id: prepared.upload_id, operation_id };
    Ok(drive.client.commit_upload(&drive.id, upload).await?)
}

/// A content on this machine, hashed.
struct Source {
    file: File,
    size: u64,
    sha256: String,
    mode: Option<u32>,
    is_stdin: bool,
}

impl Source {
    fn open(path: &Path) -> Result<Self, Failure> {
        let is_stdin = path == Path::new("-");
        let failed = |error: io::Error| {
            Failure::new(format!("could not read {}", path.display())).cause(error.to_string())
        };
        let mut file = if is_stdin {
            // Its length must be known before it is sent.
            let mut kept = tempfile::tempfile().map_err(failed)?;
            io::copy(&mut io::stdin().lock(), &mut kept).map_err(failed)?;
            kept.rewind().map_err(failed)?;
            kept
        } else {
            File::open(path).map_err(failed)?
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Failure::new(format!("{} is no file", path.display()))
                .hint("copy one file at a time"));
        }
        let mode = (!is_stdin).then(|| metadata.permissions().mode() & 0o777);
        let mut hasher = Sha256::new();
        let size = io::copy(&mut file, &mut hasher).map_err(failed)?;
        file.rewind().map_err(failed)?;
        Ok(Self { file, size, sha256: HEXLOWER.encode(&hasher.finalize()), mode, is_stdin })
    }

    /// The next bytes, up to so many; none at the end.
    fn next(&mut self, most: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut self.file).take(most).read_to_end(&mut bytes);
        read.map_err(|error| Failure::new("could not read the file").cause(error.to_string()))?;
        Ok(bytes)
    }
}

/// `get`.
pub(super) async fn get(context: &Context, args: &GetArgs) -> Outcome {
    let drive = Drive::find(context, &args.of).await?;
    let path = clean(&args.path);
    let entry = drive.at(path).await?.ok_or_else(|| nothing_at(path))?;
    if entry.entry_type == EntryType::Directory {
        return Err(
            Failure::new(format!("{path:?} is a directory")).hint("copy one file at a time")
        );
    }
    let to = args.file.clone().unwrap_or_else(|| PathBuf::from(name_of(path)));
    if to == Path::new("-") {
        if args.of.common.json {
            return Err(Failure::usage("the file and the JSON cannot both go to stdout"));
        }
        fetch(&drive, &entry, &mut io::stdout().lock()).await?;
        return Ok(Exit::Done);
    }
    let to = if to.is_dir() { to.join(name_of(path)) } else { to };
    save(&drive, &entry, &to, args.force).await?;
    if args.of.common.json {
        context.ui.out(&table::json(&json!({"entry": entry, "file": to})))?;
    }
    Ok(Exit::Done)
}

/// The file is there whole or not at all.
async fn save(drive: &Drive, entry: &Entry, to: &Path, force: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new(format!("could not write {}", to.display())).cause(error.to_string())
    };
    let taken =
        || Failure::new(format!("{} is there already", to.display())).hint("--force replaces it");
    if !force && to.symlink_metadata().is_ok() {
        return Err(taken());
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(format!(".{}", new_operation()));
    let temp = Temp(to.with_file_name(name));
    let mode = entry.metadata.mode.unwrap_or(0o666);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&temp.0).map_err(failed)?;
    fetch(drive, entry, &mut file).await?;
    file.sync_all().map_err(failed)?;
    if force {
        return std::fs::rename(&temp.0, to).map_err(failed);
    }
    // A link, unlike a rename, takes nobody's place.
    std::fs::hard_link(&temp.0, to).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists { taken() } else { failed(error) }
    })
}

/// Removed when dropped, if it is still there.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        // It has its name by now, or it is of no use.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn fetch(drive: &Drive, entry: &Entry, to: &mut impl Write) -> Result<(), Failure> {
    let wanted =
        Wanted { entry_id: entry.id.clone(), version_id: entry.current_version_id.clone() };
    let mut answer = drive.client.open_content(&drive.id, wanted).await?;
    let broken = |error: &dyn std::error::Error| {
        Failure::new("the file did not come whole").cause(error.to_string())
    };
    let mut hasher = Sha256::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| broken(&error))? {
        hasher.update(&chunk);
        to.write_all(&chunk)?;
    }
    to.flush()?;
    if entry.content_sha256.as_deref() != Some(&HEXLOWER.encode(&hasher.finalize())) {
        return Err(Failure::new("the file did not come as it was stored"));
    }
    Ok(())
}
