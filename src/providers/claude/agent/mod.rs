//! Subagents by this CLI: how they are called, what they tell, what they come to.

mod events;
mod held;
mod outcome;
mod plan;
mod reader;
#[cfg(test)]
mod tests;

pub(super) use plan::{full_control, plan};
pub(super) use reader::reader;
