//! Agent CLIs on this host. So far only where Claude Code is, for `diagnostic`.

use std::path::{Path, PathBuf};

use crate::config::Settings;

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
