//! The run shim: a small process between the gateway and a command.

use std::process::ExitCode;

/// The hidden first argument that makes the binary a shim.
pub const SHIM_WORD: &str = "__run-shim";

/// The shim's whole life. No async runtime, no threads.
pub fn shim_main() -> ExitCode {
    unimplemented!()
}
