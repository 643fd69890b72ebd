//! OS file locks that decide who may do what. A lock file is never unlinked.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::fs::FsError;

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("held by another process")]
    Held,
    /// The file cannot be used.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// A lock that is held until dropped.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    /// Another process has the same open file: what one of them unlocks, neither holds.
    is_shared: bool,
}

impl FileLock {
    /// Takes the lock now, or says who cannot: never waits. The file is made (0600, missing parents
    /// 0700) when absent. Two handles exclude each other within one process, too.
    pub fn try_acquire(path: &Path) -> Result<Self, LockError> {
        let file = crate::fs::append_private(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, is_shared: false }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held),
            Err(TryLockError::Error(source)) => {
                Err(FsError::Io { verb: "lock", path: path.to_owned(), source }.into())
            }
        }
    }

    /// Takes the lock, trying again for at most `patience`. Blocks the thread (steps of at most
    /// 10 ms): call it from a blocking context.
    pub fn acquire(path: &Path, patience: Duration) -> Result<Self, LockError> {
        let mut left = patience;
        loop {
            match Self::try_acquire(path) {
                Err(LockError::Held) if !left.is_zero() => {}
                outcome => return outcome,
            }
            // Unequal steps, so that many waiters do not keep step with each other.
            let pause = LONGEST_PAUSE.mul_f64(0.1 + 0.9 * fastrand::f64()).min(left);
            std::thread::sleep(pause);
            left -= pause;
        }
    }

    /// Lends the lock to another process of ours, which makes a lock of the descriptor with
    /// [`Self::inherit`]. It is held until both have let go, so nobody else can come between.
    pub fn share(&mut self) -> BorrowedFd<'_> {
        self.is_shared = true;
        self.file.as_fd()
    }

    /// The lock on `path` that another process of ours holds and has sent.
    pub fn inherit(path: &Path, descriptor: OwnedFd) -> Result<Self, LockError> {
        let lock = Self { file: descriptor.into(), is_shared: true };
        let failed = |source| FsError::Io { verb: "lock", path: path.to_owned(), source };
        let ours = lock.file.metadata().map_err(failed)?;
        let there = path.metadata().map_err(failed)?;
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            let other = io::Error::other("what was handed over is another file");
            return Err(failed(other).into());
        }
        lock.hold_on(path)?;
        Ok(lock)
    }

    /// Makes sure that a shared lock is held: the other process may have let go of it.
    pub fn hold_on(&self, path: &Path) -> Result<(), LockError> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(LockError::Held),
            Err(TryLockError::Error(source)) => {
                Err(FsError::Io { verb: "lock", path: path.to_owned(), source }.into())
            }
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.is_shared {
            return;
        }
        // Closing would not do: a child that is just being spawned shares the open file until its
        // exec, and would hold the lock for that long.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_holds_it_until_dropped_and_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/gateway.lock");
        let held = FileLock::try_acquire(&path).unwrap();
        assert!(matches!(FileLock::try_acquire(&path), Err(LockError::Held)));
        drop(held);
        assert!(path.exists());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        FileLock::try_acquire(&path).unwrap();
    }

    #[test]
    fn patience_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.lock");
        let _held = FileLock::try_acquire(&path).unwrap();
        let outcome = FileLock::acquire(&path, Duration::from_millis(30));
        assert!(matches!(outcome, Err(LockError::Held)));
    }

    #[test]
    fn waiting_ends_when_the_holder_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.lock");
        let held = FileLock::try_acquire(&path).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| FileLock::acquire(&path, Duration::from_mins(1)).is_ok());
            drop(held);
            assert!(waiter.join().unwrap());
        });
    }

    #[test]
    fn a_shared_lock_is_held_until_both_have_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.lock");
        let is_held = || matches!(FileLock::try_acquire(&path), Err(LockError::Held));
        let mut old = FileLock::try_acquire(&path).unwrap();
        let sent = old.share().try_clone_to_owned().unwrap();
        let new = FileLock::inherit(&path, sent).unwrap();
        drop(new);
        assert!(is_held(), "the one that lent it has it back");
        old.hold_on(&path).unwrap();
        let sent = old.share().try_clone_to_owned().unwrap();
        let new = FileLock::inherit(&path, sent).unwrap();
        drop(old);
        assert!(is_held(), "it has gone over");
        drop(new);
        assert!(!is_held());
    }

    #[test]
    fn another_file_is_not_inherited() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("gateway.lock"), dir.path().join("other"));
        let _lock = FileLock::try_acquire(&path).unwrap();
        let mut of_other = FileLock::try_acquire(&other).unwrap();
        let sent = of_other.share().try_clone_to_owned().unwrap();
        assert!(matches!(FileLock::inherit(&path, sent), Err(LockError::Fs(_))));
    }

    #[test]
    fn a_symlink_is_no_lock_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.lock");
        std::os::unix::fs::symlink(dir.path().join("other"), &path).unwrap();
        assert!(matches!(
            FileLock::try_acquire(&path),
            Err(LockError::Fs(FsError::WrongKind { .. }))
        ));
        assert!(!dir.path().join("other").exists());
    }
}
