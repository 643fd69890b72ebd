//! Finds a CLI on this host.
//!
//! [`Search::look`] only reads directories: what it gives back is the same as long as nothing was
//! installed, updated or removed. [`Search::run`] asks the files that it found for their versions.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use futures_util::future::join_all;

use super::probe::Limits;
use super::{Asker, NoAnswer, ProviderId, candidates, shell_hint, version, wrapper};
use crate::config::{Environment, Settings};

/// An executable file. One that was replaced or written to is another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct File {
    /// Where it was found. Called by this name: some installers go by it.
    pub path: PathBuf,
    /// Without symbolic links.
    real: PathBuf,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

/// What a look at the places of a CLI found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// Distinct executables, the most likely first.
    pub files: Vec<File>,
    /// Why what a person named is not among them.
    pub problem: Option<String>,
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// There is none; why, one line.
    Missing(String),
    /// There is one that does not answer.
    Mute {
        /// The most likely executable.
        command: PathBuf,
        /// Why not.
        problem: NoAnswer,
    },
    /// There is one.
    Found {
        /// The executable.
        command: PathBuf,
        /// Trimmed output of `--version`; `None`: not asked, since there was nothing to choose from.
        version: Option<String>,
    },
}

/// The search for one CLI.
#[derive(Debug, Clone)]
pub struct Search {
    id: ProviderId,
    /// What a person named, and where.
    named: Option<(String, String)>,
    environment: Environment,
    /// Versions that were told, by file.
    versions: HashMap<File, String>,
}

impl Search {
    /// As these settings say.
    pub fn new(id: ProviderId, settings: &Settings) -> Self {
        let named = match id {
            ProviderId::ClaudeCode => &settings.claude_cli,
            ProviderId::Codex => &settings.codex_cli,
            ProviderId::Gemini => &settings.gemini_cli,
        };
        let named = named.as_ref().map(|named| (named.value.clone(), named.source.to_string()));
        Self { id, named, environment: settings.environment.clone(), versions: HashMap::new() }
    }

    /// What is there now. Starts no process.
    pub async fn look(&self) -> Look {
        let this = Self { versions: HashMap::new(), ..self.clone() };
        // It fails only when the runtime is going down.
        tokio::task::spawn_blocking(move || this.look_now()).await.unwrap_or_default()
    }

    fn look_now(&self) -> Look {
        let mut problem = None;
        if let Some((value, source)) = &self.named {
            let files = self.usable(candidates::named(value, &self.environment));
            let is_wrapper = !files.all.is_empty() && files.whole.is_empty();
            match files.whole.into_iter().next() {
                Some(file) => return Look { files: vec![file], problem },
                None if is_wrapper => {
                    problem = Some(format!("{value} ({source}) runs a file that is missing"));
                }
                None => {
                    let problem = format!("{value} ({source}) is not an executable file");
                    return Look { files: Vec::new(), problem: Some(problem) };
                }
            }
        }
        let macos = cfg!(target_os = "macos");
        let paths = candidates::candidates(self.id, &self.environment, macos);
        Look { files: self.usable(paths).whole, problem }
    }

    fn usable(&self, paths: Vec<PathBuf>) -> Usable {
        let mut seen = HashSet::new();
        let all: Vec<File> = paths
            .into_iter()
            .filter_map(file)
            .filter(|file| seen.insert(file.real.clone()))
            .collect();
        let whole = all.iter().filter(|file| !self.is_broken_wrapper(file)).cloned().collect();
        Usable { all, whole }
    }

    /// Claude's own installer leaves wrappers behind.
    fn is_broken_wrapper(&self, file: &File) -> bool {
        if self.id != ProviderId::ClaudeCode || file.size > wrapper::MAX_WRAPPER as u64 {
            return false;
        }
        let script = std::fs::read(&file.real).unwrap_or_default();
        let target = wrapper::target(&script, self.environment.get("HOME"));
        target.is_some_and(|target| !is_executable(&target))
    }

    /// Chooses among what a look found: the highest version, and among equals the most likely.
    /// One that is too slow to tell its version is asked a second time, more patiently.
    pub async fn run(
        &mut self,
        asker: &Asker,
        variables: &[(&str, &str)],
        look: &Look,
        limits: Limits,
    ) -> Finding {
        match look.files.as_slice() {
            [] => Finding::Missing(self.not_found(asker, look).await),
            [only] => Finding::Found {
                command: only.path.clone(),
                version: self.versions.get(only).cloned(),
            },
            [first, ..] => self.choose(asker, variables, first, &look.files, limits).await,
        }
    }

    /// Every file is to be asked again.
    pub fn forget(&mut self) {
        self.versions.clear();
    }

    /// Remembers what the command of a look told, so that it is not asked again.
    pub fn learn(&mut self, look: &Look, command: &Path, version: &str) {
        if let Some(file) = look.files.iter().find(|file| file.path == command) {
            self.versions.insert(file.clone(), version.to_owned());
        }
    }

    async fn choose(
        &mut self,
        asker: &Asker,
        variables: &[(&str, &str)],
        first: &File,
        files: &[File],
        limits: Limits,
    ) -> Finding {
        let ask = async |file: &File| {
            if let Some(version) = self.versions.get(file) {
                return Ok(version.clone());
            }
            let ask = async |limit| asker.ask(&file.path, &["--version"], variables, limit).await;
            let said = match ask(limits.choice).await {
                Err(error) if error.is_slow => ask(limits.patient().choice).await?,
                said => said?,
            };
            Ok(said.trim().to_owned())
        };
        let answers: Vec<Result<String, NoAnswer>> = join_all(files.iter().map(ask)).await;
        self.versions.clear();
        let mut best: Option<(&File, &String)> = None;
        for (file, version) in files.iter().zip(&answers) {
            let Ok(version) = version else { continue };
            self.versions.insert(file.clone(), version.clone());
            let is_better = best.is_none_or(|(_, other)| {
                version::compare(version::read(version).as_ref(), version::read(other).as_ref())
                    .is_gt()
            });
            if is_better {
                best = Some((file, version));
            }
        }
        if let Some((file, version)) = best {
            return Finding::Found { command: file.path.clone(), version: Some(version.clone()) };
        }
        let problems = answers.into_iter().filter_map(Result::err);
        // The first, but rather one that may answer yet.
        let problem = problems.min_by_key(|problem| !problem.is_slow).unwrap_or_default();
        Finding::Mute { command: first.path.clone(), problem }
    }

    async fn not_found(&self, asker: &Asker, look: &Look) -> String {
        if let Some(problem) = &look.problem {
            return problem.clone();
        }
        let missing = format!("{} was not found on this host", self.id.title());
        match shell_hint::ask(asker, &self.environment, self.id, self.id.flag()).await {
            Some(hint) => format!("{missing}; {hint}"),
            None => missing,
        }
    }
}

/// Files of one provider: all, and those that are no broken wrappers.
struct Usable {
    all: Vec<File>,
    whole: Vec<File>,
}

fn file(path: PathBuf) -> Option<File> {
    // Probes and runs stand elsewhere.
    let path = std::path::absolute(path).ok()?;
    let real = path.canonicalize().ok()?;
    let meta = real.metadata().ok()?;
    is_executable(&real).then(|| File {
        path,
        real,
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
    })
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
