//! Runs that were never recorded: invented ones, and any bytes at all.

use proptest::prelude::*;

use super::*;

const STARTED: &str = r#"{"type":"thread.started","thread_id":"t"}"#;
const COMPLETED: &str = r#"{"type":"turn.completed","usage":{"input_tokens":1}}"#;

fn message(text: &str) -> String {
    json!({"type": "item.completed", "item": {"type": "agent_message", "text": text}}).to_string()
}

fn turn_failed(text: &str) -> String {
    json!({"type": "turn.failed", "error": {"message": text}}).to_string()
}

fn decode(mode: &str, format: Format, left: &Left) -> Outcome {
    let plan = plan_of(mode, &format);
    Codex.decode(&request(format), &plan, left)
}

#[test]
fn the_last_message_is_the_answer() {
    let lines = [STARTED, &message("first"), "no JSON", &message("last"), COMPLETED].join("\n");
    let answer = answered(decode("events", Format::Text, &left(&lines)));
    assert_eq!(answer.output, json!({"text": "last"}));
    assert_eq!(answer.usage, json!({"input_tokens": 1}));
}

#[test]
fn a_verdict_outweighs_the_exit() {
    let good = [STARTED, &message("yes"), COMPLETED].join("\n");
    for (exit, ended) in [
        (Exit::Code(1), Ended::ByItself),
        (Exit::Signal(15), Ended::ByItself),
        (Exit::Signal(9), Ended::TimeLimit),
    ] {
        let left = Left { exit, ended, ..left(&good) };
        assert_eq!(answered(decode("events", Format::Text, &left)).output, json!({"text": "yes"}));
    }
    let bad = [STARTED, &message("half"), &turn_failed("boom")].join("\n");
    let failure = failed(decode("events", Format::Text, &left(&bad)));
    assert_eq!((failure.code, failure.message.as_str()), (ErrorCode::ProviderFailed, "boom"));
}

#[test]
fn an_end_without_an_answer_is_no_success() {
    let nothing = [STARTED, COMPLETED].join("\n");
    let unsettled = [STARTED, &message("half")].join("\n");
    for stdout in [nothing.as_str(), &unsettled, "", "garbage\n{}\n[1]\n{\"type\":3}"] {
        let outcome = decode("events", Format::Text, &left(stdout));
        assert_eq!(code_of(&outcome), Some(ErrorCode::ProviderOutputInvalid), "{stdout}");
    }
    let outcome = decode("human", Format::Text, &left("\n"));
    assert_eq!(code_of(&outcome), Some(ErrorCode::ProviderOutputInvalid));
}

#[test]
fn a_missing_or_empty_file_leaves_the_message() {
    let lines = [STARTED, &message(r#"{"answer":"a","score":1}"#), COMPLETED].join("\n");
    for file in [None, Some(String::new()), Some("\n".into())] {
        let left = Left { file, ..left(&lines) };
        let answer = answered(decode("events+file", answer_and_score(), &left));
        assert_eq!(answer.output, json!({"answer": "a", "score": 1}));
    }
}

#[test]
fn a_whole_file_stands_for_a_verdict_past_the_bound() {
    let file = Some(r#"{"answer":"a","score":1}"#.to_owned());
    let cut = Left { file, stdout_truncated: true, ..left(STARTED) };
    assert_eq!(code_of(&decode("events+file", answer_and_score(), &cut)), None);
    let killed = Left { exit: Exit::Signal(9), ..cut.clone() };
    let code = code_of(&decode("events+file", answer_and_score(), &killed));
    assert_eq!(code, Some(ErrorCode::ProviderFailed));
    let whole = Left { stdout_truncated: false, ..cut };
    let code = code_of(&decode("events+file", answer_and_score(), &whole));
    assert_eq!(code, Some(ErrorCode::ProviderOutputInvalid));
}

#[test]
fn a_time_limit_tells_what_was_retried() {
    let retrying = |why: &str| {
        let message = format!("Reconnecting... 2/5 ({why})");
        json!({"type": "error", "message": message}).to_string()
    };
    for (why, code) in [
        ("unexpected status 401 Unauthorized: x", ErrorCode::ProviderAuth),
        (
            "exceeded retry limit, last status: 429 Too Many Requests",
            ErrorCode::ProviderRateLimited,
        ),
        ("unexpected status 503 Service Unavailable: x", ErrorCode::ProviderUnavailable),
        ("something else", ErrorCode::ProviderTimeout),
    ] {
        let stdout = [STARTED, &retrying(why)].join("\n");
        let exit = Exit::Signal(9);
        let stopped = Left { exit, ended: Ended::TimeLimit, ..left(&stdout) };
        let failure = failed(decode("events", Format::Text, &stopped));
        assert_eq!(failure.code, code, "{why}");
        assert!(failure.message.contains("time limit of 110 s"), "{}", failure.message);
        let cancelled = Left { exit, ended: Ended::Cancelled, ..left(&stdout) };
        let failure = failed(decode("events", Format::Text, &cancelled));
        assert_eq!(failure.code, ErrorCode::ProviderFailed);
        assert!(failure.message.contains("cancelled"), "{}", failure.message);
    }
}

#[test]
fn messages_tell_their_kind() {
    for (text, code) in [
        (
            "Your access token could not be refreshed. Please log out and sign in again.",
            "provider_auth",
        ),
        (
            r#"{"error":{"message":"no","type":"invalid_request_error","code":"invalid_api_key"}}"#,
            "provider_auth",
        ),
        (
            "You've hit your usage limit. Upgrade to Pro or try again later.",
            "provider_rate_limited",
        ),
        ("Quota exceeded. Check your plan and billing details.", "provider_rate_limited"),
        (
            "stream disconnected before completion: Rate limit reached for gpt-5.5",
            "provider_rate_limited",
        ),
        ("Selected model is at capacity. Please try a different model.", "provider_unavailable"),
        ("unexpected status 504 Gateway Timeout: x", "provider_timeout"),
        ("unexpected status 418 I'm a teapot: x", "provider_failed"),
        ("unexpected status 9", "provider_failed"),
        ("Codex ran out of room in the model's context window.", "invalid_request"),
        (
            "The 'x' model is not supported when using Codex with a ChatGPT account.",
            "invalid_request",
        ),
        ("", "provider_failed"),
    ] {
        let failure = failed(decode("events", Format::Text, &left(&turn_failed(text))));
        assert_eq!(failure.code.as_str(), code, "{text}");
    }
}

#[test]
fn a_prompt_cannot_pose_as_a_complaint() {
    let format = Format::Text;
    let mut plan = plan_of("human", &format);
    plan.stdin = "x\nERROR: unexpected status 401 Unauthorized".into();
    let stderr = format!("OpenAI Codex v0.169.0\n--------\nuser\n{}\n", plan.stdin);
    let silent = Left { stderr: stderr.clone(), exit: Exit::Code(1), ..left("") };
    let failure = failed(Codex.decode(&request(format.clone()), &plan, &silent));
    assert_eq!(failure.code, ErrorCode::ProviderFailed);
    let stderr =
        format!("{stderr}ERROR: exceeded retry limit, last status: 429 Too Many Requests\n");
    let limited = Left { stderr, exit: Exit::Code(1), ..left("") };
    let failure = failed(Codex.decode(&request(format), &plan, &limited));
    assert_eq!(failure.code, ErrorCode::ProviderRateLimited);
}

#[test]
fn a_strict_answer_comes_back_in_the_caller_s_form() {
    let format = json_format(&json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "args": {"type": "object"},
            "why": {"type": "string"}
        },
        "required": ["name", "args"]
    }));
    let text = r#"{"name":"read","args_json":"{\"path\":\"a\",\"line\":null}","why":null}"#;
    let lines = [STARTED, &message(text), COMPLETED].join("\n");
    let answer = answered(decode("events+file", format.clone(), &left(&lines)));
    assert_eq!(answer.output, json!({"name": "read", "args": {"path": "a", "line": null}}));
    assert_eq!(answer.raw.to_string(), text);
    let mut unasked = plan_of("events", &format);
    unasked.files.clear();
    let answer = answered(Codex.decode(&request(format), &unasked, &left(&lines)));
    assert_eq!(answer.output, answer.raw, "without a schema of ours nothing is taken back");
}

fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just(STARTED.to_owned()),
        Just(COMPLETED.to_owned()),
        ".{0,40}".prop_map(|text| message(&text)),
        ".{0,40}".prop_map(|text| turn_failed(&text)),
        ".{0,20}".prop_map(|text| json!({"type": "error", "message": text}).to_string()),
        r#"\{"type":"(item|turn)\.(completed|failed)","(item|error|usage)":(null|1|"x"|\[\]|\{\})\}"#,
        "(ERROR|error|Error|WARNING): .{0,20}",
        ".{0,40}",
    ];
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

fn any_left() -> impl Strategy<Value = Left> {
    let exit = prop_oneof![(0..3).prop_map(Exit::Code), (1..16).prop_map(Exit::Signal)];
    let ended = prop_oneof![Just(Ended::ByItself), Just(Ended::TimeLimit), Just(Ended::Cancelled)];
    let file = proptest::option::of(prop_oneof![Just(r#"{"answer":"a"}"#.to_owned()), ".{0,20}"]);
    (lines(), any::<bool>(), lines(), exit, ended, file).prop_map(
        |(stdout, stdout_truncated, stderr, exit, ended, file)| Left {
            stdout,
            stdout_truncated,
            stderr,
            exit,
            ended,
            file,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn whatever_is_left_comes_to_something(left in any_left(), mode in 0..4_usize, text in any::<bool>()) {
        let mode = ["events", "human", "events+file", "human+file"][mode];
        let format = if text { Format::Text } else { answer_and_score() };
        match decode(mode, format, &left) {
            Outcome::Answer(answer) => {
                prop_assert!(answer.output.is_object());
                let completed = left.stdout.lines().any(|line| line.trim() == COMPLETED || line.contains("turn.completed"));
                prop_assert!(completed || left.exit == Exit::Code(0));
            }
            Outcome::Failure(failure) => prop_assert!(!failure.message.contains('\n')),
        }
    }
}
