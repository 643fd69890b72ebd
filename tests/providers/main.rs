//! Finding, probing and checking agent CLIs: with shell scripts that stand for them, under the real
//! run shim.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail where it stands")]

mod attending;
mod finding;
mod probing;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use panorama_gateway::config::{Environment, GlobalOptions, Purpose, Settings};
use panorama_gateway::model::ProviderSupports;
use panorama_gateway::process::set_shim_binary;
use panorama_gateway::providers::agent::{AgentReader, AgentRequest};
use panorama_gateway::providers::{
    Asker, Flags, Installed, Left, ModelRequest, Outcome, Plan, PlanError, Provider, ProviderId,
    help,
};
use tempfile::TempDir;

/// A machine with nothing on it: a home, and a log into which its scripts write what they are asked.
struct Machine {
    home: TempDir,
    variables: BTreeMap<String, String>,
}

impl Machine {
    fn new() -> Self {
        set_shim_binary(env!("CARGO_BIN_EXE_panorama-gateway"));
        let machine = Self { home: tempfile::tempdir().unwrap(), variables: BTreeMap::new() };
        let home = machine.home.path().display().to_string();
        let path = format!("{home}/p1:{home}/p2:/usr/bin:/bin");
        // A login shell that knows nothing.
        let shell = machine.script("shell", "exit 1");
        machine.with("HOME", &home).with("PATH", &path).with("SHELL", shell.to_str().unwrap())
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    /// An executable script below the home, that logs its own place and arguments first.
    fn script(&self, below: &str, body: &str) -> PathBuf {
        let log = self.path("log");
        let text = format!("#!/bin/sh\necho \"{below} $*\" >> '{}'\n{body}\n", log.display());
        self.file(below, &text, 0o755)
    }

    /// A CLI of this version that has some flags.
    fn cli(&self, below: &str, version: &str) -> PathBuf {
        let body = format!(
            "case \"$1\" in --version) echo '{version}';; --help) echo '--model x, --toolset';; \
             --list) echo '- one'; echo '- two';; *) exit 2;; esac"
        );
        self.script(below, &body)
    }

    fn file(&self, below: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Never written in place: a script that runs cannot be written to.
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    /// What the scripts were asked, in any order.
    fn asked(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let mut lines: Vec<String> = log.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn environment(&self) -> Environment {
        Environment::from_pairs(self.variables.clone())
    }

    fn settings(&self) -> Settings {
        Settings::resolve(&GlobalOptions::default(), self.environment(), Purpose::Look).unwrap()
    }

    fn asker(&self) -> Asker {
        Asker::new(&self.environment(), Path::new("/tmp"), 0o022)
    }
}

/// Stands for a CLI: knows two flags, lists extensions, and is never run for a job.
struct Fake(ProviderId);

static FAKE: Fake = Fake(ProviderId::Gemini);

impl Provider for Fake {
    fn id(&self) -> ProviderId {
        self.0
    }

    fn help_args(&self) -> &'static [&'static str] {
        &["--help"]
    }

    fn flags(&self, text: Option<&str>) -> Flags {
        let text = text.unwrap_or("--model");
        [("modelFlag", "--model"), ("toolsFlag", "--tools")]
            .map(|(name, flag)| (name, help::names(text, flag)))
            .into()
    }

    fn extension_args(&self) -> Option<&'static [&'static str]> {
        Some(&["--list"])
    }

    fn extensions(&self, listing: &str) -> Vec<String> {
        listing.lines().filter_map(|line| line.strip_prefix("- ")).map(str::to_owned).collect()
    }

    fn probe_env(&self) -> &'static [(&'static str, &'static str)] {
        &[("FAKE_PROBE", "yes")]
    }

    fn supports(&self, installed: &Installed) -> ProviderSupports {
        ProviderSupports {
            output_schema: installed.has("modelFlag"),
            ..ProviderSupports::default()
        }
    }

    fn plan(&self, _: &ModelRequest, _: &Installed) -> Result<Plan, PlanError> {
        panic!("nothing is run here")
    }

    fn decode(&self, _: &ModelRequest, _: &Plan, _: &Left) -> Outcome {
        panic!("nothing is run here")
    }

    fn continues_sessions(&self) -> bool {
        false
    }

    fn full_control(&self, _: &Installed, _: bool, _: bool) -> Result<(), String> {
        panic!("nothing is run here")
    }

    fn agent_plan(&self, _: &AgentRequest, _: &Installed) -> Result<Plan, PlanError> {
        panic!("nothing is run here")
    }

    fn agent_reader(&self, _: &AgentRequest, _: &Plan) -> Box<dyn AgentReader> {
        panic!("nothing is run here")
    }
}
