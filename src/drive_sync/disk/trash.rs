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

use super::super::model::Sha256;
use super::super::path::{LONGEST_NAME, RESERVED_PREFIX, RelPath};
use super::super::ports::{Fs, FsError};
use super::install::set_aside;
use super::remove::move_to;
use super::{Disk, STAGE, TRASH, error, hash, wall};

/// Entries that go at about the same time lie in one folder.
const MINUTE: i64 = 60_000_000_000;
/// The beginning of the name of what nobody has looked at yet; the first digits of the expected hash,
/// something of its own, and the name follow.
const UNSEEN: &str = ".panorama-sync-unseen-";
/// Where a folder has to be but a file of that name lies already, the folder of a later minute is
/// used; so many are tried.
const AHEAD: i64 = 10;
/// What is being looked at right now is not what a crash has left. Nanoseconds.
const FRESH: i64 = 60_000_000_000;
/// For so long a program may go on writing to a file that it had open.
const LATE: Duration = Duration::from_hours(1);

/// The folder of this minute.
#[derive(Debug, Default)]
pub(super) struct Batch {
    now: Mutex<Option<(i64, OwnedFd)>>,
    /// Old batches were looked through once.
    looked: std::sync::atomic::AtomicBool,
    /// What nobody has looked at is looked at however young it is.
    all: std::sync::atomic::AtomicBool,
}

/// A place in the trash for an entry, in two steps: it comes there under a name that says that
/// nobody has looked at it yet, and gets its own when it is known to be what was to go. A crash in
/// between leaves the first, and a later look at the trash finds it.
pub(super) struct Place {
    pub(super) folder: OwnedFd,
    /// Until it is looked at.
    pub(super) unseen: String,
    name: String,
}

impl Place {
    /// It is what was to go.
    pub(super) fn settle(&self) -> Result<(), FsError> {
        for count in 0..10_000_u32 {
            let name = if count == 0 { self.name.clone() } else { numbered(&self.name, count) };
            match move_to(&self.folder, &self.unseen, &self.folder, &name) {
                Err(FsError::Exists) => {}
                settled => return settled,
            }
        }
        Err(FsError::Exists)
    }
}

impl Batch {
    /// A folder of the trash, made if need be, and names in it. `expected` is what is to go.
    pub(super) fn place_for(
        &self,
        disk: &Disk,
        path: &RelPath,
        expected: &Sha256,
    ) -> Result<Place, FsError> {
        let mut names: Vec<&str> = path.names().collect();
        let Some(name) = names.pop() else { return Err(FsError::Changed) };
        let folder = self.folder_for(disk, &names)?;
        let own = uuid::Uuid::new_v4().simple().to_string();
        let unseen = format!("{UNSEEN}{}-{}-{name}", &expected.hex()[..16], &own[..8]);
        let unseen = cut(&unseen, LONGEST_NAME).to_owned();
        Ok(Place { folder, unseen, name: name.to_owned() })
    }

    /// The folder of this path. What was a file and then a folder cannot lie in the trash of one
    /// minute as both.
    fn folder_for(&self, disk: &Disk, steps: &[&str]) -> Result<OwnedFd, FsError> {
        let enter_all = |batch| steps.iter().try_fold(batch, |folder, step| enter(&folder, step));
        let mut entered = enter_all(self.of_now(disk)?);
        for ahead in 1..=AHEAD {
            match &entered {
                Err(FsError::Io(failed)) if failed.kind() == io::ErrorKind::NotADirectory => {}
                Ok(_) | Err(_) => break,
            }
            let trash = disk.private_or_lost(TRASH)?;
            let batch = enter(&trash, &batch_name(wall() / MINUTE + ahead))?;
            rustix::fs::fsync(&trash).map_err(error)?;
            entered = enter_all(batch);
        }
        entered
    }

    /// As if a minute had passed.
    #[cfg(test)]
    pub(super) fn look_at_all(&self) {
        self.all.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// As it is.
    #[cfg(test)]
    pub(super) fn look_at_young(&self) {
        self.all.store(false, std::sync::atomic::Ordering::Relaxed);
    }

    fn is_fresh(&self, ctime: i64) -> bool {
        !self.all.load(std::sync::atomic::Ordering::Relaxed) && wall().saturating_sub(ctime) < FRESH
    }

    fn of_now(&self, disk: &Disk) -> Result<OwnedFd, FsError> {
        let minute = wall() / MINUTE;
        let mut held = self.now.lock().unwrap_or_else(PoisonError::into_inner);
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
        let held = self.now.lock().unwrap_or_else(PoisonError::into_inner);
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
    format!("{}{suffix}", cut(name, LONGEST_NAME - suffix.len()))
}

/// At most so many bytes, and no half letter.
fn cut(text: &str, bytes: usize) -> &str {
    let mut keep = text.len().min(bytes);
    while !text.is_char_boundary(keep) {
        keep -= 1;
    }
    &text[..keep]
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
        // The youngest is in use, and what a program still writes to has to be found first.
        if age < LATE.min(keep) || (age < keep && disk.free_space()? >= want_free) {
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
    // A crash may have left something that was not looked at, however long ago.
    let every = !disk.trash.looked.swap(true, std::sync::atomic::Ordering::Relaxed);
    for (time, folder) in batches(disk)? {
        if !every && SystemTime::now().duration_since(time).unwrap_or_default() > LATE {
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
    let name = file.file_name().and_then(|name| name.to_str());
    let (Some(folder), Some(name)) = (file.parent(), name) else { return Ok(None) };
    let unseen = unseen(name);
    let below = folder.join(unseen.map_or(name, |(_, own)| own));
    let below = below.strip_prefix(batch).ok().and_then(Path::to_str);
    let Some(path) = below.and_then(|below| RelPath::parse(below).ok()) else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty()).map_err(error)?;
    match unseen {
        Some(_) if disk.trash.is_fresh(stat.ctime) => return Ok(None),
        Some((expected, own)) if is_no_loss(disk, &folder, name, expected, &path)? => {
            let (unseen, name) = (name.to_owned(), own.to_owned());
            Place { folder, unseen, name }.settle()?;
            return Ok(None);
        }
        None if stat.mtime < stat.ctime => return Ok(None),
        Some(_) | None => {}
    }
    match set_aside(disk, &folder, name, &path) {
        Ok(copy) => Ok(Some(copy)),
        // Its folder is gone as well: it stays here, where a person finds it.
        Err(FsError::Changed) => Ok(None),
        Err(failed) => Err(failed),
    }
}

/// The expected hash's beginning and the entry's own name.
fn unseen(name: &str) -> Option<(&str, &str)> {
    let (expected, rest) = name.strip_prefix(UNSEEN)?.split_once('-')?;
    let (_, own) = rest.split_once('-')?;
    Some((expected, own))
}

/// It is what was to go, or what stands at the path now anyway.
fn is_no_loss(
    disk: &Disk,
    folder: &OwnedFd,
    name: &str,
    expected: &str,
    path: &RelPath,
) -> Result<bool, FsError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(error)?;
    let found = hash::of_open(&file).map_err(error)?;
    if found.hex().starts_with(expected) {
        return Ok(true);
    }
    match disk.root.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(there) => Ok(hash::of_open(&there).map_err(error)? == found),
        Err(_) => Ok(false),
    }
}
