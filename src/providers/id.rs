//! Which agent CLIs there are.

use serde::{Deserialize, Serialize};

/// One agent CLI; its wire name is its id everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderId {
    /// Claude Code.
    ClaudeCode,
    /// OpenAI's Codex CLI.
    Codex,
    /// Google's Gemini CLI.
    Gemini,
}

impl ProviderId {
    /// All of them, in the order in which people see them.
    pub const ALL: [Self; 3] = [Self::ClaudeCode, Self::Codex, Self::Gemini];

    /// `claude_code`, `codex`, `gemini`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude_code",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }

    /// The one of that wire name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.as_str() == name)
    }

    /// The one that runs subagents of this type: `claude_code_gateway`, `codex_gateway`,
    /// `gemini_gateway`.
    pub fn of_subagent_type(subagent_type: &str) -> Option<Self> {
        subagent_type.strip_suffix("_gateway").and_then(Self::parse)
    }

    /// The provider of a job that names none: by what its model is called.
    pub fn of_model(model: &str) -> Self {
        if model.starts_with("openai/") || model.starts_with("gpt-") || model.contains("codex") {
            Self::Codex
        } else if model.starts_with("google/") || model.starts_with("gemini") {
            Self::Gemini
        } else {
            Self::ClaudeCode
        }
    }

    /// The provider that a request names, else the one of its model.
    pub fn of_request(provider: Option<&str>, model: &str) -> Self {
        provider.and_then(Self::parse).unwrap_or_else(|| Self::of_model(model))
    }

    /// The command that people type.
    pub fn command(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }

    /// The flag that names its executable.
    pub fn flag(self) -> &'static str {
        match self {
            Self::ClaudeCode => "--claude-cli",
            Self::Codex => "--codex-cli",
            Self::Gemini => "--gemini-cli",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::ClaudeCode => "Claude Code",
            Self::Codex => "Codex CLI",
            Self::Gemini => "Gemini CLI",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_names_are_read_as_they_are_written() {
        for id in ProviderId::ALL {
            assert_eq!(ProviderId::parse(id.as_str()), Some(id));
            assert_eq!(serde_json::to_value(id).unwrap(), id.as_str());
        }
        assert_eq!(ProviderId::parse("claude"), None);
    }

    #[test]
    fn a_model_names_its_provider() {
        for (model, id) in [
            ("claude-sonnet-5", ProviderId::ClaudeCode),
            ("sonnet", ProviderId::ClaudeCode),
            ("__default__", ProviderId::ClaudeCode),
            ("openai/o9", ProviderId::Codex),
            ("gpt-5.5", ProviderId::Codex),
            ("my-codex-mini", ProviderId::Codex),
            ("google/anything", ProviderId::Gemini),
            ("gemini-3-pro", ProviderId::Gemini),
        ] {
            assert_eq!(ProviderId::of_model(model), id, "{model}");
        }
    }
}
