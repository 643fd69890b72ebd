//! Small shell scripts that stand for a CLI: `#!/bin/sh`, then `exec TARGET "$@"`.

use std::path::PathBuf;

/// A longer script is no mere wrapper.
pub(super) const MAX_WRAPPER: usize = 4 * 1024;

/// The absolute path that a wrapper of these bytes runs; `None` for anything else, also where the
/// target depends on what only a shell knows.
pub(super) fn target(script: &[u8], home: Option<&str>) -> Option<PathBuf> {
    if script.len() > MAX_WRAPPER {
        return None;
    }
    let text = std::str::from_utf8(script).ok()?;
    let interpreter = text.lines().next()?.strip_prefix("#!")?;
    let is_shell = interpreter
        .split_ascii_whitespace()
        .filter_map(|word| word.rsplit('/').next())
        .any(|name| matches!(name, "sh" | "bash" | "dash" | "zsh" | "ksh"));
    if !is_shell {
        return None;
    }
    let command = text.lines().find_map(|line| line.trim().strip_prefix("exec "))?;
    let word = expand(first_word(command.trim_start())?, home)?;
    (word.starts_with('/') && !word.contains('$')).then(|| word.into())
}

/// The first word of a command, out of its quotes.
fn first_word(command: &str) -> Option<&str> {
    match command.chars().next()? {
        quote @ ('"' | '\'') => command[1..].split_once(quote).map(|(word, _)| word),
        _ => command.split_ascii_whitespace().next(),
    }
}

fn expand(word: &str, home: Option<&str>) -> Option<String> {
    for prefix in ["$HOME/", "${HOME}/", "~/"] {
        if let Some(below) = word.strip_prefix(prefix) {
            return Some(format!("{}/{below}", home?));
        }
    }
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_wrapper_names_its_target() {
        for (script, expected) in [
            ("#!/bin/bash\nexec \"/o/claude\" \"$@\"\n", Some("/o/claude")),
            ("#!/usr/bin/env bash\n# x\n  exec /o/claude \"$@\"", Some("/o/claude")),
            ("#!/bin/sh -e\nexec '/o/a b' \"$@\"\n", Some("/o/a b")),
            ("#!/bin/sh\nexec $HOME/c \"$@\"\n", Some("/h/c")),
            ("#!/bin/sh\nexec \"${HOME}/c\" \"$@\"\n", Some("/h/c")),
            ("#!/bin/sh\nexec ~/c\n", Some("/h/c")),
            ("#!/bin/sh\nexec claude \"$@\"\n", None),
            ("#!/bin/sh\nexec \"$DIR/claude\" \"$@\"\n", None),
            ("#!/bin/sh\nexec \"/o/$V/claude\" \"$@\"\n", None),
            ("#!/bin/sh\nexec \"/unclosed\n", None),
            ("#!/bin/sh\n/o/claude \"$@\"\n", None),
            ("#!/usr/bin/env node\nexec /o/claude\n", None),
            ("exec /o/claude\n", None),
            ("#!/bin/sh\nexec \n", None),
            ("", None),
        ] {
            let found = target(script.as_bytes(), Some("/h"));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{script:?}");
        }
        assert_eq!(target(b"#!/bin/sh\nexec ~/c\n", None), None);
        assert_eq!(target(b"#!/bin/sh\n\xff\nexec /c\n", None), None);
    }

    #[test]
    fn a_long_script_is_no_wrapper() {
        let script = |length: usize| {
            let mut script = b"#!/bin/sh\nexec /o/claude\n".to_vec();
            script.resize(length, b'#');
            target(&script, None).is_some()
        };
        assert!(script(MAX_WRAPPER));
        assert!(!script(MAX_WRAPPER + 1));
    }
}
