//! Env files: read or refused, the refusal quoting nothing of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use panorama_gateway::config::fuzzing::env_file;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Err(reason) = env_file(&text) {
        assert!(reason.ends_with("not of the form NAME=value"), "{reason}");
    }
});
