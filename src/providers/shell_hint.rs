//! What the login shell knows of a command that was not found.

use std::path::PathBuf;
use std::time::Duration;

use super::{Asker, ProviderId};
use crate::config::Environment;

const LIMIT: Duration = Duration::from_secs(2);
/// Most characters of the shell's answer that are shown.
const SHOWN: usize = 300;

/// A sentence for people, with the flag that would help; `None` when the shell knows nothing
/// either.
pub(super) async fn ask(
    asker: &Asker,
    environment: &Environment,
    id: ProviderId,
    flag: &str,
) -> Option<String> {
    let shell = login_shell(environment)?;
    // Interactive, because that is where aliases and most functions are set.
    let question = format!("type -a {}", id.command());
    let said = asker.ask(&shell, &["-lic", &question], &[], LIMIT).await.ok()?;
    hint(&said, id.command(), flag)
}

fn login_shell(environment: &Environment) -> Option<PathBuf> {
    let of_user = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let shell = environment.path("SHELL").or_else(|| of_user().map(|user| user.shell))?;
    shell.is_absolute().then_some(shell)
}

fn hint(said: &str, command: &str, flag: &str) -> Option<String> {
    let begin = format!("{command} is ");
    let line = said.lines().map(str::trim).find(|line| line.starts_with(&begin))?;
    let what = &line[begin.len()..];
    if what.starts_with('/') {
        return Some(format!("the login shell finds it: pass {flag} {}", shown(what)));
    }
    Some(format!("the login shell says \"{}\": name its executable with {flag}", shown(line)))
}

fn shown(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_an_alias_and_a_function_make_a_hint() {
        for (said, expected) in [
            (
                "claude is /odd/claude\nclaude is /bin/claude\n",
                Some("the login shell finds it: pass --claude-cli /odd/claude"),
            ),
            (
                "Welcome!\nclaude is aliased to `/x/claude'\n",
                Some(
                    "the login shell says \"claude is aliased to `/x/claude'\": name its \
                     executable with --claude-cli",
                ),
            ),
            (
                "claude is a function\nclaude ()\n{\n}\n",
                Some(
                    "the login shell says \"claude is a function\": name its executable with \
                     --claude-cli",
                ),
            ),
            ("claude not found\n", None),
            ("claude-x is /bin/claude-x\n", None),
            ("", None),
        ] {
            assert_eq!(hint(said, "claude", "--claude-cli").as_deref(), expected, "{said:?}");
        }
    }

    #[test]
    fn a_long_answer_is_cut() {
        let said = format!("claude is aliased to `{}'", "x".repeat(10_000));
        assert!(hint(&said, "claude", "--claude-cli").unwrap().len() < 500);
    }
}
