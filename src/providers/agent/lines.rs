//! Cuts a CLI's stdout into lines, whatever pieces it comes in, and has them read.

use serde_json::{Map, Value, json};

use super::{AgentEvent, AgentReader, EventKind};
use crate::backend::json::parse_json;

/// Bytes of a line that is still read; a longer one becomes an event that says so.
pub const LINE_LIMIT: usize = 8 * 1024 * 1024;
/// Bytes of such a line that are shown.
const PREVIEW: usize = 2_000;
/// A buffer that grew over this is given back once its line is done.
const KEPT_CAPACITY: usize = 64 * 1024;

/// Feeds a reader with what comes from stdout. Bounded: it holds one line, of at most
/// [`LINE_LIMIT`] bytes.
pub struct Stream<'a> {
    reader: &'a mut dyn AgentReader,
    line: Vec<u8>,
    /// Bytes of the line so far, those that are not kept included.
    length: usize,
    ignored: u64,
}

impl<'a> Stream<'a> {
    /// For one run.
    pub fn new(reader: &'a mut dyn AgentReader) -> Self {
        Self { reader, line: Vec::new(), length: 0, ignored: 0 }
    }

    /// The next bytes; what they tell is put behind `events`.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<AgentEvent>) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            self.keep(line);
            self.finish_line(events);
            rest = after.get(1..).unwrap_or_default();
        }
        self.keep(rest);
    }

    /// Nothing more comes. How many lines were no JSON objects (blank ones aside).
    pub fn end(mut self, events: &mut Vec<AgentEvent>) -> u64 {
        self.finish_line(events);
        self.reader.end(events);
        self.ignored
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len());
        let room = LINE_LIMIT.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn finish_line(&mut self, events: &mut Vec<AgentEvent>) {
        let length = std::mem::take(&mut self.length);
        if length > LINE_LIMIT {
            events.push(too_long(&self.line, length));
        } else {
            match object(&self.line) {
                Some(object) => self.reader.take(object, events),
                None if self.line.iter().all(u8::is_ascii_whitespace) => {}
                None => self.ignored += 1,
            }
        }
        self.line.clear();
        self.line.shrink_to(KEPT_CAPACITY);
    }
}

impl std::fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("length", &self.length).finish_non_exhaustive()
    }
}

fn object(line: &[u8]) -> Option<Map<String, Value>> {
    let line = line.trim_ascii();
    if !(line.starts_with(b"{") && line.ends_with(b"}")) {
        return None;
    }
    let text = String::from_utf8_lossy(line);
    match parse_json(text.as_bytes()) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) | Err(_) => None,
    }
}

fn too_long(line: &[u8], length: usize) -> AgentEvent {
    let preview = String::from_utf8_lossy(&line[..line.len().min(PREVIEW)]).into_owned();
    let Value::Object(payload) = json!({
        "message": "A line of the agent's output was too long to be read",
        "truncated": true,
        "original_bytes": length,
        "preview": preview,
    }) else {
        return AgentEvent { kind: EventKind::System, payload: Map::new() };
    };
    AgentEvent { kind: EventKind::System, payload }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::process::{Ended, Exit};
    use crate::providers::Left;
    use crate::providers::agent::{AgentOutcome, ContentType, Envelope};

    /// Tells of every object as it is.
    struct Echo;

    impl AgentReader for Echo {
        fn take(&mut self, line: Map<String, Value>, events: &mut Vec<AgentEvent>) {
            events.push(AgentEvent { kind: EventKind::Message, payload: line });
        }

        fn end(&mut self, events: &mut Vec<AgentEvent>) {
            events.push(AgentEvent { kind: EventKind::System, payload: Map::new() });
        }

        fn outcome(&self, left: &Left) -> AgentOutcome {
            let result = Ok(Envelope::new(left.stdout.clone().into(), ContentType::Text));
            AgentOutcome { result, metadata: Map::new(), parse_error: None }
        }
    }

    fn read(pieces: &[&[u8]]) -> (Vec<AgentEvent>, u64) {
        let mut reader = Echo;
        let (mut stream, mut events) = (Stream::new(&mut reader), Vec::new());
        for piece in pieces {
            stream.push(piece, &mut events);
        }
        let ignored = stream.end(&mut events);
        (events, ignored)
    }

    #[test]
    fn only_lines_that_are_objects_are_read() {
        let text =
            b"{\"a\":1}\r\n\n  {\"b\":\"\\ud800\"} \nwarning\n[1]\n{half\n\xff\n{\"c\":\"\xff\"}";
        let (events, ignored) = read(&[text]);
        let shown: Vec<_> = events.iter().map(|event| json!(event.payload).to_string()).collect();
        assert_eq!(shown, ["{\"a\":1}", "{\"b\":\"\u{fffd}\"}", "{\"c\":\"\u{fffd}\"}", "{}"]);
        assert_eq!(ignored, 4);
    }

    #[test]
    fn a_line_over_the_bound_is_one_event_and_the_next_is_read() {
        let chunk = vec![b'x'; 1024 * 1024];
        let mut pieces: Vec<&[u8]> = vec![&chunk; 50];
        pieces.push(b"\n{\"a\":1}\n");
        let (events, ignored) = read(&pieces);
        assert_eq!((events.len(), ignored), (3, 0));
        assert_eq!(events[0].payload["original_bytes"], 50 * 1024 * 1024);
        assert_eq!(events[0].payload["preview"].as_str().unwrap().len(), PREVIEW);
        assert_eq!(events[1].payload["a"], 1);
    }

    #[test]
    fn a_run_is_asked_about_once_its_stream_has_ended() {
        let left = Left {
            stdout: "x".into(),
            stdout_truncated: false,
            stderr: String::new(),
            exit: Exit::Code(0),
            ended: Ended::ByItself,
            file: None,
        };
        assert_eq!(Echo.outcome(&left).result.unwrap().content, "x");
    }

    proptest! {
        #[test]
        fn no_split_changes_what_is_read(
            lines in prop::collection::vec("[{}a\"é:1 ]{0,12}|\\{\"k\":\"[a-zé]{0,9}\"\\}", 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let text = lines.join("\n").into_bytes();
            let mut cuts: Vec<usize> =
                cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            pieces.push(&text[from..]);
            prop_assert_eq!(read(&pieces), read(&[&text]));
        }
    }
}
