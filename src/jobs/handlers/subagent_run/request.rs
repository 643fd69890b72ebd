//! What is asked of the agent CLI, by the subagent's config. Pure.

use std::time::Duration;

use serde_json::{Map, Value};

use super::target::{Target, text_of};
use crate::providers::agent::{Access, AgentFormat, AgentRequest};

const DEFAULT_LIMIT: Duration = Duration::from_mins(30);
/// As a model's name: whichever the CLI takes by itself.
const DEFAULT_MODEL: &str = "__default__";

/// A subagent's `config`; its keys may be in snake or camel case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Config<'a>(pub(super) &'a Map<String, Value>);

/// What is not said by the config.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    /// Full control is in force.
    pub(super) full_control: bool,
    /// The gateway runs in a managed guest.
    pub(super) guest: bool,
    /// Events are told as they come.
    pub(super) live: bool,
    /// The provider can go on with a session.
    pub(super) continues: bool,
}

/// The request for the CLI.
pub(super) fn build(target: &Target, around: Surroundings) -> AgentRequest {
    let config = Config(&target.config);
    let stored = || target.session.clone();
    let resume = config.text("resume_session_id").or_else(stored).filter(|_| around.continues);
    AgentRequest {
        format: AgentFormat::of(config.text("output_format").as_deref()),
        live: around.live,
        access: if around.full_control { Access::Full } else { Access::Restricted },
        guest: around.guest,
        model: config.text("model").filter(|model| model != DEFAULT_MODEL),
        allowed_tools: config.list("allowed_tools"),
        disallowed_tools: config.list("disallowed_tools").unwrap_or_default(),
        system_prompt: config.text("system_prompt"),
        append_system_prompt: config
            .text("append_system_prompt")
            .filter(|text| !(around.full_control && forbids_files(text))),
        json_schema: config.object("json_schema"),
        permission_mode: config.text("permission_mode"),
        max_budget_usd: config.decimal("max_budget_usd"),
        input_format: config.text("input_format"),
        betas: config.list("betas").unwrap_or_default(),
        no_session_persistence: config.flag("no_session_persistence"),
        session_id: config.text("session_id"),
        resume,
        effort: config.text("reasoning_effort"),
        extensions: config.list("extensions").unwrap_or_default(),
        ..AgentRequest::new(target.prompt.clone(), config.limit())
    }
}

impl Config<'_> {
    /// Whether full control is asked for.
    pub(super) fn wants_full_control(self) -> bool {
        self.flag("full_control")
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let camel = camel_case(name);
        let named = [self.0.get(name), self.0.get(&camel)];
        named.into_iter().flatten().find(|value| !value.is_null())
    }

    fn text(self, name: &str) -> Option<String> {
        self.get(name).and_then(text_of)
    }

    /// A boolean, or a word for one.
    fn flag(self, name: &str) -> bool {
        match self.get(name) {
            Some(Value::Bool(yes)) => *yes,
            Some(Value::String(word)) => {
                let word = word.trim().to_ascii_lowercase();
                matches!(word.as_str(), "true" | "yes" | "on" | "1")
            }
            _ => false,
        }
    }

    /// A list of texts, or one text with commas between them.
    fn list(self, name: &str) -> Option<Vec<String>> {
        let words: Vec<String> = match self.get(name)? {
            Value::String(text) => text.split(',').map(|word| word.trim().to_owned()).collect(),
            Value::Array(items) => items.iter().filter_map(text_of).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
        };
        Some(words.into_iter().filter(|word| !word.is_empty()).collect())
    }

    /// An object, or the JSON of one.
    fn object(self, name: &str) -> Option<Map<String, Value>> {
        match self.get(name)? {
            Value::Object(fields) => Some(fields.clone()),
            Value::String(text) => serde_json::from_str(text).ok(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
        }
    }

    /// A number that is not negative, or a text of one.
    fn decimal(self, name: &str) -> Option<String> {
        let text = match self.get(name)? {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.trim().to_owned(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        let number: f64 = text.parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(text)
    }

    /// `timeout_ms`, positive; parts of a millisecond count as one.
    fn limit(self) -> Duration {
        let millis = self.decimal("timeout_ms").and_then(|text| text.parse::<f64>().ok());
        millis
            .filter(|millis| *millis > 0.0)
            .and_then(|millis| Duration::try_from_secs_f64((millis / 1_000.0).max(0.001)).ok())
            .unwrap_or(DEFAULT_LIMIT)
    }
}

/// `allowed_tools` as `allowedTools`.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// Says that the agent cannot write or interact with files in this environment: true of restricted
/// runs only, and wrong under full control.
fn forbids_files(prompt: &str) -> bool {
    let text = prompt.to_lowercase().replace('’', "'");
    text.split(['.', '!', '?', ';', '\n']).any(|sentence| {
        let sentence = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
        let says = |words: &[&str]| words.iter().any(|word| sentence.contains(word));
        says(&["cannot", "can't", "can not", "unable to", "not able to", "not allowed to"])
            && says(&["write", "interact with", "access", "edit", "modify"])
            && sentence.contains("file")
            && sentence.contains("environment")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{RunId, SubagentId};
    use crate::providers::ProviderId;

    fn target(config: Value) -> Target {
        Target {
            subagent_id: SubagentId::new("s"),
            run_id: RunId::new("r"),
            run_sequence: 1,
            provider: ProviderId::ClaudeCode,
            subagent_type: "claude_code_gateway".into(),
            prompt: "Hello".into(),
            session: Some("stored".into()),
            config: serde_json::from_value(config).unwrap(),
            metadata: Map::new(),
        }
    }

    fn around(full_control: bool) -> Surroundings {
        Surroundings { full_control, guest: false, live: true, continues: true }
    }

    fn built(config: Value) -> AgentRequest {
        build(&target(config), around(false))
    }

    #[test]
    fn every_key_is_read_in_both_spellings() {
        let snake = built(json!({
            "output_format": "stream", "model": "sonnet", "allowed_tools": ["Read", " Bash "],
            "disallowed_tools": "Write, Edit,,", "system_prompt": "S", "append_system_prompt": "A",
            "json_schema": {"type": "object"}, "permission_mode": "plan", "max_budget_usd": 1.5,
            "input_format": "text", "betas": ["b"], "no_session_persistence": "yes",
            "session_id": "i", "resume_session_id": "r", "reasoning_effort": "low",
            "extensions": "x,y", "timeout_ms": "1500",
        }));
        let camel = built(json!({
            "outputFormat": "stream", "model": "sonnet", "allowedTools": "Read,Bash",
            "disallowedTools": ["Write", "Edit", ""], "systemPrompt": "S",
            "appendSystemPrompt": "A", "jsonSchema": "{\"type\": \"object\"}",
            "permissionMode": "plan", "maxBudgetUsd": " 1.5 ", "inputFormat": "text",
            "betas": "b", "noSessionPersistence": true, "sessionId": "i", "resumeSessionId": "r",
            "reasoningEffort": "low", "extensions": ["x", "y"], "timeoutMs": 1500,
        }));
        assert_eq!(snake, camel);
        let expected = AgentRequest {
            format: AgentFormat::Stream,
            model: Some("sonnet".into()),
            allowed_tools: Some(vec!["Read".into(), "Bash".into()]),
            disallowed_tools: vec!["Write".into(), "Edit".into()],
            system_prompt: Some("S".into()),
            append_system_prompt: Some("A".into()),
            json_schema: Some(serde_json::from_value(json!({"type": "object"})).unwrap()),
            permission_mode: Some("plan".into()),
            max_budget_usd: Some("1.5".into()),
            input_format: Some("text".into()),
            betas: vec!["b".into()],
            no_session_persistence: true,
            session_id: Some("i".into()),
            resume: Some("r".into()),
            effort: Some("low".into()),
            extensions: vec!["x".into(), "y".into()],
            ..AgentRequest::new("Hello".into(), Duration::from_millis(1500))
        };
        assert_eq!(snake, expected);
    }

    #[test]
    fn an_empty_config_asks_for_nothing_but_the_stored_session() {
        let expected = AgentRequest {
            resume: Some("stored".into()),
            ..AgentRequest::new("Hello".into(), DEFAULT_LIMIT)
        };
        assert_eq!(built(json!({})), expected);
        let odd = json!({
            "model": "__default__", "allowed_tools": 7, "timeout_ms": 0, "max_budget_usd": "much",
            "json_schema": "{", "no_session_persistence": 1, "betas": null, "session_id": " ",
        });
        assert_eq!(built(odd), expected);
        let none = Surroundings { continues: false, ..around(false) };
        assert_eq!(build(&target(json!({"resume_session_id": "r"})), none).resume, None);
    }

    #[test]
    fn an_empty_list_of_tools_is_a_list() {
        assert_eq!(built(json!({"allowed_tools": []})).allowed_tools, Some(Vec::new()));
        assert_eq!(built(json!({"allowed_tools": ""})).allowed_tools, Some(Vec::new()));
    }

    #[test]
    fn full_control_is_asked_for_by_boolean_words() {
        for (value, asks) in [
            (json!(true), true),
            (json!("true"), true),
            (json!(" YES "), true),
            (json!("on"), true),
            (json!("1"), true),
            (json!(false), false),
            (json!("false"), false),
            (json!("0"), false),
            (json!(1), false),
            (Value::Null, false),
        ] {
            for name in ["full_control", "fullControl"] {
                let config = json!({name: value});
                let fields = config.as_object().unwrap();
                assert_eq!(Config(fields).wants_full_control(), asks, "{config}");
            }
        }
    }

    #[test]
    fn a_prompt_that_forbids_files_is_dropped_under_full_control_only() {
        let forbidding = [
            "You cannot write or interact with files in this environment.",
            "Be brief.\nYou CAN'T write  files, or interact with\tfiles, in this environment!",
            "You are unable to write to or interact with files in this environment",
        ];
        let harmless = [
            "Write all files you need in this environment.",
            "You cannot lose. Write files in this environment.",
            "You cannot write poems.",
        ];
        for (prompts, dropped) in [(&forbidding, true), (&harmless, false)] {
            for prompt in prompts {
                let target = target(json!({"append_system_prompt": prompt}));
                let full = build(&target, around(true));
                assert_eq!(full.append_system_prompt.is_none(), dropped, "{prompt}");
                assert_eq!(full.access, Access::Full);
                let restricted = build(&target, around(false));
                assert_eq!(restricted.append_system_prompt.as_deref(), Some(*prompt));
            }
        }
    }
}
