use proptest::prelude::*;
use serde_json::json;

use super::*;

const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.s1gnaTure_-x";

fn shown(text: &str) -> String {
    Redactor::default().text(text)
}

#[test]
fn pairs_whose_key_names_a_secret() {
    for (text, wanted) in [
        ("token=abc x=1", "token=[REDACTED] x=1"),
        ("refresh_token: abc, next", "refresh_token: [REDACTED], next"),
        ("apiKey = 'a b'", "apiKey = '[REDACTED]'"),
        ("OPENAI_API_KEY=abc", "OPENAI_API_KEY=[REDACTED]"),
        ("https://x/y?apikey=K&vsn=2", "https://x/y?apikey=[REDACTED]&vsn=2"),
        ("Authorization: Basic dXNlcjpw\nnext", "Authorization: [REDACTED]\nnext"),
        ("Set-Cookie: a=b; c=d", "Set-Cookie: [REDACTED]"),
        ("-H \"Authorization: Basic abc\" url", "-H \"Authorization: [REDACTED]\" url"),
        ("token: Some(\"abc\")", "token: [REDACTED]\")"),
        ("token=\"never closed", "token=\"[REDACTED]"),
        ("password=\"a\\\"b\" c", "password=\"[REDACTED]\" c"),
        ("token=authorization: Basic abc", "token=[REDACTED] [REDACTED]"),
        ("token: Bearer abc", "token: [REDACTED] [REDACTED]"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn json_at_any_depth_stays_json() {
    let inner = json!({"session_id": "a\"b\\", "token": 5, "cookie": null, "password": ""});
    let middle = json!({"text": inner.to_string(), "secret": "x\n\"y"});
    let outer = json!({"line": middle.to_string()}).to_string();
    let shown = shown(&outer);
    let outer: Value = serde_json::from_str(&shown).unwrap();
    let middle: Value = serde_json::from_str(outer["line"].as_str().unwrap()).unwrap();
    assert_eq!(middle["secret"], "[REDACTED]");
    let inner: Value = serde_json::from_str(middle["text"].as_str().unwrap()).unwrap();
    assert_eq!(
        inner,
        json!({"session_id": "[REDACTED]", "token": 5, "cookie": null, "password": ""})
    );
}

#[test]
fn a_log_line_stays_one_line_of_json() {
    let line = json!({"message": "got token=abc\"def\nAuthorization: Basic x\ty", "level": "INFO"});
    let shown = shown(&line.to_string());
    let back: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(back["level"], "INFO");
    assert!(!shown.contains("abc") && !shown.contains("Basic"), "{shown}");
}

#[test]
fn secrets_by_their_look() {
    for secret in [
        JWT,
        "sk-0123456789abcdef",
        "sk-ant-api03-0123456789",
        "AIzaSyA0123456789abcdef",
        "ghp_0123456789abcdef",
        "github_pat_11ABCDEFG0",
        "xoxb-123456789-abc",
        "AKIAIOSFODNN7EXAMPLE",
        "sb_secret_0123456789",
    ] {
        assert_eq!(shown(&format!("before {secret}, after")), "before [REDACTED], after");
    }
    assert_eq!(shown("bearer abc.def rest"), "bearer [REDACTED] rest");
    assert_eq!(shown("postgres://u:p@h:1/x"), "postgres://[REDACTED]@h:1/x");
    assert_eq!(shown("http://proxy.example:80/"), "http://proxy.example:80/");
}

#[test]
fn ordinary_text_is_left_alone() {
    for text in [
        "disk-usage-percent and task-0123456789",
        "panorama_gateway::backend::session::refresh",
        "tokens: 5 used, 12:30:01",
        "eyJ is how a header starts",
        "ä token",
        "",
    ] {
        assert_eq!(shown(text), text);
    }
}

#[test]
fn own_secrets_go_by_value_everywhere() {
    let redactor = Redactor::default();
    redactor.add_secret("short");
    redactor.add_secret("abcdefgh-own");
    redactor.add_secret("own-12345678");
    assert_eq!(redactor.own_secrets("short token=x abcdefgh-own!"), "short token=x [REDACTED]!");
    assert_eq!(redactor.own_secrets("<abcdefgh-own-12345678>"), "<[REDACTED]>", "overlapping");
}

#[test]
fn the_oldest_own_secrets_are_forgotten_first() {
    let redactor = Redactor::default();
    redactor.add_secret("the-anon-key");
    for number in 0..MOST_SECRETS {
        redactor.add_secret("the-anon-key");
        redactor.add_secret(&format!("rotated-{number:04}"));
    }
    assert_eq!(redactor.own_secrets("the-anon-key"), MARK);
    assert_eq!(redactor.own_secrets("rotated-0255"), MARK);
    assert_eq!(redactor.own_secrets("rotated-0000"), "rotated-0000");
}

#[test]
fn values_keep_their_shape() {
    let value = json!({"accessToken": "x", "n": 1, "deep": [{"password": "p", "ok": "yes"}]});
    assert_eq!(
        Redactor::default().value(&value),
        json!({"accessToken": MARK, "n": 1, "deep": [{"password": MARK, "ok": "yes"}]})
    );
}

#[test]
fn arguments_hide_content_and_keep_options() {
    let redactor = Redactor::default();
    let long = "x".repeat(257);
    let arguments = [
        "-p",
        "--model",
        "sonnet",
        "--append-system-prompt",
        "hidden",
        "--json-schema={}",
        "--api-key",
        "k",
        "--verbose",
        "two words",
        long.as_str(),
    ];
    let shown = redactor.arguments(&arguments);
    assert_eq!(
        shown.join(" "),
        "-p --model sonnet --append-system-prompt [REDACTED_CONTENT:6] \
         --json-schema=[REDACTED_CONTENT:2] --api-key [REDACTED_CONTENT:1] --verbose \
         [REDACTED_CONTENT:9] [REDACTED_CONTENT:257]"
    );
    assert_eq!(redactor.arguments(&shown), shown);
    assert_eq!(redactor.command_line("claude", &["--version"]), "claude --version");
}

#[test]
fn hostile_text_costs_no_more_than_any_other() {
    // Quadratic behaviour would take minutes here.
    for part in
        ["token=", "eyJ", "AKIA", "sk-", "://", "bearer ", "token=\\\"", "=:", "xoxb-", "\\"]
    {
        let text = part.repeat(400_000);
        let once = shown(&text);
        assert_eq!(shown(&once), once, "{part}");
    }
}

fn planted() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9]{12,24}".prop_map(|s| format!("token={s}")),
        "[A-Za-z0-9]{12,24}".prop_map(|s| format!("\"refresh_token\": \"{s}\"")),
        "[A-Za-z0-9]{12,24}".prop_map(|s| format!("Bearer {s}")),
        "[A-Za-z0-9]{12,24}".prop_map(|s| format!(" sk-{s}")),
        "[A-Za-z0-9]{12,24}".prop_map(|s| format!("ghp_{s}")),
        "[A-Za-z0-9]{12,24}".prop_map(|s| format!("https://user:{s}@host/")),
        "[A-Za-z0-9]{12,24}".prop_map(|s| format!("eyJhbGciOiJI.{s}.sig")),
    ]
}

fn secret_of(planted: &str) -> &str {
    planted
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !["eyJhbGciOiJI", "refresh", "Bearer"].contains(word))
        .max_by_key(|word| word.len())
        .unwrap()
}

proptest! {
    #[test]
    fn planted_secrets_never_survive(
        before in "[ -~\n]{0,40}", plant in planted(), after in "(\n[ -~\n]{0,40})?"
    ) {
        // A blank in front, lest the text before make another word of it.
        let text = format!("{before} {plant}{after}");
        let shown = shown(&text);
        prop_assert!(!shown.contains(secret_of(&plant)), "{text:?} -> {shown:?}");
    }

    #[test]
    fn own_secrets_never_survive(
        parts in proptest::collection::vec("[a-z =:\"\\\\\n]{0,12}", 1..5),
        secret in "[A-Z0-9]{8,20}",
    ) {
        let redactor = Redactor::default();
        redactor.add_secret(&secret);
        let text = parts.join(&secret);
        prop_assert!(!redactor.text(&text).contains(&secret) || !text.contains(&secret));
        prop_assert!(!redactor.own_secrets(&text).contains(&secret));
    }

    #[test]
    fn twice_is_once(
        parts in proptest::collection::vec(
            prop_oneof![
                planted(),
                "[ -~\n]{0,20}",
                "\\PC{0,10}",
                Just("token".to_owned()), Just("=".to_owned()), Just("\\\"".to_owned()),
                Just("bearer ".to_owned()), Just("://".to_owned()), Just("@".to_owned()),
                Just("OWNSECRET1".to_owned()), Just("sk-".to_owned()), Just("[REDACTED]".to_owned()),
            ],
            0..10,
        )
    ) {
        let redactor = Redactor::default();
        redactor.add_secret("OWNSECRET1");
        let once = redactor.text(&parts.concat());
        prop_assert_eq!(redactor.text(&once), once);
    }
}
