//! `sandbox drive mkdir`, `rm`, `mv`.

use serde_json::json;

use super::args::{MkdirArgs, MvArgs, RmArgs};
use super::{Drive, clean, into, name_of, new_operation, nothing_at};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::table;
use crate::drive_sync::wire::{
    Action, Delete, Done, Entry, EntryType, MAX_BATCH, Mkdir, Move, Operation, OperationResult,
};

/// `mkdir`.
pub(super) async fn mkdir(context: &Context, args: &MkdirArgs) -> Outcome {
    let drive = Drive::find(context, &args.of).await?;
    let path = clean(&args.path);
    if args.parents {
        make_all(&drive, path).await?;
        let entry = drive.at(path).await?;
        if args.of.common.json {
            context.ui.out(&table::json(&json!({"entry": entry})))?;
        }
        return Ok(Exit::Done);
    }
    let directory = Mkdir { path: path.to_owned(), operation_id: new_operation() };
    let made = Action::Mkdir { drive_id: drive.id.clone(), directory };
    let done = drive.client.change_drive_once(&made).await?;
    tell(context, args.of.common.json, &done)
}

/// Makes a directory and those above it, where there are none.
pub(super) async fn make_all(drive: &Drive, path: &str) -> Result<(), Failure> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for directory in ends.filter_map(|end| path.get(..end)).filter(|path| !path.is_empty()) {
        if drive.is_directory(directory).await? {
            continue;
        }
        let directory = Mkdir { path: directory.to_owned(), operation_id: new_operation() };
        let made = Action::Mkdir { drive_id: drive.id.clone(), directory };
        drive.client.change_drive_once(&made).await?;
    }
    Ok(())
}

/// `rm`.
pub(super) async fn rm(context: &Context, args: &RmArgs) -> Outcome {
    let drive = Drive::find(context, &args.of).await?;
    let path = clean(&args.path);
    let (own, below) = drive.below(path, true).await?;
    let own = own.ok_or_else(|| nothing_at(path))?;
    if !below.is_empty() && !args.recursive {
        return Err(Failure::new(format!("the directory {path:?} has entries"))
            .hint("--recursive removes them, too"));
    }
    // What is deepest goes first.
    let doomed: Vec<Entry> = std::iter::once(own).chain(below).rev().collect();
    for some in doomed.chunks(MAX_BATCH) {
        let operations = some.iter().map(|entry| {
            Operation::Delete(Delete {
                path: entry.path.clone(),
                expected_version_id: Some(entry.current_version_id.clone()),
                expect_empty: entry.entry_type == EntryType::Directory,
                operation_id: new_operation(),
            })
        });
        let done = drive.client.change_drive(&drive.id, operations.collect()).await?;
        for result in done.results {
            if let OperationResult::Refused(body) = result {
                return Err(Failure::new(body.error.message)
                    .hint("something changed meanwhile: look again, and repeat the command"));
            }
        }
    }
    if args.of.common.json {
        context.ui.out(&table::json(&json!({"removed": doomed})))?;
    }
    Ok(Exit::Done)
}

/// `mv`.
pub(super) async fn mv(context: &Context, args: &MvArgs) -> Outcome {
    let drive = Drive::find(context, &args.of).await?;
    let from = clean(&args.from);
    let entry = drive.at(from).await?.ok_or_else(|| nothing_at(from))?;
    let is_directory = drive.is_directory(clean(&args.to)).await?;
    let what = Move {
        from: from.to_owned(),
        to: into(&args.to, is_directory, name_of(from)),
        expected_version_id: entry.current_version_id,
        operation_id: new_operation(),
    };
    let moved = Action::Move { drive_id: drive.id.clone(), what };
    let done = drive.client.change_drive_once(&moved).await?;
    tell(context, args.of.common.json, &done)
}

/// What was done: nothing, or JSON.
pub(super) fn tell(context: &Context, json: bool, done: &Done) -> Outcome {
    if json {
        context.ui.out(&table::json(&json!(done)))?;
    }
    Ok(Exit::Done)
}
