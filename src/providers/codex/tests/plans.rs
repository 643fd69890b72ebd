//! Plans for every combination of what is asked and what is installed.

use std::fmt::Write;

use super::super::super::Effort;
use super::*;

/// What help names, by a word for it.
fn installed(help: &str, version: &str) -> Installed {
    let whole = include_str!("../../../../tests/fixtures/providers/codex/exec-help.txt");
    let without =
        |words: &[&str]| words.iter().fold(whole.to_owned(), |text, word| text.replace(word, ""));
    let text = match help {
        "all" => Some(whole.to_owned()),
        "no schema" => Some(without(&["--output-schema"])),
        "no last message" => Some(without(&["--output-last-message"])),
        "no json" => Some(without(&["--json"])),
        "no schema, no json" => Some(without(&["--output-schema", "--json"])),
        "no config" => Some(without(&["--config"])),
        "no sandbox, no ephemeral" => Some(without(&["--sandbox", "--ephemeral"])),
        _ => None,
    };
    let flags: Flags = Codex.flags(text.as_deref());
    let command = PathBuf::from("/usr/bin/codex");
    Installed { command, version: Some(version.into()), flags, extensions: Vec::new() }
}

fn shown(request: &ModelRequest, installed: &Installed) -> String {
    match Codex.plan(request, installed) {
        Ok(plan) => {
            assert_eq!(plan.program, installed.command);
            assert_eq!((plan.time_limit, plan.stop), (request.time_limit, FirstSignal::Interrupt));
            assert!(plan.env.is_empty());
            assert!(!plan.args.iter().any(|arg| arg.contains(&request.prompt)), "a prompt in args");
            let mut text = format!("{} ({:?})\n", plan.args.join(" "), plan.output);
            for file in &plan.files {
                writeln!(text, "file {}: {}", file.path, file.contents).unwrap();
            }
            format!("{text}stdin: {:?}\n", plan.stdin)
        }
        Err(error) => format!("refused: {error}\n"),
    }
}

#[test]
fn plans_are_as_they_were_read_and_agreed_to() {
    let call = json_format(&json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "args": {"type": "object"}},
        "required": ["name"]
    }));
    let list = json_format(&json!({"type": "array"}));
    let system = Some("Be brief.".to_owned());
    let requests = [
        ("text", request(Format::Text)),
        ("json", request(answer_and_score())),
        ("call", ModelRequest { system: system.clone(), ..request(call) }),
        (
            "json with all",
            ModelRequest {
                model: Some("gpt-5.5".into()),
                effort: Some(Effort::Low),
                system,
                ..request(answer_and_score())
            },
        ),
        ("list", request(list)),
        ("dash", ModelRequest { model: Some("--oss".into()), ..request(Format::Text) }),
    ];
    let mut all = String::new();
    for help in [
        "all",
        "no schema",
        "no last message",
        "no json",
        "no schema, no json",
        "no config",
        "no sandbox, no ephemeral",
        "failed",
    ] {
        for (name, request) in &requests {
            let plan = shown(request, &installed(help, "codex-cli 0.169.0"));
            writeln!(all, "# help: {help}; request: {name}\n{plan}").unwrap();
        }
    }
    insta::assert_snapshot!(all);
}

#[test]
fn web_search_is_turned_off_by_the_key_that_the_version_knows() {
    for (version, key) in [
        ("codex-cli 0.91.0", "features.web_search_request=false"),
        ("codex-cli 0.92.0", "web_search=\"disabled\""),
        ("codex-cli 0.169.0", "web_search=\"disabled\""),
        ("codex-cli 1.0.0", "web_search=\"disabled\""),
        ("nonsense", "web_search=\"disabled\""),
    ] {
        let plan = Codex.plan(&request(Format::Text), &installed("all", version)).unwrap();
        assert_eq!(plan.args.iter().filter(|arg| arg.contains("web_search")).count(), 1);
        assert!(plan.args.iter().any(|arg| arg == key), "{version}: {:?}", plan.args);
    }
}

#[test]
fn a_prompt_and_a_system_text_go_as_they_are() {
    let asked = ModelRequest {
        prompt: "-x @/etc/hostname\n/resume".into(),
        system: Some("--help".into()),
        ..request(Format::Text)
    };
    let plan = Codex.plan(&asked, &installed("all", "codex-cli 0.169.0")).unwrap();
    assert_eq!(plan.stdin, "-x @/etc/hostname\n/resume\n\n--help");
    assert_eq!(plan.args.last().map(String::as_str), Some("-"));
}

#[test]
fn the_schema_in_the_plan_is_strict_already() {
    let plan = Codex.plan(&request(answer_and_score()), &installed("all", "")).unwrap();
    let sent = serde_json::from_str(&plan.files[0].contents).unwrap();
    assert_eq!(schema::strict(&sent).unwrap(), sent);
}
