//! A drive's folder for another user than the gateway's: made by root, and given to that user.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::fs::Owner;

/// Makes the folder and gives it to its owner; folders above it that are missing stay ours, and may be
/// passed by all. One that is there already stays as it is: whoever made it knows whose it is.
pub(super) fn make(folder: &Path, owner: Owner) -> io::Result<()> {
    let missing: Vec<_> = folder.ancestors().take_while(|path| is_missing(path)).collect();
    for path in missing.iter().rev() {
        std::fs::create_dir(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    // Never through a link, in case somebody else may write where it is.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::open(folder, flags, Mode::empty())?;
    let (uid, gid) = owner.ids();
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    Ok(rustix::fs::fchown(&made, Some(uid), Some(gid))?)
}

/// A link that leads nowhere is there.
fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_is_its_owners_and_what_is_above_it_is_not() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::new(65_534, 65_534);
        let folder = dir.path().join("drives/team");
        make(&folder, owner).unwrap();
        let seen = |path: &Path| {
            let stat = path.symlink_metadata().unwrap();
            (stat.uid(), stat.gid(), stat.mode() & 0o777)
        };
        assert_eq!(seen(&folder), (65_534, 65_534, 0o755));
        assert_eq!(seen(folder.parent().unwrap()), (0, 0, 0o755));
        // One that is there is not touched.
        let own = dir.path().join("drives/own");
        std::fs::create_dir(&own).unwrap();
        let before = seen(&own);
        make(&own, owner).unwrap();
        assert_eq!(seen(&own), before);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("team");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        let nobody = Owner::new(65_534, 65_534);
        make(&link, nobody).unwrap();
        assert!(make(&link.join("below"), nobody).is_err());
        assert!(!dir.path().join("nowhere").exists());
    }
}
