//! Two-way mirror of a team's drives in a folder of this machine.
//!
//! Three trees are compared: what the disk holds (local), what the server said last (remote), and
//! what both were when they last agreed (base). The planner takes the three as
//! data and returns operations, each with what must still be true when it is carried out. The engine
//! carries them out through the traits of [`ports`], and only then moves the base: the base may lag
//! behind disk and server, never lead.

pub mod disk;
pub mod engine;
pub mod keeper;
pub mod model;
pub mod path;
pub mod plan;
pub mod planner;
mod planted;
pub mod ports;
pub mod progress;
pub mod remote;
#[cfg(test)]
mod sim;
pub mod state;
pub mod wire;
