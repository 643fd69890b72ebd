//! How Claude Code is called for one answer.

use std::time::Duration;

use serde_json::{Map, Value};

use super::schema;
use crate::providers::{
    FirstSignal, Format, Installed, ModelRequest, OutputMode, Plan, PlanError, PlanFile,
};

/// Bytes that one argument may hold: the system's 128 KiB with the final NUL.
const ARGUMENT_BYTES: usize = 128 * 1024 - 1;
/// The first version that was seen to take `--system-prompt-file`, which its help does not list.
const SYSTEM_FILE_SINCE: [u64; 3] = [2, 1, 197];
const SYSTEM_FILE: &str = "system.txt";
/// What the CLI retries at most by itself, its first wait, and the longest, jitter left out.
const RETRIES: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// JavaScript's timers fire at once when they are set to more than 2^31 ms.
const LONGEST_REQUEST: Duration = Duration::from_hours(24);

pub(super) fn plan(request: &ModelRequest, installed: &Installed) -> Result<Plan, PlanError> {
    let mut draft = Draft { args: vec!["--print".to_owned()], ..Draft::default() };
    let mut prompt = request.prompt.clone();
    draft.isolate(installed);
    // For text too: an error looks like an answer in text mode.
    draft.option(installed, "outputFormatFlag", "--output-format", "json");
    if let Format::Json { schema } = &request.format {
        let schema = to_text(&schema::sent(schema)?)?;
        if installed.has("jsonSchemaFlag") {
            draft.argument("--json-schema", &schema, "json_schema")?;
        } else {
            prompt = format!(
                "{prompt}\n\nAnswer with one JSON object and nothing else. It must match this \
                 JSON schema:\n{schema}"
            );
        }
    }
    if let Some(model) = &request.model
        && installed.has("modelFlag")
    {
        draft.argument("--model", model, "model")?;
    }
    if let Some(system) = request.system.as_deref().filter(|system| !system.is_empty()) {
        prompt = draft.system(installed, system, prompt)?;
    }
    Ok(Plan {
        program: installed.command.clone(),
        args: draft.args,
        env: environment(request.time_limit),
        files: draft.files,
        stdin: without_command(prompt),
        output: OutputMode::Stdout,
        time_limit: request.time_limit,
        stop: FirstSignal::Interrupt,
    })
}

#[derive(Default)]
struct Draft {
    args: Vec<String>,
    files: Vec<PlanFile>,
}

impl Draft {
    /// No tools, no settings, hooks or servers of the user, nothing kept. `--tools` and
    /// `--allowedTools` take every word up to the next flag, so no word but a flag ever follows:
    /// the prompt is no argument.
    fn isolate(&mut self, installed: &Installed) {
        if installed.has("toolsFlag") {
            self.push(["--tools", ""]);
        } else {
            self.option(installed, "allowedToolsFlag", "--allowedTools", "");
        }
        self.option(installed, "inputFormatFlag", "--input-format", "text");
        self.switch(installed, "noSessionPersistenceFlag", "--no-session-persistence");
        self.option(installed, "permissionModeFlag", "--permission-mode", "dontAsk");
        self.option(installed, "settingSourcesFlag", "--setting-sources", "local");
        self.switch(installed, "disableSlashCommandsFlag", "--disable-slash-commands");
        // `--tools` is about built-in ones only; without `--mcp-config` this means no server.
        self.switch(installed, "strictMcpConfigFlag", "--strict-mcp-config");
    }

    /// By a flag, or by a file when it is too long for one; else ahead of the prompt, which is
    /// given back.
    fn system(
        &mut self,
        installed: &Installed,
        system: &str,
        prompt: String,
    ) -> Result<String, PlanError> {
        let replaces = installed.has("systemPromptFlag");
        if replaces && system.len() > ARGUMENT_BYTES && takes_system_file(installed) {
            self.push(["--system-prompt-file", SYSTEM_FILE]);
            let (path, contents) = (SYSTEM_FILE.to_owned(), system.to_owned());
            self.files.push(PlanFile { path, contents });
        } else if replaces {
            self.argument("--system-prompt", system, "append_system_prompt")?;
        } else if installed.has("appendSystemPromptFlag") {
            self.argument("--append-system-prompt", system, "append_system_prompt")?;
        } else {
            return Ok(format!("{system}\n\n{prompt}"));
        }
        Ok(prompt)
    }

    /// A flag with a value of the caller's.
    fn argument(&mut self, flag: &str, value: &str, name: &str) -> Result<(), PlanError> {
        if value.len() > ARGUMENT_BYTES {
            return Err(PlanError(format!(
                "{name} is too long for Claude Code: {} bytes, at most {ARGUMENT_BYTES}",
                value.len()
            )));
        }
        if value.contains('\0') {
            return Err(PlanError(format!("{name} holds a NUL character")));
        }
        self.push([flag, value]);
        Ok(())
    }

    fn option(&mut self, installed: &Installed, name: &str, flag: &str, value: &str) {
        if installed.has(name) {
            self.push([flag, value]);
        }
    }

    fn switch(&mut self, installed: &Installed, name: &str, flag: &str) {
        if installed.has(name) {
            self.args.push(flag.to_owned());
        }
    }

    fn push(&mut self, words: [&str; 2]) {
        self.args.extend(words.map(str::to_owned));
    }
}

/// A prompt that begins with `/word` would be taken for a command, and no model be asked.
fn without_command(prompt: String) -> String {
    if prompt.trim_start().starts_with('/') { format!("\n{prompt}") } else { prompt }
}

fn to_text(schema: &Map<String, Value>) -> Result<String, PlanError> {
    serde_json::to_string(schema).map_err(|error| PlanError(format!("json_schema: {error}")))
}

fn takes_system_file(installed: &Installed) -> bool {
    let version = installed.version.as_deref().unwrap_or_default();
    let number = version.split([' ', '-', '+']).next().unwrap_or_default();
    let parts: Option<Vec<u64>> = number.split('.').map(|part| part.parse().ok()).collect();
    parts.is_some_and(|parts| parts.as_slice() >= SYSTEM_FILE_SINCE.as_slice())
}

fn environment(time_limit: Duration) -> Vec<(String, String)> {
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
