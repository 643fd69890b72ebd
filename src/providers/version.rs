//! Versions as CLIs print them: a semver somewhere in a line.

use std::cmp::Ordering;

use semver::Version;

/// The first semver among the words of `--version`'s output: `codex-cli 0.169.0`,
/// `2.1.197 (Claude Code)`, `v1.2.3-beta.1`.
pub(super) fn read(output: &str) -> Option<Version> {
    let is_edge = |character: char| matches!(character, ',' | ';' | ':' | '(' | ')' | '"' | '\'');
    output.split_whitespace().map(|word| word.trim_matches(is_edge)).find_map(|word| {
        let number = word.strip_prefix(['v', 'V']).unwrap_or(word);
        Version::parse(number).ok()
    })
}

/// Which of two is preferred: the higher one; a pre-release below its release; what has no version
/// below all that have one. Build metadata says nothing.
pub(super) fn compare(left: Option<&Version>, right: Option<&Version>) -> Ordering {
    match (left, right) {
        (Some(left), Some(right)) => left.cmp_precedence(right),
        (left, right) => left.is_some().cmp(&right.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_stands_somewhere_in_the_line() {
        for (output, expected) in [
            ("2.1.197 (Claude Code)\n", Some("2.1.197")),
            ("codex-cli 0.169.0\n", Some("0.169.0")),
            ("0.61.0\n", Some("0.61.0")),
            ("gemini: v1.2.3-nightly.20261101+abc, built now", Some("1.2.3-nightly.20261101+abc")),
            ("warning 12\n(1.0.0)", Some("1.0.0")),
            ("1.2", None),
            ("claude", None),
            ("", None),
        ] {
            assert_eq!(read(output).map(|version| version.to_string()).as_deref(), expected);
        }
    }

    #[test]
    fn a_pre_release_is_below_its_release_and_anything_beats_no_version() {
        let order = |left: &str, right: &str| compare(read(left).as_ref(), read(right).as_ref());
        assert_eq!(order("2.1.10", "2.1.9"), Ordering::Greater);
        assert_eq!(order("2.0.0-beta.2", "2.0.0"), Ordering::Less);
        assert_eq!(order("2.0.0-beta.2", "1.9.9"), Ordering::Greater);
        assert_eq!(order("2.0.0-beta.10", "2.0.0-beta.9"), Ordering::Greater);
        assert_eq!(order("2.0.0+b", "2.0.0+a"), Ordering::Equal);
        assert_eq!(order("0.0.1", "none"), Ordering::Greater);
        assert_eq!(order("none", ""), Ordering::Equal);
    }
}
