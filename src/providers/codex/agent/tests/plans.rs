//! Plans for every combination of what is asked and what is installed.

use std::fmt::Write;

use serde_json::json;

use super::*;
use crate::providers::agent::Access;
use crate::providers::{FirstSignal, OutputMode};

fn shown(request: &AgentRequest, installed: &Installed) -> String {
    match Codex.agent_plan(request, installed) {
        Ok(plan) => {
            assert_eq!(plan.program, installed.command);
            assert_eq!((plan.time_limit, plan.stop), (request.time_limit, FirstSignal::Interrupt));
            assert!(plan.env.is_empty() && plan.files.is_empty());
            assert_eq!(plan.args.last().map(String::as_str), Some("-"));
            assert!(!plan.args.iter().any(|arg| arg.contains(&request.prompt)), "a prompt in args");
            format!("{} ({:?})\nstdin: {:?}\n", plan.args.join(" "), plan.output, plan.stdin)
        }
        Err(error) => format!("refused: {error}\n"),
    }
}

fn everything(access: Access, format: AgentFormat) -> AgentRequest {
    AgentRequest {
        access,
        format,
        model: Some("gpt-5.5".into()),
        allowed_tools: Some(vec!["Read".into(), "web_search".into()]),
        disallowed_tools: vec!["--x".into()],
        system_prompt: Some("Be brief.".into()),
        append_system_prompt: Some("-Be kind.".into()),
        json_schema: json!({"type": "object"}).as_object().cloned(),
        effort: Some(" xhigh ".into()),
        extensions: vec!["--x".into()],
        session_id: Some("s".into()),
        resume: Some("r".into()),
        ..request("Say hi.")
    }
}

#[test]
fn plans_are_as_they_were_read_and_agreed_to() {
    let bare = || request("Say hi.");
    let full = || AgentRequest { access: Access::Full, ..bare() };
    let empty = Some(String::new);
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
                model: empty.map(|text| text()),
                effort: empty.map(|text| text()),
                system_prompt: empty.map(|text| text()),
                allowed_tools: Some(Vec::new()),
                ..bare()
            },
        ),
        ("dash", AgentRequest { model: Some("--oss".into()), ..bare() }),
        ("odd effort", AgentRequest { effort: Some("x\" y".into()), ..bare() }),
    ];
    let helps: [(&str, &[&str]); 6] = [
        ("all", &[]),
        ("no json", &["--json"]),
        ("no bypass", &["--dangerously-bypass-approvals-and-sandbox"]),
        ("no sandbox", &["--sandbox", "--dangerously-bypass-approvals-and-sandbox"]),
        (
            "no config, model, ephemeral, skip",
            &["--config", "--model", "--ephemeral", "--skip-git-repo-check"],
        ),
        (
            "neither sandbox nor config",
            &["--sandbox", "--config", "--dangerously-bypass-approvals-and-sandbox"],
        ),
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
fn an_old_version_searches_by_its_own_key() {
    let old = Installed { version: Some("codex-cli 0.91.0".into()), ..installed(&[]) };
    for (access, key) in [
        (Access::Restricted, "features.web_search_request=false"),
        (Access::Full, "features.web_search_request=true"),
    ] {
        let request = AgentRequest { access, ..request("hi") };
        let args = Codex.agent_plan(&request, &old).unwrap().args;
        let keys: Vec<_> = args.iter().filter(|arg| arg.contains("web_search")).collect();
        assert_eq!(keys, [key]);
    }
}

#[test]
fn full_control_needs_a_flag_whoever_asks() {
    let bypass = "--dangerously-bypass-approvals-and-sandbox";
    for (root, guest) in [(false, false), (true, false), (true, true)] {
        let allowed = |without: &[&str]| Codex.full_control(&installed(without), root, guest);
        assert_eq!(allowed(&[]), Ok(()));
        assert_eq!(allowed(&[bypass]), Ok(()));
        assert_eq!(allowed(&["--sandbox"]), Ok(()));
        let reason = allowed(&[bypass, "--sandbox"]).unwrap_err();
        assert!(reason.contains(bypass) && reason.contains("--sandbox"), "{reason}");
    }
}

#[test]
fn what_is_asked_stays_data() {
    let asked = AgentRequest {
        append_system_prompt: Some("--help".into()),
        ..request("-x @/etc/hostname\n/resume")
    };
    let plan = planned(&asked);
    assert_eq!(plan.stdin, "-x @/etc/hostname\n/resume\n\n--help");
    assert!(!plan.args.iter().any(|arg| arg.contains("help") || arg.contains("hostname")));
    assert_eq!(plan.output, OutputMode::Stream);
}
