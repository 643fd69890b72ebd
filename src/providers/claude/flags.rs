//! Which flags a `claude --help` names.

use crate::model::ProviderSupports;
use crate::providers::{Flags, Installed};

/// Names of capabilities and the word in the help text that each stands for.
const FLAGS: [(&str, &str); 26] = [
    ("toolsFlag", "--tools"),
    ("allowedToolsFlag", "--allowedTools"),
    ("disallowedToolsFlag", "--disallowedTools"),
    ("outputFormatFlag", "--output-format"),
    ("streamJsonFlag", "stream-json"),
    ("modelFlag", "--model"),
    ("jsonSchemaFlag", "--json-schema"),
    ("appendSystemPromptFlag", "--append-system-prompt"),
    ("systemPromptFlag", "--system-prompt"),
    ("includePartialMessagesFlag", "--include-partial-messages"),
    ("permissionModeFlag", "--permission-mode"),
    ("maxBudgetFlag", "--max-budget-usd"),
    ("inputFormatFlag", "--input-format"),
    ("betasFlag", "--betas"),
    ("noSessionPersistenceFlag", "--no-session-persistence"),
    ("sessionIdFlag", "--session-id"),
    ("resumeFlag", "--resume"),
    ("verboseFlag", "--verbose"),
    ("settingsFlag", "--settings"),
    ("settingSourcesFlag", "--setting-sources"),
    ("disableSlashCommandsFlag", "--disable-slash-commands"),
    ("strictMcpConfigFlag", "--strict-mcp-config"),
    ("mcpConfigFlag", "--mcp-config"),
    ("pluginDirFlag", "--plugin-dir"),
    ("dangerouslySkipPermissionsFlag", "--dangerously-skip-permissions"),
    ("allowDangerouslySkipPermissionsFlag", "--allow-dangerously-skip-permissions"),
];

/// What every version is taken to have when its help could not be read.
const WITHOUT_HELP: [&str; 4] =
    ["allowedToolsFlag", "disallowedToolsFlag", "outputFormatFlag", "systemPromptFlag"];

/// The flags of a help text; `None`: help failed.
pub(super) fn flags(help: Option<&str>) -> Flags {
    FLAGS
        .into_iter()
        .map(|(name, word)| {
            let there =
                help.map_or_else(|| WITHOUT_HELP.contains(&name), |help| has_word(help, word));
            (name, there)
        })
        .collect()
}

/// What the flags allow.
pub(super) fn supports(installed: &Installed) -> ProviderSupports {
    ProviderSupports {
        output_schema: installed.has("jsonSchemaFlag"),
        stream_json: installed.has("outputFormatFlag") && installed.has("streamJsonFlag"),
        tool_disable: installed.has("toolsFlag") || installed.has("allowedToolsFlag"),
    }
}

/// Whether a text has this word, and not only a longer one that contains it.
fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.match_indices(word).any(|(start, _)| {
        let before = text.get(..start).and_then(|text| text.chars().next_back());
        let after = text.get(start + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = include_str!("../../../tests/fixtures/providers/claude/help.txt");

    fn missing(help: Option<&str>) -> Vec<&'static str> {
        flags(help).into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
    }

    #[test]
    fn the_recorded_help_names_every_flag() {
        assert_eq!(missing(Some(HELP)), [""; 0]);
    }

    #[test]
    fn a_flag_is_missed_when_its_own_word_is_gone_and_only_then() {
        for (name, word) in FLAGS {
            let longer = HELP
                .split_inclusive(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'))
                .map(|part| match part.strip_prefix(word) {
                    Some(rest) if rest.chars().count() <= 1 => format!("{word}s{rest}"),
                    Some(_) | None => part.to_owned(),
                })
                .collect::<String>();
            assert_eq!(missing(Some(&longer)), [name], "{word}");
        }
    }

    #[test]
    fn words_end_where_they_end() {
        for (text, there) in [
            ("--tools", true),
            ("  --tools <x>", true),
            ("--tools=x", true),
            ("[--tools|--model]", true),
            ("`--tools`,", true),
            ("--toolset", false),
            ("--tools-x", false),
            ("---tools", false),
            ("x--tools", false),
            ("--toolset --tools", true),
            ("--tool", false),
            ("", false),
            ("é--tools", false),
        ] {
            assert_eq!(has_word(text, "--tools"), there, "{text}");
        }
    }

    #[test]
    fn without_help_only_the_oldest_flags_are_there() {
        let there: Vec<_> =
            flags(None).into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect();
        assert_eq!(there, WITHOUT_HELP);
        assert!(flags(Some("")).values().all(|there| !there));
    }

    #[test]
    fn what_is_supported_follows_from_the_flags() {
        let of = |names: &[&'static str]| {
            let flags = names.iter().map(|name| (*name, true)).collect();
            let found = supports(&Installed { flags, ..Installed::default() });
            (found.output_schema, found.stream_json, found.tool_disable)
        };
        assert_eq!(of(&[]), (false, false, false));
        assert_eq!(of(&["jsonSchemaFlag", "toolsFlag"]), (true, false, true));
        assert_eq!(of(&["streamJsonFlag", "allowedToolsFlag"]), (false, false, true));
        assert_eq!(of(&["streamJsonFlag", "outputFormatFlag"]), (false, true, false));
    }
}
