//! What a fuzzer sees of the control protocol (`--cfg fuzzing` only).

use super::wire::{Inbox, Order, Report, Start, Strings, push_frame};

/// Cuts what came in pieces into frames; none after a frame that is refused.
pub fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut inbox = Inbox::default();
    let mut frames = Vec::new();
    for piece in pieces {
        inbox.push(piece);
        loop {
            match inbox.frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return frames,
            }
        }
    }
    frames
}

/// Reads a frame as each kind of message there is; whether it was any.
pub fn message(frame: &[u8]) -> bool {
    let start = serde_json::from_slice::<Start>(frame).is_ok();
    let order = serde_json::from_slice::<Order>(frame).is_ok();
    start | order | serde_json::from_slice::<Report>(frame).is_ok()
}

/// Reads a frame as the strings of a start: how many arguments and variables it has.
pub fn strings(block: &[u8], args: usize) -> Option<(usize, usize)> {
    Strings::read(block, args).map(|strings| (strings.args.len(), strings.env.len()))
}

/// A frame as it is sent.
pub fn framed(payload: &[u8]) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    push_frame(&mut frame, payload).ok().map(|()| frame)
}
