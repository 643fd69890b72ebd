//! Child processes: every run starts under the run shim, which holds its whole tree.

mod capture;
mod environment;
mod run;
mod shim;

pub use capture::Captured;
pub use environment::child_environment;
pub use run::{Background, Ended, Exit, Outcome, Run, RunError, RunIds, RunSpec, StopSequence};
pub use shim::{SHIM_WORD, shim_main};
