//! The run shim: a small process between the gateway and a command.
//!
//! It is a session leader and child subreaper, so the command and everything that it starts, wherever
//! it moves, is below the shim until it is reaped there. The shim starts the command, tells the
//! gateway how it ended, carries out the stop sequence, and kills everything at once when the control
//! socket closes before the command's normal exit: then the gateway is gone, or has dropped the run.
//! Work that a command may leave behind is kept instead: its output is drained to nowhere, and the
//! shim lives as long as that work does.
//!
//! One thread, one `poll` loop, no async runtime. All signals are blocked from birth (the gateway
//! blocks them around the spawn), so that a terminal's interrupt or a signal to a group does not end
//! the shim; SIGCHLD is read from a descriptor.

mod control;
mod enter;
mod launch;
mod supervise;

use std::process::ExitCode;
use std::time::Instant;

use control::Control;
pub use enter::{LAUNCH_WORD, launch_main};

use super::wire::{Report, Step};

/// The hidden first argument that makes the binary a shim.
pub const SHIM_WORD: &str = "__run-shim";

/// The shim's whole life. No async runtime, no threads.
pub fn shim_main() -> ExitCode {
    let prepared = launch::prepare();
    // Nothing came, or only a part: the gateway is gone, and there is nobody to tell.
    let Ok((mut control, request)) = Control::accept() else { return ExitCode::FAILURE };
    let started = prepared
        .map_err(|errno| launch::Failure { step: Step::Prepare, errno })
        .and_then(|()| launch::launch(&request));
    match started {
        Ok(leader) => {
            let report = Report::Started { pid: leader.pid.cast_unsigned(), start: leader.start };
            control.report(&report);
            supervise::Supervisor::new(control, request.start, request.descriptors, leader).run();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            control.report(&Report::Failed {
                step: failure.step,
                errno: failure.errno.raw_os_error(),
            });
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shim has no runtime whose clock it could ask")]
fn now() -> Instant {
    Instant::now()
}
