//! Subagents by Codex against everything that was recorded of it, and what was not.

mod plans;
mod recorded;
mod written;

use std::path::PathBuf;

use super::super::Codex;
use crate::providers::agent::testing::request;
use crate::providers::agent::{AgentFormat, AgentReader, AgentRequest};
use crate::providers::{Installed, Plan, Provider};

/// What help names, without some of it.
fn installed(without: &[&str]) -> Installed {
    let whole = include_str!("../../../../tests/fixtures/providers/codex/exec-help.txt");
    let help = without.iter().fold(whole.to_owned(), |text, flag| text.replace(flag, ""));
    Installed {
        command: PathBuf::from("/usr/bin/codex"),
        version: Some("codex-cli 0.169.0".into()),
        flags: Codex.flags(Some(&help)),
        extensions: Vec::new(),
    }
}

fn planned(request: &AgentRequest) -> Plan {
    Codex.agent_plan(request, &installed(&[])).unwrap()
}

/// Of a request in this format.
fn reader(format: AgentFormat) -> Box<dyn AgentReader> {
    let request = AgentRequest { format, ..request("Say hi.") };
    Codex.agent_reader(&request, &planned(&request))
}
