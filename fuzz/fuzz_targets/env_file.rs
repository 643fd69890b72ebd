//! Env files: read or refused, the refusal quoting nothing of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use panorama_gateway::config::fuzzing::env_file;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Err(reason) = env_file(&text) {
        let known = ["not of the form NAME=value", " dollar signs", " bytes"];
        assert!(known.iter().any(|end| reason.ends_with(end)), "{reason}");
    }
});
