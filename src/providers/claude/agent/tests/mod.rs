//! Runs of subagents by Claude Code: calls, recorded runs, and what no recording has.

mod planning;
mod recorded;
mod written;

use crate::providers::agent::{AgentEvent, AgentFormat, AgentOutcome, AgentRequest, Stream};
use crate::providers::claude::ClaudeCode;
use crate::providers::claude::tests::{LIMIT, call, object};
use crate::providers::{Left, OutputMode, Provider};

fn request(wants: &str) -> AgentRequest {
    AgentRequest {
        json_schema: (wants == "object")
            .then(|| object(serde_json::json!({"type": "object", "properties": {}}))),
        ..AgentRequest::new("q".to_owned(), LIMIT)
    }
}

/// What a run tells when its stdout comes in these pieces, and what it comes to. The stdout of one
/// that streams is not there at the end.
fn run(
    request: &AgentRequest,
    mode: &str,
    pieces: &[&[u8]],
    left: &Left,
) -> (Vec<AgentEvent>, AgentOutcome) {
    let plan = call(mode);
    let mut reader = ClaudeCode.agent_reader(request, &plan);
    let (mut stream, mut events) = (Stream::new(reader.as_mut()), Vec::new());
    for piece in pieces {
        stream.push(piece, &mut events);
    }
    stream.end(&mut events);
    let stdout = match plan.output {
        OutputMode::Stream => String::new(),
        OutputMode::Stdout | OutputMode::File(_) => left.stdout.clone(),
    };
    let outcome = reader.outcome(&Left { stdout, ..left.clone() });
    (events, outcome)
}

fn streaming() -> AgentRequest {
    AgentRequest { format: AgentFormat::Stream, ..request("text") }
}
