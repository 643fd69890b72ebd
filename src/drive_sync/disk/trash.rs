//! What was replaced or removed, kept for a while under the path that it had.
//!
//! Below `trash` stands one folder for each start of the engine and minute, named by its time, and in
//! it the entries under their old paths: a person finds a file by looking.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::path::{RESERVED_PREFIX, RelPath};
use super::super::ports::{Fs, FsError};
use super::install::set_aside;
use super::{Disk, STAGE, TRASH, error, wall};

/// Entries that go at about the same time lie in one folder.
const MINUTE: i64 = 60_000_000_000;
/// For so long a program may go on writing to a file that it had open.
const LATE: Duration = Duration::from_hours(1);

/// The folder of this minute.
#[derive(Debug, Default)]
pub(super) struct Batch(Mutex<Option<(i64, OwnedFd)>>);

impl Batch {
    /// A folder of the trash, made if need be, and a free name in it.
    pub(super) fn place_for(
        &self,
        disk: &Disk,
        path: &RelPath,
    ) -> Result<(OwnedFd, String), FsError> {
        let mut folder = self.of_now(disk)?;
        let mut names: Vec<&str> = path.names().collect();
        let Some(name) = names.pop() else { return Err(FsError::Changed) };
        for step in names {
            folder = enter(&folder, step)?;
        }
        for count in 0..10_000_u32 {
            let name = if count == 0 { name.to_owned() } else { numbered(name, count) };
            match Disk::stat_in(&folder, &name) {
                Err(Errno::NOENT) => return Ok((folder, name)),
                Ok(_) => {}
                Err(errno) => return Err(error(errno)),
            }
        }
        Err(FsError::Exists)
    }

    fn of_now(&self, disk: &Disk) -> Result<OwnedFd, FsError> {
        let minute = wall() / MINUTE;
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, folder)) = held.as_ref()
            && *of == minute
        {
            return rustix::io::fcntl_dupfd_cloexec(folder, 3).map_err(error);
        }
        let trash = disk.private_or_lost(TRASH)?;
        let folder = enter(&trash, &batch_name(minute))?;
        rustix::fs::fsync(&trash).map_err(error)?;
        *held = Some((minute, rustix::io::fcntl_dupfd_cloexec(&folder, 3).map_err(error)?));
        Ok(folder)
    }

    /// Entries of this minute stay after a loss of power.
    pub(super) fn make_durable(&self) -> Result<(), Errno> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map_or(Ok(()), |(_, folder)| rustix::fs::fsync(folder))
    }
}

/// Sorts by time, and is read by people.
fn batch_name(minute: i64) -> String {
    let time = jiff::Timestamp::from_second(minute.saturating_mul(60)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H-%MZ").to_string()
}

fn numbered(name: &str, count: u32) -> String {
    let suffix = format!(".{count}");
    let mut keep = name.len().min(255 - suffix.len());
    while !name.is_char_boundary(keep) {
        keep -= 1;
    }
    format!("{}{suffix}", &name[..keep])
}

fn enter(folder: &OwnedFd, name: &str) -> Result<OwnedFd, FsError> {
    match rustix::fs::mkdirat(folder, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(error(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(error)
}

/// The trash folders, oldest first, with the time that each began.
fn batches(disk: &Disk) -> Result<Vec<(SystemTime, PathBuf)>, FsError> {
    let trash = disk.path.join(RESERVED_PREFIX).join(TRASH);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&trash)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(time) = name.to_str().and_then(time_of) else { continue };
        found.push((time, entry.path()));
    }
    found.sort_unstable();
    Ok(found)
}

fn time_of(name: &str) -> Option<SystemTime> {
    let time = jiff::civil::DateTime::strptime("%Y-%m-%dT%H-%MZ", name).ok()?;
    let second = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(second).ok()?))
}

/// Removes old things, and younger ones while space is short.
pub(super) fn purge(disk: &Disk, keep: Duration, want_free: u64) -> Result<u64, FsError> {
    let before = disk.free_space()?;
    for (time, folder) in batches(disk)? {
        let age = SystemTime::now().duration_since(time).unwrap_or_default();
        if age < keep && disk.free_space()? >= want_free {
            break;
        }
        std::fs::remove_dir_all(&folder)?;
    }
    drop_stages(disk, keep)?;
    Ok(disk.free_space()?.saturating_sub(before))
}

/// Downloads that nobody has gone on with for as long are given up.
fn drop_stages(disk: &Disk, keep: Duration) -> Result<(), FsError> {
    for entry in std::fs::read_dir(disk.path.join(RESERVED_PREFIX).join(STAGE))? {
        let entry = entry?;
        let touched = entry.metadata()?.modified()?;
        if SystemTime::now().duration_since(touched).is_ok_and(|age| age >= keep) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Gives back files that were written to after they came into the trash.
pub(super) fn rescue_late_writes(disk: &Disk) -> Result<Vec<RelPath>, FsError> {
    let mut rescued = Vec::new();
    for (time, folder) in batches(disk)? {
        if SystemTime::now().duration_since(time).unwrap_or_default() > LATE {
            continue;
        }
        let mut files = Vec::new();
        collect(&folder, &mut files)?;
        for file in files {
            if let Some(copy) = rescue(disk, &folder, &file)? {
                rescued.push(copy);
            }
        }
    }
    Ok(rescued)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Being put into the trash was the last change of its inode, unless somebody wrote to it: then its
/// content has a time at least as young.
fn rescue(disk: &Disk, batch: &Path, file: &Path) -> Result<Option<RelPath>, FsError> {
    let stat = super::stat_of(&rustix::fs::stat(file).map_err(error)?);
    if stat.mtime < stat.ctime {
        return Ok(None);
    }
    let below = file.strip_prefix(batch).ok().and_then(Path::to_str);
    let Some(path) = below.and_then(|below| RelPath::parse(below).ok()) else { return Ok(None) };
    let (Some(folder), Some(name)) =
        (file.parent(), file.file_name().and_then(|name| name.to_str()))
    else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty()).map_err(error)?;
    match set_aside(disk, &folder, name, &path) {
        Ok(copy) => Ok(Some(copy)),
        // Its folder is gone as well: it stays here, where a person finds it.
        Err(FsError::Changed) => Ok(None),
        Err(failed) => Err(failed),
    }
}
