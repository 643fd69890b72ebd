//! The control protocol of a run: frames come out whole however they were cut, or not at all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use panorama_gateway::process::fuzzing::{framed, frames, message, strings};

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    let whole = frames(std::iter::once(bytes));
    let size = usize::from(*size).max(1);
    assert_eq!(frames(bytes.chunks(size)), whole);
    let args = usize::from(size as u8 % 8);
    for frame in &whole {
        message(frame);
        if let Some((found, _)) = strings(frame, args) {
            assert_eq!(found, args);
        }
    }
    let sent = framed(bytes).expect("below the bound");
    assert_eq!(frames(sent.chunks(size)), [bytes]);
    message(bytes);
    strings(bytes, args);
});
