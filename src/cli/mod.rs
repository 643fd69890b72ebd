//! The command line.

use std::process::ExitCode;

/// Parses, runs, and maps the outcome to an exit code.
pub fn main() -> ExitCode {
    unimplemented!()
}
