//! OS file locks that decide who may do what. A lock file is never unlinked.

use std::fs::{File, TryLockError};
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
}

impl FileLock {
    /// Takes the lock now, or says who cannot: never waits. The file is made (0600, missing parents
    /// 0700) when absent. Two handles exclude each other within one process, too.
    pub fn try_acquire(path: &Path) -> Result<Self, LockError> {
        let file = crate::fs::append_private(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
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
}

impl Drop for FileLock {
    fn drop(&mut self) {
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
