mod property;

use serde_json::json;

use super::own::MOST_SECRETS;
use super::*;

const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.s1gnaTure_-x";

fn shown(text: &str) -> String {
    Redactor::default().text(text)
}

#[test]
fn pairs_whose_key_names_a_secret() {
    for key in [
        "access_token",
        "refresh_token",
        "api_key",
        "service_role_key",
        "secret",
        "password",
        "authorization",
        "cookie",
        "session",
        "session_id",
        "token",
    ] {
        let camel = key.split('_').enumerate().map(|(at, word)| match at {
            0 => word.to_owned(),
            _ => format!("{}{}", word[..1].to_ascii_uppercase(), &word[1..]),
        });
        let camel = camel.collect::<String>();
        for key in [key.to_owned(), key.to_ascii_uppercase(), key.replace('_', "-"), camel] {
            for form in [
                "KEY=VALUE",
                "KEY: VALUE",
                "KEY = VALUE",
                "KEY='VALUE'",
                "my_KEY=\"VALUE\"",
                "{\"KEY\":\"VALUE\"}",
                "{\"KEY\" : \n \"VALUE\"}",
                "{'KEY': 'VALUE'}",
                "`KEY`: `VALUE`",
                "{\\\"KEY\\\":\\\"VALUE\\\"}",
                "x[KEY]=VALUE",
                "KEY => VALUE",
                "KEY := `VALUE`",
                "\x1b[3mKEY\x1b[0m\x1b[2m=\x1b[0mVALUE\x1b[0m",
                "?a=b&KEY=VALUE&c=d",
                "%3FKEY%3DVALUE",
                "{\"KEY\":[\"VALUE\", \"VALUE\"]}",
                "KEY: Some(\"VALUE\")",
                "{'KEY': b'VALUE'}",
                "KEY: <VALUE",
            ] {
                let text = form.replace("KEY", &key).replace("VALUE", "aB3-x_9~");
                let wanted = form.replace("KEY", &key).replace("VALUE", MARK).replace("<[", "[");
                assert_eq!(shown(&text), wanted, "{text}");
            }
        }
    }
}

#[test]
fn pairs_of_more_than_one_word() {
    for (text, wanted) in [
        ("token=abc x=1", "token=[REDACTED] x=1"),
        ("refresh_token: abc, next", "refresh_token: [REDACTED], next"),
        ("apiKey = 'a b'", "apiKey = '[REDACTED]'"),
        ("OPENAI_API_KEY=abc", "OPENAI_API_KEY=[REDACTED]"),
        ("the API key: abc", "the API key: [REDACTED]"),
        ("service role key = abc", "service role key = [REDACTED]"),
        ("Session ID: 7", "Session ID: [REDACTED]"),
        ("https://x/y?apikey=K&vsn=2", "https://x/y?apikey=[REDACTED]&vsn=2"),
        ("Authorization: Basic dXNlcjpw\nnext", "Authorization: [REDACTED]\nnext"),
        ("authorization=Basic dXNlcjpw next", "authorization=[REDACTED] next"),
        ("Authorization: Digest username=\"a\", b=\"c\"\nd", "Authorization: [REDACTED]\nd"),
        ("Set-Cookie: a=b; c=d", "Set-Cookie: [REDACTED]"),
        ("Cookie: a=it's; c=d", "Cookie: [REDACTED]"),
        ("cookie=a=b; c=d status=200", "cookie=[REDACTED] status=200"),
        ("-H \"Authorization: Basic abc\" url", "-H \"Authorization: [REDACTED]\" url"),
        ("-H 'Authorization: Basic abc' url", "-H 'Authorization: [REDACTED]' url"),
        ("{\"x\" token=\"abc def\" no JSON", "{\"x\" token=\"[REDACTED]\" no JSON"),
        ("token=\"never closed", "token=\"[REDACTED]"),
        ("password=\"a\\\"b\" c", "password=\"[REDACTED]\" c"),
        ("password=ab\\ cd", "password=[REDACTED]"),
        ("token=authorization: Basic abc", "token=[REDACTED] [REDACTED]"),
        ("token: Bearer abc", "token: [REDACTED]"),
        ("token=[REDACTED]abc", "token=[REDACTED]"),
        ("headers[\"token\"] = \"abc\";", "headers[\"token\"] = \"[REDACTED]\";"),
        ("{\"api_key\": 5f3a9b}", "{\"api_key\": [REDACTED]}"),
        ("{\"token\": nullable}", "{\"token\": [REDACTED]}"),
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
    for message in [
        "got token=abc\"def\nAuthorization: Basic abc\ty",
        "token=",
        "token: '",
        "token: `abc",
        "unexpected token: [",
        "token: Some(\"abc",
        "cookie: abc=",
        "Authorization: Digest username=\"abc",
        "bearer ",
        "Bearer \"abc",
        "https://a:abc@x",
        "{\"token\": \"abc",
        "{'token': ['abc', 'abc",
        "{'token': ",
        "'token': [",
        "ends in \\",
        "token=abc\\",
    ] {
        let line = json!({"message": message, "level": "INFO"}).to_string();
        let shown = shown(&line);
        let back: Value = serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{shown}"));
        assert_eq!(back["level"], "INFO", "{shown}");
        assert!(!shown.contains("abc"), "{shown}");
    }
}

#[test]
fn what_starts_inside_a_quoted_value_ends_there() {
    for (text, wanted) in [
        ("secret:`a secret:\"` b \"c\" d", "secret:`[REDACTED]` b \"c\" d"),
        ("bearer \"secret:'\"' x 'y'", "bearer \"[REDACTED]\"' x 'y'"),
        ("token:ghs_1234(\"x\"", "token:[REDACTED]\"x\""),
        ("token:`cookie: r`\" x", "token:`[REDACTED]`\" x"),
        (
            "Authorization: Digest token=\"abc\"\nplain \"text\"",
            "Authorization: [REDACTED]\nplain \"text\"",
        ),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn secrets_by_their_look() {
    for secret in [
        JWT,
        "eyJhbGciOiJub25lIn0.eyJjdXQiOjF9",
        "sk-0123456789abcdef",
        "sk-proj-0123456789_abcdef-x",
        "sk-ant-api03-0123456789",
        "AIzaSyA0123456789abcdef",
        "ghp_0123456789abcdef",
        "github_pat_11ABCDEFG0",
        "xoxb-123456789-abc",
        "xoxp-123456789-abc",
        "AKIAIOSFODNN7EXAMPLE",
        "sb_secret_0123456789",
    ] {
        for (before, after) in [
            ("before ", ", after"),
            ("\"", "\""),
            ("(", ")"),
            ("a=", "&b"),
            ("\\n", "\\n"),
            ("é", "é"),
            ("_", " "),
            ("", ""),
        ] {
            assert_eq!(
                shown(&format!("{before}{secret}{after}")),
                format!("{before}{MARK}{after}")
            );
        }
    }
}

#[test]
fn what_follows_bearer() {
    for (text, wanted) in [
        ("bearer abc.def rest", "bearer [REDACTED] rest"),
        ("Bearer \"abc def\" rest", "Bearer \"[REDACTED]\" rest"),
        ("BEARER\tabc+/=, rest", "BEARER\t[REDACTED], rest"),
        ("h=Bearer%20abc&x", "h=Bearer%20[REDACTED]&x"),
        ("h=Bearer+abc&x", "h=Bearer+[REDACTED]&x"),
        ("a Bearer <abc> x", "a Bearer [REDACTED] x"),
        ("needs a Bearer token.", "needs a Bearer token."),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn userinfo_of_urls() {
    for (text, wanted) in [
        ("postgres://u:p@h:1/x", "postgres://[REDACTED]@h:1/x"),
        ("https://u:a@b@h/x?c=d@e", "https://[REDACTED]@h/x?c=d@e"),
        ("ssh://git@h/x", "ssh://[REDACTED]@h/x"),
        (r#"{"u":"https:\/\/u:p@h\/x"}"#, r#"{"u":"https:\/\/[REDACTED]@h\/x"}"#),
        ("http://proxy.example:80/", "http://proxy.example:80/"),
        ("https://h/x?mail=a@b", "https://h/x?mail=a@b"),
        ("token=https://u:p,q@h/x y", "token=[REDACTED] y"),
        ("bearer ://,@ x", "bearer [REDACTED] x"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn ordinary_text_is_left_alone() {
    for text in [
        "disk-usage-percent and task-0123456789",
        "panorama_gateway::backend::session::refresh",
        "tokens: 5 used, max_tokens: 5, \"max_tokens\": 4096, 12:30:01",
        "the access token expired; the session ended, the password is wrong",
        "{\"token\": 5, \"session\": null, \"cookie\": true, \"password\": \"\", \"secret\": {}}",
        "token, secret and cookie",
        "eyJ is how a header starts, and eyJfile.",
        "MAKIAVELLI and an AKIA",
        "sk-learn, xox-, ghp_, AIza",
        "a http://[::1]:80/ b",
        "sessions=4 passwords: 3 tokenizer=x authorization_url: y",
        "ä token",
        "key: value, id=7",
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
    // A word begins behind it.
    assert_eq!(redactor.text("abcdefgh-ownsk-0123456789"), "[REDACTED][REDACTED]");
}

#[test]
fn own_secrets_are_found_escaped_and_encoded() {
    let secret = "a/b\"c\\d +é\u{1}=x";
    let redactor = Redactor::default();
    redactor.add_secret(secret);
    let once = json!({ "deep": secret }).to_string();
    let twice = json!({ "line": once }).to_string();
    for text in [
        secret.to_owned(),
        once,
        twice,
        format!("{secret:?}"),
        "a\\/b\\\"c\\\\d +é\\u0001=x".to_owned(),
        "?q=a%2Fb%22c%5Cd%20%2B%C3%A9%01%3Dx&".to_owned(),
        "?q=a%2fb%22c%5cd%20%2b%c3%a9%01%3dx&".to_owned(),
        "?q=a%2Fb%22c%5Cd+%2B%C3%A9%01%3Dx&".to_owned(),
    ] {
        let shown = redactor.own_secrets(text.as_str());
        assert_eq!(shown.matches(MARK).count(), 1, "{text} -> {shown}");
        if text.starts_with('{') {
            assert!(serde_json::from_str::<Value>(&shown).is_ok(), "{shown}");
        }
    }
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
fn own_secrets_that_are_named_again_are_still_found() {
    let redactor = Redactor::default();
    let secrets = ["first-secret-of-ours", "second/secret of ours", "third-secret-of-ours"];
    for secret in secrets.iter().chain(&secrets).chain(secrets.iter().rev()) {
        redactor.add_secret(secret);
        for known in secrets.iter().take(1) {
            assert_eq!(redactor.own_secrets(*known), MARK, "after {secret}");
        }
    }
    for secret in secrets {
        assert_eq!(redactor.own_secrets(secret), MARK);
    }
}

#[test]
fn values_keep_their_shape() {
    let value = json!({
        "accessToken": "x", "n": 1, "deep": [{"password": "p", "ok": "yes"}], "token": 5,
        "set-cookie": ["a", ["b"], 1], "secret": {"name": "n", "token": "t"}, "ghp_0123456789": "k",
    });
    assert_eq!(
        Redactor::default().value(&value),
        json!({
            "accessToken": MARK, "n": 1, "deep": [{"password": MARK, "ok": "yes"}], "token": 5,
            "set-cookie": [MARK, [MARK], 1], "secret": {"name": "n", "token": MARK}, MARK: "k",
        })
    );
}

#[test]
fn a_result_loses_own_secrets_only() {
    let redactor = Redactor::default();
    redactor.add_secret("own-12345678");
    let result =
        json!({"token": "x", "session_id": "s", "out": ["an own-12345678"], "own-12345678": 1});
    assert_eq!(
        redactor.own_secrets_in(result),
        json!({"token": "x", "session_id": "s", "out": ["an [REDACTED]"], MARK: 1})
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
    let grown = redactor.arguments(&["token=a;".repeat(32)]);
    assert_eq!(grown, ["[REDACTED_CONTENT:256]"], "too long when redacted");
    assert_eq!(redactor.command_line("claude", &["--version"]), "claude --version");
}

#[test]
fn a_prompt_that_had_to_be_an_argument_is_hidden() {
    let redactor = Redactor::default();
    let arguments = ["exec", "-token", "k", "--session", "--json", "KEY=x", "token=y", "hello"];
    let wanted = [
        "exec",
        "-token",
        "[REDACTED_CONTENT:1]",
        "--session",
        "--json",
        "KEY=x",
        "token=[REDACTED]",
        "[REDACTED_CONTENT:5]",
    ];
    let shown = redactor.arguments_with_prompt(&arguments, Some("hello"));
    assert_eq!(shown, wanted);
    let line = redactor.command_line("codex", &["--api-key=abc"]);
    assert_eq!(line, "codex --api-key=[REDACTED_CONTENT:3]");
    assert_eq!(redactor.text(&line), line, "a log line with it in says as much");
}
