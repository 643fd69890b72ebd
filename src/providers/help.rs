//! Reads flags out of help texts.

/// Whether a help text names this flag (e.g. `--tools`) as a whole word: `--toolset` does not.
pub fn names(help: &str, flag: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_');
    !flag.is_empty()
        && help.match_indices(flag).any(|(at, _)| {
            !help[..at].ends_with(is_part) && !help[at + flag.len()..].starts_with(is_part)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_counts_as_a_whole_word_only() {
        let help =
            "  -t, --toolset <x>   not --tools-off, ---tools, x--tools\n  --model=<m>, --äb\n";
        assert!(!names(help, "--tools"));
        assert!(names(help, "--toolset"));
        assert!(names(help, "--model"));
        assert!(names(help, "--äb"));
        assert!(!names(help, "--ä"));
        assert!(!names(help, ""));
        for with in ["--tools", "[--tools]", "a (--tools, b)", "--toolset --tools", "'--tools'"] {
            assert!(names(with, "--tools"), "{with}");
        }
    }
}
