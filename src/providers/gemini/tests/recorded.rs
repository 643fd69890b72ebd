//! Every recorded run, decoded, against a table that was written by hand before there was a decoder.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::{Gemini, Printing};
use crate::process::{Ended, Exit};
use crate::providers::{
    Answer, Failure, Format, Installed, Left, ModelRequest, Outcome, Plan, Provider,
};

/// A row of the table.
pub(in crate::providers::gemini) struct Row {
    pub(in crate::providers::gemini) case: String,
    pub(in crate::providers::gemini) run: String,
    pub(in crate::providers::gemini) outcome: String,
    pub(in crate::providers::gemini) expected: String,
    model: String,
}

pub(in crate::providers::gemini) fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers/gemini")
}

pub(in crate::providers::gemini) fn rows() -> Vec<Row> {
    let table = std::fs::read_to_string(dir().join("expected.tsv")).unwrap();
    let lines = table.lines().filter(|line| !line.starts_with('#')).skip(1);
    lines
        .map(|line| {
            let cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
            let [case, run, outcome, expected, model, reason]: [String; 6] =
                cells.try_into().unwrap();
            assert!(!reason.is_empty(), "{case}: say why");
            Row { case, run, outcome, expected, model }
        })
        .collect()
}

/// What a recorded run left; `None`: there was no process.
pub(in crate::providers::gemini) fn left(case: &str) -> Option<Left> {
    let read = |name: &str| std::fs::read_to_string(dir().join(case).join(name)).unwrap();
    let ended: Map<String, Value> = serde_json::from_str(&read("exit.json")).unwrap();
    let number =
        |key: &str| ended.get(key).map(|value| i32::try_from(value.as_i64().unwrap()).unwrap());
    let exit = number("exit").map(Exit::Code).or_else(|| number("signal").map(Exit::Signal))?;
    Some(Left {
        stdout: read("stdout.txt"),
        stdout_truncated: false,
        stderr: read("stderr.txt"),
        exit,
        ended: if ended.contains_key("timed_out") { Ended::TimeLimit } else { Ended::ByItself },
        file: None,
    })
}

pub(super) fn request(format: Format) -> ModelRequest {
    ModelRequest {
        prompt: "Say hi.".into(),
        model: None,
        format,
        system: None,
        effort: None,
        time_limit: Duration::from_mins(1),
    }
}

/// The plan of a run that printed that way.
pub(super) fn plan(request: &ModelRequest, run: &str) -> Plan {
    let mut plan = Gemini.plan(request, &Installed::default()).unwrap();
    plan.args = vec!["--output-format".into(), run.into()];
    assert_eq!(Printing::of(&plan).as_str(), run);
    plan
}

/// What is wrong with a row; `None`: nothing.
fn wrong(row: &Row) -> Option<String> {
    let Some(left) = left(&row.case) else {
        return (row.outcome != "not_a_run").then(|| "there was no process".to_owned());
    };
    if row.outcome == "not_a_run" {
        return None;
    }
    let object = row.outcome == "answer" && row.expected.starts_with('{');
    let format = if object { Format::Json { schema: Map::new() } } else { Format::Text };
    let request = request(format);
    match Gemini.decode(&request, &plan(&request, &row.run), &left) {
        Outcome::Answer(answer) if row.outcome == "answer" => wrong_answer(row, &answer),
        Outcome::Failure(failure) if row.outcome == failure.code.as_str() => {
            wrong_message(row, &failure)
        }
        Outcome::Answer(answer) => Some(format!("found the answer {}", answer.output)),
        Outcome::Failure(Failure { code, message, .. }) => {
            Some(format!("found {}: {message}", code.as_str()))
        }
    }
}

fn wrong_answer(row: &Row, answer: &Answer) -> Option<String> {
    let expected: Value = serde_json::from_str(&row.expected).unwrap();
    let good = if let Some(text) = expected.as_str() {
        let found = answer.output.get("text").and_then(Value::as_str).unwrap();
        let same = text
            .split_once('…')
            .map_or(found == text, |(start, end)| found.starts_with(start) && found.ends_with(end));
        same && answer.output == serde_json::json!({ "text": found }) && answer.raw == answer.output
    } else {
        answer.output == expected && answer.raw.get("stats").is_some()
    };
    if !good {
        return Some(format!("found {}", answer.output));
    }
    let model = answer.model.as_deref().unwrap_or("-");
    if model != row.model {
        return Some(format!("expected the model {}, found {model}", row.model));
    }
    let told = (answer.usage.get("models").is_some(), answer.session_id.is_some());
    let says = row.run != "text";
    (told != (says, says)).then(|| format!("usage and session: {told:?}"))
}

fn wrong_message(row: &Row, failure: &Failure) -> Option<String> {
    let message = &failure.message;
    let readable = !message.contains(['\n', '\u{1b}'])
        && !message.contains("{\"")
        && !message.contains("Full report");
    (!message.contains(&row.expected) || !readable)
        .then(|| format!("found the message {message:?}"))
}

#[test]
fn every_recorded_run_comes_to_what_the_table_says() {
    let rows = rows();
    let failures: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let wrong = wrong(row)?;
            Some(format!("{}: expected {} {}, {wrong}", row.case, row.outcome, row.expected))
        })
        .collect();
    assert!(failures.is_empty(), "{} rows are wrong:\n{}", failures.len(), failures.join("\n"));

    let named: BTreeSet<String> = rows.into_iter().map(|row| row.case).collect();
    let dirs = std::fs::read_dir(dir()).unwrap().map(Result::unwrap);
    let recorded: BTreeSet<String> = dirs
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(named, recorded);
    assert_eq!(named.len(), 116);
}
