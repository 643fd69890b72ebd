//! Every recorded run comes to what a careful reader wrote down of it.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;

use super::{decode, left};
use crate::process::{Ended, Exit};
use crate::providers::{ErrorCode, Left, Outcome};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers/claude")
}

#[derive(Debug, Clone)]
pub(in crate::providers::claude) struct Case {
    pub(in crate::providers::claude) name: String,
    pub(in crate::providers::claude) mode: String,
    pub(in crate::providers::claude) wants: String,
    pub(in crate::providers::claude) outcome: String,
    pub(in crate::providers::claude) holds: String,
    model: String,
    pub(in crate::providers::claude) left: Left,
}

pub(in crate::providers::claude) fn rows(file: &str) -> Vec<Vec<String>> {
    let text = read_to_string(folder().join(file)).unwrap();
    text.lines().skip(1).map(|row| row.split('\t').map(str::to_owned).collect()).collect()
}

/// The recorded runs; what is no run is left out.
pub(in crate::providers::claude) fn cases() -> Vec<Case> {
    let (expected, ends) = (rows("expected.tsv"), rows("index.tsv"));
    assert_eq!((expected.len(), ends.len()), (146, 146));
    let cases = expected.into_iter().zip(ends).filter_map(|(row, end)| {
        let [name, mode, wants, outcome, holds, model, _why] = row.try_into().unwrap();
        let [of, code, signal, timed_out] = end.try_into().unwrap();
        assert_eq!((&name, timed_out.as_str()), (&of, "no"));
        let exit = match (code.parse(), signal.parse()) {
            (Ok(code), Err(_)) => Exit::Code(code),
            (Err(_), Ok(signal)) => Exit::Signal(signal),
            (Err(_), Err(_)) if outcome == "not_a_run" => return None,
            (code, signal) => panic!("{name}: {code:?}, {signal:?}"),
        };
        let text = |file: &str| read_to_string(folder().join(&name).join(file)).unwrap_or_default();
        let left = left(&text("stdout.txt"), &text("stderr.txt"), exit);
        (outcome != "not_a_run").then_some(Case { name, mode, wants, outcome, holds, model, left })
    });
    cases.collect()
}

/// What differs from the row, if anything.
fn difference(case: &Case) -> Option<String> {
    let holds: Value = serde_json::from_str(&case.holds).unwrap();
    let said = |found: &str, as_model: &str| {
        format!(
            "{}: expected {} {} by {}, found {found} by {as_model}",
            case.name, case.outcome, case.holds, case.model
        )
    };
    match decode(&case.mode, &case.wants, &case.left) {
        Outcome::Answer(answer) => {
            let model = answer.model.as_deref().unwrap_or("-");
            let output = match case.wants.as_str() {
                "text" => answer.output["text"].clone(),
                _ => answer.output.clone(),
            };
            let same = match holds.as_str().and_then(|start| start.strip_suffix('…')) {
                Some(start) => output.as_str().is_some_and(|text| text.starts_with(start)),
                None => output == holds,
            };
            let right = case.outcome == "answer" && same && model == case.model;
            (!right).then(|| said(&format!("answer {output}"), model))
        }
        Outcome::Failure(failure) => {
            let right = case.outcome == failure.code.as_str()
                && failure.message.contains(holds.as_str().unwrap());
            (!right).then(|| said(&format!("{} {:?}", failure.code.as_str(), failure.message), "-"))
        }
    }
}

#[test]
fn every_recorded_run_comes_to_what_was_written_down() {
    let cases = cases();
    assert_eq!(cases.len(), 144);
    let wrong: Vec<_> = cases.iter().filter_map(difference).collect();
    assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_recorded_answer_comes_with_its_session_and_usage() {
    for case in cases().iter().filter(|case| case.outcome == "answer" && case.mode != "text") {
        let Outcome::Answer(answer) = decode(&case.mode, &case.wants, &case.left) else {
            panic!("{}", case.name)
        };
        let session = answer.session_id.unwrap_or_default();
        assert_eq!(session.len(), 36, "{}", case.name);
        assert!(case.left.stdout.contains(&session), "{}", case.name);
        assert!(answer.usage["output_tokens"].is_u64(), "{}", case.name);
        let usage = &answer.model_usage.unwrap()[answer.model.unwrap()];
        assert!(usage["outputTokens"].as_u64() > Some(0), "{}", case.name);
    }
}

#[test]
fn the_time_limit_is_the_verdict_whatever_was_printed() {
    for mut case in cases() {
        case.left.ended = Ended::TimeLimit;
        match decode(&case.mode, &case.wants, &case.left) {
            Outcome::Failure(failure) => {
                assert_eq!(failure.code, ErrorCode::ProviderTimeout, "{}", case.name);
                assert_eq!(failure.message, "no answer within 110 s");
            }
            Outcome::Answer(answer) => panic!("{}: {answer:?}", case.name),
        }
    }
}

/// The end of a result line lost: nothing inside it is taken for the answer.
#[test]
fn a_cut_recording_gives_no_answer() {
    for case in cases().iter().filter(|case| case.outcome == "answer" && case.mode != "text") {
        let whole = &case.left.stdout;
        let start = whole.match_indices("{\"type\":\"result\"").last().unwrap().0;
        let end = start + whole[start..].find('\n').unwrap_or(whole.len() - start);
        for at in (start..end).filter(|at| at % 61 == 0 && whole.is_char_boundary(*at)) {
            let mut cut = left(&whole[..at], "", Exit::Code(0));
            cut.stdout_truncated = true;
            let outcome = decode(&case.mode, &case.wants, &cut);
            // Of several results an earlier one may be whole.
            let whole_one = case.name == "stream-json-input";
            match outcome {
                Outcome::Failure(failure) => {
                    assert_eq!(failure.code, ErrorCode::ProviderOutputInvalid, "{}", case.name);
                }
                Outcome::Answer(answer) => assert!(whole_one, "{} at {at}: {answer:?}", case.name),
            }
        }
    }
}

fn any_left() -> impl Strategy<Value = Left> {
    let recorded = proptest::sample::select(cases()).prop_map(|case: Case| case.left.stdout);
    let pieces = prop_oneof![
        any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        "[{}\\[\\]\":, a-z0-9\\\\\n…]{0,200}",
        (recorded, any::<prop::sample::Index>()).prop_map(|(text, at)| {
            let mut at = at.index(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            text[..at].to_owned()
        }),
    ];
    let text =
        proptest::collection::vec(pieces, 0..4).prop_map(|pieces: Vec<String>| pieces.concat());
    let exit = prop_oneof![any::<i32>().prop_map(Exit::Code), any::<i32>().prop_map(Exit::Signal)];
    let exit = prop_oneof![Just(Exit::Code(0)), exit];
    (text.clone(), any::<bool>(), text, exit).prop_map(|(stdout, cut, stderr, exit)| Left {
        stdout_truncated: cut,
        ..left(&stdout, &stderr, exit)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn anything_printed_is_read(left in any_left()) {
        for mode in ["json", "stream-json", "text"] {
            for wants in ["object", "text"] {
                match decode(mode, wants, &left) {
                    Outcome::Answer(answer) => prop_assert!(answer.output.is_object()),
                    Outcome::Failure(failure) => {
                        prop_assert!(failure.message.chars().count() <= 500);
                        prop_assert!(!failure.message.is_empty());
                        prop_assert!(!failure.message.contains('\n'));
                    }
                }
            }
        }
    }
}
