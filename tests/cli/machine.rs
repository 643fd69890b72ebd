//! A machine with an empty home, and its binary.
#![expect(unreachable_pub, clippy::unwrap_used, reason = "helpers of test modules")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A home of its own and nothing of this process's environment.
pub struct Machine {
    home: TempDir,
}

impl Machine {
    pub fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn dir(&self) -> PathBuf {
        self.home().join(".panorama/gateway")
    }

    pub fn write_config(&self, text: &str) {
        std::fs::create_dir_all(self.dir()).unwrap();
        std::fs::write(self.dir().join("gateway.json"), text).unwrap();
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_panorama-gateway"));
        command
            .args(words)
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/bin:/bin")
            .env("PANORAMA_GATEWAY_DEVICE_NAME", "box")
            // `wrap_help` asks for the width.
            .env("COLUMNS", "100")
            .current_dir(self.home())
            .stdin(Stdio::null());
        command
    }

    /// What a person sees: the exit code, then what came on stdout and on stderr.
    pub fn transcript(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).replace(&self.home().display().to_string(), "~")
        };
        format!(
            "$ panorama-gateway {}\n[exit {}]\n[stdout]\n{}[stderr]\n{}",
            words.join(" "),
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr)
        )
    }
}
