//! What `codex exec --help` says about flags.

use super::super::{Flags, Installed};
use crate::model::ProviderSupports;

pub(super) const OUTPUT_SCHEMA: &str = "outputSchemaFlag";
pub(super) const LAST_MESSAGE: &str = "outputLastMessageFlag";
pub(super) const JSON: &str = "jsonFlag";
pub(super) const MODEL: &str = "modelFlag";
pub(super) const SANDBOX: &str = "sandboxFlag";
pub(super) const SKIP_GIT: &str = "skipGitRepoCheckFlag";
pub(super) const CONFIG: &str = "configFlag";
pub(super) const EPHEMERAL: &str = "ephemeralFlag";
pub(super) const BYPASS: &str = "dangerouslyBypassApprovalsAndSandboxFlag";

/// Names of capabilities and the flags that they stand for.
const FLAGS: [(&str, &str); 9] = [
    (OUTPUT_SCHEMA, "--output-schema"),
    (LAST_MESSAGE, "--output-last-message"),
    (JSON, "--json"),
    (MODEL, "--model"),
    (SANDBOX, "--sandbox"),
    (SKIP_GIT, "--skip-git-repo-check"),
    (CONFIG, "--config"),
    (BYPASS, "--dangerously-bypass-approvals-and-sandbox"),
    (EPHEMERAL, "--ephemeral"),
];

/// Each flag and whether the help names it; none is there when help failed.
pub(super) fn of_help(help: Option<&str>) -> Flags {
    let names = |flag| help.is_some_and(|help| is_named(help, flag));
    FLAGS.into_iter().map(|(name, flag)| (name, names(flag))).collect()
}

pub(super) fn supports(installed: &Installed) -> ProviderSupports {
    ProviderSupports {
        output_schema: installed.has(OUTPUT_SCHEMA) && installed.has(LAST_MESSAGE),
        stream_json: installed.has(JSON),
        tool_disable: installed.has(CONFIG),
    }
}

/// Whether the flag stands in the text as a whole word.
fn is_named(help: &str, flag: &str) -> bool {
    let of_a_word = |letter: char| letter.is_alphanumeric() || letter == '-' || letter == '_';
    help.match_indices(flag).any(|(start, _)| {
        let (before, rest) = help.split_at(start);
        let after = rest.get(flag.len()..).unwrap_or_default();
        !before.ends_with(of_a_word) && !after.starts_with(of_a_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = include_str!("../../../tests/fixtures/providers/codex/exec-help.txt");

    fn installed(help: Option<&str>) -> Installed {
        Installed { flags: of_help(help), ..Installed::default() }
    }

    #[test]
    fn the_recorded_help_names_every_flag() {
        let flags = of_help(Some(HELP));
        assert_eq!(flags.len(), FLAGS.len());
        assert!(flags.values().all(|named| *named), "{flags:?}");
        let supports = supports(&installed(Some(HELP)));
        assert!(supports.output_schema && supports.stream_json && supports.tool_disable);
    }

    #[test]
    fn a_help_that_failed_names_none() {
        let flags = of_help(None);
        assert_eq!(flags.len(), FLAGS.len());
        assert!(flags.values().all(|named| !named), "{flags:?}");
        let supports = supports(&installed(None));
        assert!(!supports.output_schema && !supports.stream_json && !supports.tool_disable);
    }

    #[test]
    fn a_schema_needs_the_file_for_the_answer_too() {
        assert!(!supports(&installed(Some("--output-schema <FILE>"))).output_schema);
        assert!(supports(&installed(Some("--output-schema, --output-last-message"))).output_schema);
    }

    #[test]
    fn flags_match_as_whole_words() {
        for (help, named) in [
            ("  --json  Print", true),
            ("--json", true),
            ("`--json`,", true),
            ("--json=<FILE>", true),
            ("--jsonl", false),
            ("--json-schema", false),
            ("--json_x --json", true),
            ("---json", false),
            ("no--json", false),
            ("json", false),
            ("", false),
        ] {
            assert_eq!(is_named(help, "--json"), named, "{help}");
        }
    }
}
