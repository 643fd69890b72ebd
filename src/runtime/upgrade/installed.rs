//! The installed file: where it is, what it is, what it says of itself.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::tracker::{Answer, Hash, Stat};
use crate::providers::Asker;

/// No gateway is that large.
const LARGEST: u64 = 2 << 30;
const VERSION_LIMIT: Duration = Duration::from_secs(10);
const LONGEST_VERSION: usize = 100;
/// Links from one to the next.
const MOST_LINKS: usize = 40;
#[cfg(target_os = "linux")]
const OURS: &str = "/proc/self/exe";
/// Magic, class, byte order and machine of an ELF file end here.
const HEADER: usize = 20;

/// Where the gateway that runs was started from.
#[derive(Debug, Clone)]
pub struct Installation {
    /// As it was called: through its symbolic links, if there are any.
    path: PathBuf,
    /// What runs.
    ours: Stat,
}

impl Installation {
    /// Of this process. `called` is its first argument, `executable` what the system says, `search`
    /// the `PATH`. To be asked early: the file may be replaced at any time.
    pub fn find(called: &OsStr, executable: &Path, search: Option<&OsStr>) -> io::Result<Self> {
        let ours = stat_of(&running(executable)?);
        let path = as_called(Path::new(called), executable, search);
        Ok(Self { path, ours })
    }

    /// How it is started again.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn ours(&self) -> Stat {
        self.ours
    }

    /// What stands there now; `Err` says what is there instead of a file.
    pub(super) fn look(&self) -> Result<Option<Stat>, (Stat, String)> {
        let Ok(metadata) = self.path.metadata() else { return Ok(None) };
        let stat = stat_of(&metadata);
        if metadata.is_dir() {
            return Err((stat, "it is a directory".to_owned()));
        }
        if !metadata.is_file() {
            return Err((stat, "it is not a regular file".to_owned()));
        }
        Ok(Some(stat))
    }

    /// The places whose change may be an upgrade: the file, and each link on the way to it.
    pub(super) fn places(&self) -> Vec<PathBuf> {
        let mut places = Vec::new();
        let mut left = vec![self.path.clone()];
        while let Some(path) = left.pop() {
            if places.contains(&path) || places.len() > MOST_LINKS {
                continue;
            }
            for ancestor in path.ancestors() {
                let Ok(target) = ancestor.read_link() else { continue };
                let parent = ancestor.parent().unwrap_or(Path::new("/"));
                let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
                // No trailing slash, which is what joining nothing would give.
                let target = parent.join(target);
                left.push(if rest.as_os_str().is_empty() { target } else { target.join(rest) });
                places.push(ancestor.to_owned());
            }
            places.push(path);
        }
        places
    }
}

fn running(executable: &Path) -> io::Result<Metadata> {
    // The file itself, even where another one has its name by now.
    #[cfg(target_os = "linux")]
    if let Ok(metadata) = Path::new(OURS).metadata() {
        return Ok(metadata);
    }
    executable.metadata()
}

fn stat_of(metadata: &Metadata) -> Stat {
    Stat {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    }
}

/// The name that leads to the executable, found as a shell finds it; the executable itself where
/// none does.
fn as_called(called: &Path, executable: &Path, search: Option<&OsStr>) -> PathBuf {
    let Ok(real) = executable.canonicalize() else { return executable.to_owned() };
    let by_path = called.parent().is_some_and(|parent| !parent.as_os_str().is_empty());
    let candidates: Vec<PathBuf> = if by_path {
        vec![called.to_owned()]
    } else {
        std::env::split_paths(search.unwrap_or_default()).map(|dir| dir.join(called)).collect()
    };
    candidates
        .into_iter()
        .filter_map(|path| std::path::absolute(path).ok())
        .find(|path| path.canonicalize().is_ok_and(|found| found == real))
        .unwrap_or_else(|| executable.to_owned())
}

/// SHA-256 of a file. Blocks.
pub(super) fn hash(path: &Path) -> io::Result<Hash> {
    let mut file = File::open(path)?.take(LARGEST);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// What the file says of itself. Nothing but a binary for this machine is started.
pub(super) async fn ask(asker: &Asker, path: &Path) -> Answer {
    let file = path.to_owned();
    let looked = tokio::task::spawn_blocking(move || refusal(&file)).await;
    match looked {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(why))) => return Answer::Unusable(why),
        Ok(Err(error)) => return Answer::Unusable(format!("it cannot be read: {error}")),
        // Going down.
        Err(_) => return Answer::Busy,
    }
    match asker.ask(path, &["--version"], &[], VERSION_LIMIT).await {
        Ok(said) => named(&said),
        // ETXTBSY: whoever writes it has not closed it yet.
        Err(error) if error.text.contains("Text file busy") => Answer::Busy,
        Err(error) => Answer::Unusable(error.text),
    }
}

/// Why it is no binary that could be started here; `None` when it looks like one.
fn refusal(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    if file.metadata()?.len() > LARGEST {
        return Ok(Some("it is too large for a gateway".to_owned()));
    }
    let header = header(file)?;
    if header.starts_with(b"#!") {
        return Ok(Some("it is a script, which cannot take over".to_owned()));
    }
    #[cfg(target_os = "linux")]
    if let Ok(ours) = File::open(OURS).and_then(self::header) {
        return Ok(foreign(&header, &ours).map(str::to_owned));
    }
    Ok(None)
}

fn header(file: File) -> io::Result<Vec<u8>> {
    let mut header = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut header)?;
    Ok(header)
}

/// What a header tells against a file, compared with that of what runs.
#[cfg(target_os = "linux")]
fn foreign(header: &[u8], ours: &[u8]) -> Option<&'static str> {
    const MAGIC: &[u8] = b"\x7fELF";
    if header.len() < HEADER {
        return Some("it is cut short");
    }
    if !header.starts_with(MAGIC) {
        return Some("it is no executable of this system");
    }
    // Class and byte order; machine.
    let same = |range: std::ops::Range<usize>| header.get(range.clone()) == ours.get(range);
    (!same(4..6) || !same(18..20)).then_some("it was built for another architecture")
}

/// `panorama-gateway 1.2.3`.
fn named(said: &str) -> Answer {
    let mut words = said.lines().next().unwrap_or_default().split_whitespace();
    let three = (words.next(), words.next(), words.next());
    let (Some(env!("CARGO_PKG_NAME")), Some(version), None) = three else {
        return Answer::Unusable("it does not call itself panorama-gateway".to_owned());
    };
    if version.len() > LONGEST_VERSION || !version.starts_with(|c: char| c.is_ascii_digit()) {
        return Answer::Unusable("it does not tell its version".to_owned());
    }
    Answer::Version(version.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_gateway_names_a_version() {
        let version = |text: &str| Answer::Version(text.to_owned());
        assert_eq!(named("panorama-gateway 1.2.3\n"), version("1.2.3"));
        assert_eq!(named("panorama-gateway 1.2.3-rc.1+x\nmore"), version("1.2.3-rc.1+x"));
        for other in
            ["", "cat (GNU coreutils) 9.1", "panorama-gateway", "panorama-gateway x", "1.2.3"]
        {
            assert!(matches!(named(other), Answer::Unusable(_)), "{other:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn other_architectures_are_told_by_their_header() {
        let ours = std::fs::read(OURS).map(|bytes| bytes[..HEADER].to_vec()).unwrap();
        assert_eq!(foreign(&ours, &ours), None);
        for (at, what) in [(4, "architecture"), (5, "architecture"), (18, "architecture")] {
            let mut other = ours.clone();
            other[at] ^= 3;
            assert!(foreign(&other, &ours).unwrap().contains(what));
        }
        assert!(foreign(&ours[..10], &ours).unwrap().contains("cut short"));
        assert!(foreign(&[b'x'; HEADER], &ours).unwrap().contains("no executable"));
    }

    #[test]
    fn the_link_that_was_called_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (file, link) = (dir.join("gateway-1"), dir.join("gateway"));
        std::fs::write(&file, "x").unwrap();
        symlink("gateway-1", &link).unwrap();
        let other = dir.join("other");
        std::fs::write(&other, "y").unwrap();
        assert_eq!(as_called(&link, &file, None), link);
        assert_eq!(as_called(&file, &file, None), file);
        assert_eq!(as_called(&other, &file, None), file, "a name that says something else");
        let search = std::env::join_paths([Path::new("/nonexistent"), &dir]).unwrap();
        assert_eq!(as_called(Path::new("gateway"), &file, Some(&search)), link);
        assert_eq!(as_called(Path::new("gateway"), &file, None), file);
    }

    #[test]
    fn every_link_on_the_way_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("v1/bin")).unwrap();
        std::fs::write(dir.join("v1/bin/gateway-1"), "x").unwrap();
        symlink("gateway-1", dir.join("v1/bin/gateway")).unwrap();
        symlink("v1", dir.join("current")).unwrap();
        let stat = stat_of(&dir.join("v1/bin/gateway").metadata().unwrap());
        let installation = Installation { path: dir.join("current/bin/gateway"), ours: stat };
        let places = installation.places();
        for place in ["current", "v1/bin/gateway", "v1/bin/gateway-1"] {
            assert!(places.contains(&dir.join(place)), "{place}: {places:?}");
        }
        assert_eq!(installation.look(), Ok(Some(stat)));
        symlink("loop", dir.join("loop")).unwrap();
        let looped = Installation { path: dir.join("loop"), ours: stat };
        assert!(looped.places().len() <= MOST_LINKS + 2);
        assert_eq!(looped.look(), Ok(None));
    }

    #[test]
    fn a_directory_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let stat = stat_of(&dir.path().metadata().unwrap());
        let installation = Installation { path: dir.path().to_owned(), ours: stat };
        assert!(installation.look().unwrap_err().1.contains("directory"));
    }
}
