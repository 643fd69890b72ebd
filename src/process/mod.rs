//! Child processes: every run starts under the run shim, which holds its whole tree.
//!
//! [`Run::spawn`] starts the gateway's own binary as a shim ([`SHIM_WORD`]); the shim starts the
//! command. The two talk over a socket pair; the command's pipes are read by the gateway, bounded,
//! and drained by the shim when the gateway is done with them or gone. No process of a run outlives
//! the [`Run`], however it ends, but background work of a command that may leave some
//! ([`Background::Allowed`]) and that ended by itself.

mod capture;
mod environment;
#[cfg(fuzzing)]
pub mod fuzzing;
mod input;
mod output;
mod run;
mod shim;
mod spawn;
mod strike;
mod sweep;
mod table;
mod user;
mod wire;

pub use capture::Captured;
pub use environment::{child_environment, guest_environment};
pub use run::{
    Background, Confine, Ended, Exit, FirstSignal, Outcome, Run, RunError, RunIds, RunSpec,
    StopSequence,
};
pub use shim::{LAUNCH_WORD, SHIM_WORD, launch_main, shim_main};
pub use spawn::set_shim_binary;
pub use sweep::{shim_lives, sweep};
pub use user::{ExecUser, ExecUserError};
