//! What commands note of themselves: each writes its name and its run into one file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::ProcessName;

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Marks {
    path: PathBuf,
}

impl Marks {
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join("marks") }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Shell words that note a name. One write of a line: several may write at once.
    pub(crate) fn note(&self, name: &str) -> String {
        format!("echo \"{name} $PANORAMA_RUN_ID\" >> {}", self.path.display())
    }

    fn lines(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let split = |line: &str| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        text.lines().filter_map(split).collect()
    }

    /// How often each name was noted.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (name, _) in self.lines() {
            *counts.entry(name).or_default() += 1;
        }
        counts
    }

    /// Whether this name was noted.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.lines().iter().any(|(noted, _)| noted == name)
    }

    /// All processes that are left of a home: they name it, or carry the mark of a run that was
    /// noted (as the runs' supervisors do, whose environment is empty otherwise).
    pub(crate) fn left(&self, home: &Path) -> Vec<(i32, String)> {
        let home = format!("HOME={}", home.display());
        let run = |(_, run): &(String, String)| format!("PANORAMA_RUN_ID={run}");
        let runs: BTreeSet<String> = self.lines().iter().map(run).collect();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            let Some(pid) = pid else { continue };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let is_ours = environment
                .split(|byte| *byte == 0)
                .filter_map(|pair| std::str::from_utf8(pair).ok())
                .any(|pair| pair == home || runs.contains(pair));
            if is_ours && ProcessName::of(pid).is_some() {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }
}
