//! Reads Codex's complaints: which kind of failure a message tells of, and where stderr says it.

use super::super::{ErrorCode, ErrorSummary, Failure, json};

/// Longest message for people, in characters.
const MESSAGE_CHARS: usize = 500;

/// How Codex marks a complaint when it prints no events.
const COMPLAINT: &str = "ERROR: ";

/// Words, in lower case, by which a message is known; the first that is there decides.
const WORDS: [(ErrorCode, &[&str]); 4] = [
    (
        ErrorCode::ProviderAuth,
        &[
            "missing environment variable",
            "not logged in",
            "log in again",
            "sign in again",
            "please log in",
            "codex login",
            "invalid_api_key",
            "incorrect api key",
            "authentication_error",
            "access token could not be refreshed",
            "401 unauthorized",
            "403 forbidden",
        ],
    ),
    (
        ErrorCode::ProviderRateLimited,
        &["usage limit", "usage_limit", "rate limit", "rate_limit", "quota", "too many requests"],
    ),
    (
        ErrorCode::InvalidRequest,
        &[
            "invalid_request_error",
            "no prompt provided",
            "no rollout found",
            "context window",
            "context_length_exceeded",
            "model_not_found",
            "is not supported when using codex",
            "output schema file schema.json is not valid json",
        ],
    ),
    (
        ErrorCode::ProviderUnavailable,
        &[
            "experiencing high demand",
            "at capacity",
            "overloaded",
            "server_error",
            "waiting for network",
            "connection failed",
            "error sending request",
            "stream disconnected",
            "network error",
        ],
    ),
];

/// The failure that a message of Codex tells of.
pub(super) fn failure(text: &str) -> Failure {
    let body = json::object(text.trim());
    let summary = body.as_ref().and_then(ErrorSummary::of);
    let message = summary.as_ref().and_then(|summary| summary.message.as_deref()).unwrap_or(text);
    Failure { code: code(text), message: one_line(message), summary }
}

/// A failure that Codex has no words for.
pub(super) fn silent(code: ErrorCode, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into(), summary: None }
}

/// Whether it only tells of one more try.
pub(super) fn is_retry(text: &str) -> bool {
    text.starts_with("Reconnecting...")
}

/// By the HTTP status that the message names, else by its words.
pub(super) fn code(text: &str) -> ErrorCode {
    if let Some(status) = status(text) {
        return ErrorCode::of_status(status);
    }
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    WORDS.iter().find(|(_, words)| says(words)).map_or(ErrorCode::ProviderFailed, |(code, _)| *code)
}

/// 429 of `last status: 429 Too Many Requests`, 503 of `unexpected status 503 …`.
fn status(text: &str) -> Option<u16> {
    ["unexpected status ", "last status: "].into_iter().find_map(|before| {
        let (_, after) = text.split_once(before)?;
        after.get(..3)?.parse().ok().filter(|status| (100..600).contains(status))
    })
}

/// The last complaint of a run without events: Codex marks them `ERROR: `. The prompt, which it
/// prints before, may hold anything and is left out.
pub(super) fn last_complaint<'a>(stderr: &'a str, prompt: &str) -> Option<&'a str> {
    let said = match stderr.split_once(prompt) {
        Some((_, after)) if prompt.contains(COMPLAINT) => after,
        Some(_) | None => stderr,
    };
    said.lines().filter_map(|line| line.strip_prefix(COMPLAINT)).next_back()
}

/// Why Codex did not even start: its first words on stderr but for notices and log lines.
pub(super) fn start_up(stderr: &str) -> Option<String> {
    let mut lines = stderr.lines().map(str::trim).filter(|line| !is_noise(line));
    let first = lines.next()?;
    let first =
        ["error: ", "Error: "].iter().find_map(|mark| first.strip_prefix(mark)).unwrap_or(first);
    match lines.next() {
        Some(second) if first.ends_with(':') => Some(format!("{first} {second}")),
        Some(_) | None => Some(first.to_owned()),
    }
}

fn is_noise(line: &str) -> bool {
    line.is_empty()
        || ["Reading ", "WARNING: ", "warning: ", "deprecated: "]
            .iter()
            .any(|mark| line.starts_with(mark))
        || is_log(line)
}

/// `2026-11-21T22:19:30.035974Z ERROR module: text`.
fn is_log(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let time = words.next().unwrap_or_default();
    time.starts_with(|letter: char| letter.is_ascii_digit())
        && time.ends_with('Z')
        && matches!(words.next(), Some("ERROR" | "WARN" | "INFO" | "DEBUG" | "TRACE"))
}

/// On one line, of bounded length.
pub(super) fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
