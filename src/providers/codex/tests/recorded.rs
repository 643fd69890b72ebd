//! Every recorded run against what a careful reader said of it before there was a decoder.

use std::path::Path;

use super::*;

/// One line of the table.
pub(in crate::providers::codex) struct Row<'a> {
    pub(in crate::providers::codex) case: &'a str,
    pub(in crate::providers::codex) mode: &'a str,
    pub(in crate::providers::codex) outcome: &'a str,
    pub(in crate::providers::codex) tokens: &'a str,
    pub(in crate::providers::codex) expected: &'a str,
}

pub(in crate::providers::codex) fn rows(table: &str) -> Vec<Row<'_>> {
    table
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            let [case, mode, outcome, tokens, expected, _reason] = columns[..] else {
                panic!("not six columns: {line}");
            };
            Row { case, mode, outcome, tokens, expected }
        })
        .collect()
}

pub(in crate::providers::codex) fn recorded(dir: &Path) -> Left {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let end = read("end.txt");
    let (how, limit) = end.trim().split_once(", ").unwrap_or((end.trim(), ""));
    let (kind, number) = how.split_once(' ').unwrap();
    let number = number.parse().unwrap();
    Left {
        stdout: read("stdout.txt"),
        stdout_truncated: false,
        stderr: read("stderr.txt"),
        exit: if kind == "signal" { Exit::Signal(number) } else { Exit::Code(number) },
        ended: if limit == "time limit" { Ended::TimeLimit } else { Ended::ByItself },
        file: std::fs::read_to_string(dir.join("output.json")).ok(),
    }
}

/// The row's words for what was decoded: outcome, tokens, and text.
fn found(outcome: &Outcome) -> (String, String, String) {
    match outcome {
        Outcome::Answer(answer) => {
            let usage = &answer.usage;
            let tokens = if usage.is_null() {
                "-".into()
            } else {
                format!("{}+{}", usage["input_tokens"], usage["output_tokens"])
            };
            ("answer".into(), tokens, answer.output.to_string())
        }
        Outcome::Failure(failure) => {
            (failure.code.as_str().into(), "-".into(), failure.message.clone())
        }
    }
}

fn is_as_expected(row: &Row<'_>, text: &str) -> bool {
    match row.expected.strip_suffix('…') {
        Some(beginning) => text.starts_with(beginning),
        None if row.outcome == "answer" => text == row.expected,
        None => text.contains(row.expected),
    }
}

#[test]
fn every_recorded_run_comes_to_what_was_said_of_it() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers/codex");
    let table = std::fs::read_to_string(dir.join("expected.tsv")).unwrap();
    let rows = rows(&table);
    assert_eq!(rows.len(), 109);
    let mut wrong = Vec::new();
    for row in rows.iter().filter(|row| row.outcome != "not_a_run") {
        let left = recorded(&dir.join(row.case));
        let format = match left.file {
            Some(_) => answer_and_score(),
            None if row.case.starts_with("structured") => answer_and_score(),
            None => Format::Text,
        };
        let plan = plan_of(row.mode, &format);
        let (outcome, tokens, text) = found(&Codex.decode(&request(format), &plan, &left));
        if outcome != row.outcome || tokens != row.tokens || !is_as_expected(row, &text) {
            wrong.push(format!(
                "{}\n  expected: {} {} {}\n  found:    {outcome} {tokens} {text}",
                row.case, row.outcome, row.tokens, row.expected
            ));
        }
    }
    assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_thread_is_told_with_the_answer() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers/codex/resume-2");
    let plan = plan_of("events", &Format::Text);
    let answer = answered(Codex.decode(&request(Format::Text), &plan, &recorded(&dir)));
    assert_eq!(answer.session_id.as_deref(), Some("01a20034-106b-7512-9eee-0039844d2e45"));
    assert_eq!((answer.model, answer.model_usage), (None, None));
}

#[test]
fn the_api_s_own_error_is_summed_up() {
    let dir =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers/codex/error-400");
    let plan = plan_of("events", &Format::Text);
    let failure = failed(Codex.decode(&request(Format::Text), &plan, &recorded(&dir)));
    assert_eq!(failure.message, "fake error 400");
    let summary = failure.summary.unwrap();
    assert_eq!(summary.kind.as_deref(), Some("invalid_request_error"));
}
