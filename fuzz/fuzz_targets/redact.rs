//! The first line is a secret of the gateway; the rest is text, the secret standing at each U+0001.
#![no_main]

use libfuzzer_sys::fuzz_target;
use panorama_gateway::observe::Redactor;

const MARK: &str = "[REDACTED]";
const CANARY: &str = "Zq7xCanaryK9";

fuzz_target!(|data: &[u8]| {
    let input = String::from_utf8_lossy(data);
    let (secret, text) = input.split_once('\n').unwrap_or(("", &input));
    let redactor = Redactor::default();

    once_is_enough(&redactor, text);
    if !text.contains(CANARY) {
        let shown = redactor.text(&format!("{text}\ntoken={CANARY}"));
        assert!(!shown.contains(CANARY), "the value of a pair is left in {shown:?}");
    }

    // What stands for a secret must not make one.
    let usable = secret.len() >= 8 && !secret.contains(['[', ']']) && !MARK.contains(secret);
    if usable {
        redactor.add_secret(secret);
        let text = text.replace('\u{1}', secret) + secret;
        let shown = once_is_enough(&redactor, &text);
        assert!(!shown.contains(secret), "an own secret is left in {shown:?}");
        let shown = redactor.own_secrets(text.as_str());
        assert!(!shown.contains(secret), "an own secret is left in {shown:?}");
        assert_eq!(redactor.own_secrets(shown.as_str()), shown);
    }
});

fn once_is_enough(redactor: &Redactor, text: &str) -> String {
    let once = redactor.text(text);
    assert_eq!(redactor.text(&once), once, "twice is not once");
    assert!(once.len() <= 16 + 4 * text.len(), "{} bytes of {}", once.len(), text.len());
    let arguments: Vec<&str> = text.split('\u{2}').collect();
    let once_more = redactor.arguments(&arguments);
    assert_eq!(redactor.arguments(&once_more), once_more);
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
        let shown = redactor.value(&value);
        assert_eq!(redactor.value(&shown), shown);
        if value.is_object() {
            let line = redactor.text(&value.to_string());
            let back = serde_json::from_str::<serde_json::Value>(&line);
            assert!(back.is_ok(), "a line of JSON became {line:?}");
        }
    }
    once
}
