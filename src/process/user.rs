//! As whom commands run, where that is not the gateway's own user.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::unistd::{Gid, User};
use serde::{Deserialize, Serialize};

use crate::fs::Owner;

/// Another user, as the system's database knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ExecUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// All of its groups, the first one too.
    pub groups: Vec<u32>,
    pub home: PathBuf,
}

/// Why nothing can be run as that user.
#[derive(Debug, thiserror::Error)]
pub enum ExecUserError {
    /// There is none of that name.
    #[error("this machine has no user {0:?}, as whom commands are to run")]
    Missing(String),
    /// It is root, whom commands are to be kept from being.
    #[error("commands are not to run as {0:?}, which is root")]
    Root(String),
    /// The system's database could not be read.
    #[error("the user {name:?} could not be looked up")]
    Unreadable {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ExecUser {
    /// Looks a user up. Blocks.
    pub fn find(name: &str) -> Result<Self, ExecUserError> {
        let unreadable = |errno: nix::errno::Errno| ExecUserError::Unreadable {
            name: name.to_owned(),
            source: errno.into(),
        };
        let missing = || ExecUserError::Missing(name.to_owned());
        let user = User::from_name(name).map_err(unreadable)?.ok_or_else(missing)?;
        if user.uid.is_root() {
            return Err(ExecUserError::Root(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups(name, user.gid).map_err(unreadable)?,
            home: user.dir,
        })
    }

    /// Whose files it makes.
    pub fn owner(&self) -> Owner {
        Owner::new(self.uid, self.gid)
    }

    /// What its commands find in their environment.
    pub(crate) fn variables(&self) -> [(&'static str, OsString); 3] {
        [
            ("HOME", self.home.clone().into_os_string()),
            ("LOGNAME", OsString::from_vec(self.name.clone().into_bytes())),
            ("USER", OsString::from_vec(self.name.clone().into_bytes())),
        ]
    }
}

#[cfg(not(target_os = "macos"))]
fn groups(name: &str, first: Gid) -> nix::Result<Vec<u32>> {
    let name = CString::new(name).map_err(|_| nix::errno::Errno::EINVAL)?;
    let all = nix::unistd::getgrouplist(&name, first)?;
    Ok(all.into_iter().map(Gid::as_raw).collect())
}

/// Written for macOS, untested.
#[cfg(target_os = "macos")]
fn groups(_name: &str, first: Gid) -> nix::Result<Vec<u32>> {
    Ok(vec![first.as_raw()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_root_is_none() {
        let nobody = ExecUser::find("nobody").unwrap();
        assert!(nobody.uid != 0 && nobody.groups.contains(&nobody.gid), "{nobody:?}");
        let error = ExecUser::find("no such user").unwrap_err();
        assert!(matches!(error, ExecUserError::Missing(_)), "{error}");
        assert!(matches!(ExecUser::find("root"), Err(ExecUserError::Root(_))));
        assert!(ExecUser::find("a\0b").is_err());
    }
}
