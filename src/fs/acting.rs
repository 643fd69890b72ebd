//! Files of another user, by a gateway that is root: made, read and removed as that user would.
//!
//! Root that writes into a directory which somebody else may change meanwhile can be led anywhere by
//! a link. So while one thread works there, the kernel takes it for that user (`setfsuid`).

use std::cell::Cell;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::FsError;

thread_local! {
    /// Whom this thread acts as, where that is not who the process is.
    static ACTING: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// The user and group of these numbers.
    pub fn new(uid: u32, gid: u32) -> Self {
        Self { uid, gid }
    }

    /// The numbers of user and group.
    pub fn ids(self) -> (u32, u32) {
        (self.uid, self.gid)
    }
}

/// As whom files are used on this thread now.
pub(super) fn user() -> u32 {
    ACTING.get().unwrap_or_else(|| rustix::process::geteuid().as_raw())
}

/// Works on files as their owner; with `None` as who we are. What cannot become the owner does
/// nothing and is an error.
pub fn acting_as<T>(owner: Option<Owner>, work: impl FnOnce() -> T) -> io::Result<T> {
    let Some(owner) = owner.filter(|owner| owner.uid != rustix::process::geteuid().as_raw()) else {
        return Ok(work());
    };
    let _back = Acting::begin(owner)?;
    Ok(work())
}

struct Acting;

#[cfg(target_os = "linux")]
impl Acting {
    fn begin(Owner { uid, gid }: Owner) -> io::Result<Self> {
        use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
        // Undone from here on, whatever happens.
        let acting = Self;
        setfsgid(Gid::from_raw(gid));
        setfsuid(Uid::from_raw(uid));
        ACTING.set(Some(uid));
        // The only way to learn whether it took: to ask for it again.
        if setfsuid(Uid::from_raw(uid)).as_raw() != uid {
            return Err(ErrorKind::PermissionDenied.into());
        }
        Ok(acting)
    }
}

#[cfg(target_os = "linux")]
impl Drop for Acting {
    fn drop(&mut self) {
        nix::unistd::setfsuid(nix::unistd::geteuid());
        nix::unistd::setfsgid(nix::unistd::getegid());
        ACTING.set(None);
    }
}

/// Managed VMs are Linux.
#[cfg(not(target_os = "linux"))]
impl Acting {
    fn begin(_: Owner) -> io::Result<Self> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// Makes `path` a directory of the owner's (0700). Missing parents are ours and anybody may pass
/// them, which is all that a user needs of them; those that are there stay as they are.
pub fn give_dir(path: &Path, owner: Owner) -> Result<(), FsError> {
    let mut missing: Vec<&Path> =
        path.ancestors().skip(1).take_while(|ancestor| !ancestor.exists()).collect();
    while let Some(parent) = missing.pop() {
        let made = DirBuilder::new().create(parent).and_then(|()| {
            // Our umask closes what we make to all others.
            std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755))
        });
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(FsError::io("make", parent, error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(FsError::io("make", path, error));
        }
        Ok(()) | Err(_) => {}
    }
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::DIRECTORY).bits()).unwrap_or_default();
    let dir = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let dir = dir.map_err(|error| FsError::io("open", path, error))?;
    let found = dir.metadata().map_err(|error| FsError::io("examine", path, error))?;
    if found.uid() == owner.uid {
        return Ok(());
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(FsError::ForeignOwner { path: path.to_owned() });
    }
    give(&dir, owner).map_err(|error| FsError::io("give away", path, error.into()))
}

fn give(dir: &File, Owner { uid, gid }: Owner) -> rustix::io::Result<()> {
    rustix::fs::fchmod(dir, Mode::RWXU)?;
    rustix::fs::fchown(dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only root can act as others.
    fn nobody() -> Option<Owner> {
        let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let owner = Owner::new(user.uid.as_raw(), user.gid.as_raw());
        rustix::process::geteuid().is_root().then_some(owner)
    }

    #[test]
    fn one_acts_as_the_owner_and_then_as_oneself_again() {
        let Some(owner) = nobody() else { return };
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (own, work) = (dir.path().join("own"), dir.path().join("deep/work"));
        std::fs::write(&own, "secret").unwrap();
        std::fs::set_permissions(&own, PermissionsExt::from_mode(0o600)).unwrap();
        give_dir(&work, owner).unwrap();
        give_dir(&work, owner).unwrap();
        let (read, made) = acting_as(Some(owner), || {
            super::super::ensure_private_dir(&work).unwrap();
            (std::fs::read(&own), std::fs::write(work.join("file"), "x"))
        })
        .unwrap();
        assert_eq!(read.unwrap_err().kind(), ErrorKind::PermissionDenied);
        made.unwrap();
        assert_eq!(std::fs::metadata(work.join("file")).unwrap().uid(), owner.uid);
        assert_eq!(std::fs::read(&own).unwrap(), b"secret");
        assert!(super::super::ensure_private_dir(&work).is_err(), "it is not ours");
        assert_eq!(std::fs::metadata(&work).unwrap().mode() & 0o777, 0o700);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(give_dir(&link, owner).is_err(), "a link leads anywhere");
    }
}
