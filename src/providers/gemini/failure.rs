//! Why a run gave no answer: read from the error it printed, its exit code, and stderr.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Printing, uncoloured};
use crate::process::Exit;
use crate::providers::{ErrorCode, ErrorSummary, Failure, Left, json};

/// Characters of a message.
const MESSAGE: usize = 400;

/// What the exit codes of the CLI's own mean.
const EXIT_CODES: [(i32, ErrorCode); 4] = [
    (41, ErrorCode::ProviderAuth),
    // No prompt, or a session that does not exist.
    (42, ErrorCode::InvalidRequest),
    // The settings cannot be read.
    (52, ErrorCode::ProviderFailed),
    // The folder is not trusted.
    (55, ErrorCode::ProviderFailed),
];
/// HTTP statuses that become exit codes, modulo 256: 400 to 504.
const STATUS_EXITS: std::ops::RangeInclusive<i32> = 144..=248;

/// How stderr begins lines that are no reason.
const NOISE: [&str; 9] = [
    "Ripgrep is not available",
    "[STARTUP]",
    "YOLO mode is enabled",
    "Approval mode overridden",
    "Warning:",
    "Security Warning:",
    "Attempt ",
    "An unexpected critical error occurred:[object Object]",
    "at ",
];
/// Type of the error of a run that ends with exit code 0 since the service's stream was no answer.
const INVALID_STREAM: &str = "INVALID_STREAM";
/// What messages of an unreachable or broken-off API hold.
const NETWORK: [&str; 9] = [
    "fetch failed",
    "terminated",
    "socket hang up",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ETIMEDOUT",
    "UND_ERR",
];
/// What a wrong key is called, which comes with status 400.
const WRONG_KEY: [&str; 3] = ["API_KEY_INVALID", "API key not valid", "API key expired"];

/// A failure with the error that stderr tells of.
pub(super) fn failed(code: ErrorCode, message: &str, left: &Left) -> Failure {
    Failure { code, message: one_line(message), summary: summary(&left.stderr) }
}

/// The time limit, with what the CLI was at.
pub(super) fn of_time_limit(limit: Duration, left: &Left) -> Failure {
    let stderr = uncoloured(&left.stderr);
    let attempt = stderr.lines().rfind(|line| line.starts_with("Attempt "));
    let what = attempt.map(|line| match line.split_once("backoff... ") {
        Some((_, error)) => unwrapped(error),
        None => unwrapped(line),
    });
    let tried = what.map(|what| format!("; it was trying again after: {what}")).unwrap_or_default();
    let message = format!("no answer within {} s{tried}", limit.as_secs());
    failed(ErrorCode::ProviderTimeout, &message, left)
}

/// Of a run that ended by itself, with or without an error on stdout.
pub(super) fn of(printing: Printing, error: Option<&Map<String, Value>>, left: &Left) -> Failure {
    let stderr = uncoloured(&left.stderr);
    let reported = report(&stderr);
    let error = error.or(reported.as_ref());
    let said = error.and_then(|error| error.get("message")).and_then(Value::as_str);
    let message = said.map_or_else(|| last_words(&stderr), |said| Some(unwrapped(said)));
    let code = if let Exit::Signal(_) = left.exit {
        ErrorCode::ProviderFailed
    } else {
        code(printing, error, message.as_deref().unwrap_or(""), &stderr, left.exit)
    };
    let message = match (left.exit, message) {
        (Exit::Signal(signal), _) => format!("Gemini CLI was ended by signal {signal}"),
        (Exit::Code(_), Some(message)) => with_advice(message),
        (Exit::Code(code), None) => format!("Gemini CLI ended with exit code {code}"),
    };
    failed(code, &message, left)
}

/// The error of a run that prints text: noted on stderr, while stdout holds what came before it and
/// the exit code is 0.
pub(super) fn noted(stderr: &str) -> Option<Map<String, Value>> {
    let message = stderr.lines().rev().find_map(|line| line.strip_prefix("[ERROR] "))?;
    let error = [("type", INVALID_STREAM), ("message", message)];
    Some(error.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
}

/// What has to be done, where the CLI's words do not tell.
fn with_advice(message: String) -> String {
    if message == "Invalid auth method selected." {
        return format!(
            "{message} With GOOGLE_GEMINI_BASE_URL, ~/.gemini/settings.json has to name \
             security.auth.selectedType."
        );
    }
    message
}

fn code(
    printing: Printing,
    error: Option<&Map<String, Value>>,
    message: &str,
    stderr: &str,
    exit: Exit,
) -> ErrorCode {
    let own = EXIT_CODES.into_iter().find(|(code, _)| exit == Exit::Code(*code));
    if let Some((_, code)) = own {
        return code;
    }
    let holds = |text: &str, words: &[&str]| words.iter().any(|word| text.contains(word));
    if let Some(status) = status(printing, error, stderr, exit) {
        if status == 400 && (holds(message, &WRONG_KEY) || holds(stderr, &WRONG_KEY)) {
            return ErrorCode::ProviderAuth;
        }
        return ErrorCode::of_status(status);
    }
    let kind = error.and_then(|error| error.get("type")).and_then(Value::as_str);
    if kind == Some(INVALID_STREAM) {
        return code_of_invalid_stream(message);
    }
    if holds(message, &NETWORK) {
        ErrorCode::ProviderUnavailable
    } else {
        ErrorCode::ProviderFailed
    }
}

/// Of a stream that the CLI gave up after several attempts, by what it says about it.
fn code_of_invalid_stream(message: &str) -> ErrorCode {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["without a finish reason", "transient"]) {
        // The service broke off.
        ErrorCode::ProviderUnavailable
    } else if says(&["was blocked", "token limit"]) {
        // The service would not answer this prompt.
        ErrorCode::InvalidRequest
    } else {
        ErrorCode::ProviderOutputInvalid
    }
}

/// The HTTP status: the error's code, else the exit code, else the last that a trace on stderr
/// names, as it does for 404 and in text.
fn status(
    printing: Printing,
    error: Option<&Map<String, Value>>,
    stderr: &str,
    exit: Exit,
) -> Option<u16> {
    let is_status = |status: &u16| (400..600).contains(status);
    let told = error.and_then(|error| error.get("code")).and_then(Value::as_u64);
    let told = told.and_then(|code| u16::try_from(code).ok()).filter(is_status);
    let exited = match exit {
        Exit::Code(code) if printing != Printing::Text && STATUS_EXITS.contains(&code) => {
            u16::try_from(code + 256).ok()
        }
        Exit::Code(_) | Exit::Signal(_) => None,
    };
    told.or(exited).or_else(|| {
        // A warning before an answer that is none says nothing about why it is none.
        let last = || stderr.lines().rev().find_map(traced_status).filter(is_status);
        (exit != Exit::Code(0)).then(last).flatten()
    })
}

/// `  status: 401` or `  code: 404` in an error that node printed.
fn traced_status(line: &str) -> Option<u16> {
    let line = line.trim().trim_end_matches(',');
    line.strip_prefix("status: ").or_else(|| line.strip_prefix("code: "))?.parse().ok()
}

/// The error of the object that stderr ends with, among warnings and traces.
fn report(stderr: &str) -> Option<Map<String, Value>> {
    let start = stderr.rfind("\n{\n").map_or(0, |at| at + 1);
    let printed = stderr.get(start..).filter(|rest| rest.starts_with("{\n"));
    let object = printed.and_then(json::find_object);
    let error = |object: Map<String, Value>| object.get("error")?.as_object().cloned();
    object.and_then(error).or_else(|| json::objects(stderr).filter_map(error).last())
}

/// The report's error, else the first object that tells of one.
fn summary(stderr: &str) -> Option<ErrorSummary> {
    let stderr = uncoloured(stderr);
    let first = || json::find_object(&stderr).filter(|object| object.contains_key("error"));
    let mut summary = ErrorSummary::of(&report(&stderr).or_else(first)?)?;
    summary.message = summary.message.map(|message| one_line(&unwrapped(&message)));
    Some(summary)
}

/// The service's own message out of the layers that the CLI puts around it:
/// `[API Error: {"error":{"message":…}}]` and advice on further lines.
fn unwrapped(message: &str) -> String {
    let inner = match message.trim().strip_prefix("[API Error: ") {
        Some(rest) => rest.split_once("]\n").map_or(rest, |(inner, _)| inner),
        None => message.trim(),
    };
    let inner = if message.contains("[API Error: ") { inner.trim_end_matches(']') } else { inner };
    let nested = json::find_object(inner)
        .and_then(|object| Some(object.get("error")?.get("message")?.as_str()?.trim().to_owned()));
    nested.filter(|message| !message.is_empty()).unwrap_or_else(|| inner.to_owned())
}

/// What stderr says in words: the error behind the report that it names, else all that is no noise
/// and no help text.
fn last_words(stderr: &str) -> Option<String> {
    let behind = |line: &str| {
        let (_, rest) = line.split_once("Full report available at: ")?;
        Some(unwrapped(rest.split_once(".json ")?.1))
    };
    let words = || {
        let lines = stderr.lines().take_while(|line| !line.starts_with("Usage: ")).map(str::trim);
        lines.filter(|line| !NOISE.iter().any(|noise| line.starts_with(noise))).collect::<Vec<_>>()
    };
    let message = stderr.lines().rev().find_map(behind).unwrap_or_else(|| words().join(" "));
    (!message.trim().is_empty()).then_some(message)
}

/// One line of bounded length.
fn one_line(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MESSAGE).collect()
}
