//! A plan: how one CLI is to be called for one request. Data only; nothing here runs anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

pub use crate::process::FirstSignal;

/// Flags of a CLI by the names that capabilities use, e.g. `jsonSchemaFlag`.
pub type Flags = BTreeMap<&'static str, bool>;

/// What is known of an installed CLI. A plan uses a flag only if it is among these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Installed {
    /// The executable, absolute.
    pub command: PathBuf,
    /// Trimmed stdout of `--version`.
    pub version: Option<String>,
    /// What its help names.
    pub flags: Flags,
    /// Gemini's installed extensions.
    pub extensions: Vec<String>,
}

impl Installed {
    /// Whether the help names this flag.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.get(flag).copied().unwrap_or(false)
    }
}

/// What answer is wanted.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// Plain text.
    Text,
    /// A JSON object under this schema (a schema whose top level is an object).
    Json {
        /// The caller's schema as it came.
        schema: Map<String, Value>,
    },
}

/// `reasoning_effort`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// `low`.
    Low,
    /// `medium`.
    Medium,
    /// `high`.
    High,
}

impl Effort {
    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// One answer from a model: a checked `model_run`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// Not empty.
    pub prompt: String,
    /// As it came; `None` for `__default__`: no model flag.
    pub model: Option<String>,
    /// The answer's form.
    pub format: Format,
    /// The caller's system text.
    pub system: Option<String>,
    /// How hard to think, where the CLI has a switch.
    pub effort: Option<Effort>,
    /// How long the run may take.
    pub time_limit: Duration,
}

/// Where the answer stands; `output_mode` of a job's debug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputMode {
    /// One JSON object, or text, on stdout: `stdout-json`.
    Stdout,
    /// A file that the CLI writes, relative to the work dir, beside events on stdout: `file-json`.
    File(String),
    /// Events, one JSON object a line, on stdout: `stream-json`.
    Stream,
}

impl OutputMode {
    /// The wire's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout-json",
            Self::File(_) => "file-json",
            Self::Stream => "stream-json",
        }
    }
}

/// A file that the CLI needs in its work dir.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFile {
    /// Relative to the work dir; its directories are made.
    pub path: String,
    /// What it holds.
    pub contents: String,
}

/// How to call a CLI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments. The prompt is never one of them.
    pub args: Vec<String>,
    /// Added to the child's environment, or replacing what is there.
    pub env: Vec<(String, String)>,
    /// Written into the work dir before the start.
    pub files: Vec<PlanFile>,
    /// Written to stdin, which is then closed: the prompt.
    pub stdin: String,
    /// Where the answer stands.
    pub output: OutputMode,
    /// After this it is stopped.
    pub time_limit: Duration,
    /// How it is stopped.
    pub stop: FirstSignal,
}

/// Why a request cannot become a plan: the caller's mistake, `invalid_request`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);
