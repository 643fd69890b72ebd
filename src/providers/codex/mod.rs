//! OpenAI's Codex CLI, called as `codex exec`.
//!
//! Its verdict stands in its events (`turn.completed`, `turn.failed`), not in its exit code; its
//! answer in the file that it is told to write, else in its last message.

mod agent;
mod decode;
mod events;
mod flags;
mod plan;
mod trouble;

#[cfg(test)]
mod tests;

use super::agent::{AgentReader, AgentRequest};
use super::{Flags, Installed, Left, ModelRequest, Outcome, Plan, PlanError, Provider, ProviderId};
use crate::model::ProviderSupports;

/// The Codex CLI.
#[derive(Debug, Clone, Copy, Default)]
pub struct Codex;

impl Provider for Codex {
    fn id(&self) -> ProviderId {
        ProviderId::Codex
    }

    fn help_args(&self) -> &'static [&'static str] {
        &["exec", "--help"]
    }

    fn flags(&self, help: Option<&str>) -> Flags {
        flags::of_help(help)
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
        false
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
