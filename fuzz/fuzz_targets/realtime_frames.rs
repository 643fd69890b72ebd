//! A realtime socket's frames, a line each; the first byte picks the version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use panorama_gateway::phoenix::{Frame, Version};
use panorama_gateway::sandbox::realtime_fuzzing::Session;
use serde_json::{Value, json};

fn check(version: Version, frame: &Frame) {
    let text = frame.encode(version).expect("what we say can be said");
    let read = Frame::decode(version, &text).expect("and read");
    assert_eq!((&read.event, &read.payload), (&frame.event, &frame.payload));
    match frame.event.as_str() {
        // Clients ignore a close with another ref.
        "phx_close" => assert_eq!(frame.reference, frame.join_ref),
        "phx_reply" => assert!(frame.payload["status"] == "ok" || frame.payload["status"] == "error"),
        "system" => assert_eq!(frame.reference, None),
        other => panic!("{other}"),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let version = if first % 2 == 0 { Version::V1 } else { Version::V2 };
    let text = String::from_utf8_lossy(rest);
    let mut session = Session::new(version);
    for line in text.split('\n') {
        let Some(answers) = session.receive(line) else { continue };
        assert!(answers.len() <= 3, "{answers:?}");
        let asked = Frame::decode(version, line).expect("it was read before");
        for answer in &answers {
            assert_eq!(answer.topic, asked.topic);
            if answer.event == "phx_reply" {
                assert_eq!(answer.reference, asked.reference);
            }
            check(version, answer);
        }
        for told in session.change() {
            let told = Frame::decode(version, &told).expect("ours");
            let ids = told.payload["ids"].as_array().expect("a list");
            assert!(!ids.is_empty() && !ids.contains(&json!(0)), "{ids:?}");
            assert_eq!(told.payload["data"]["errors"], Value::Null);
        }
    }
    for frame in session.expire() {
        check(version, &frame);
    }
    assert!(session.change().is_empty(), "only a token has rights");
});
