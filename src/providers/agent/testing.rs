//! What tests of readers have in common.

use std::time::Duration;

use super::{AgentEvent, AgentReader, AgentRequest, Stream};
use crate::process::{Ended, Exit};
use crate::providers::Left;

/// A restricted run that asks for this.
pub fn request(prompt: &str) -> AgentRequest {
    AgentRequest::new(prompt.to_owned(), Duration::from_mins(30))
}

/// What is told while a stdout comes in these pieces.
pub fn read(reader: &mut dyn AgentReader, pieces: &[&[u8]]) -> Vec<AgentEvent> {
    let (mut stream, mut events) = (Stream::new(reader), Vec::new());
    for piece in pieces {
        stream.push(piece, &mut events);
    }
    stream.end(&mut events);
    events
}

/// A text in pieces that end at these places, in any order.
pub fn pieces(text: &[u8], cuts: &[proptest::sample::Index]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    cuts.push(text.len());
    cuts.sort_unstable();
    let mut from = 0;
    let piece = |to| text[std::mem::replace(&mut from, to)..to].to_vec();
    cuts.into_iter().map(piece).collect()
}

/// Of a run that ended by itself with this exit code.
pub fn left(code: i32, stdout: &str, stderr: &str) -> Left {
    Left {
        stdout: stdout.to_owned(),
        stdout_truncated: false,
        stderr: stderr.to_owned(),
        exit: Exit::Code(code),
        ended: Ended::ByItself,
        file: None,
    }
}

/// Whether a text is the one of a table, whose end may be left out with the sign `…`.
pub fn is_as_written(written: &str, text: &str) -> bool {
    match written.strip_suffix('…') {
        Some(beginning) => text.starts_with(beginning),
        None => text == written,
    }
}
