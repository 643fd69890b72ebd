//! Putting new entries in their places, without a moment in which content is nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::super::model::{Content, Local, Stat};
use super::super::path::{PathError, RelPath};
use super::super::plan::Replaced;
use super::super::planner::conflict_name;
use super::super::ports::{FsError, Install, Installed};
use super::remove::move_to;
use super::{Disk, error, gone_or, hash, stage, wall};

/// From so many files on, one call that makes the whole file system durable is cheaper than one for
/// each of them.
const MANY: usize = 8;
/// Folders that are kept open at the same time.
const OPEN: usize = 64;
/// A file that was written to less long ago than this is compared by its content.
const RECENT: i64 = 2_000_000_000;

/// Makes one folder, which belongs to whom its own folder belongs.
pub(super) fn make_directory(disk: &Disk, path: &RelPath) -> Result<Stat, FsError> {
    let folder = disk.parent_of(path)?;
    rustix::fs::mkdirat(&folder, path.name(), Mode::from_raw_mode(0o777)).map_err(gone_or)?;
    let made = disk.root.open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(gone_or)?;
    own_as(&made, owner_of(&folder));
    rustix::fs::fsync(&folder).map_err(error)?;
    Ok(super::stat_of(&rustix::fs::fstat(&made).map_err(error)?))
}

/// Puts staged files in their places. All of them are made durable together.
pub(super) fn install(disk: &Disk, items: &[Install]) -> Vec<Result<Installed, FsError>> {
    let mut homes = Homes::default();
    // One call makes all of many durable; few are so one by one.
    let one_by_one = items.len() < MANY || !cfg!(target_os = "linux");
    let prepared = items.iter().map(|item| prepare(disk, item, one_by_one, &mut homes));
    let mut ready: Vec<Result<Stat, FsError>> = prepared.collect();
    if !one_by_one && let Err(failed) = all_durable(disk) {
        fail(&mut ready, failed);
    }
    let mut touched = BTreeSet::new();
    let mut results: Vec<_> = items
        .iter()
        .zip(ready)
        .map(|(item, ready)| {
            let installed = place(disk, item, &ready?, &mut homes)?;
            touched.insert(&item.path);
            Ok(installed)
        })
        .collect();
    if let Err(failed) = folders_durable(disk, &touched, &mut homes) {
        fail(&mut results, failed);
    }
    results
}

/// Nothing counts as done that may be gone with the power.
fn fail<T>(results: &mut [Result<T, FsError>], failed: Errno) {
    for result in results.iter_mut().filter(|result| result.is_ok()) {
        *result = Err(error(failed));
    }
}

/// Makes the whole file system durable.
fn all_durable(disk: &Disk) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    return rustix::fs::syncfs(disk.root.as_fd());
    #[cfg(not(target_os = "linux"))]
    rustix::fs::fsync(disk.root.as_fd())
}

/// Makes the names of new files durable, and those of what they have displaced.
fn folders_durable(
    disk: &Disk,
    placed: &BTreeSet<&RelPath>,
    homes: &mut Homes,
) -> Result<(), Errno> {
    let mut folders: BTreeMap<Option<RelPath>, &RelPath> = BTreeMap::new();
    for path in placed {
        folders.entry(path.parent()).or_insert(path);
    }
    if folders.len() >= MANY && cfg!(target_os = "linux") {
        all_durable(disk)?;
    } else {
        for path in folders.values() {
            let home = homes.of(disk, path).map_err(|_| Errno::STALE)?;
            rustix::fs::fsync(&home.folder)?;
        }
    }
    disk.trash.make_durable()
}

/// A folder to which files go, and who owns it.
struct Home {
    folder: OwnedFd,
    owner: Option<(Uid, Gid)>,
}

/// Those that were opened last: files come in the order of paths.
#[derive(Default)]
struct Homes(BTreeMap<Option<RelPath>, Rc<Home>>);

impl Homes {
    /// The folder to which a file goes.
    fn of(&mut self, disk: &Disk, path: &RelPath) -> Result<Rc<Home>, FsError> {
        let parent = path.parent();
        if let Some(home) = self.0.get(&parent) {
            return Ok(Rc::clone(home));
        }
        let folder = disk.parent_of(path)?;
        let owner = owner_of(&folder);
        let home = Rc::new(Home { folder, owner });
        if self.0.len() >= OPEN {
            self.0.clear();
        }
        self.0.insert(parent, Rc::clone(&home));
        Ok(home)
    }
}

/// Gives a staged file the owner, mode and time that it is to have.
fn prepare(disk: &Disk, item: &Install, durable: bool, homes: &mut Homes) -> Result<Stat, FsError> {
    let home = homes.of(disk, &item.path)?;
    let stages = disk.stages()?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = stage::name_of(&item.staged.key);
    let file = rustix::fs::openat(&*stages, &name, flags, Mode::empty()).map_err(gone_or)?;
    own_as(&file, home.owner);
    let executable = item.staged.content.executable;
    let usual = if executable { 0o755 } else { 0o644 };
    let mode = item.replaces.map_or(usual, |replaced| mode_after(replaced.stat.mode, executable));
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(error)?;
    if let Some(mtime) = item.mtime {
        set_time(&file, mtime);
    }
    if durable {
        rustix::fs::fsync(&file).map_err(error)?;
    }
    Ok(super::stat_of(&rustix::fs::fstat(&file).map_err(error)?))
}

/// The mode that a file had, with the right to execute it for those who may read it, or for nobody.
fn mode_after(mode: u32, executable: bool) -> u32 {
    let kept = mode & 0o777;
    match (executable, kept & 0o100 != 0) {
        (true, true) | (false, false) => kept,
        (true, false) => kept | ((kept & 0o444) >> 2) | 0o100,
        (false, true) => kept & !0o111,
    }
}

/// New entries belong to whom their folder belongs: a gateway that runs as root writes into the
/// drives of the user for whom it works. Only root can do this, and only root needs it.
fn own_as(entry: &OwnedFd, owner: Option<(Uid, Gid)>) {
    if let Some((owner, group)) = owner {
        rustix::fs::fchown(entry, Some(owner), Some(group)).ok();
    }
}

fn owner_of(folder: &OwnedFd) -> Option<(Uid, Gid)> {
    let stat = rustix::fs::fstat(folder).ok()?;
    Some((Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)))
}

/// For people; nothing is decided by it, so that a time which the disk cannot hold does not matter.
fn set_time(file: &OwnedFd, mtime: i64) {
    let time = Timespec {
        tv_sec: mtime.div_euclid(1_000_000_000),
        tv_nsec: mtime.rem_euclid(1_000_000_000),
    };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::futimens(file, &times).ok();
}

/// `before` is what the file was before.
fn place(
    disk: &Disk,
    item: &Install,
    before: &Stat,
    homes: &mut Homes,
) -> Result<Installed, FsError> {
    let home = homes.of(disk, &item.path)?;
    let (stages, folder) = (disk.stages()?, &home.folder);
    let own = stage::name_of(&item.staged.key);
    let name = item.path.name();
    let rescued = match &item.replaces {
        None => {
            move_to(&stages, &own, folder, name)?;
            None
        }
        Some(replaced) => {
            let place = disk.trash.place_for(disk, &item.path, &replaced.content.sha256)?;
            let (trash, unseen) = (&place.folder, place.unseen.as_str());
            // From the trash, so that what is displaced is there from the first moment on.
            move_to(&stages, &own, trash, unseen)?;
            if let Err(failed) = exchange(trash, unseen, folder, name, replaced) {
                move_to(trash, unseen, &stages, &own)?;
                return Err(failed);
            }
            // What stood there has the name in the trash by now.
            if is_still(trash, unseen, replaced)? {
                place.settle()?;
                None
            } else {
                Some(set_aside(disk, trash, unseen, &item.path)?)
            }
        }
    };
    // Where it was replaced at once, what is known of it does not fit what is there: that is read.
    let there = Disk::stat_in(folder, name).ok().filter(|there| there.same_inode(before));
    Ok(Installed { stat: there.unwrap_or(*before), rescued })
}

/// The staged file takes the place of the other, and the other its: at no moment is either nowhere.
/// What is there now is looked at first, so that in nearly every case of a file that changed nothing
/// has to be undone.
fn exchange(
    stages: &OwnedFd,
    own: &str,
    folder: &OwnedFd,
    name: &str,
    replaced: &Replaced,
) -> Result<(), FsError> {
    if Disk::stat_in(folder, name).map_err(gone_or)? != replaced.stat {
        return Err(FsError::Changed);
    }
    match rustix::fs::renameat_with(stages, own, folder, name, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS) => replace_by_link(stages, own, folder, name),
        Err(errno) => Err(gone_or(errno)),
    }
}

/// Where the file system cannot exchange: what stands there gets a second name first.
fn replace_by_link(
    stages: &OwnedFd,
    own: &str,
    folder: &OwnedFd,
    name: &str,
) -> Result<(), FsError> {
    let kept = format!("{own}.old");
    let none = rustix::fs::AtFlags::empty();
    rustix::fs::unlinkat(stages, &kept, none).ok();
    rustix::fs::linkat(folder, name, stages, &kept, none).map_err(gone_or)?;
    rustix::fs::renameat(stages, own, folder, name).map_err(gone_or)?;
    rustix::fs::renameat(stages, &kept, stages, own).map_err(error)
}

/// Whether a file that was taken away is what was to be taken away. Being renamed changes the inode's
/// time, so that this says nothing now; a file that was written to a moment ago is read.
pub(super) fn is_still(folder: &OwnedFd, name: &str, replaced: &Replaced) -> Result<bool, FsError> {
    let now = Disk::stat_in(folder, name).map_err(gone_or)?;
    let was = &replaced.stat;
    if (now.dev, now.ino, now.size, now.mtime) != (was.dev, was.ino, was.size, was.mtime) {
        return Ok(false);
    }
    if wall().saturating_sub(now.mtime) >= RECENT {
        return Ok(true);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(gone_or)?;
    Ok(hash::of_open(&file).map_err(error)? == replaced.content.sha256)
}

/// Gives a file of the hidden folder back to the user, under a conflict name beside `path`.
pub(super) fn set_aside(
    disk: &Disk,
    folder: &OwnedFd,
    name: &str,
    path: &RelPath,
) -> Result<RelPath, FsError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(gone_or)?;
    let stat = super::stat_of(&rustix::fs::fstat(&file).map_err(error)?);
    let sha256 = hash::of_open(&file).map_err(error)?;
    let content = Content { sha256, size: stat.size, executable: stat.mode & 0o100 != 0 };
    let loser = Local::File { content, stat, racy: true };
    let home = disk.parent_of(path)?;
    let taken = |copy: &RelPath| Disk::stat_in(&home, copy.name()).is_ok();
    // Somebody may take the name between the look and the rename, but not for ever.
    for _ in 0..100 {
        let copy = conflict_name(path, &loser, &disk.label, taken)
            .ok_or(FsError::Name(PathError::TooLong))?;
        match move_to(folder, name, &home, copy.name()) {
            Ok(()) => {
                rustix::fs::fsync(&home).map_err(error)?;
                return Ok(copy);
            }
            Err(FsError::Exists) => {}
            Err(failed) => return Err(failed),
        }
    }
    Err(FsError::Exists)
}
