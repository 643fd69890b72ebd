//! The decision for one path: what to do, given what stands there on the disk, at the server and in
//! the base.

use crate::drive_sync::model::{Content, Kind};
use crate::drive_sync::planted::{Bug, planted};

/// What must get out of the way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clear {
    /// Nothing is in the way.
    Nothing,
    /// The disk's entry takes a conflict name, and will be sent as a new one.
    SetAside,
    /// The disk's file goes.
    DeleteLocal,
    /// The server's file goes.
    DeleteRemote,
    /// What the disk's folder holds unchanged goes; the folder too if nothing is left.
    PruneLocal,
    /// What the server's folder holds unchanged goes; the folder too if nothing is left.
    PruneRemote,
    /// The disk's folder goes: of a pruned one nothing was left.
    RemoveLocal,
    /// The server's folder goes: of a pruned one nothing was left.
    RemoveRemote,
}

/// What is then done to make both sides equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    /// Nothing.
    Nothing,
    /// Both are equal already: the base learns it.
    Adopt,
    /// The base drops its row.
    Forget,
    /// The server's file is fetched.
    Fetch,
    /// The disk's file is sent.
    Send,
    /// A folder on the disk.
    LocalFolder,
    /// A folder at the server.
    RemoteFolder,
}

/// One cell of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) clear: Clear,
    pub(super) make: Make,
}

impl Cell {
    pub(super) const NOTHING: Self = Self { clear: Clear::Nothing, make: Make::Nothing };

    pub(super) const fn of(clear: Clear, make: Make) -> Self {
        Self { clear, make }
    }

    const fn make(make: Make) -> Self {
        Self { clear: Clear::Nothing, make }
    }
}

/// Looks it up. Files are compared by content: a version that brought the content of the base again
/// is no change.
pub(super) fn cell(local: Option<Kind>, remote: Option<Kind>, base: Option<Kind>) -> Cell {
    match base {
        None => without_base(local, remote),
        Some(Kind::File(base)) => over_file(local, remote, &base),
        Some(Kind::Directory) => over_directory(local, remote),
    }
}

fn without_base(local: Option<Kind>, remote: Option<Kind>) -> Cell {
    match (local, remote) {
        (None, None) => Cell::NOTHING,
        (None, Some(Kind::File(_))) => Cell::make(Make::Fetch),
        (None, Some(Kind::Directory)) => Cell::make(Make::LocalFolder),
        (Some(Kind::File(_)), None) => Cell::make(Make::Send),
        (Some(Kind::File(local)), Some(Kind::File(remote))) => two_files(&local, &remote, None),
        (Some(Kind::File(_)), Some(Kind::Directory)) => {
            Cell::of(Clear::SetAside, Make::LocalFolder)
        }
        (Some(Kind::Directory), None) => Cell::make(Make::RemoteFolder),
        (Some(Kind::Directory), Some(Kind::File(_))) => Cell::of(Clear::SetAside, Make::Fetch),
        (Some(Kind::Directory), Some(Kind::Directory)) => Cell::make(Make::Adopt),
    }
}

fn over_file(local: Option<Kind>, remote: Option<Kind>, base: &Content) -> Cell {
    match (local, remote) {
        (None, None) => Cell::make(Make::Forget),
        (None, Some(Kind::File(remote))) if remote == *base && !planted(Bug::BringsBackDeleted) => {
            Cell::of(Clear::DeleteRemote, Make::Nothing)
        }
        (None, Some(Kind::File(_))) => Cell::make(Make::Fetch),
        (None, Some(Kind::Directory)) => Cell::make(Make::LocalFolder),
        (Some(Kind::File(local)), None) if local == *base || planted(Bug::DeletesEdited) => {
            Cell::of(Clear::DeleteLocal, Make::Nothing)
        }
        (Some(Kind::File(_)), None) => Cell::make(Make::Send),
        (Some(Kind::File(local)), Some(Kind::File(remote))) => {
            match (local == *base, remote == *base) {
                (true, true) => Cell::make(Make::Adopt),
                (true, false) => Cell::make(Make::Fetch),
                (false, true) => Cell::make(Make::Send),
                (false, false) => two_files(&local, &remote, Some(base)),
            }
        }
        (Some(Kind::File(local)), Some(Kind::Directory)) if local == *base => {
            Cell::of(Clear::DeleteLocal, Make::LocalFolder)
        }
        (Some(Kind::File(_)), Some(Kind::Directory)) => {
            Cell::of(Clear::SetAside, Make::LocalFolder)
        }
        (Some(Kind::Directory), None) => Cell::make(Make::RemoteFolder),
        (Some(Kind::Directory), Some(Kind::File(remote))) if remote == *base => {
            Cell::of(Clear::DeleteRemote, Make::RemoteFolder)
        }
        (Some(Kind::Directory), Some(Kind::File(_))) => Cell::of(Clear::SetAside, Make::Fetch),
        (Some(Kind::Directory), Some(Kind::Directory)) => Cell::make(Make::Adopt),
    }
}

fn over_directory(local: Option<Kind>, remote: Option<Kind>) -> Cell {
    match (local, remote) {
        (None, None) => Cell::make(Make::Forget),
        (None, Some(Kind::File(_))) => Cell::make(Make::Fetch),
        (None, Some(Kind::Directory)) => Cell::of(Clear::PruneRemote, Make::Nothing),
        (Some(Kind::File(_)), None) => Cell::make(Make::Send),
        (Some(Kind::File(local)), Some(Kind::File(remote))) => two_files(&local, &remote, None),
        (Some(Kind::File(_)), Some(Kind::Directory)) => Cell::of(Clear::PruneRemote, Make::Send),
        (Some(Kind::Directory), None) => Cell::of(Clear::PruneLocal, Make::Nothing),
        (Some(Kind::Directory), Some(Kind::File(_))) => Cell::of(Clear::PruneLocal, Make::Fetch),
        (Some(Kind::Directory), Some(Kind::Directory)) => Cell::make(Make::Adopt),
    }
}

/// Both sides have a file that the other has not seen. Equal bytes are never a conflict: where only
/// the permission to execute differs, the side that changed it wins, else the server.
fn two_files(local: &Content, remote: &Content, base: Option<&Content>) -> Cell {
    if planted(Bug::EqualIsConflict) {
        return Cell::of(Clear::SetAside, Make::Fetch);
    }
    if local == remote {
        return Cell::make(Make::Adopt);
    }
    if planted(Bug::TakesRemoteOverEdit) {
        return Cell::make(Make::Fetch);
    }
    if (local.sha256, local.size) != (remote.sha256, remote.size) {
        return Cell::of(Clear::SetAside, Make::Fetch);
    }
    match base {
        Some(base) if base.executable == remote.executable => Cell::make(Make::Send),
        _ => Cell::make(Make::Fetch),
    }
}
