//! Flags, plans, and outputs that no recording has.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::recorded::{left, plan, request};
use crate::process::{Ended, Exit};
use crate::providers::{
    ErrorCode, Format, Gemini, Installed, Left, ModelRequest, Outcome, Provider,
};

const HELP: &str = include_str!("../../../../tests/fixtures/providers/gemini/help.txt");

fn installed() -> Installed {
    Installed {
        command: PathBuf::from("/opt/node/bin/gemini"),
        version: Some("0.61.0".into()),
        flags: Gemini.flags(Some(HELP)),
        extensions: Vec::new(),
    }
}

fn schema() -> Format {
    let schema = json!({"type": "object", "properties": {"message": {"type": "string"}}});
    Format::Json { schema: schema.as_object().unwrap().clone() }
}

fn exited(code: i32, stdout: &str, stderr: &str) -> Left {
    Left {
        stdout: stdout.into(),
        stdout_truncated: false,
        stderr: stderr.into(),
        exit: Exit::Code(code),
        ended: Ended::ByItself,
        file: None,
    }
}

fn decode(format: Format, run: &str, left: &Left) -> Outcome {
    let request = request(format);
    Gemini.decode(&request, &plan(&request, run), left)
}

fn code_of(outcome: &Outcome) -> Option<ErrorCode> {
    match outcome {
        Outcome::Answer(_) => None,
        Outcome::Failure(failure) => Some(failure.code),
    }
}

#[test]
fn flags_are_those_of_the_help() {
    assert!(Gemini.flags(Some(HELP)).values().all(|has| *has));
    let none = Gemini.flags(Some("  --models  --output-format-x  --sandboxed"));
    let without = Gemini.flags(None);
    let on = |flags: &crate::providers::Flags| -> Vec<&str> {
        flags.iter().filter(|(_, has)| **has).map(|(key, _)| *key).collect()
    };
    assert_eq!(on(&none), ["extensionsFlag"]);
    assert_eq!(on(&without), ["extensionsFlag", "modelFlag", "outputFormatFlag"]);
    assert_eq!(without.len(), 6);
}

#[test]
fn extensions_are_read_from_their_listing() {
    let listing = "Ripgrep is not available. Falling back to GrepTool.\n\
        \u{1b}[32m✓\u{1b}[39m my-ext (1.0.0)\n ID: e43a\n name: e43a\n Path: /h/.gemini/my-ext\n \
        Context files:\n  /h/my-ext/GEMINI.md\n\n✗ off (0.1.0)\n ID: 1\n";
    assert_eq!(Gemini.extensions(listing), ["my-ext", "off"]);
    assert_eq!(Gemini.extensions("Installed extensions:\n- old-one\n"), ["old-one"]);
    assert!(Gemini.extensions("No extensions installed.\n").is_empty());
    assert!(Gemini.extensions("").is_empty());

    let none = Gemini.supports(&installed());
    let one = Gemini.supports(&Installed { extensions: vec!["x".into()], ..installed() });
    assert!(none.tool_disable && none.stream_json && !none.output_schema);
    assert!(!one.tool_disable);
}

#[test]
fn a_plan_for_json() {
    let request = ModelRequest {
        prompt: "-x /help @system.md".into(),
        model: Some("gemini-2.5-pro".into()),
        format: schema(),
        system: Some("Be brief.".into()),
        effort: None,
        time_limit: Duration::from_secs(110),
    };
    insta::assert_debug_snapshot!(Gemini.plan(&request, &installed()).unwrap());
}

#[test]
fn a_plan_for_text_with_the_default_model() {
    insta::assert_debug_snapshot!(Gemini.plan(&request(Format::Text), &installed()).unwrap());
}

#[test]
fn only_flags_that_the_help_names_are_passed() {
    let request = ModelRequest { model: Some("m".into()), ..request(schema()) };
    let args = |flags| Gemini.plan(&request, &Installed { flags, ..installed() }).unwrap().args;
    assert_eq!(args(Gemini.flags(Some(""))), ["--extensions", "none"]);
    assert_eq!(args(Gemini.flags(None)).len(), 6);
    let dashed = ModelRequest { model: Some("--yolo".into()), ..request };
    assert!(Gemini.plan(&dashed, &installed()).is_err());
}

#[test]
fn answers_in_json_are_found_in_whatever_the_model_wrote_around_them() {
    for answer in [
        r#"{"a":1}"#,
        "```json\n{\"a\": 1}\n```",
        "Sure!\n\n```\n{\"a\":1}\n```\nThat is all.",
        "The answer is {\"a\":1}.",
    ] {
        let stdout = json!({"session_id": "s", "response": answer, "stats": {}}).to_string();
        let Outcome::Answer(found) = decode(schema(), "json", &exited(0, &stdout, "")) else {
            panic!("{answer}")
        };
        assert_eq!(found.output, json!({"a": 1}));
        assert_eq!(found.raw.get("response"), Some(&json!(answer)));
        let Outcome::Answer(found) = decode(schema(), "text", &exited(0, answer, "")) else {
            panic!("{answer}")
        };
        assert_eq!(found.raw, json!({"text": answer}));
    }
    let prose = exited(0, r#"{"response":"I cannot.","stats":{}}"#, "");
    assert_eq!(code_of(&decode(schema(), "json", &prose)), Some(ErrorCode::ProviderOutputInvalid));
}

#[test]
fn a_text_keeps_its_code_fence() {
    let fenced = "```sh\nls\n```";
    let Outcome::Answer(answer) = decode(Format::Text, "text", &exited(0, fenced, "")) else {
        panic!()
    };
    assert_eq!(answer.output, json!({"text": fenced}));
}

#[test]
fn exit_code_0_alone_is_no_answer() {
    use ErrorCode::{ProviderFailed, ProviderOutputInvalid, ProviderUnavailable};
    for (run, stdout, code) in [
        ("json", "", ProviderOutputInvalid),
        ("json", "garbage { [", ProviderOutputInvalid),
        ("json", r#"{"session_id":"s","stats":{}}"#, ProviderOutputInvalid),
        ("json", r#"{"response":"","stats":{}}"#, ProviderOutputInvalid),
        ("json", r#"{"response":" \n"}"#, ProviderOutputInvalid),
        ("json", r#"{"response":"part","error":{"type":"X","message":"no"}}"#, ProviderFailed),
        ("json", r#"{"response":"","error":"fetch failed"}"#, ProviderUnavailable),
        ("text", "", ProviderOutputInvalid),
        ("text", "\n", ProviderOutputInvalid),
        ("stream-json", r#"{"type":"result","status":"success"}"#, ProviderOutputInvalid),
        ("stream-json", r#"{"type":"result","status":"error"}"#, ProviderFailed),
        ("stream-json", "\u{0}\u{1}", ProviderOutputInvalid),
    ] {
        let outcome = decode(Format::Text, run, &exited(0, stdout, ""));
        assert_eq!(code_of(&outcome), Some(code), "{run} {stdout}");
    }
}

#[test]
fn streams_that_were_no_answer_are_told_apart() {
    use ErrorCode::{InvalidRequest, ProviderOutputInvalid, ProviderUnavailable};
    for (message, code) in [
        ("Model stream ended without a finish reason.", ProviderUnavailable),
        (
            "The model returned an empty response. This may be a transient API issue.",
            ProviderUnavailable,
        ),
        ("The model response was blocked due to safety settings.", InvalidRequest),
        ("Model response was truncated because it exceeded the token limit.", InvalidRequest),
        ("Model stream ended with unexpected tool call.", ProviderOutputInvalid),
    ] {
        let error = json!({"type": "INVALID_STREAM", "message": message});
        let object = json!({"response": "", "stats": {}, "error": error}).to_string();
        assert_eq!(code_of(&decode(schema(), "json", &exited(0, &object, ""))), Some(code));
        // Text that came before it, and exit code 0, are no answer either.
        let stderr = format!("Ripgrep is not available.\n[ERROR] {message}\n");
        let outcome = decode(Format::Text, "text", &exited(0, "The beginning of", &stderr));
        assert_eq!(code_of(&outcome), Some(code), "{message}");
    }
}

#[test]
fn a_connection_cut_while_text_is_printed_leaves_no_answer() {
    let stderr = "Error when talking to Gemini API Full report available at: /t/r.json TypeError: \
        terminated\n    at x {\n  [cause]: SocketError: other side closed\n    code: \
        'UND_ERR_SOCKET',\n}\nAn unexpected critical error occurred:[object Object]\n";
    let Outcome::Failure(failure) = decode(Format::Text, "text", &exited(1, "The beg", stderr))
    else {
        panic!()
    };
    assert_eq!(failure.code, ErrorCode::ProviderUnavailable);
    assert_eq!(failure.message, "TypeError: terminated");
}

#[test]
fn a_whole_answer_is_one_whatever_the_exit_code() {
    let whole = r#"{"response":"hi","stats":{}}"#;
    assert_eq!(code_of(&decode(Format::Text, "json", &exited(1, whole, ""))), None);
    assert!(code_of(&decode(Format::Text, "text", &exited(1, "hi", ""))).is_some());
}

#[test]
fn exit_codes_are_statuses_when_nothing_else_tells() {
    use ErrorCode::{
        InvalidRequest, ProviderAuth, ProviderFailed, ProviderRateLimited, ProviderTimeout,
        ProviderUnavailable,
    };
    for (exit, code) in [
        (144, InvalidRequest),
        (145, ProviderAuth),
        (147, ProviderAuth),
        (152, ProviderTimeout),
        (173, ProviderRateLimited),
        (244, ProviderUnavailable),
        (247, ProviderUnavailable),
        (41, ProviderAuth),
        (42, InvalidRequest),
        (52, ProviderFailed),
        (55, ProviderFailed),
        (1, ProviderFailed),
        (143, ProviderFailed),
    ] {
        let outcome = decode(Format::Text, "json", &exited(exit, "", "Warning: old\n"));
        assert_eq!(code_of(&outcome), Some(code), "{exit}");
    }
    let Outcome::Failure(failure) = decode(Format::Text, "text", &exited(244, "", "")) else {
        panic!()
    };
    assert_eq!(failure.code, ProviderFailed);
    assert_eq!(failure.message, "Gemini CLI ended with exit code 244");
}

#[test]
fn a_wrong_key_is_no_wrong_request() {
    let body = r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}"#;
    let report =
        json!({"session_id": "s", "error": {"type": "Error", "message": body, "code": 400}});
    let stderr = format!("Ripgrep is not available.\n{report:#}\n");
    let Outcome::Failure(failure) = decode(Format::Text, "json", &exited(144, "", &stderr)) else {
        panic!()
    };
    assert_eq!(failure.code, ErrorCode::ProviderAuth);
    assert_eq!(failure.message, "API key not valid. Please pass a valid API key.");
    let summary = failure.summary.unwrap();
    assert_eq!(summary.code.as_deref(), Some("400"));
    assert_eq!(summary.message.as_deref(), Some(failure.message.as_str()));
}

#[test]
fn the_last_error_counts_among_those_that_were_tried_again() {
    let stderr = "Attempt 1 failed with status 503. Retrying with backoff... _ApiError: \
        {\"error\":{\"code\":503,\"message\":\"busy\"}}\n    at x {\n  status: 503\n}\n\
        Error when talking to Gemini API Full report available at: /t/r.json _ApiError: \
        {\"error\":{\"code\":403,\"message\":\"not yours\"}}\n    at x {\n  status: 403\n}\n";
    let Outcome::Failure(failure) = decode(Format::Text, "text", &exited(1, "", stderr)) else {
        panic!()
    };
    assert_eq!(failure.code, ErrorCode::ProviderAuth);
    assert_eq!(failure.message, "not yours");
}

#[test]
fn a_limit_or_a_cancel_of_ours_is_told_as_that() {
    let whole = r#"{"response":"hi","stats":{}}"#;
    let ended = |ended| Left { ended, ..exited(0, whole, "") };
    let limit = decode(Format::Text, "json", &ended(Ended::TimeLimit));
    assert_eq!(code_of(&limit), Some(ErrorCode::ProviderTimeout));
    let cancelled = decode(Format::Text, "json", &ended(Ended::Cancelled));
    assert_eq!(code_of(&cancelled), Some(ErrorCode::ProviderFailed));
}

#[test]
fn the_summary_is_the_services_error() {
    let Outcome::Failure(failure) = decode(Format::Text, "json", &left("error-401").unwrap())
    else {
        panic!()
    };
    let summary = failure.summary.unwrap();
    assert_eq!(summary.code.as_deref(), Some("401"));
    assert_eq!(summary.message.as_deref(), Some("fake error 401"));
}

/// Pieces that real outputs are made of.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(
            "{\"type\":\"result\",\"status\":\"error\",\"error\":{\"message\":\"[API Error: \"}}\n"
                .to_owned()
        ),
        Just("{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"é…\"}\n".to_owned()),
        Just("{\"response\":\"```\\n{\",\"stats\":{\"models\":[]},\"error\":3}".to_owned()),
        Just("\n{\n".to_owned()),
        Just("Attempt 1 failed. Retrying with backoff... {\"error\":{".to_owned()),
        Just("Full report available at: x.json ".to_owned()),
        Just("\u{1b}[".to_owned()),
        Just("  status: 70000\n".to_owned()),
        Just("Usage: ".to_owned()),
        "\\PC{0,12}",
        ".{0,6}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_that_a_run_leaves_makes_it_panic(
        stdout in text(),
        stderr in text(),
        exit in -1i32..300,
        run in prop::sample::select(vec!["text", "json", "stream-json"]),
        json in any::<bool>(),
    ) {
        let format = if json { Format::Json { schema: Map::new() } } else { Format::Text };
        for ended in [Ended::ByItself, Ended::TimeLimit, Ended::Cancelled] {
            let left = Left { ended, ..exited(exit, &stdout, &stderr) };
            match decode(format.clone(), run, &left) {
                Outcome::Answer(answer) => {
                    prop_assert_eq!(ended, Ended::ByItself);
                    prop_assert!(matches!(answer.output, Value::Object(_)));
                }
                Outcome::Failure(failure) => prop_assert!(!failure.message.contains('\n')),
            }
        }
        let _ = (Gemini.extensions(&stderr), Gemini.flags(Some(&stdout)));
    }
}
