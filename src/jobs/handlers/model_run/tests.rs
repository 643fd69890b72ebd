//! From what a run left to the job's end and its debug.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::payload::Asked;
use super::result::{Verdict, finish, judge};
use super::{debug, payload};
use crate::jobs::handlers::Finished;
use crate::model::JobStatus;
use crate::observe::Redactor;
use crate::process::{Ended, Exit, FirstSignal};
use crate::providers::{
    Answer, ErrorCode, ErrorSummary, Failure, Left, Outcome, OutputMode, Plan, PlanFile, PlanRun,
    RefusedFile,
};

/// All that a job's `debug` may hold.
const DEBUG_KEYS: &[&str] = &[
    "args",
    "command",
    "command_line",
    "duration_ms",
    "error_summary",
    "exit_code",
    "files",
    "json_schema_chars",
    "output_mode",
    "output_path",
    "prompt_chars",
    "provider_id",
    "stderr",
    "stderr_bytes",
    "stderr_truncated",
    "stdout",
    "stdout_bytes",
    "stdout_truncated",
    "timed_out",
    "timeout_ms",
    "work_dir",
];

fn asked() -> Asked {
    let payload = json!({
        "prompt": "the prompt", "model": "sonnet", "json_schema": {"type": "object"},
        "append_system_prompt": "the system text",
    });
    payload::parse(payload.as_object().unwrap()).unwrap()
}

fn ran(exit: Exit, ended: Ended) -> PlanRun {
    PlanRun {
        left: Left {
            stdout: "out".to_owned(),
            stdout_truncated: false,
            stderr: "token=hunter22hunter22".to_owned(),
            exit,
            ended,
            file: None,
        },
        refused_file: None,
        duration: Duration::from_millis(1_234),
        stdout_bytes: 3,
        stderr_bytes: 22,
        stderr_truncated: true,
    }
}

fn end(ran: &PlanRun, outcome: Outcome) -> Finished {
    let verdict = judge(ran, |_| outcome);
    finish(&Redactor::default(), &asked(), "claude --print", ran, verdict, &[])
}

fn answer() -> Outcome {
    Outcome::Answer(Box::new(Answer {
        output: json!({"n": 1}),
        raw: json!({"result": "token=hunter22hunter22"}),
        usage: json!({"input_tokens": 1}),
        ..Answer::default()
    }))
}

fn failure(code: ErrorCode) -> Outcome {
    let summary = ErrorSummary { message: Some("no".to_owned()), ..ErrorSummary::default() };
    Outcome::Failure(Failure { code, message: "It failed.".to_owned(), summary: Some(summary) })
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn an_answer_is_told_as_it_came() {
    let finished = end(&ran(Exit::Code(0), Ended::ByItself), answer());
    assert_eq!((finished.status, finished.error), (JobStatus::Completed, None));
    assert_eq!(
        finished.result,
        json!({
            "output": {"n": 1}, "raw": {"result": "token=hunter22hunter22"},
            "usage": {"input_tokens": 1}, "model": "sonnet", "duration_ms": 1_234, "exit_code": 0,
            "stdout_truncated": false, "stderr_truncated": true, "command": "claude --print",
        })
    );
    let Outcome::Answer(mut answer) = answer() else { panic!("an answer") };
    answer.model = Some("claude-sonnet-5".to_owned());
    answer.model_usage = Some(json!({"claude-sonnet-5": {}}));
    let finished = end(&ran(Exit::Signal(13), Ended::ByItself), Outcome::Answer(answer));
    assert_eq!(finished.result["model"], "claude-sonnet-5");
    assert_eq!(finished.result["model_usage"], json!({"claude-sonnet-5": {}}));
    assert_eq!(finished.result["exit_code"], Value::Null);
}

#[test]
fn a_failure_shows_what_the_cli_said_without_secrets() {
    let finished = end(&ran(Exit::Code(1), Ended::ByItself), failure(ErrorCode::ProviderAuth));
    assert_eq!(
        (finished.status, finished.error.as_deref()),
        (JobStatus::Failed, Some("It failed."))
    );
    assert_eq!(
        finished.result,
        json!({
            "message": "It failed.", "error_code": "provider_auth", "stdout": "out",
            "stderr": "token=[REDACTED]", "command": "claude --print", "exit_code": 1,
            "error_summary": {"message": "no"},
        })
    );
}

#[test]
fn what_cannot_be_read_at_exit_0_has_no_exit_code() {
    let code = ErrorCode::ProviderOutputInvalid;
    let finished = end(&ran(Exit::Code(0), Ended::ByItself), failure(code));
    assert_eq!(keys(&finished.result), ["command", "error_code", "message", "stderr", "stdout"]);
    let finished = end(&ran(Exit::Code(3), Ended::ByItself), failure(code));
    assert_eq!(finished.result["exit_code"], 3);
}

#[test]
fn more_than_is_kept_is_no_answer_wherever_it_stands() {
    let mut long = ran(Exit::Code(0), Ended::ByItself);
    long.left.stdout_truncated = true;
    let finished = end(&long, answer());
    assert_eq!(
        finished.result,
        json!({
            "message": "The output is longer than 5000000 bytes",
            "error_code": "GATEWAY_MODEL_OUTPUT_LIMIT", "boundary": "stdout",
            "output_limit_bytes": 5_000_000,
        })
    );
    let mut long = ran(Exit::Code(0), Ended::ByItself);
    long.refused_file = Some(RefusedFile::TooLarge);
    assert_eq!(end(&long, answer()).result["boundary"], "output_file");
    let mut odd = ran(Exit::Code(0), Ended::ByItself);
    odd.refused_file = Some(RefusedFile::Unusable("a named pipe".to_owned()));
    let result = end(&odd, answer()).result;
    assert_eq!(result["error_code"], "provider_output_invalid");
    assert!(result["message"].as_str().unwrap().contains("a named pipe"), "{result}");
}

#[test]
fn a_run_that_the_limit_ended_is_a_timeout_unless_the_cli_knew_better() {
    let late = ran(Exit::Code(0), Ended::TimeLimit);
    let code = |outcome| match judge(&late, |_| outcome) {
        Verdict::Failure(failure) => failure.code,
        other @ (Verdict::Answer(_) | Verdict::OverTheBound(_)) => panic!("{other:?}"),
    };
    assert_eq!(code(answer()), ErrorCode::ProviderTimeout);
    for (said, told) in [
        (ErrorCode::ProviderFailed, ErrorCode::ProviderTimeout),
        (ErrorCode::ProviderOutputInvalid, ErrorCode::ProviderTimeout),
        (ErrorCode::ProviderRateLimited, ErrorCode::ProviderRateLimited),
        (ErrorCode::ProviderAuth, ErrorCode::ProviderAuth),
    ] {
        assert_eq!(code(failure(said)), told);
    }
}

#[test]
fn debug_has_its_keys_and_nothing_that_was_said_to_the_model() {
    let plan = Plan {
        program: "/usr/bin/claude".into(),
        args: ["--print", "--system-prompt", "the system text", "--json-schema", "{\"type\":1}"]
            .map(str::to_owned)
            .to_vec(),
        env: vec![("KEY".to_owned(), "the secret".to_owned())],
        files: vec![PlanFile {
            path: "a/b.json".to_owned(),
            contents: "the system text".to_owned(),
        }],
        stdin: "the prompt".to_owned(),
        output: OutputMode::File("out.json".to_owned()),
        time_limit: Duration::from_secs(110),
        stop: FirstSignal::Interrupt,
    };
    let redactor = Redactor::default();
    let before = debug::before(&redactor, &asked(), &plan, Path::new("/w/model/j"));
    assert_eq!(keys(&before), DEBUG_KEYS);
    let mut long = ran(Exit::Code(1), Ended::TimeLimit);
    long.left.stdout = "é".repeat(300_000);
    let after = debug::after(&redactor, before.clone(), &long, None);
    assert_eq!(keys(&after), DEBUG_KEYS);
    for debug in [&before, &after] {
        let text = debug.to_string();
        for said in ["the prompt", "the system text", "the secret", "hunter22", "\\\"type\\\""] {
            assert!(!text.contains(said), "{said}: {text:.400}");
        }
    }
    assert_eq!(before["output_mode"], "file-json");
    assert_eq!(before["output_path"], "/w/model/j/out.json");
    assert_eq!((&before["prompt_chars"], &before["json_schema_chars"]), (&json!(10), &json!(17)));
    assert_eq!((&before["files"], &before["timeout_ms"]), (&json!(["a/b.json"]), &json!(110_000)));
    assert_eq!((&before["stdout"], &before["timed_out"]), (&Value::Null, &Value::Null));
    assert_eq!(after["stdout"].as_str().unwrap().chars().count(), 200_000);
    assert_eq!((&after["stdout_truncated"], &after["stdout_bytes"]), (&json!(true), &json!(3)));
    assert_eq!((&after["stderr"], &after["timed_out"]), (&json!("token=[REDACTED]"), &json!(true)));
}
