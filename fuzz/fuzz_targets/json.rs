//! Foreign JSON: what serde reads is read the same; the rest is read leniently or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use panorama_gateway::backend::json::{clean_json, parse_json};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let read = parse_json(data);
    if let Ok(value) = serde_json::from_slice::<Value>(data) {
        assert_eq!(read.as_ref().ok(), Some(&value));
    }
    let Ok(mut value) = read else { return };
    clean_json(&mut value);
    let sent = value.to_string();
    assert!(!sent.contains("\\u0000") || sent.contains("\\\\u0000"), "{sent:?}");
    assert_eq!(parse_json(sent.as_bytes()), Ok(value));
});
