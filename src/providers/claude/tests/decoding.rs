//! What no recording has: other versions' keys, and ends that are ours.

use serde_json::{Value, json};

use super::{decode, left};
use crate::process::{Ended, Exit};
use crate::providers::{Answer, ErrorCode, Failure, Left, Outcome};

fn answer(mode: &str, wants: &str, left: &Left) -> Answer {
    match decode(mode, wants, left) {
        Outcome::Answer(answer) => *answer,
        Outcome::Failure(failure) => panic!("{failure:?} for {left:?}"),
    }
}

fn failure(mode: &str, wants: &str, left: &Left) -> Failure {
    match decode(mode, wants, left) {
        Outcome::Failure(failure) => failure,
        Outcome::Answer(answer) => panic!("{answer:?} for {left:?}"),
    }
}

fn printed(value: &Value) -> Left {
    left(&format!("{value}\n"), "", Exit::Code(0))
}

#[test]
fn the_answer_is_found_under_every_name_it_had() {
    let expected = json!({"name": "f", "args": {}});
    for name in
        ["structured_output", "structuredOutput", "output", "tool_call", "toolCall", "result"]
    {
        let found = answer("json", "object", &printed(&json!({"result": "no", name: expected})));
        assert_eq!(found.output, expected, "{name}");
        let found = answer("json", "object", &printed(&json!({name: expected.to_string()})));
        assert_eq!(found.output, expected, "{name} as text");
    }
    let both = json!({"result": "{\"a\":1}", "structured_output": {"a": 2}, "output": {"a": 3}});
    assert_eq!(answer("json", "object", &printed(&both)).output, json!({"a": 2}));
    let nulled = json!({"structured_output": null, "result": "Sure:\n```json\n{\"a\":1}\n```"});
    assert_eq!(answer("json", "object", &printed(&nulled)).output, json!({"a": 1}));
}

#[test]
fn what_comes_with_an_answer_is_told() {
    let line = json!({
        "type": "result", "is_error": false, "num_turns": 1, "result": " hi\n", "session_id": "s",
        "usage": {"output_tokens": 0},
        "modelUsage": {
            "small": {"outputTokens": 2}, "big": {"outputTokens": 9}, "odd": {"outputTokens": 9},
        },
    });
    let found = answer("json", "text", &printed(&line));
    assert_eq!(found.output, json!({"text": " hi\n"}));
    assert_eq!(found.raw, found.output);
    assert_eq!(found.usage, json!({"output_tokens": 0}));
    assert_eq!(found.model_usage, Some(line["modelUsage"].clone()));
    assert_eq!(found.model.as_deref(), Some("big"));
    assert_eq!(found.session_id.as_deref(), Some("s"));

    let line =
        json!({"output": {}, "usage_metadata": {"n": 1}, "provider_model": "m", "modelUsage": {}});
    let found = answer("json", "object", &printed(&line));
    assert_eq!((found.usage, found.model.as_deref()), (json!({"n": 1}), Some("m")));
    assert_eq!((found.model_usage, found.session_id), (None, None));
    assert_eq!(found.raw, line);
}

#[test]
fn the_result_is_found_among_other_output() {
    let result = json!({"type": "result", "result": "yes"});
    let result_pretty = serde_json::to_string_pretty(&result).unwrap();
    for stdout in [
        format!("warning {{x}}\n{result}\n{{\"level\":\"debug\",\"result\":\"no\"}}\n"),
        format!("notice\n{result_pretty}\nbye"),
        format!("[{{\"type\":\"system\"}},{result},{{\"type\":\"system\",\"result\":\"no\"}}]\n"),
        format!("{{\"type\":\"result\",\"result\":\"no\"}}\n{result}"),
        "{\"result\":\"yes\"}".to_owned(),
    ] {
        let found = answer("json", "text", &left(&stdout, "", Exit::Code(0)));
        assert_eq!(found.output, json!({"text": "yes"}), "{stdout}");
    }
    for stdout in ["{\"type\":\"system\",\"result\":\"no\"}", "{", "no", ""] {
        let found = failure("json", "text", &left(stdout, "", Exit::Code(0)));
        assert_eq!(found.code, ErrorCode::ProviderOutputInvalid, "{stdout}");
    }
}

#[test]
fn ended_well_without_an_answer_is_invalid_output() {
    for (line, message) in [
        (json!({"type": "result", "result": " "}), "the answer is empty"),
        (json!({"type": "result"}), "the answer is empty"),
        (json!({"type": "result", "result": {"a": 1}}), "the answer is empty"),
        (json!({"type": "result", "result": "x", "num_turns": 0}), "no model was asked: x"),
    ] {
        let found = failure("json", "text", &printed(&line));
        assert_eq!(
            (found.code, found.message.as_str()),
            (ErrorCode::ProviderOutputInvalid, message)
        );
    }
    let list = json!({"type": "result", "structured_output": ["a"], "result": "[1]"});
    let found = failure("json", "object", &printed(&list));
    assert_eq!(found.message, "the answer is no JSON object: [1]");
    assert_eq!(
        failure("json", "text", &left("", "", Exit::Code(0))).message,
        "nothing was printed"
    );
}

/// Older versions did not call an exhausted limit an error.
#[test]
fn a_result_with_errors_and_no_answer_is_a_failure_of_its_kind() {
    let line = json!({"type": "result", "subtype": "error_max_turns", "is_error": false, "errors": ["enough"]});
    let found = failure("json", "text", &printed(&line));
    assert_eq!((found.code, found.message.as_str()), (ErrorCode::InvalidRequest, "enough"));
}

#[test]
fn a_good_result_counts_whatever_the_exit_code_and_a_bad_one_too() {
    let good =
        json!({"type": "result", "subtype": "error_odd", "is_error": false, "result": "yes"});
    for exit in [Exit::Code(1), Exit::Code(143), Exit::Signal(9)] {
        let found = answer("json", "text", &left(&good.to_string(), "", exit));
        assert_eq!(found.output, json!({"text": "yes"}));
    }
    let bad = json!({"type": "result", "subtype": "success", "is_error": true, "result": "no"});
    let found = failure("json", "text", &printed(&bad));
    assert_eq!((found.code, found.message.as_str()), (ErrorCode::ProviderFailed, "no"));
}

/// Whatever the text says: it may be the API's own, or a proxy's page.
#[test]
fn the_status_of_an_error_decides() {
    for (status, code) in [
        (401, ErrorCode::ProviderAuth),
        (404, ErrorCode::InvalidRequest),
        (429, ErrorCode::ProviderRateLimited),
        (504, ErrorCode::ProviderTimeout),
        (529, ErrorCode::ProviderUnavailable),
    ] {
        for text in ["no", "API Error: 418 <html>", "Request timed out"] {
            let line = json!({"type": "result", "is_error": true, "api_error_status": status, "result": text});
            let found = failure("json", "text", &printed(&line));
            assert_eq!((found.code, found.message.as_str()), (code, text), "{status}");
        }
    }
    let odd =
        json!({"type": "result", "is_error": true, "api_error_status": 70_000, "result": "no"});
    assert_eq!(failure("json", "text", &printed(&odd)).code, ErrorCode::ProviderFailed);
}

#[test]
fn text_mode_trusts_the_exit_code_for_it_has_no_more() {
    let found = answer("text", "text", &left("a\n\nb\n\n", "Warning: x", Exit::Code(0)));
    assert_eq!((found.output, found.usage), (json!({"text": "a\n\nb\n"}), Value::Null));
    let found = answer("text", "object", &left("Here: {\"a\":1}.\n", "", Exit::Code(0)));
    assert_eq!(found.output, json!({"a": 1}));
    assert_eq!(found.raw, json!({"a": 1}));
    for (wants, stdout, exit, code) in [
        ("text", "\n", Exit::Code(0), ErrorCode::ProviderOutputInvalid),
        ("object", "no object", Exit::Code(0), ErrorCode::ProviderOutputInvalid),
        ("text", "half an answ", Exit::Signal(15), ErrorCode::ProviderFailed),
        ("text", "Not logged in", Exit::Code(1), ErrorCode::ProviderAuth),
    ] {
        assert_eq!(failure("text", wants, &left(stdout, "", exit)).code, code, "{stdout}");
    }
    let mut cut = left("half an answ", "", Exit::Code(0));
    cut.stdout_truncated = true;
    assert_eq!(failure("text", "text", &cut).message, "the output is longer than its bound");
}

#[test]
fn without_a_result_stderr_says_why_or_stdout_does() {
    let message = |stdout: &str, stderr: &str| {
        failure("json", "text", &left(stdout, stderr, Exit::Code(1))).message
    };
    assert_eq!(message("", "Error: bad\nnote"), "bad");
    assert_eq!(message("Invalid API key", "(node:1) old"), "Invalid API key");
    assert_eq!(message("", "(node:1) old"), "(node:1) old");
    assert_eq!(message("{\"type\":\"system\"}\n", ""), "Claude Code ended with exit code 1");
    assert_eq!(message("", ""), "Claude Code ended with exit code 1");
}

#[test]
fn who_cancelled_needs_no_reason() {
    let mut cancelled = printed(&json!({"type": "result", "result": "x"}));
    cancelled.ended = Ended::Cancelled;
    let found = failure("json", "text", &cancelled);
    assert_eq!((found.code, found.message.as_str()), (ErrorCode::ProviderFailed, "cancelled"));
}

#[test]
fn an_error_object_on_stderr_goes_with_the_failure() {
    let stderr = "note\n{\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n";
    let found = failure("json", "text", &left("", stderr, Exit::Code(1)));
    assert_eq!(found.summary.unwrap().kind.as_deref(), Some("overloaded_error"));
    assert_eq!(found.code, ErrorCode::ProviderUnavailable);
}
