//! A subagent's run by an agent CLI: what is asked, what it tells while it goes on, what it comes
//! to. Data, and what all three CLIs have in common.

pub mod content;
mod event;
mod lines;
mod names;
mod outcome;
mod request;
mod run;
pub mod shapes;
#[cfg(test)]
pub mod testing;

pub use event::{AgentEvent, EventKind};
pub use lines::{LINE_LIMIT, Stream};
pub use names::ToolNames;
pub use outcome::{AgentOutcome, ContentType, Envelope};
pub use request::{Access, AgentFormat, AgentRequest, means_web_search};
pub use run::{AgentRun, run_agent};

use serde_json::{Map, Value};

use super::Left;

/// Reads what one run prints, object by object, as it comes. A state machine without effects: the
/// events do not depend on when what arrives.
pub trait AgentReader: Send {
    /// The next line of stdout that is a JSON object. What it tells is put behind `events`; text
    /// that may still go on is held.
    fn take(&mut self, line: Map<String, Value>, events: &mut Vec<AgentEvent>);

    /// Nothing more comes: what was held is put behind `events`.
    fn end(&mut self, events: &mut Vec<AgentEvent>);

    /// What the run came to, after [`Self::end`]. `left.stdout` is whole (within its bound) for a
    /// plan whose output is [`super::OutputMode::Stdout`] and must not be needed for one that
    /// streams: what decides was kept by the reader.
    fn outcome(&self, left: &Left) -> AgentOutcome;
}
