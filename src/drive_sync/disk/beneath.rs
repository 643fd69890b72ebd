//! Reaching entries from a held folder, never through a link and never out of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::path::RelPath;
use super::super::ports::FsError;

/// A held folder.
#[derive(Debug)]
pub(super) struct Beneath {
    folder: OwnedFd,
    /// The kernel has no `openat2`, or a filter forbids it.
    by_name: AtomicBool,
}

impl Beneath {
    pub(super) fn new(folder: OwnedFd) -> Self {
        Self { folder, by_name: AtomicBool::new(!cfg!(target_os = "linux")) }
    }

    /// As if the kernel had no `openat2`.
    #[cfg(test)]
    pub(super) fn without_openat2(&self) {
        self.by_name.store(true, Ordering::Relaxed);
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    pub(super) fn duplicate(&self) -> Result<OwnedFd, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.folder, 3)
    }

    /// Opens an entry; links give `ELOOP`, other file systems `EXDEV`.
    pub(super) fn open(&self, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_text(&path.to_string(), flags)
    }

    pub(super) fn open_text(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if !self.by_name.load(Ordering::Relaxed) {
            match whole(self.folder.as_fd(), path, flags) {
                Err(Errno::NOSYS | Errno::PERM) => self.by_name.store(true, Ordering::Relaxed),
                // A rename somewhere on the way: the kernel cannot promise anything this time.
                Err(Errno::AGAIN) => {}
                answer => return answer,
            }
        }
        by_name(self.folder.as_fd(), path, flags)
    }

    /// Makes a folder of the engine's own, or finds it.
    pub(super) fn make_dir_text(&self, path: &str, mode: Mode) -> Result<(), FsError> {
        match rustix::fs::mkdirat(&self.folder, path, mode) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(super::error(errno)),
        }
    }
}

#[cfg(target_os = "linux")]
fn whole(folder: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve)
}

#[cfg(not(target_os = "linux"))]
fn whole(_: BorrowedFd<'_>, _: &str, _: OFlags) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// One name after the other, none of which may be a link or lead to another file system.
fn by_name(folder: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let home = rustix::fs::fstat(folder)?.st_dev;
    let mut names = path.split('/').peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        if name == ".." {
            return Err(Errno::XDEV);
        }
        let last = names.peek().is_none();
        let step = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = at.as_ref().map_or(folder, AsFd::as_fd);
        let next = rustix::fs::openat(from, name, if last { flags } else { step }, Mode::empty())?;
        if rustix::fs::fstat(&next)?.st_dev != home {
            return Err(Errno::XDEV);
        }
        at = Some(next);
    }
    at.ok_or(Errno::NOENT)
}
