//! Calls and answers of Claude Code, against recorded runs of it.

mod decoding;
pub(super) mod planning;
pub(super) mod recorded;

use std::time::Duration;

use serde_json::{Map, Value};

use super::ClaudeCode;
use crate::process::{Ended, Exit};
use crate::providers::{
    FirstSignal, Format, Installed, Left, ModelRequest, Outcome, OutputMode, Plan, Provider,
};

pub(super) const LIMIT: Duration = Duration::from_secs(110);

pub(super) fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("{value} is no object") };
    object
}

fn request(wants: &str) -> ModelRequest {
    let format = match wants {
        "object" => Format::Json { schema: object(serde_json::json!({"type": "object"})) },
        "text" => Format::Text,
        other => panic!("nobody wants {other}"),
    };
    ModelRequest {
        prompt: "q".to_owned(),
        model: None,
        format,
        system: None,
        effort: None,
        time_limit: LIMIT,
    }
}

/// A call by which the CLI prints in this format.
pub(super) fn call(mode: &str) -> Plan {
    Plan {
        program: "/claude".into(),
        args: ["--print", "--output-format", mode].map(str::to_owned).to_vec(),
        env: Vec::new(),
        files: Vec::new(),
        stdin: "q".to_owned(),
        output: if mode == "stream-json" { OutputMode::Stream } else { OutputMode::Stdout },
        time_limit: LIMIT,
        stop: FirstSignal::Interrupt,
    }
}

pub(super) fn left(stdout: &str, stderr: &str, exit: Exit) -> Left {
    Left {
        stdout: stdout.to_owned(),
        stdout_truncated: false,
        stderr: stderr.to_owned(),
        exit,
        ended: Ended::ByItself,
        file: None,
    }
}

fn decode(mode: &str, wants: &str, left: &Left) -> Outcome {
    ClaudeCode.decode(&request(wants), &call(mode), left)
}

/// With these flags, and the version of the recordings.
pub(super) fn installed(has: impl Fn(&str) -> bool) -> Installed {
    let mut flags = ClaudeCode.flags(None);
    for (name, there) in &mut flags {
        *there = has(name);
    }
    Installed {
        command: "/opt/claude".into(),
        version: Some("2.1.197 (Claude Code)".to_owned()),
        flags,
        extensions: Vec::new(),
    }
}
