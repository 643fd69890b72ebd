//! Whatever stands around it, a planted secret goes; and whatever the text, the price is linear.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::scan::spans_of;
use super::super::text::Text;
use super::*;

const SECRET: &str = "[A-Za-z0-9]{12,24}";

/// A secret in the form in which it is to be found, and the part that must go.
fn planted() -> impl Strategy<Value = (String, String)> {
    let forms = prop::sample::select(vec![
        "token=SECRET",
        "\"refresh_token\": \"SECRET\"",
        "'api_key': 'SECRET'",
        "password: SECRET",
        "\"set-cookie\":[\"a\",\"SECRET\"]",
        "session_id=\"two SECRET words\"",
        "authorization: Basic SECRET",
        "Bearer SECRET",
        " sk-SECRET",
        "sk-ant-SECRET",
        "AIzaSECRET",
        "AKIA0000SECRET",
        "ghp_SECRET",
        "github_pat_SECRET",
        "xoxb-SECRET",
        "sb_secret_SECRET",
        "https://user:SECRET@host/",
        "eyJhbGciOiJI.SECRET.sig",
    ]);
    (forms, SECRET).prop_map(|(form, secret)| {
        let filled = if form.contains("AKIA") { secret.to_ascii_uppercase() } else { secret };
        (form.replace("SECRET", &filled), filled)
    })
}

/// Text that leans on the rules.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        planted().prop_map(|(form, _)| form),
        "[ -~\n]{0,20}",
        "\\PC{0,10}",
        prop::sample::select(vec![
            "token",
            "=",
            ":",
            "\"",
            "'",
            "`",
            "\\",
            "\\\"",
            "\\\\\\\"",
            "bearer ",
            "://",
            "@",
            "sk-",
            "[REDACTED]",
            "[",
            "]",
            "{\"",
            "authorization: ",
            "cookie",
            ";",
            "\n",
            "\\n",
            "eyJ",
            ".",
            " ",
            "\x1b[2m",
            "OWNSECRET1",
            "Some(",
            "%3D",
            "xoxb-",
            "AKIA",
            "key",
            "session ",
            "<",
            "basic ",
            "aB3x9Zq7",
        ])
        .prop_map(str::to_owned),
    ]
}

fn looks(text: &str) -> usize {
    let text = Text::new(text);
    spans_of(&text);
    text.looks.get()
}

proptest! {
    #[test]
    fn planted_secrets_never_survive(
        before in "[ -~\n]{0,40}", (form, secret) in planted(), after in "(\n[ -~\n]{0,40})?"
    ) {
        // A blank in front, lest the text before make another word of it.
        let text = format!("{before} {form}{after}");
        let shown = shown(&text);
        prop_assert!(!shown.contains(&secret), "{text:?} -> {shown:?}");
    }

    #[test]
    fn planted_secrets_never_survive_in_json(
        before in "[a-z \n\"]{0,9}", (form, secret) in planted(), depth in 0..4, name in "[a-z]{1,4}"
    ) {
        let mut text = format!("{before} {form}");
        for _ in 0..depth {
            text = json!({"n": [1, {name.clone(): text}], "last": "unharmed"}).to_string();
        }
        let shown = shown(&text);
        prop_assert!(!shown.contains(&secret), "{text:?} -> {shown:?}");
        if depth > 0 {
            let back: Value = serde_json::from_str(&shown).unwrap();
            prop_assert_eq!(&back["last"], "unharmed", "{:?} -> {:?}", text, shown);
        }
    }

    #[test]
    fn own_secrets_never_survive(
        parts in prop::collection::vec(piece(), 1..5),
        secret in "[A-Za-z0-9 \"\\\\/+=._é-]{8,20}",
        depth in 0..3,
    ) {
        let redactor = Redactor::default();
        redactor.add_secret(&secret);
        let mut text = parts.join(&secret);
        let mut form = secret.clone();
        for _ in 0..depth {
            text = json!(text).to_string();
            form = json!(form).to_string().trim_matches('"').to_owned();
        }
        for shown in [redactor.text(&text), redactor.own_secrets(text.as_str())] {
            prop_assert!(!shown.contains(&secret) && !shown.contains(&form), "{text:?} -> {shown:?}");
        }
    }

    #[test]
    fn twice_is_once(pieces in prop::collection::vec(piece(), 0..12)) {
        let redactor = Redactor::default();
        redactor.add_secret("OWNSECRET1");
        let once = redactor.text(&pieces.concat());
        prop_assert_eq!(redactor.text(&once), once.as_str(), "from {:?}", pieces.concat());
    }

    #[test]
    fn twice_is_once_for_values(pieces in prop::collection::vec(piece(), 1..6)) {
        let redactor = Redactor::default();
        let value = json!({"token": pieces, "list": [pieces.concat()]});
        let once = redactor.value(&value);
        prop_assert_eq!(redactor.value(&once), once);
        let arguments = redactor.arguments(&pieces);
        prop_assert_eq!(redactor.arguments(&arguments), arguments);
    }

    #[test]
    fn any_text_costs_a_bounded_number_of_looks_a_byte(
        pieces in prop::collection::vec(piece(), 1..6)
    ) {
        let unit = pieces.concat();
        let text = unit.repeat(4000 / unit.len().max(1) + 1);
        prop_assert!(looks(&text) <= 100 * text.len(), "{} looks at {} of {unit:?}", looks(&text), text.len());
    }
}

#[test]
fn twice_the_text_costs_twice_the_looks() {
    for unit in [
        "token=",
        "eyJ",
        "eyJa.",
        "AKIA",
        "sk-",
        "://",
        "bearer ",
        "bearer+",
        "token=\\\"",
        "=:",
        "xoxb-",
        "\\",
        "token='",
        "token=\"",
        "\"token\":[\"",
        "authorization: ",
        "authorization: a=\"",
        "cookie=a;b=",
        "token: b'",
        "token: Some(\"",
        "token:\\\\",
        " ",
        "a",
        "session id:",
        "role key:",
        "\x1b[0m=",
        "token\x1b[",
        "]",
        "\"=",
        "%3D",
        "@",
        "token=basic ",
        "\"token\":\n",
        "bearer \"",
        "bearer '",
        "1m=",
        ":\\/\\/",
    ] {
        let (short, long) = (looks(&unit.repeat(2_000)), looks(&unit.repeat(4_000)));
        assert!(long <= 2 * short + 1_000, "{unit:?}: {short}, then {long}");
        assert!(long <= 100 * 4_000 * unit.len(), "{unit:?}: {long}");
    }
}

#[test]
fn the_text_grows_by_little() {
    // The most that a byte can cost: `key:a` becomes `key:[REDACTED]`.
    for unit in ["token:a,", "token=a;", "\"token\":\"a\",", "sk-12345678 ", "://a@"] {
        let text = unit.repeat(10_000);
        assert!(shown(&text).len() <= 4 * text.len(), "{unit}");
    }
}
