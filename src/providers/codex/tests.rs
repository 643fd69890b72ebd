//! Codex against everything that was recorded of it.

mod plans;
mod property;
pub(super) mod recorded;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::super::schema;
use super::super::{
    Answer, ErrorCode, Failure, FirstSignal, Flags, Format, Installed, Left, ModelRequest, Outcome,
    OutputMode, Plan, PlanFile, Provider,
};
use super::Codex;
use crate::process::{Ended, Exit};

fn request(format: Format) -> ModelRequest {
    ModelRequest {
        prompt: "Say hi.".into(),
        model: None,
        format,
        system: None,
        effort: None,
        time_limit: Duration::from_secs(110),
    }
}

fn json_format(schema: &serde_json::Value) -> Format {
    Format::Json { schema: schema.as_object().unwrap().clone() }
}

fn answer_and_score() -> Format {
    json_format(&json!({
        "type": "object",
        "properties": {"answer": {"type": "string"}, "score": {"type": "integer"}},
        "required": ["answer", "score"]
    }))
}

/// A plan in one of the modes `events`, `human`, `events+file`, `human+file`.
fn plan_of(mode: &str, format: &Format) -> Plan {
    let events = mode.starts_with("events");
    let output = match mode {
        _ if mode.ends_with("+file") => OutputMode::File("output.json".into()),
        _ if events => OutputMode::Stream,
        _ => OutputMode::Stdout,
    };
    let file = PlanFile { path: "schema.json".into(), contents: "{}".into() };
    let files = if matches!(format, Format::Json { .. }) { vec![file] } else { Vec::new() };
    Plan {
        program: PathBuf::from("/bin/codex"),
        args: if events { vec!["exec".into(), "--json".into()] } else { vec!["exec".into()] },
        env: Vec::new(),
        files,
        stdin: "prompt".into(),
        output,
        time_limit: Duration::from_secs(110),
        stop: FirstSignal::Interrupt,
    }
}

/// What is left by a run that ended by itself, with exit code 0.
fn left(stdout: &str) -> Left {
    Left {
        stdout: stdout.into(),
        stdout_truncated: false,
        stderr: String::new(),
        exit: Exit::Code(0),
        ended: Ended::ByItself,
        file: None,
    }
}

fn code_of(outcome: &Outcome) -> Option<ErrorCode> {
    match outcome {
        Outcome::Answer(_) => None,
        Outcome::Failure(failure) => Some(failure.code),
    }
}

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failure(failure) => failure,
        Outcome::Answer(answer) => panic!("an answer: {answer:?}"),
    }
}

fn answered(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Answer(answer) => *answer,
        Outcome::Failure(failure) => panic!("a failure: {failure:?}"),
    }
}
