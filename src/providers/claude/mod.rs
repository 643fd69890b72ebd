//! Claude Code: its flags, how it is called, and what it prints.

mod agent;
mod call;
mod decode;
mod failure;
mod flags;
mod plan;
mod schema;
#[cfg(test)]
mod tests;

use super::agent::{AgentReader, AgentRequest};
use super::{Flags, Installed, Left, ModelRequest, Outcome, Plan, PlanError, Provider, ProviderId};
use crate::model::ProviderSupports;

/// Claude Code, known in version 2.1.197; newer and older ones by what their help names.
#[derive(Debug, Clone, Copy)]
pub struct ClaudeCode;

impl Provider for ClaudeCode {
    fn id(&self) -> ProviderId {
        ProviderId::ClaudeCode
    }

    fn help_args(&self) -> &'static [&'static str] {
        &["--help"]
    }

    fn flags(&self, help: Option<&str>) -> Flags {
        flags::flags(help)
    }

    fn supports(&self, installed: &Installed) -> ProviderSupports {
        flags::supports(installed)
    }

    fn plan(&self, request: &ModelRequest, installed: &Installed) -> Result<Plan, PlanError> {
        plan::plan(request, installed)
    }

    fn decode(&self, request: &ModelRequest, plan: &Plan, left: &Left) -> Outcome {
        decode::decode(request, plan, left)
    }

    fn continues_sessions(&self) -> bool {
        true
    }

    fn full_control(&self, installed: &Installed, root: bool, guest: bool) -> Result<(), String> {
        agent::full_control(installed, root, guest)
    }

    fn agent_plan(&self, request: &AgentRequest, installed: &Installed) -> Result<Plan, PlanError> {
        agent::plan(request, installed)
    }

    fn agent_reader(&self, request: &AgentRequest, plan: &Plan) -> Box<dyn AgentReader> {
        agent::reader(request, plan)
    }
}
