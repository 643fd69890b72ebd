//! Runs a service manager's tool (`systemctl`, `loginctl`, `launchctl`).

use std::io;
use std::process::{Command, Stdio};

/// More than any of them says.
const LONGEST_COMPLAINT: usize = 2000;

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not there, or cannot be started.
    #[error("{program} cannot be run")]
    Missing {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It refused.
    #[error("`{command}` failed: {complaint}")]
    Refused {
        /// What was run.
        command: String,
        /// What it said.
        complaint: String,
    },
}

/// Runs it to its end; what it said on stdout.
pub fn run(program: &'static str, words: &[&str]) -> Result<String, ToolError> {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        // Its messages are read, and matched by nobody else.
        .env("LC_ALL", "C")
        .env("SYSTEMD_PAGER", "")
        .output()
        .map_err(|source| ToolError::Missing { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let complaint = match said.as_str() {
        "" => output.status.to_string(),
        said => said.chars().take(LONGEST_COMPLAINT).collect(),
    };
    Err(ToolError::Refused { command: format!("{program} {}", words.join(" ")), complaint })
}
