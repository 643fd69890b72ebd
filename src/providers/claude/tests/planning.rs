//! Calls of Claude Code, as they are made.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::{LIMIT, installed, object, request};
use crate::providers::claude::ClaudeCode;
use crate::providers::{FirstSignal, Format, Installed, ModelRequest, OutputMode, Plan, Provider};

pub(in crate::providers::claude) const HELP: &str =
    include_str!("../../../../tests/fixtures/providers/claude/help.txt");

pub(in crate::providers::claude) fn current() -> Installed {
    Installed { flags: ClaudeCode.flags(Some(HELP)), ..installed(|_| true) }
}

fn full_request() -> ModelRequest {
    let properties = json!({"answer": {"type": "string"}, "score": {"type": "integer"}});
    ModelRequest {
        prompt: "How much?".to_owned(),
        model: Some("claude-sonnet-5".to_owned()),
        format: Format::Json {
            schema: object(json!({"type": "object", "properties": properties})),
        },
        system: Some("You are terse.".to_owned()),
        effort: None,
        time_limit: LIMIT,
    }
}

fn plan(request: &ModelRequest, installed: &Installed) -> Plan {
    ClaudeCode.plan(request, installed).unwrap()
}

fn refused(request: &ModelRequest, installed: &Installed) -> String {
    ClaudeCode.plan(request, installed).unwrap_err().to_string()
}

/// A word or a flag with its value a line.
pub(in crate::providers::claude) fn shown(plan: &Plan) -> String {
    let mut text = format!("{}", plan.program.display());
    for arg in &plan.args {
        let arg = if arg.is_empty() { "\"\"" } else { arg };
        let _ = write!(text, "{}{arg}", if arg.starts_with("--") { "\n  " } else { " " });
    }
    for (name, value) in &plan.env {
        let _ = write!(text, "\n{name}={value}");
    }
    for file in &plan.files {
        let _ = write!(text, "\nfile {}: {} bytes", file.path, file.contents.len());
    }
    let _ = write!(text, "\nstdin: {:?}", plan.stdin);
    text
}

#[test]
fn an_object_from_the_current_version() {
    insta::assert_snapshot!(shown(&plan(&full_request(), &current())));
}

#[test]
fn text_from_the_current_version() {
    insta::assert_snapshot!(shown(&plan(&request("text"), &current())));
}

#[test]
fn an_object_when_help_failed() {
    let unknown = Installed { flags: ClaudeCode.flags(None), version: None, ..current() };
    insta::assert_snapshot!(shown(&plan(&full_request(), &unknown)));
}

#[test]
fn an_object_from_a_version_without_any_flag() {
    insta::assert_snapshot!(shown(&plan(&full_request(), &installed(|_| false))));
}

#[test]
fn an_object_from_a_version_before_schemas() {
    let old = ["allowedToolsFlag", "outputFormatFlag", "modelFlag", "appendSystemPromptFlag"];
    insta::assert_snapshot!(shown(&plan(&full_request(), &installed(|name| old.contains(&name)))));
}

#[test]
fn each_missing_flag_is_left_out_with_its_value_and_nothing_else() {
    let all = plan(&full_request(), &current());
    for (name, gone) in [
        ("toolsFlag", &["--tools", ""][..]),
        ("outputFormatFlag", &["--output-format", "json"]),
        ("modelFlag", &["--model", "claude-sonnet-5"]),
        ("inputFormatFlag", &["--input-format", "text"]),
        ("noSessionPersistenceFlag", &["--no-session-persistence"]),
        ("permissionModeFlag", &["--permission-mode", "dontAsk"]),
        ("settingSourcesFlag", &["--setting-sources", "local"]),
        ("disableSlashCommandsFlag", &["--disable-slash-commands"]),
        ("strictMcpConfigFlag", &["--strict-mcp-config"]),
    ] {
        let found = plan(&full_request(), &installed(|flag| flag != name));
        let at = all.args.windows(gone.len()).position(|words| words == gone).unwrap();
        let mut expected = all.args.clone();
        let instead = if name == "toolsFlag" { vec!["--allowedTools", ""] } else { Vec::new() };
        expected.splice(at..at + gone.len(), instead.into_iter().map(str::to_owned));
        assert_eq!(found.args, expected, "{name}");
    }
}

/// Whatever is installed: the prompt is on stdin alone, and no flag can swallow a word.
#[test]
fn every_word_is_a_flag_or_the_value_of_one() {
    let names: Vec<_> = current().flags.into_keys().collect();
    for left_out in 0..1_u32 << 12 {
        let has = |flag: &str| {
            let at = names.iter().position(|name| *name == flag).unwrap();
            // Every name is left out in some of them, neighbours not always together.
            (left_out >> (at % 12)) & 1 == u32::from(at >= 12)
        };
        let found = plan(&full_request(), &installed(has));
        let (first, rest) = found.args.split_first().unwrap();
        assert_eq!(first, "--print");
        assert!(found.stdin.contains("How much?"));
        assert!(found.args.iter().all(|arg| !arg.contains("How much?")));
        let values = rest.split(|arg| arg.starts_with("--"));
        assert!(values.into_iter().all(|values| values.len() <= 1), "{:?}", found.args);
    }
}

#[test]
fn it_is_stopped_by_an_interrupt_and_answers_on_stdout() {
    let found = plan(&full_request(), &current());
    assert_eq!((found.stop, found.output), (FirstSignal::Interrupt, OutputMode::Stdout));
    assert_eq!(found.time_limit, LIMIT);
}

#[test]
fn a_short_limit_leaves_time_for_the_true_error() {
    let short = ModelRequest { time_limit: Duration::from_secs(30), ..full_request() };
    let env = plan(&short, &current()).env;
    assert!(env.contains(&("CLAUDE_CODE_MAX_RETRIES".to_owned(), "4".to_owned())));
    assert!(env.contains(&("API_TIMEOUT_MS".to_owned(), "22500".to_owned())));
}

#[test]
fn a_prompt_is_never_a_command() {
    for (prompt, stdin) in [
        ("/compact now", "\n/compact now"),
        ("/", "\n/"),
        ("  /x", "\n  /x"),
        ("/etc/hosts is broken", "\n/etc/hosts is broken"),
        ("\n/x", "\n\n/x"),
        ("a /x", "a /x"),
        ("-x --model @/etc/passwd", "-x --model @/etc/passwd"),
    ] {
        let request = ModelRequest { prompt: prompt.to_owned(), ..request("text") };
        assert_eq!(plan(&request, &current()).stdin, stdin);
    }
    let first = ModelRequest { system: Some("/x".to_owned()), ..request("text") };
    assert_eq!(plan(&first, &installed(|_| false)).stdin, "\n/x\n\nq");
}

#[test]
fn no_system_text_means_no_flag() {
    for system in [None, Some(String::new())] {
        let found = plan(&ModelRequest { system, ..full_request() }, &current());
        assert!(!found.args.iter().any(|arg| arg.contains("system-prompt")));
        assert_eq!(found.stdin, "How much?");
    }
}

#[test]
fn long_system_text_goes_by_a_file() {
    let of = |bytes: usize| ModelRequest { system: Some("s".repeat(bytes)), ..full_request() };
    let fits = plan(&of(131_071), &current());
    assert!(fits.files.is_empty() && fits.args.contains(&"--system-prompt".to_owned()));
    let long = plan(&of(131_072), &current());
    assert_eq!(long.files[0].contents.len(), 131_072);
    let at = long.args.iter().position(|arg| arg == "--system-prompt-file").unwrap();
    assert_eq!(long.args[at + 1], long.files[0].path);
    assert!(!long.args.contains(&"--system-prompt".to_owned()));

    let unknown = Installed { version: None, ..current() };
    let reason = "append_system_prompt is too long for Claude Code: 131072 bytes, at most 131071";
    assert_eq!(refused(&of(131_072), &unknown), reason);
    assert_eq!(refused(&of(131_072), &installed(|name| name != "systemPromptFlag")), reason);
}

#[test]
fn what_cannot_be_passed_is_refused() {
    let with = |schema| ModelRequest { format: Format::Json { schema }, ..full_request() };
    let long = with(object(json!({"type": "object", "description": "d".repeat(131_072)})));
    assert!(refused(&long, &current()).starts_with("json_schema is too long for Claude Code: "));
    assert!(plan(&long, &installed(|name| name != "jsonSchemaFlag")).stdin.len() > 131_072);

    let array = with(object(json!({"type": "array"})));
    for installed in [current(), installed(|_| false)] {
        assert_eq!(refused(&array, &installed), "json_schema must describe an object");
    }
    let nul = ModelRequest { model: Some("a\0b".to_owned()), ..full_request() };
    assert_eq!(refused(&nul, &current()), "model holds a NUL character");
}
