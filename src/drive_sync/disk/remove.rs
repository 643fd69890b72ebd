//! Taking entries away: into the trash, to another place, or (folders) for good when nothing is left.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, RenameFlags};

use super::super::model::Stat;
use super::super::path::RelPath;
use super::super::plan::Replaced;
use super::super::ports::FsError;
use super::install::{is_still, set_aside};
use super::{Disk, error, gone_or};

/// Removes a folder in which nothing is left.
pub(super) fn remove_directory(disk: &Disk, path: &RelPath) -> Result<(), FsError> {
    let folder = disk.parent_of(path)?;
    rustix::fs::unlinkat(&folder, path.name(), AtFlags::REMOVEDIR).map_err(gone_or)?;
    rustix::fs::fsync(&folder).map_err(error)
}

/// Gives an entry another place, where there must be nothing.
pub(super) fn rename(
    disk: &Disk,
    from: &RelPath,
    to: &RelPath,
    stat: &Stat,
) -> Result<Stat, FsError> {
    let (source, target) = (disk.parent_of(from)?, disk.parent_of(to)?);
    let here = Disk::stat_in(&source, from.name()).map_err(gone_or)?;
    if !here.same_inode(stat) {
        return Err(FsError::Changed);
    }
    move_to(&source, from.name(), &target, to.name())?;
    let moved = Disk::stat_in(&target, to.name()).map_err(gone_or)?;
    if !moved.same_inode(stat) {
        // Somebody put another file there between the look and the rename.
        move_to(&target, to.name(), &source, from.name())?;
        return Err(FsError::Changed);
    }
    for folder in [&target, &source] {
        rustix::fs::fsync(folder).map_err(error)?;
    }
    Ok(moved)
}

/// Puts an unchanged file into the trash.
pub(super) fn delete(disk: &Disk, path: &RelPath, replaced: &Replaced) -> Result<(), FsError> {
    let folder = disk.parent_of(path)?;
    let here = Disk::stat_in(&folder, path.name()).map_err(gone_or)?;
    if here != replaced.stat {
        return Err(FsError::Changed);
    }
    let place = disk.trash.place_for(disk, path, &replaced.content.sha256)?;
    let (trash, unseen) = (&place.folder, place.unseen.as_str());
    move_to(&folder, path.name(), trash, unseen)?;
    if !is_still(trash, unseen, replaced)? {
        // Written to in that moment: it is the user's, at its place or beside what stands there now.
        match move_to(trash, unseen, &folder, path.name()) {
            Ok(()) => {}
            Err(FsError::Exists) => {
                set_aside(disk, trash, unseen, path)?;
            }
            Err(error) => return Err(error),
        }
        return Err(FsError::Changed);
    }
    place.settle()?;
    for folder in [trash, &folder] {
        rustix::fs::fsync(folder).map_err(error)?;
    }
    Ok(())
}

/// Renames, and never replaces anything.
pub(super) fn move_to(from: &OwnedFd, name: &str, to: &OwnedFd, new: &str) -> Result<(), FsError> {
    rustix::fs::renameat_with(from, name, to, new, RenameFlags::NOREPLACE).map_err(|errno| {
        match errno {
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => FsError::Changed,
            errno => error(errno),
        }
    })
}
