//! One drive's folder on a real disk.
//!
//! The root is opened once and held; everything is reached from that descriptor, by the kernel's
//! promise (`openat2`) that no symbolic link is followed, no `..` climbs out and no other file system
//! is entered. Beside the drive's own entries the root has one hidden folder, in which the marker,
//! downloads under way and the trash lie: the same file system, so that a rename puts them in place.

mod beneath;
mod entries;
mod hash;
mod ignore;
mod install;
mod reading;
mod remove;
mod scan;
mod source;
mod stage;
mod trash;
mod unfinished;

pub use ignore::IGNORED;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::model::{Content, LocalTree, Stat, device};
use super::path::{RESERVED_PREFIX, RelPath};
use super::plan::Replaced;
use super::ports::{Fs, FsError, Install, Installed, Root, Scope, Source, StageWriter};
use super::wire::MAX_INLINE;
use beneath::Beneath;

/// The marker's name in the hidden folder.
const MARKER: &str = "root.json";
/// Tells git that nothing in the hidden folder belongs to a repository that a drive may be: a marker
/// that was committed would change with each checkout.
const GIT_IGNORE: (&str, &[u8]) = (".gitignore", b"*\n");
/// Bytes up to which a file goes whole.
const SMALL: u64 = MAX_INLINE as u64;
/// Downloads under way.
const STAGE: &str = "stage";
/// What was replaced or removed.
const TRASH: &str = "trash";
/// Of the marker.
const FORMAT: u32 = 1;

/// A folder of a real disk that mirrors one drive.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    root: Beneath,
    dev: u32,
    ino: u64,
    /// Stands in the names of conflict copies.
    label: String,
    /// The machine was not shut down in good order before this time.
    crashed_before: Option<i64>,
    trash: trash::Batch,
    /// Downloads under way, while the root is known to be the same; opened again after each look at
    /// the root.
    stages: Mutex<Option<Arc<OwnedFd>>>,
    /// Bytes: the server takes no larger file.
    largest: AtomicU64,
    /// Reading everything may take long.
    stop: Option<CancellationToken>,
    unfinished: unfinished::Unfinished,
}

/// What the marker holds.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    drive_id: String,
    /// Made by chance, when the root was made this drive's.
    #[serde(rename = "marker")]
    id: String,
}

impl Disk {
    /// Opens a root, and makes it when `create` is set. `label` names this machine in the names of
    /// conflict copies. With a `crash` (nanoseconds since 1970) a scan holds back files that it may
    /// have emptied: what was written since then was written by somebody.
    pub fn open(
        path: &Path,
        label: &str,
        create: bool,
        crash: Option<i64>,
    ) -> Result<Self, FsError> {
        if create {
            std::fs::create_dir_all(path)?;
        }
        // Whoever may write beside the root could otherwise have another folder mirrored.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
                FsError::RootLost(format!("{} is not there, or is no folder", path.display()))
            }
            errno => FsError::Io(errno.into()),
        })?;
        let stat = rustix::fs::fstat(&root).map_err(io::Error::from)?;
        Ok(Self {
            path: path.to_owned(),
            dev: device(stat.st_dev),
            ino: stat.st_ino,
            root: Beneath::new(root),
            label: label.to_owned(),
            crashed_before: crash,
            trash: trash::Batch::default(),
            stages: Mutex::default(),
            largest: AtomicU64::new(u64::MAX),
            stop: None,
            unfinished: unfinished::Unfinished::default(),
        })
    }

    /// The same, and a scan ends with [`FsError::Stopped`] soon after `stop`.
    #[must_use]
    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// Larger files take no part, and are not read: the server would not take them.
    pub fn limit_files(&self, bytes: u64) {
        self.largest.store(bytes, Ordering::Relaxed);
    }

    /// Whether the server takes a file of this size.
    fn takes(&self, size: u64) -> bool {
        size <= self.largest.load(Ordering::Relaxed)
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Removes from the trash, and from the downloads under way, what has lain there for longer than
    /// `keep`, and, while less than `want_free` bytes are free, what is in the trash, the oldest
    /// first, down to what has lain there for an hour.
    /// Returns the bytes gained.
    pub fn purge_trash(&self, keep: std::time::Duration, want_free: u64) -> Result<u64, FsError> {
        trash::purge(self, keep, want_free)
    }

    /// Looks for files in the trash that were written to after they came there, through a descriptor
    /// that was open already, and gives them back as conflict copies. Returns these.
    pub fn rescue_late_writes(&self) -> Result<Vec<RelPath>, FsError> {
        trash::rescue_late_writes(self)
    }

    /// The hidden folder, or one in it. `None`: no marker was ever planted.
    fn private(&self, name: Option<&str>) -> Result<Option<OwnedFd>, FsError> {
        let place = match name {
            Some(name) => format!("{RESERVED_PREFIX}/{name}"),
            None => RESERVED_PREFIX.to_owned(),
        };
        match self.root.open_text(&place, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(FsError::Io(errno.into())),
        }
    }

    /// A folder in the hidden one. The marker is what says that the root is the right one: where it
    /// is, these can be made anew.
    fn private_or_lost(&self, name: &str) -> Result<OwnedFd, FsError> {
        if let Some(folder) = self.private(Some(name))? {
            return Ok(folder);
        }
        let lost = || FsError::RootLost(format!("its {RESERVED_PREFIX}/{name} is gone"));
        if self.private(None)?.is_none() {
            return Err(lost());
        }
        self.root.make_dir_text(&format!("{RESERVED_PREFIX}/{name}"), Mode::RWXU)?;
        self.private(Some(name))?.ok_or_else(lost)
    }

    /// The folder of downloads under way.
    fn stages(&self) -> Result<Arc<OwnedFd>, FsError> {
        let mut held = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = held.as_ref() {
            return Ok(Arc::clone(folder));
        }
        let folder = Arc::new(self.private_or_lost(STAGE)?);
        *held = Some(Arc::clone(&folder));
        Ok(folder)
    }

    /// The folder that holds an entry; a folder that is missing or is something else has changed.
    fn parent_of(&self, path: &RelPath) -> Result<OwnedFd, FsError> {
        match path.parent() {
            None => self.root.duplicate().map_err(error),
            Some(parent) => {
                self.root.open(&parent, OFlags::RDONLY | OFlags::DIRECTORY).map_err(gone_or)
            }
        }
    }

    fn stat_in(folder: &OwnedFd, name: &str) -> Result<Stat, Errno> {
        rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat_of(&stat))
    }
}

impl Fs for Disk {
    fn root(&self) -> Result<Option<Root>, FsError> {
        *self.stages.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let lost = |what: &str| FsError::RootLost(format!("{} {what}", self.path.display()));
        let now = rustix::fs::stat(&self.path).map_err(|_| lost("is not there"))?;
        if (device(now.st_dev), now.st_ino) != (self.dev, self.ino) {
            return Err(lost("is another folder than the one that was opened"));
        }
        let Some(private) = self.private(None)? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&private, MARKER, flags, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(FsError::Io(errno.into())),
        };
        let read: Result<Marker, _> = serde_json::from_reader(io::BufReader::new(file));
        let marker = read.map_err(|_| lost("has a marker that cannot be read"))?;
        if marker.format > FORMAT {
            return Err(lost("was made by a newer version of drive sync"));
        }
        Ok(Some(Root {
            drive_id: marker.drive_id,
            marker: marker.id,
            dev: self.dev,
            ino: self.ino,
        }))
    }

    fn plant_marker(&self, drive_id: &str, marker: &str) -> Result<Root, FsError> {
        self.root.make_dir_text(RESERVED_PREFIX, Mode::RWXU)?;
        for name in [STAGE, TRASH] {
            self.root.make_dir_text(&format!("{RESERVED_PREFIX}/{name}"), Mode::RWXU)?;
        }
        let (drive_id, marker) = (drive_id.to_owned(), marker.to_owned());
        let text = serde_json::to_vec(&Marker { format: FORMAT, drive_id, id: marker })
            .map_err(io::Error::from)?;
        let folder = self.private_or_lost(".")?;
        stage::write_whole(&folder, GIT_IGNORE.0, GIT_IGNORE.1)?;
        stage::write_whole(&folder, MARKER, &text)?;
        rustix::fs::fsync(self.root.as_fd()).map_err(error)?;
        self.root()?.ok_or_else(|| FsError::RootLost("its marker is gone again".to_owned()))
    }

    fn scan(&self, previous: LocalTree, scope: &Scope) -> Result<LocalTree, FsError> {
        scan::scan(self, previous, scope)
    }

    fn make_directory(&self, path: &RelPath) -> Result<Stat, FsError> {
        install::make_directory(self, path)
    }

    fn remove_directory(&self, path: &RelPath) -> Result<(), FsError> {
        remove::remove_directory(self, path)
    }

    fn rename(&self, from: &RelPath, to: &RelPath, stat: &Stat) -> Result<Stat, FsError> {
        remove::rename(self, from, to, stat)
    }

    fn stage(&self, key: &str, content: &Content) -> Result<Box<dyn StageWriter + '_>, FsError> {
        Ok(Box::new(stage::Writer::open(self, key, content)?))
    }

    fn install(&self, items: Vec<Install>) -> Vec<Result<Installed, FsError>> {
        install::install(self, &items)
    }

    fn delete(&self, path: &RelPath, replaced: &Replaced) -> Result<(), FsError> {
        remove::delete(self, path, replaced)
    }

    fn open(&self, path: &RelPath, stat: &Stat) -> Result<Box<dyn Source + '_>, FsError> {
        Ok(Box::new(source::Opened::open(self, path, stat)?))
    }

    fn free_space(&self) -> Result<u64, FsError> {
        let facts = rustix::fs::fstatvfs(self.root.as_fd()).map_err(error)?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }
}

/// What the engine wants to know of a stat.
fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    let nanoseconds = |seconds: i64, rest: u64| {
        seconds.saturating_mul(1_000_000_000).saturating_add(i64::try_from(rest).unwrap_or(0))
    };
    Stat {
        dev: device(stat.st_dev),
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        ctime: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        mode: stat.st_mode,
    }
}

/// Nanoseconds since 1970, by the clock that gives files their times.
fn wall() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// What the kernel's word means to the engine.
fn error(errno: Errno) -> FsError {
    match errno {
        Errno::EXIST => FsError::Exists,
        Errno::NOTEMPTY => FsError::NotEmpty,
        Errno::NOSPC | Errno::DQUOT => FsError::Full,
        Errno::NAMETOOLONG => FsError::Name(super::path::PathError::TooLong),
        Errno::ILSEQ => FsError::Name(super::path::PathError::Encoding),
        errno => FsError::Io(errno.into()),
    }
}

/// The same at an entry that was there before: what is missing, or is a link or another kind of
/// entry by now, has changed.
fn gone_or(errno: Errno) -> FsError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::ISDIR => FsError::Changed,
        errno => error(errno),
    }
}
