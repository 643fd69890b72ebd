//! Reads a subagent's run as it goes on, and keeps what its end is judged by.

use std::time::Duration;

use serde_json::{Map, Value};

use super::events::Telling;
use super::outcome;
use crate::providers::agent::{AgentEvent, AgentOutcome, AgentReader, AgentRequest};
use crate::providers::claude::decode;
use crate::providers::{Left, OutputMode, Plan};

/// For a run of this plan.
pub(in crate::providers::claude) fn reader(
    request: &AgentRequest,
    plan: &Plan,
) -> Box<dyn AgentReader> {
    let printed = match plan.output {
        OutputMode::Stream => Printed::Events,
        OutputMode::Stdout | OutputMode::File(_) if decode::prints_json(plan) => Printed::Object,
        OutputMode::Stdout | OutputMode::File(_) => Printed::Text,
    };
    Box::new(Reader {
        printed,
        object: request.json_schema.is_some(),
        time_limit: plan.time_limit,
        telling: Telling::new(request.live),
        seen: false,
        session: None,
        result: None,
    })
}

/// What the CLI was told to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Printed {
    Events,
    Object,
    Text,
}

#[derive(Debug)]
struct Reader {
    printed: Printed,
    /// A schema was given.
    object: bool,
    time_limit: Duration,
    telling: Telling,
    /// There was a line.
    seen: bool,
    /// The session that the CLI said it began.
    session: Option<String>,
    /// The last result so far: others may follow it, and lines of another type.
    result: Option<Map<String, Value>>,
}

impl AgentReader for Reader {
    fn take(&mut self, line: Map<String, Value>, events: &mut Vec<AgentEvent>) {
        if self.printed != Printed::Events {
            return;
        }
        self.seen = true;
        let text = |name: &str| line.get(name).and_then(Value::as_str);
        match (text("type"), text("subtype")) {
            (Some("assistant"), _) => self.telling.assistant(&line, events),
            (Some("user"), _) => self.telling.user(&line, events),
            (Some("system"), Some("init")) => {
                let session = text("session_id").filter(|id| !id.is_empty());
                self.session = session.map(str::to_owned).or(self.session.take());
            }
            (Some("result"), _) => {
                self.telling.pause(events);
                self.result = Some(line);
            }
            (Some(_) | None, _) => {}
        }
    }

    fn end(&mut self, events: &mut Vec<AgentEvent>) {
        self.telling.flush(events);
    }

    fn outcome(&self, left: &Left) -> AgentOutcome {
        let printed = match self.printed {
            Printed::Object => decode::result(&left.stdout),
            Printed::Events | Printed::Text => None,
        };
        let result = self.result.as_ref().or(printed.as_ref());
        let (verdict, parse_error) = match (decode::stopped(self.time_limit, left), result) {
            (Some(failure), _) => (Err(failure), None),
            (None, Some(result)) => outcome::of_result(result, self.object, left),
            (None, None) if self.printed == Printed::Text => outcome::of_text(left),
            (None, None) => {
                outcome::without_result(left, self.seen || !left.stdout.trim().is_empty())
            }
        };
        let metadata = outcome::metadata(result, self.session.as_deref());
        AgentOutcome { result: verdict, metadata, parse_error }
    }
}
