//! Subagents by this CLI: how they are called, what they tell, what they come to.

use crate::providers::agent::{AgentReader, AgentRequest};
use crate::providers::{Installed, Plan, PlanError};

pub(super) fn full_control(_: &Installed, _: bool, _: bool) -> Result<(), String> {
    Err("not built yet".to_owned())
}

pub(super) fn plan(_: &AgentRequest, _: &Installed) -> Result<Plan, PlanError> {
    Err(PlanError("not built yet".to_owned()))
}

pub(super) fn reader(_: &AgentRequest, _: &Plan) -> Box<dyn AgentReader> {
    todo!()
}
