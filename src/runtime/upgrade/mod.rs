//! Restart on upgrade: a new version is installed, and the gateway that runs hands over to it.
//!
//! The restart supervisor (`run`) watches the installed file. A file that was the same for two
//! seconds and calls itself another version is started as our replacement (`replacement`), which
//! gets ready without taking anything ([`standby`]): config, session, providers. Then the old
//! process drains, sends it the instance lock and ends when the replacement is up
//! (`handing_over`). Both hold the lock meanwhile, so nobody else can come between, and whichever
//! of them dies, the other one goes on. A replacement that is no good is ended, the old process
//! goes on, and that version is not tried again.

pub(super) mod handing_over;
mod installed;
mod memory;
mod replacement;
pub mod standby;
mod supervise;
mod tracker;
mod wire;

use std::ffi::OsString;

pub use installed::Installation;
pub(super) use memory::{Memory, Stage};
use replacement::Replacement;
pub(super) use supervise::run;

/// Marks a replacement's command line, with the umask of whoever started the first process. No flag
/// of the grammar: people have no use for it.
pub const TAKES_OVER: &str = "--taking-over=";

/// How this gateway is started once more.
#[derive(Debug, Clone)]
pub struct Relaunch {
    /// What is started.
    pub installation: Installation,
    /// Its arguments; they mean the same in our working directory.
    pub args: Vec<OsString>,
    /// Variables on top of this process's.
    pub variables: Vec<(OsString, OsString)>,
    /// The umask that children of jobs get.
    pub umask: u32,
    /// Nobody reads its output.
    pub is_daemon: bool,
}

/// A replacement that could take over, offered to whoever runs the gateway.
#[derive(Debug)]
pub(super) struct Offer {
    replacement: Replacement,
    version: String,
}
