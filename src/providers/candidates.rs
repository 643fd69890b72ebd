//! Where a CLI may be installed: a pure function of the environment.

use std::path::{Path, PathBuf};

use super::ProviderId;
use crate::config::Environment;

/// Variables that name an installer's folder, and where in it commands are.
const INSTALLERS: [(&str, &str); 6] = [
    ("PNPM_HOME", ""),
    ("NPM_CONFIG_PREFIX", "bin"),
    ("VOLTA_HOME", "bin"),
    ("BUN_INSTALL", "bin"),
    ("HOMEBREW_PREFIX", "bin"),
    ("ASDF_DATA_DIR", "shims"),
];

/// Below the home directory.
const OF_HOME: [&str; 6] = [
    ".local/bin",
    "bin",
    ".npm-global/bin",
    ".nvm/versions/node/current/bin",
    ".asdf/shims",
    ".nix-profile/bin",
];

/// Every place where this CLI may be, each once, the most likely ones first. Absolute paths only:
/// what a relative entry of `PATH` names depends on where somebody stands.
pub(super) fn candidates(id: ProviderId, environment: &Environment, macos: bool) -> Vec<PathBuf> {
    let home = environment.path("HOME");
    let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let mut found = Vec::new();
    if id == ProviderId::ClaudeCode {
        found.extend([".claude/local/claude", ".claude/claude"].into_iter().filter_map(below_home));
    }
    let installers = INSTALLERS
        .into_iter()
        .filter_map(|(name, below)| environment.path(name).map(|dir| dir.join(below)));
    let of_macos = [Some(PathBuf::from("/opt/homebrew/bin")), below_home("Library/pnpm")];
    let of_system = ["/usr/local/bin", "/usr/bin", "/bin"].into_iter().map(PathBuf::from);
    let dirs = installers
        .chain(of_macos.into_iter().flatten().filter(|_| macos))
        .chain(of_system)
        .chain(OF_HOME.into_iter().filter_map(below_home))
        .chain(path_dirs(environment));
    found.extend(dirs.map(|dir| dir.join(id.command())));
    let mut seen = std::collections::HashSet::new();
    found.retain(|path| path.is_absolute() && seen.insert(path.clone()));
    found
}

/// What a person named: a path (`~/` is the home directory), or a name that is looked for in the
/// directories of `PATH`. All places where it may be.
pub(super) fn named(value: &str, environment: &Environment) -> Vec<PathBuf> {
    if let Some(below) = value.strip_prefix("~/") {
        return environment.path("HOME").map(|home| home.join(below)).into_iter().collect();
    }
    if value.contains('/') {
        return vec![PathBuf::from(value)];
    }
    path_dirs(environment).filter(|dir| dir.is_absolute()).map(|dir| dir.join(value)).collect()
}

fn path_dirs(environment: &Environment) -> impl Iterator<Item = PathBuf> {
    let path = environment.path("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(path.as_os_str()).collect();
    dirs.into_iter().filter(|dir| dir != Path::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: ProviderId, pairs: &[(&str, &str)], macos: bool) -> Vec<String> {
        let environment = Environment::from_pairs(pairs.iter().copied());
        let paths = candidates(id, &environment, macos);
        paths.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_most_likely_places_come_first() {
        let pairs = [
            ("HOME", "/h"),
            ("PNPM_HOME", "/pnpm"),
            ("NPM_CONFIG_PREFIX", "/npm"),
            ("VOLTA_HOME", "/volta"),
            ("BUN_INSTALL", "/bun"),
            ("HOMEBREW_PREFIX", "/brew"),
            ("ASDF_DATA_DIR", "/asdf"),
            ("PATH", "/p1:/usr/bin:relative::/p2"),
        ];
        let expected = [
            "/h/.claude/local/claude",
            "/h/.claude/claude",
            "/pnpm/claude",
            "/npm/bin/claude",
            "/volta/bin/claude",
            "/bun/bin/claude",
            "/brew/bin/claude",
            "/asdf/shims/claude",
            "/usr/local/bin/claude",
            "/usr/bin/claude",
            "/bin/claude",
            "/h/.local/bin/claude",
            "/h/bin/claude",
            "/h/.npm-global/bin/claude",
            "/h/.nvm/versions/node/current/bin/claude",
            "/h/.asdf/shims/claude",
            "/h/.nix-profile/bin/claude",
            "/p1/claude",
            "/p2/claude",
        ];
        assert_eq!(of(ProviderId::ClaudeCode, &pairs, false), expected);
    }

    #[test]
    fn on_macos_homebrew_and_pnpm_have_places_of_their_own() {
        let found = of(ProviderId::Codex, &[("HOME", "/h")], true);
        assert_eq!(
            found[..3],
            ["/opt/homebrew/bin/codex", "/h/Library/pnpm/codex", "/usr/local/bin/codex"]
        );
        assert!(!of(ProviderId::Codex, &[("HOME", "/h")], false).concat().contains("homebrew"));
    }

    #[test]
    fn without_a_home_the_systems_places_are_left() {
        let expected = ["/usr/local/bin/gemini", "/usr/bin/gemini", "/bin/gemini"];
        assert_eq!(of(ProviderId::Gemini, &[], false), expected);
        assert_eq!(of(ProviderId::Gemini, &[("HOME", "")], false), expected);
    }

    #[test]
    fn a_name_is_looked_for_on_the_path_and_a_path_is_taken_as_it_is() {
        let environment = Environment::from_pairs([("HOME", "/h"), ("PATH", "/a:b:/c")]);
        let of = |value| named(value, &environment);
        assert_eq!(of("my-claude"), [Path::new("/a/my-claude"), Path::new("/c/my-claude")]);
        assert_eq!(of("/x/claude"), [Path::new("/x/claude")]);
        assert_eq!(of("./claude"), [Path::new("./claude")]);
        assert_eq!(of("~/bin/claude"), [Path::new("/h/bin/claude")]);
    }
}
