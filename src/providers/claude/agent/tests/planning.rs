//! Calls for runs of subagents, as they are made.

use std::time::Duration;

use serde_json::json;

use crate::providers::agent::{Access, AgentFormat, AgentRequest};
use crate::providers::claude::ClaudeCode;
use crate::providers::claude::tests::planning::{HELP, current, shown};
use crate::providers::claude::tests::{installed, object};
use crate::providers::{FirstSignal, Installed, OutputMode, Plan, Provider};

fn request() -> AgentRequest {
    AgentRequest::new("Look around.".to_owned(), Duration::from_mins(30))
}

/// Everything that can be said.
fn full_request() -> AgentRequest {
    AgentRequest {
        model: Some("claude-sonnet-5".to_owned()),
        allowed_tools: Some(tools(&["web search", "Read", "mcp__x__y"])),
        disallowed_tools: tools(&["web_fetch", "Edit"]),
        system_prompt: Some("You are terse.".to_owned()),
        append_system_prompt: Some("- Cite.".to_owned()),
        json_schema: Some(object(json!({"properties": {"a": {"type": "string"}}}))),
        permission_mode: Some("plan".to_owned()),
        max_budget_usd: Some("1.5".to_owned()),
        input_format: Some("stream_json".to_owned()),
        betas: tools(&["one", "two"]),
        no_session_persistence: true,
        session_id: Some("11111111-2222-4333-8444-555555555555".to_owned()),
        ..request()
    }
}

fn tools(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn full() -> AgentRequest {
    AgentRequest { access: Access::Full, ..request() }
}

fn plan(request: &AgentRequest, installed: &Installed) -> Plan {
    ClaudeCode.agent_plan(request, installed).unwrap()
}

fn refused(request: &AgentRequest, installed: &Installed) -> String {
    ClaudeCode.agent_plan(request, installed).unwrap_err().to_string()
}

/// The value that stands behind a flag.
fn value(request: &AgentRequest, flag: &str) -> Option<String> {
    let args = plan(request, &current()).args;
    let at = args.iter().position(|arg| arg == flag)?;
    args.get(at + 1).cloned()
}

fn without(gone: &'static str) -> Installed {
    installed(move |flag| flag != gone)
}

#[test]
fn calls_are_made_like_this() {
    let old = || {
        let known = ["allowedToolsFlag", "outputFormatFlag", "modelFlag", "appendSystemPromptFlag"];
        installed(move |flag| known.contains(&flag))
    };
    let unknown = || Installed { flags: ClaudeCode.flags(None), version: None, ..current() };
    let format = |format| AgentRequest { format, ..request() };
    let resumed = AgentRequest { resume: Some("fd5025cf".to_owned()), ..full_request() };
    let every_full = AgentRequest { access: Access::Full, guest: true, ..full_request() };
    for (name, request, installed) in [
        ("restricted", request(), current()),
        ("restricted, text", format(AgentFormat::Text), current()),
        ("restricted, json", format(AgentFormat::Json), current()),
        ("restricted, stream", format(AgentFormat::Stream), current()),
        ("restricted, not live", AgentRequest { live: false, ..request() }, current()),
        ("restricted, every option", full_request(), current()),
        ("resumed, every option", resumed, current()),
        ("full", full(), current()),
        ("full in a guest, every option", every_full, current()),
        ("restricted, help failed", request(), unknown()),
        ("full, help failed", full(), unknown()),
        ("every option, help failed", full_request(), unknown()),
        ("every option, an old version", full_request(), old()),
        ("every option, no flag known", full_request(), installed_none()),
    ] {
        insta::assert_snapshot!(name.replace([',', ' '], "_"), shown(&plan(&request, &installed)));
    }
}

fn installed_none() -> Installed {
    installed(|_| false)
}

#[test]
fn each_missing_flag_is_left_out_with_its_value_and_nothing_else() {
    assert_eq!(current().flags, ClaudeCode.flags(Some(HELP)));
    let id = "11111111-2222-4333-8444-555555555555";
    let all = AgentRequest { access: Access::Full, ..full_request() };
    let restricted = full_request();
    for (request, name, gone) in [
        (&all, "verboseFlag", &["--verbose"][..]),
        (&all, "modelFlag", &["--model", "claude-sonnet-5"]),
        (&all, "allowedToolsFlag", &["--allowedTools", "WebSearch,Read,mcp__x__y"]),
        (&all, "disallowedToolsFlag", &["--disallowedTools", "web_fetch,Edit"]),
        (&all, "appendSystemPromptFlag", &["--append-system-prompt=- Cite."]),
        (&all, "permissionModeFlag", &["--permission-mode", "plan"]),
        (&all, "dangerouslySkipPermissionsFlag", &["--dangerously-skip-permissions"]),
        (&all, "maxBudgetFlag", &["--max-budget-usd", "1.5"]),
        (&all, "betasFlag", &["--betas", "one,two"]),
        (&all, "noSessionPersistenceFlag", &["--no-session-persistence"]),
        (&all, "sessionIdFlag", &["--session-id", id]),
        (&all, "inputFormatFlag", &["--input-format", "stream-json"]),
        (&restricted, "settingSourcesFlag", &["--setting-sources", "local"]),
        (&restricted, "disableSlashCommandsFlag", &["--disable-slash-commands"]),
    ] {
        let whole = plan(request, &current());
        let at = whole.args.windows(gone.len()).position(|words| words == gone);
        let at = at.unwrap_or_else(|| panic!("{name}: {:?}", whole.args));
        let mut expected = whole.args.clone();
        expected.drain(at..at + gone.len());
        assert_eq!(plan(request, &without(name)).args, expected, "{name}");
    }
}

#[test]
fn no_word_but_a_flag_follows_a_value() {
    let mut request = AgentRequest { resume: Some("-r".to_owned()), ..full_request() };
    request.model = Some("--dangerously-skip-permissions".to_owned());
    request.allowed_tools = Some(tools(&["-x", "Bash(git log:*)"]));
    request.prompt = "-p --tools".to_owned();
    for request in [request.clone(), AgentRequest { access: Access::Full, ..request }] {
        let args = plan(&request, &current()).args;
        let values: Vec<_> = args.split(|arg| arg.starts_with("--")).collect();
        assert!(values.iter().all(|values| values.len() <= 1), "{args:?}");
        assert!(args.contains(&"--model=--dangerously-skip-permissions".to_owned()), "{args:?}");
        assert!(args.contains(&"--resume=-r".to_owned()), "{args:?}");
        assert!(args.contains(&"--allowedTools=-x,Bash(git log:*)".to_owned()), "{args:?}");
    }
}

#[test]
fn tools_are_allowed_by_access() {
    for (access, given, allowed, denied) in [
        (Access::Restricted, None, Some("WebSearch"), Some("Bash")),
        (Access::Restricted, Some(&[" "][..]), Some("WebSearch"), Some("Bash")),
        (Access::Restricted, Some(&["Read", "read"]), Some("Read,read"), Some("Bash")),
        (Access::Restricted, Some(&["web-search", "Web Search"]), Some("WebSearch"), Some("Bash")),
        (Access::Restricted, Some(&["Bash(git:*)"]), Some("Bash(git:*)"), None),
        (Access::Restricted, Some(&["BashOutput"]), Some("BashOutput"), Some("Bash")),
        (Access::Full, None, None, None),
        (Access::Full, Some(&["web_search"]), None, None),
        (Access::Full, Some(&["web_search", "Read"]), Some("WebSearch,Read"), None),
    ] {
        let allowed_tools = given.map(tools);
        let request = AgentRequest { access, allowed_tools, ..request() };
        assert_eq!(value(&request, "--allowedTools").as_deref(), allowed, "{access:?} {given:?}");
        assert_eq!(value(&request, "--disallowedTools").as_deref(), denied, "{access:?} {given:?}");
    }
    for (disallowed, denied) in
        [(&["Edit"][..], "Edit,Bash"), (&["Bash(rm:*)"], "Bash(rm:*),Bash"), (&["Bash"], "Bash")]
    {
        let request = AgentRequest { disallowed_tools: tools(disallowed), ..request() };
        assert_eq!(value(&request, "--disallowedTools").as_deref(), Some(denied));
    }
}

#[test]
fn permissions_are_bypassed_with_full_control_only() {
    let of = |access, mode: Option<&str>| {
        let permission_mode = mode.map(str::to_owned);
        let request = AgentRequest { access, permission_mode, ..request() };
        let args = plan(&request, &current()).args;
        let skips = args.iter().any(|arg| arg == "--dangerously-skip-permissions");
        (value(&request, "--permission-mode").unwrap_or_default(), skips)
    };
    for (access, mode, expected) in [
        (Access::Full, None, ("bypassPermissions", true)),
        (Access::Full, Some(""), ("bypassPermissions", true)),
        (Access::Full, Some("dontAsk"), ("bypassPermissions", true)),
        (Access::Full, Some("acceptEdits"), ("acceptEdits", true)),
        (Access::Restricted, None, ("", false)),
        (Access::Restricted, Some("dontAsk"), ("dontAsk", false)),
    ] {
        assert_eq!(of(access, mode), (expected.0.to_owned(), expected.1), "{access:?} {mode:?}");
    }
    let mode = Some("bypassPermissions".to_owned());
    let bypassing = AgentRequest { permission_mode: mode, ..request() };
    for installed in [current(), installed_none()] {
        let reason = "permission_mode bypassPermissions needs full control";
        assert_eq!(refused(&bypassing, &installed), reason);
    }
}

#[test]
fn full_control_needs_a_flag_and_no_bare_root() {
    let of = |flag: &'static str, root, guest| {
        ClaudeCode.full_control(&installed(move |name| name == flag), root, guest)
    };
    for flag in ["permissionModeFlag", "dangerouslySkipPermissionsFlag"] {
        assert_eq!(of(flag, false, false), Ok(()));
        assert_eq!(of(flag, true, true), Ok(()));
        assert!(of(flag, true, false).unwrap_err().contains("root"));
    }
    for (root, guest) in [(false, false), (true, true)] {
        let reason = "this version of Claude Code has no flag for full control";
        assert_eq!(of("toolsFlag", root, guest).unwrap_err(), reason);
    }
    let guest = AgentRequest { guest: true, ..full() };
    let sandbox = ("IS_SANDBOX".to_owned(), "1".to_owned());
    assert!(plan(&guest, &current()).env.contains(&sandbox));
    assert!(!plan(&full(), &current()).env.contains(&sandbox));
}

#[test]
fn events_are_asked_for_where_they_are_known() {
    let format = |format, live| AgentRequest { format, live, ..request() };
    for (request, gone, word, output) in [
        (format(AgentFormat::Unset, true), "", Some("stream-json"), OutputMode::Stream),
        (format(AgentFormat::Unset, true), "streamJsonFlag", Some("json"), OutputMode::Stdout),
        (format(AgentFormat::Stream, false), "", Some("stream-json"), OutputMode::Stream),
        (format(AgentFormat::Stream, true), "outputFormatFlag", None, OutputMode::Stdout),
        (format(AgentFormat::Unset, false), "", Some("json"), OutputMode::Stdout),
        (format(AgentFormat::Text, true), "", Some("text"), OutputMode::Stdout),
    ] {
        let found = plan(&request, &without(gone));
        let at = found.args.iter().position(|arg| arg == "--output-format");
        assert_eq!(at.map(|at| found.args[at + 1].as_str()), word, "{gone}");
        assert_eq!(found.output, output, "{gone}");
        let verbose = found.args.iter().any(|arg| arg == "--verbose");
        assert_eq!(verbose, output == OutputMode::Stream, "{gone}");
        assert_eq!(found.stop, FirstSignal::Interrupt);
    }
}

#[test]
fn sessions_are_continued_or_refused() {
    let resume = Some("fd5025cf".to_owned());
    let resumed = AgentRequest { resume, ..full_request() };
    assert_eq!(value(&resumed, "--resume").as_deref(), Some("fd5025cf"));
    assert_eq!(value(&resumed, "--session-id"), None);
    let reason = "this version of Claude Code cannot continue a session: it has no --resume";
    assert_eq!(refused(&resumed, &without("resumeFlag")), reason);
}

#[test]
fn a_prompt_is_never_a_command() {
    for (prompt, stdin) in [("/compact", "\n/compact"), (" /x", "\n /x"), ("a /x", "a /x")] {
        let request = AgentRequest { prompt: prompt.to_owned(), ..request() };
        assert_eq!(plan(&request, &current()).stdin, stdin);
        let wrapped = AgentRequest { input_format: Some("stream-json".to_owned()), ..request };
        let line: serde_json::Value =
            serde_json::from_str(&plan(&wrapped, &current()).stdin).unwrap();
        let message = json!({"role": "user", "content": stdin});
        assert_eq!(line, json!({"type": "user", "message": message}));
    }
}

#[test]
fn an_input_format_is_one_that_there_is() {
    let of = |input: &str, format| AgentRequest {
        input_format: Some(input.to_owned()),
        format,
        ..request()
    };
    let text = of("text", AgentFormat::Json);
    assert_eq!(value(&text, "--input-format").as_deref(), Some("text"));
    assert_eq!(plan(&text, &current()).stdin, "Look around.");
    let reason = "input_format stream-json needs output_format stream-json";
    assert_eq!(refused(&of("stream-json", AgentFormat::Json), &current()), reason);
    let plain = plan(&of("stream", AgentFormat::Unset), &without("inputFormatFlag"));
    assert_eq!(plain.stdin, "Look around.");
    let reason = "input_format is \"xml\", not text or stream-json";
    assert_eq!(refused(&of("xml", AgentFormat::Unset), &current()), reason);
}

#[test]
fn texts_over_the_bound_go_another_way_or_are_refused() {
    let long = |bytes: usize| Some("s".repeat(bytes));
    let append = |bytes| AgentRequest { append_system_prompt: long(bytes), ..request() };
    assert_eq!(plan(&append(131_071), &current()).stdin, "Look around.");
    let by_prompt = plan(&append(131_072), &current());
    assert!(by_prompt.args.iter().all(|arg| arg != "--append-system-prompt"));
    assert_eq!(by_prompt.stdin.len(), "Look around.\n\n".len() + 131_072);
    // A dash makes the flag a part of the argument.
    let dashed = AgentRequest {
        append_system_prompt: Some(format!("-{}", "s".repeat(131_060))),
        ..request()
    };
    assert!(plan(&dashed, &current()).stdin.len() > 131_060);

    let system = AgentRequest { system_prompt: long(131_072), ..request() };
    assert_eq!(plan(&system, &current()).files[0].contents.len(), 131_072);
    let older = Installed { version: None, ..current() };
    let reason = "system_prompt is too long for Claude Code: 131072 bytes, at most 131071";
    assert_eq!(refused(&system, &older), reason);
    let model = AgentRequest { model: long(131_072), ..request() };
    assert!(refused(&model, &current()).starts_with("model is too long for Claude Code"));
    let nul = AgentRequest { resume: Some("a\0b".to_owned()), ..request() };
    assert_eq!(refused(&nul, &current()), "resume_session_id holds a NUL character");
}

#[test]
fn a_schema_that_would_be_ignored_is_refused() {
    let schema = Some(object(json!({"type": "array"})));
    let request = AgentRequest { json_schema: schema, ..request() };
    for installed in [current(), installed_none()] {
        assert_eq!(refused(&request, &installed), "json_schema must describe an object");
    }
}

#[test]
fn one_request_cannot_take_the_whole_run() {
    let env = |limit| plan(&AgentRequest { time_limit: limit, ..request() }, &current()).env;
    let timeout = |limit| env(limit).iter().find(|(name, _)| name == "API_TIMEOUT_MS").cloned();
    let of = |limit| timeout(limit).unwrap().1;
    assert_eq!(of(Duration::from_hours(2)), "590000");
    assert_eq!(of(Duration::from_secs(30)), "22500");
    let hours = AgentRequest { time_limit: Duration::from_hours(2), ..request() };
    assert_eq!(plan(&hours, &current()).time_limit, Duration::from_hours(2));
}
