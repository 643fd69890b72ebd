//! Which files processes of this machine have open, as far as the system tells us.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A reading of one moment.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    /// Canonical paths of open files and work dirs; `None` where it cannot be known.
    paths: Option<BTreeSet<PathBuf>>,
}

impl OpenFiles {
    /// What is open below `dir`, by any process that we may look at: all of our user, and that is
    /// who may enter it. Reads `/proc`; elsewhere nothing is known.
    pub(super) fn below(dir: &Path) -> Self {
        let (Ok(dir), Ok(processes)) = (dir.canonicalize(), std::fs::read_dir("/proc")) else {
            return Self::default();
        };
        if !Path::new("/proc/self/fd").exists() {
            return Self::default();
        }
        let mut paths = BTreeSet::new();
        for process in processes.flatten() {
            let name = process.file_name();
            if !name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
                continue;
            }
            let process = process.path();
            let descriptors = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            let links = descriptors
                .map(|descriptor| descriptor.path())
                .chain([process.join("cwd"), process.join("exe")]);
            let opened = links.filter_map(|link| std::fs::read_link(link).ok());
            paths.extend(opened.filter(|path| path.starts_with(&dir)));
        }
        Self { paths: Some(paths) }
    }

    /// Whether it can be known at all.
    pub(super) fn is_known(&self) -> bool {
        self.paths.is_some()
    }

    /// Whether `path` or anything below it is open.
    pub(super) fn has(&self, path: &Path) -> bool {
        let Some(paths) = &self.paths else { return false };
        // A link itself, not where it leads.
        let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
        let (Some(parent), Some(name)) = (parent, path.file_name()) else { return false };
        let path = parent.join(name);
        paths.range(path.clone()..).next().is_some_and(|open| open.starts_with(&path))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn open_files_and_work_dirs_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "ab"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("file"), "").unwrap();
        }
        let held = std::fs::File::open(dir.path().join("a/file")).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(dir.path().join("b"))
            .spawn()
            .unwrap();
        let open = OpenFiles::below(dir.path());
        assert!(open.is_known());
        assert!(open.has(&dir.path().join("a")) && open.has(&dir.path().join("b")));
        assert!(!open.has(&dir.path().join("ab")), "a name that begins alike is another one");
        drop(held);
        child.kill().unwrap();
        child.wait().unwrap();
        let open = OpenFiles::below(dir.path());
        assert!(!open.has(&dir.path().join("a")) && !open.has(&dir.path().join("b")));
    }
}
