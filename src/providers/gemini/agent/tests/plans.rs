//! Plans for every combination of what is asked and what is installed.

use std::fmt::Write;

use serde_json::json;

use super::*;
use crate::providers::FirstSignal;
use crate::providers::agent::Access;

fn shown(request: &AgentRequest, installed: &Installed) -> String {
    match Gemini.agent_plan(request, installed) {
        Ok(plan) => {
            assert_eq!(plan.program, installed.command);
            let stop = FirstSignal::TerminateGroup;
            assert_eq!((plan.time_limit, plan.stop), (request.time_limit, stop));
            assert_eq!(plan.stdin, request.prompt);
            assert!(!plan.args.iter().any(|arg| arg.contains("sandbox") || arg.contains("Say hi")));
            let mut text = format!("{} ({:?})\n", plan.args.join(" "), plan.output);
            let env: Vec<String> =
                plan.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
            writeln!(text, "env {}", env.join(" ")).unwrap();
            for file in &plan.files {
                writeln!(text, "file {}: {:?}", file.path, file.contents).unwrap();
            }
            text
        }
        Err(error) => format!("refused: {error}\n"),
    }
}

fn everything(access: Access, format: AgentFormat) -> AgentRequest {
    AgentRequest {
        access,
        format,
        model: Some("gemini-2.5-pro".into()),
        allowed_tools: Some(vec!["Read".into()]),
        disallowed_tools: vec!["--x".into()],
        system_prompt: Some("Be brief.".into()),
        append_system_prompt: Some("-Be kind.".into()),
        json_schema: json!({"type": "object"}).as_object().cloned(),
        effort: Some("high".into()),
        extensions: vec!["one".into(), " two ".into(), " ".into()],
        session_id: Some("s".into()),
        resume: Some("r".into()),
        ..request("Say hi.")
    }
}

#[test]
fn plans_are_as_they_were_read_and_agreed_to() {
    let bare = || request("Say hi.");
    let full = || AgentRequest { access: Access::Full, ..bare() };
    let requests = [
        ("bare", bare()),
        ("full", full()),
        ("text", AgentRequest { format: AgentFormat::Text, ..bare() }),
        ("json", AgentRequest { format: AgentFormat::Json, ..bare() }),
        ("stream", AgentRequest { format: AgentFormat::Stream, ..full() }),
        ("not live", AgentRequest { live: false, ..bare() }),
        ("everything", everything(Access::Restricted, AgentFormat::Unset)),
        ("everything, full, text", everything(Access::Full, AgentFormat::Text)),
        (
            "all empty",
            AgentRequest {
                model: Some(String::new()),
                system_prompt: Some(" ".into()),
                append_system_prompt: Some(String::new()),
                ..bare()
            },
        ),
        ("dash", AgentRequest { model: Some("--yolo".into()), ..bare() }),
        ("dash in an extension", AgentRequest { extensions: vec![" --yolo".into()], ..full() }),
    ];
    let helps: [(&str, &[&str]); 4] = [
        ("all", &[]),
        ("no approval mode", &["--approval-mode"]),
        ("neither approval mode nor yolo", &["--approval-mode", "--yolo"]),
        ("no output format, no model", &["--output-format", "--model"]),
    ];
    let mut all = String::new();
    for (help, without) in helps {
        for (name, request) in &requests {
            let plan = shown(request, &installed(without));
            writeln!(all, "# help: {help}; request: {name}\n{plan}").unwrap();
        }
    }
    insta::assert_snapshot!(all);
}

#[test]
fn full_control_needs_a_flag_whoever_asks() {
    for (root, guest) in [(false, false), (true, false), (true, true)] {
        let allowed = |without: &[&str]| Gemini.full_control(&installed(without), root, guest);
        assert_eq!(allowed(&[]), Ok(()));
        assert_eq!(allowed(&["--yolo"]), Ok(()));
        assert_eq!(allowed(&["--approval-mode"]), Ok(()));
        let reason = allowed(&["--approval-mode", "--yolo"]).unwrap_err();
        assert!(reason.contains("--approval-mode") && reason.contains("--yolo"), "{reason}");
    }
}

#[test]
fn what_is_asked_stays_data() {
    let asked =
        AgentRequest { system_prompt: Some("--help".into()), ..request("-x @system.md\n/help") };
    let plan = planned(&asked);
    assert_eq!(plan.stdin, asked.prompt);
    assert!(!plan.args.iter().any(|arg| arg.contains("help")));
    let patterns = plan.files.iter().find(|file| file.path == ".geminiignore").unwrap();
    for file in &plan.files {
        let top = file.path.split('/').next().unwrap();
        let is_it = |line: &str| line.trim_matches('/') == top;
        assert!(patterns.contents.lines().any(is_it), "{}", file.path);
    }
}
