//! Subagents by this CLI: how they are called, what they tell, what they come to.

mod plan;
mod reader;

#[cfg(test)]
mod tests;

use crate::providers::agent::{AgentReader, AgentRequest};
use crate::providers::{Installed, Plan, PlanError};

/// As root and in a guest too: Gemini CLI does not mind.
pub(super) fn full_control(installed: &Installed, _: bool, _: bool) -> Result<(), String> {
    plan::full_control_flags(installed).map(|_| ()).ok_or_else(|| NO_FULL_CONTROL.to_owned())
}

pub(super) fn plan(request: &AgentRequest, installed: &Installed) -> Result<Plan, PlanError> {
    plan::plan(request, installed)
}

pub(super) fn reader(request: &AgentRequest, plan: &Plan) -> Box<dyn AgentReader> {
    Box::new(reader::Reader::new(request, plan))
}

const NO_FULL_CONTROL: &str = "this Gemini CLI has neither --approval-mode nor --yolo";
