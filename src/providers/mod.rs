//! Agent CLIs on this host: Claude Code, Codex CLI and Gemini CLI.
//!
//! A module each knows its CLI's flags and answers, behind one trait; nothing outside this room
//! knows a flag. Plans are built and answers decoded by pure functions: a request and what is
//! installed give a [`Plan`], what a run left gives an [`Outcome`].

mod codex;
mod id;
pub mod json;
mod outcome;
mod plan;
pub mod schema;

use std::path::{Path, PathBuf};

pub use codex::Codex;
pub use id::ProviderId;
pub use outcome::{Answer, ErrorCode, ErrorSummary, Failure, Left, Outcome};
pub use plan::{
    Effort, FirstSignal, Flags, Format, Installed, ModelRequest, OutputMode, Plan, PlanError,
    PlanFile,
};

use crate::model::ProviderSupports;

use crate::config::Settings;

/// One agent CLI: what its help means, how it is called, what its answers mean. Pure.
pub trait Provider: Send + Sync {
    /// Which one.
    fn id(&self) -> ProviderId;

    /// The arguments of the call whose output names its flags, e.g. `exec --help`.
    fn help_args(&self) -> &'static [&'static str];

    /// The flags that a help text names, as whole words; `None`: help failed.
    fn flags(&self, help: Option<&str>) -> Flags;

    /// What follows from what is installed.
    fn supports(&self, installed: &Installed) -> ProviderSupports;

    /// How to get one answer. Only flags that `installed` has are passed.
    fn plan(&self, request: &ModelRequest, installed: &Installed) -> Result<Plan, PlanError>;

    /// What a run of that plan came to.
    fn decode(&self, request: &ModelRequest, plan: &Plan, left: &Left) -> Outcome;
}

/// The Claude Code command: an override, else the first `claude` on `PATH`.
pub fn find_claude(settings: &Settings) -> Option<PathBuf> {
    let path = settings.environment.get("PATH").unwrap_or_default();
    match &settings.claude_cli {
        Some(named) if named.value.contains('/') => Some(PathBuf::from(&named.value)),
        Some(named) => on_path(path, &named.value),
        None => on_path(path, "claude"),
    }
}

fn on_path(path: &str, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_executable_files_in_absolute_dirs_count() {
        let first = tempfile::tempdir().unwrap();
        let second = tempfile::tempdir().unwrap();
        std::fs::write(first.path().join("claude"), "not executable").unwrap();
        std::fs::create_dir(first.path().join("codex")).unwrap();
        for name in ["claude", "codex"] {
            let file = second.path().join(name);
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("relative:{}:{}", first.path().display(), second.path().display());
        assert_eq!(on_path(&path, "claude"), Some(second.path().join("claude")));
        assert_eq!(on_path(&path, "codex"), Some(second.path().join("codex")));
        assert_eq!(on_path(&path, "gemini"), None);
    }
}
