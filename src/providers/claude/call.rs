//! What the calls of Claude Code have in common: arguments within their bounds, a prompt that is no
//! command, and an environment that bounds its retries.

use std::time::Duration;

use serde_json::{Map, Value};

use super::schema;
use crate::providers::{Installed, PlanError, PlanFile};

/// Bytes that one argument may hold: the system's 128 KiB with the final NUL.
const ARGUMENT_BYTES: usize = 128 * 1024 - 1;
/// The first version that was seen to take `--system-prompt-file`, which its help does not list.
const SYSTEM_FILE_SINCE: [u64; 3] = [2, 1, 197];
const SYSTEM_FILE: &str = ".panorama-system.txt";
/// What the CLI retries at most by itself, its first wait, and the longest, jitter left out.
const RETRIES: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// JavaScript's timers fire at once when they are set to more than 2^31 ms.
const LONGEST_REQUEST: Duration = Duration::from_hours(24);

/// A call in the making. `--tools`, `--allowedTools` and others take every word up to the next
/// flag, so no word but a flag ever follows a flag's value: the prompt is no argument.
pub(super) struct Draft<'a> {
    pub(super) installed: &'a Installed,
    pub(super) args: Vec<String>,
    pub(super) files: Vec<PlanFile>,
}

impl<'a> Draft<'a> {
    /// Of a call that prints and ends.
    pub(super) fn new(installed: &'a Installed) -> Self {
        Self { installed, args: vec!["--print".to_owned()], files: Vec::new() }
    }

    /// The system text by a flag, or by a file when it is too long for one; else ahead of the
    /// prompt. `name` is what its caller calls it.
    pub(super) fn system(
        &mut self,
        system: &str,
        prompt: &mut String,
        name: &str,
    ) -> Result<(), PlanError> {
        let replaces = self.installed.has("systemPromptFlag");
        if replaces && system.len() > ARGUMENT_BYTES && takes_system_file(self.installed) {
            self.push(["--system-prompt-file", SYSTEM_FILE]);
            let (path, contents) = (SYSTEM_FILE.to_owned(), system.to_owned());
            self.files.push(PlanFile { path, contents });
            Ok(())
        } else if replaces {
            self.argument("--system-prompt", system, name)
        } else if self.installed.has("appendSystemPromptFlag") {
            self.argument("--append-system-prompt", system, name)
        } else {
            *prompt = format!("{system}\n\n{prompt}");
            Ok(())
        }
    }

    /// The schema by its flag, else behind the prompt.
    pub(super) fn schema(
        &mut self,
        schema: &Map<String, Value>,
        prompt: &mut String,
    ) -> Result<(), PlanError> {
        let schema = serde_json::to_string(&schema::sent(schema)?)
            .map_err(|error| PlanError(format!("json_schema: {error}")))?;
        if self.installed.has("jsonSchemaFlag") {
            return self.argument("--json-schema", &schema, "json_schema");
        }
        *prompt = format!(
            "{prompt}\n\nAnswer with one JSON object and nothing else. It must match this JSON \
             schema:\n{schema}"
        );
        Ok(())
    }

    /// A flag with a value of the caller's, which is never taken for a flag.
    pub(super) fn argument(
        &mut self,
        flag: &str,
        value: &str,
        name: &str,
    ) -> Result<(), PlanError> {
        if !fits(flag, value) {
            return Err(PlanError(format!(
                "{name} is too long for Claude Code: {} bytes, at most {ARGUMENT_BYTES}",
                value.len()
            )));
        }
        if value.contains('\0') {
            return Err(PlanError(format!("{name} holds a NUL character")));
        }
        if value.starts_with('-') {
            self.args.push(format!("{flag}={value}"));
        } else {
            self.push([flag, value]);
        }
        Ok(())
    }

    /// The same, where the CLI has the flag and there is a value.
    pub(super) fn optional(
        &mut self,
        known: &str,
        flag: &str,
        value: Option<&str>,
        name: &str,
    ) -> Result<(), PlanError> {
        match value.filter(|value| !value.is_empty() && self.installed.has(known)) {
            Some(value) => self.argument(flag, value, name),
            None => Ok(()),
        }
    }

    /// A flag with a value of ours, where the CLI has it.
    pub(super) fn option(&mut self, known: &str, flag: &str, value: &str) {
        if self.installed.has(known) {
            self.push([flag, value]);
        }
    }

    /// A flag without a value, where the CLI has it.
    pub(super) fn switch(&mut self, known: &str, flag: &str) {
        if self.installed.has(known) {
            self.args.push(flag.to_owned());
        }
    }

    fn push(&mut self, words: [&str; 2]) {
        self.args.extend(words.map(str::to_owned));
    }
}

/// Whether a value can be an argument.
pub(super) fn fits(flag: &str, value: &str) -> bool {
    let flag = if value.starts_with('-') { flag.len() + 1 } else { 0 };
    flag + value.len() <= ARGUMENT_BYTES
}

/// A prompt that begins with `/word` would be taken for a command, and no model be asked.
pub(super) fn without_command(prompt: String) -> String {
    if prompt.trim_start().starts_with('/') { format!("\n{prompt}") } else { prompt }
}

fn takes_system_file(installed: &Installed) -> bool {
    let version = installed.version.as_deref().unwrap_or_default();
    let number = version.split([' ', '-', '+']).next().unwrap_or_default();
    let parts: Option<Vec<u64>> = number.split('.').map(|part| part.parse().ok()).collect();
    parts.is_some_and(|parts| parts.as_slice() >= SYSTEM_FILE_SINCE.as_slice())
}

/// Variables of every call: private, and with retries that end before the limit does.
pub(super) fn environment(time_limit: Duration) -> Vec<(String, String)> {
    let timeout = request_timeout(time_limit).as_millis().to_string();
    [
        // Else `@/any/file` in a prompt is read and sent, tools or not.
        ("CLAUDE_CODE_DISABLE_ATTACHMENTS", "1".to_owned()),
        // Else it looks for updates, sends telemetry, and asks a model for a title.
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ("CLAUDE_CODE_MAX_RETRIES", retries(time_limit).to_string()),
        ("API_TIMEOUT_MS", timeout),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// A request that gets no answer ends before the run's limit does, so that the CLI can say so.
fn request_timeout(time_limit: Duration) -> Duration {
    time_limit.saturating_sub((time_limit / 4).min(Duration::from_secs(10))).min(LONGEST_REQUEST)
}

/// As many retries as wait half of the time limit together, at the longest: the other half is for
/// the requests, so that the CLI reports the error that it had.
fn retries(time_limit: Duration) -> u32 {
    let mut waited = Duration::ZERO;
    let mut wait = FIRST_WAIT;
    for count in 0..RETRIES {
        // Up to a quarter is added at random.
        waited += wait + wait / 4;
        if waited > time_limit / 2 {
            return count;
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    RETRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_and_requests_end_before_the_limit() {
        for (seconds, count, timeout) in [
            (1, 0, 750),
            (2, 1, 1_500),
            (10, 3, 7_500),
            (30, 4, 22_500),
            (110, 6, 100_000),
            (600, 10, 590_000),
        ] {
            let limit = Duration::from_secs(seconds);
            assert_eq!(retries(limit), count, "{seconds} s");
            assert_eq!(request_timeout(limit), Duration::from_millis(timeout), "{seconds} s");
        }
        assert_eq!(retries(Duration::ZERO), 0);
        assert_eq!(retries(Duration::MAX), RETRIES);
        assert_eq!(request_timeout(Duration::MAX), LONGEST_REQUEST);
    }

    #[test]
    fn the_file_for_system_text_is_used_where_it_was_seen() {
        for (version, there) in [
            (Some("2.1.197 (Claude Code)"), true),
            (Some("2.1.198"), true),
            (Some("2.2.0-beta.1"), true),
            (Some("10.0.0 (Claude Code)"), true),
            (Some("2.1.196 (Claude Code)"), false),
            (Some("2.1"), false),
            (Some("1.9.999"), false),
            (Some("unknown"), false),
            (Some(""), false),
            (None, false),
        ] {
            let version = version.map(str::to_owned);
            let installed = Installed { version, ..Installed::default() };
            assert_eq!(takes_system_file(&installed), there, "{:?}", installed.version);
        }
    }
}
