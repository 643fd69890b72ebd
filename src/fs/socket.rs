//! Unix sockets at paths of any length, which the system's own calls do not take.
//!
//! An address has room for about a hundred bytes. On Linux a longer path is reached through its
//! opened directory (`/proc/self/fd/<n>/<name>`), for the one who binds and for those who connect;
//! elsewhere it is an error that says so.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Longest path in an address, without the zero at its end.
const LONGEST: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Listens at a path where nothing is yet.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    at(path, |address| UnixListener::bind(address))
}

/// Connects to who listens there.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    at(path, |address| UnixStream::connect(address))
}

fn at<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= LONGEST {
        return act(path);
    }
    let too_long = || {
        let message = format!("a socket's path may have {LONGEST} bytes here");
        io::Error::new(ErrorKind::InvalidInput, message)
    };
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(too_long());
    };
    let Some((_open, short)) = by_descriptor(dir)? else { return Err(too_long()) };
    act(&short.join(name))
}

/// A short name of a directory, as long as the file is open; `None` where there is none.
fn by_descriptor(dir: &Path) -> io::Result<Option<(File, PathBuf)>> {
    #[cfg(target_os = "linux")]
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    #[cfg(not(target_os = "linux"))]
    let flags = OFlags::DIRECTORY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let open = OpenOptions::new().read(true).custom_flags(flags).open(dir)?;
    let short = Path::new("/proc/self/fd").join(open.as_raw_fd().to_string());
    Ok(short.is_dir().then_some((open, short)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn short_and_long_paths_serve_alike() {
        let dir = tempfile::tempdir().unwrap();
        for length in [1, LONGEST, LONGEST + 1, 250, 700] {
            let mut deep = dir.path().to_owned();
            // A component, and the socket's name.
            while deep.as_os_str().len() + 4 <= length {
                let rest = length - deep.as_os_str().len() - 3;
                deep.push("d".repeat(rest.min(200)));
            }
            std::fs::create_dir_all(&deep).unwrap();
            let path = deep.join("s");
            assert!(path.as_os_str().len() + 3 > length, "{}", path.display());
            let listener = bind(&path).unwrap();
            assert!(path.exists());
            let mut client = connect(&path).unwrap();
            client.write_all(b"x").unwrap();
            let mut heard = [0];
            listener.accept().unwrap().0.read_exact(&mut heard).unwrap();
            assert_eq!(heard, *b"x", "{length}");
            drop(listener);
            assert_eq!(connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            std::fs::remove_file(&path).unwrap();
            assert_eq!(connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
        }
        let absent = dir.path().join("a".repeat(200)).join("s");
        assert_eq!(connect(&absent).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
