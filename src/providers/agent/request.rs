//! What is asked of an agent CLI for one run of a subagent.

use std::time::Duration;

use serde_json::{Map, Value};

/// How the answer is to come: `output_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentFormat {
    /// Nothing was said: events inside, so that they are live, and the result as JSON would give it.
    #[default]
    Unset,
    /// `text`.
    Text,
    /// `json`, and any other word.
    Json,
    /// `stream-json`.
    Stream,
}

impl AgentFormat {
    /// Of the caller's word; `stream_json` and `stream` mean `stream-json`.
    pub fn of(word: Option<&str>) -> Self {
        match word {
            None => Self::Unset,
            Some("text") => Self::Text,
            Some("stream-json" | "stream_json" | "stream") => Self::Stream,
            Some(_) => Self::Json,
        }
    }

    /// `output_format` of a run's metadata: `text`, `json` or `stream-json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Unset | Self::Json => "json",
            Self::Stream => "stream-json",
        }
    }
}

/// What the agent may do on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads and answers.
    Restricted,
    /// Whatever its user may.
    Full,
}

/// A checked `subagent_run`.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentRequest {
    /// Not empty.
    pub prompt: String,
    /// The answer's form.
    pub format: AgentFormat,
    /// Events are told as they come: what [`AgentFormat::Unset`] streams for. Without it text of
    /// one message is merged over the whole run, not over neighbouring blocks only.
    pub live: bool,
    /// What the agent may do: effective, not only asked for.
    pub access: Access,
    /// The gateway runs in a managed guest, which is a sandbox for the CLI.
    pub guest: bool,
    /// `model`.
    pub model: Option<String>,
    /// `allowed_tools` as given; `None`: no list.
    pub allowed_tools: Option<Vec<String>>,
    /// `disallowed_tools`.
    pub disallowed_tools: Vec<String>,
    /// `system_prompt`.
    pub system_prompt: Option<String>,
    /// `append_system_prompt`. One that forbids what full control allows is left out already.
    pub append_system_prompt: Option<String>,
    /// `json_schema`.
    pub json_schema: Option<Map<String, Value>>,
    /// `permission_mode`.
    pub permission_mode: Option<String>,
    /// `max_budget_usd`, as a decimal number.
    pub max_budget_usd: Option<String>,
    /// `input_format`.
    pub input_format: Option<String>,
    /// `betas`.
    pub betas: Vec<String>,
    /// `no_session_persistence`.
    pub no_session_persistence: bool,
    /// `session_id`: the id that a new session is to have.
    pub session_id: Option<String>,
    /// The session to go on with: `resume_session_id`, else the subagent's stored one.
    pub resume: Option<String>,
    /// `reasoning_effort`.
    pub effort: Option<String>,
    /// `extensions`.
    pub extensions: Vec<String>,
    /// How long the run may take.
    pub time_limit: Duration,
}

impl AgentRequest {
    /// A restricted run of this prompt, with nothing else said.
    pub fn new(prompt: String, time_limit: Duration) -> Self {
        Self {
            prompt,
            format: AgentFormat::Unset,
            live: true,
            access: Access::Restricted,
            guest: false,
            model: None,
            allowed_tools: None,
            disallowed_tools: Vec::new(),
            system_prompt: None,
            append_system_prompt: None,
            json_schema: None,
            permission_mode: None,
            max_budget_usd: None,
            input_format: None,
            betas: Vec::new(),
            no_session_persistence: false,
            session_id: None,
            resume: None,
            effort: None,
            extensions: Vec::new(),
            time_limit,
        }
    }

    /// Whether the CLI is to print events.
    pub fn streams(&self) -> bool {
        match self.format {
            AgentFormat::Stream => true,
            AgentFormat::Unset => self.live,
            AgentFormat::Text | AgentFormat::Json => false,
        }
    }

    /// Whether the caller's list of allowed tools has web search.
    pub fn allows_web_search(&self) -> bool {
        self.allowed_tools.iter().flatten().any(|tool| means_web_search(tool))
    }
}

/// Any spelling of it: `WebSearch`, `web_search`, `web-search`, `Web Search`.
pub fn means_web_search(tool: &str) -> bool {
    let letters = tool.chars().filter(|letter| !matches!(letter, '_' | '-' | ' '));
    letters.flat_map(char::to_lowercase).eq("websearch".chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_spellings() {
        for (word, format, name) in [
            (None, AgentFormat::Unset, "json"),
            (Some("text"), AgentFormat::Text, "text"),
            (Some("json"), AgentFormat::Json, "json"),
            (Some("yaml"), AgentFormat::Json, "json"),
            (Some("stream-json"), AgentFormat::Stream, "stream-json"),
            (Some("stream_json"), AgentFormat::Stream, "stream-json"),
            (Some("stream"), AgentFormat::Stream, "stream-json"),
        ] {
            let found = AgentFormat::of(word);
            assert_eq!((found, found.as_str()), (format, name), "{word:?}");
        }
    }

    #[test]
    fn web_search_is_known_by_any_spelling() {
        for tool in ["WebSearch", "web_search", "web-search", "Web Search", "websearch"] {
            assert!(means_web_search(tool), "{tool}");
        }
        for tool in ["", "Search", "WebFetch", "WebSearch(x)"] {
            assert!(!means_web_search(tool), "{tool}");
        }
    }
}
