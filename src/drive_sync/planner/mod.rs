//! Decides what makes disk and server equal again: data in, steps out.
//!
//! There is no clock here, no disk, no server and no chance, so that every decision can be tried out
//! and repeated. [`diff()`] finds where the three trees differ, [`plan()`] decides. Inside, each path goes
//! through the matrix (`matrix`), files that only changed their place are matched (`moves`), folders
//! are decided from the innermost outwards (`judge`), the verdicts are written down in their order
//! (`steps`), and too many deletions are kept back (`hold`).
//!
//! A step whose precondition has failed has done nothing, and what needed it fails in turn: the next
//! look at the three trees plans the rest anew.

mod diff;
mod hold;
mod judge;
mod matrix;
mod moves;
mod names;
#[cfg(test)]
mod proof;
mod rows;
mod steps;
#[cfg(test)]
mod tests;

pub use diff::{Divergence, LeftOut, Most, Triple, diff, diff_of_some};
pub(in crate::drive_sync) use names::conflict_name;
pub use rows::Row;

use super::plan::Plan;

/// What a plan depends on besides the trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What this machine is called in conflict names.
    pub vm: String,
    /// What the server lets this machine do with the drive.
    pub access: Access,
    /// A person has said that many deletions at once are meant.
    pub release_deletions: bool,
}

/// What the server lets this machine do with a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing is sent.
    Read,
    /// Both ways.
    Write,
}

/// Everything that is to be done, in order.
pub fn plan(divergence: &Divergence, rules: &Rules) -> Plan {
    let nodes = judge::judge(divergence, rules);
    let (steps, blocked) = steps::steps(divergence, &nodes, rules);
    let (steps, held) =
        if rules.release_deletions { (steps, None) } else { hold::hold(steps, divergence) };
    Plan { steps, held, blocked }
}
