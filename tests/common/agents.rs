//! Fake agent CLIs: shell scripts that answer what a gateway asks of an installed CLI, and do for a
//! run what the test says.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Machine;

/// What the real CLIs print for help, and printed in recorded runs.
pub(crate) const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/providers");

/// `$0` is named by its folder, where the rest of it lies.
const CLI: &str = r#"#!/bin/sh
here=${0%/*}
case " $* " in
    *" --version "*) cat "$here/version" ;;
    *" --help "*) cat "$here/help" ;;
    *" extensions list "* | *" --list-extensions "*) ;;
    *) echo "$*" >> "$here/calls"; . "$here/act" ;;
esac
"#;

/// One fake CLI of a machine.
pub(crate) struct Agent {
    folder: PathBuf,
    command: &'static str,
}

impl Agent {
    /// Puts one where the machine's gateway is told to look for it.
    pub(crate) fn install(machine: Machine, command: &'static str, act: &str) -> (Machine, Self) {
        let folder = machine.home().join("agents").join(command);
        std::fs::create_dir_all(&folder).unwrap();
        let agent = Self { folder, command };
        let (version, help, variable) = match command {
            "claude" => ("2.1.197 (Claude Code)", "claude/help.txt", "PANORAMA_CLAUDE_CLI"),
            "codex" => ("codex-cli 0.169.0", "codex/exec-help.txt", "PANORAMA_CODEX_CLI"),
            "gemini" => ("0.61.0", "gemini/help.txt", "PANORAMA_GEMINI_CLI"),
            other => unreachable!("{other} is no agent CLI"),
        };
        std::fs::write(agent.path("version"), version).unwrap();
        std::fs::copy(Path::new(RECORDED).join(help), agent.path("help")).unwrap();
        agent.acts(act);
        let program = agent.path(command);
        std::fs::write(&program, CLI).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        (machine.with(variable, program.display().to_string()), agent)
    }

    /// From now on a run does this, in `sh`; stdin is the prompt, the folder is the work dir.
    pub(crate) fn acts(&self, act: &str) {
        // Whole at once: a run may begin at any time.
        let new = self.path("act.new");
        std::fs::write(&new, act).unwrap();
        std::fs::rename(new, self.path("act")).unwrap();
    }

    /// The arguments of the runs so far, one line each.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// A file beside it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The act of a recorded run with a structured answer.
    pub(crate) fn structured(command: &str) -> String {
        match command {
            "claude" => format!("cat > /dev/null; cat {RECORDED}/claude/structured/stdout.txt"),
            "codex" => format!(
                "cat > /dev/null; cp {RECORDED}/codex/structured-json/output.json output.json; \
                 cat {RECORDED}/codex/structured-json/stdout.txt"
            ),
            _ => format!("cat > /dev/null; cat {RECORDED}/gemini/structured-prompted/stdout.txt"),
        }
    }

    /// Its id on the wire.
    pub(crate) fn provider(&self) -> &'static str {
        if self.command == "claude" { "claude_code" } else { self.command }
    }
}
