//! Why Claude Code gave no answer, by what it said.

use serde_json::{Map, Value};

use crate::providers::{ErrorCode, ErrorSummary, Failure, json};

/// Characters of a message.
const MESSAGE_CHARS: usize = 500;

/// Words of the CLI that decide before a status does: the API answers 400 to them too.
const ABOVE_STATUS: [(&str, ErrorCode); 2] = [
    ("credit balance", ErrorCode::ProviderRateLimited),
    ("prompt is too long", ErrorCode::InvalidRequest),
];

/// Words of the CLI, in lower case, where it tells no status. The first that is there decides.
const WORDS: [(&str, ErrorCode); 28] = [
    ("not logged in", ErrorCode::ProviderAuth),
    ("run /login", ErrorCode::ProviderAuth),
    ("failed to authenticate", ErrorCode::ProviderAuth),
    ("invalid api key", ErrorCode::ProviderAuth),
    ("oauth token", ErrorCode::ProviderAuth),
    ("request rejected (429)", ErrorCode::ProviderRateLimited),
    ("rate limit", ErrorCode::ProviderRateLimited),
    ("usage limit", ErrorCode::ProviderRateLimited),
    ("limit reached", ErrorCode::ProviderRateLimited),
    ("hit your", ErrorCode::ProviderRateLimited),
    ("timed out", ErrorCode::ProviderTimeout),
    ("overloaded", ErrorCode::ProviderUnavailable),
    ("unable to connect", ErrorCode::ProviderUnavailable),
    ("connection error", ErrorCode::ProviderUnavailable),
    ("connectionrefused", ErrorCode::ProviderUnavailable),
    ("econnre", ErrorCode::ProviderUnavailable),
    ("enotfound", ErrorCode::ProviderUnavailable),
    ("fetch failed", ErrorCode::ProviderUnavailable),
    ("server-side issue", ErrorCode::ProviderUnavailable),
    ("issue with the selected model", ErrorCode::InvalidRequest),
    ("input is too long", ErrorCode::InvalidRequest),
    ("input must be provided", ErrorCode::InvalidRequest),
    ("--json-schema is not valid", ErrorCode::InvalidRequest),
    ("no conversation found", ErrorCode::InvalidRequest),
    ("valid session id", ErrorCode::InvalidRequest),
    ("invalid session id", ErrorCode::InvalidRequest),
    ("is already in use", ErrorCode::InvalidRequest),
    ("reached maximum", ErrorCode::InvalidRequest),
];

/// Of a result that is an error.
pub(super) fn of_result(result: &Map<String, Value>, stderr: &str) -> Failure {
    let subtype = text(result, "subtype").unwrap_or_default();
    let said = text(result, "result")
        .or_else(|| errors(result))
        .or_else(|| error_line(stderr))
        .or_else(|| last_line(stderr))
        .unwrap_or_default();
    let status = result.get("api_error_status").and_then(Value::as_u64);
    let code = match subtype.as_str() {
        "error_max_structured_output_retries" => ErrorCode::ProviderOutputInvalid,
        "error_max_budget_usd" | "error_max_turns" => ErrorCode::InvalidRequest,
        _ => code(status.and_then(|status| u16::try_from(status).ok()), &said),
    };
    let message = if said.is_empty() {
        let ended = text(result, "terminal_reason").unwrap_or(subtype);
        format!("Claude Code stopped early: {ended}")
    } else {
        said
    };
    failure(code, &message, stderr)
}

/// Of a run without a result: `said` is what it printed instead, if anything, `ended` how it ended.
pub(super) fn of_words(said: &str, ended: &str, stderr: &str) -> Failure {
    let said = Some(said.trim().to_owned()).filter(|said| !said.is_empty());
    let words = error_line(stderr).or(said).or_else(|| last_line(stderr)).unwrap_or_default();
    let message =
        if words.is_empty() { format!("Claude Code ended with {ended}") } else { words.clone() };
    failure(code(None, &words), &message, stderr)
}

/// With one line for people, and what stderr holds of JSON.
pub(super) fn failure(code: ErrorCode, message: &str, stderr: &str) -> Failure {
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    Failure { code, message: words.chars().take(MESSAGE_CHARS).collect(), summary: summary(stderr) }
}

fn code(status: Option<u16>, said: &str) -> ErrorCode {
    let said = said.to_lowercase();
    let of = |words: &[(&str, ErrorCode)]| {
        words.iter().find(|(words, _)| said.contains(words)).map(|(_, code)| *code)
    };
    of(&ABOVE_STATUS)
        .or_else(|| status.or_else(|| said_status(&said)).map(ErrorCode::of_status))
        .or_else(|| of(&WORDS))
        .unwrap_or(ErrorCode::ProviderFailed)
}

/// The status in `api error: 401 …`.
fn said_status(said: &str) -> Option<u16> {
    let (_, rest) = said.split_once("api error: ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|status| (400..600).contains(status))
}

/// The errors of a result that people can read.
fn errors(result: &Map<String, Value>) -> Option<String> {
    let errors = result.get("errors")?.as_array()?.iter().filter_map(Value::as_str);
    let readable: Vec<_> = errors.filter(|error| !error.starts_with("[ede_diagnostic]")).collect();
    (!readable.is_empty()).then(|| readable.join("; "))
}

/// What the last line says that calls itself an error.
fn error_line(stderr: &str) -> Option<String> {
    let line = stderr.lines().rev().map(str::trim).find(|line| starts(line, "error:"))?;
    line.split_once(':').map(|(_, said)| said.trim().to_owned())
}

/// The last line that is no warning.
fn last_line(stderr: &str) -> Option<String> {
    let mut lines = stderr.lines().rev().map(str::trim);
    lines.find(|line| !line.is_empty() && !starts(line, "warning:")).map(str::to_owned)
}

fn starts(line: &str, word: &str) -> bool {
    line.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}

fn summary(stderr: &str) -> Option<ErrorSummary> {
    json::objects(stderr)
        .find_map(|object| ErrorSummary::of(&object))
        .or_else(|| ErrorSummary::of(&json::find_object(stderr)?))
}

fn text(result: &Map<String, Value>, name: &str) -> Option<String> {
    let text = result.get(name)?.as_str()?;
    (!text.trim().is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_decide_where_there_is_no_status() {
        for (said, expected) in [
            ("Invalid API key · Fix external API key", ErrorCode::ProviderAuth),
            ("OAuth token has expired · Please run /login", ErrorCode::ProviderAuth),
            ("Claude AI usage limit reached|1760000000", ErrorCode::ProviderRateLimited),
            ("You've hit your session limit · resets 3pm", ErrorCode::ProviderRateLimited),
            ("5-hour limit reached · resets 7pm", ErrorCode::ProviderRateLimited),
            ("Credit balance is too low", ErrorCode::ProviderRateLimited),
            ("Request timed out", ErrorCode::ProviderTimeout),
            ("API Error: Connection error.", ErrorCode::ProviderUnavailable),
            ("API Error: fetch failed (ENOTFOUND)", ErrorCode::ProviderUnavailable),
            ("API Error: 503 no healthy upstream", ErrorCode::ProviderUnavailable),
            ("API Error: 504 gateway", ErrorCode::ProviderTimeout),
            ("API Error: 200 is no error", ErrorCode::ProviderFailed),
            ("Prompt is too long", ErrorCode::InvalidRequest),
            ("", ErrorCode::ProviderFailed),
            ("segmentation fault", ErrorCode::ProviderFailed),
        ] {
            assert_eq!(code(None, said), expected, "{said}");
        }
    }

    #[test]
    fn a_status_decides_but_for_what_it_hides() {
        for (status, said, expected) in [
            (429, "API Error: 500 contradicts", ErrorCode::ProviderRateLimited),
            (400, "Not logged in", ErrorCode::InvalidRequest),
            (400, "Your credit balance is too low", ErrorCode::ProviderRateLimited),
            (413, "Prompt is too long", ErrorCode::InvalidRequest),
            (418, "overloaded", ErrorCode::ProviderFailed),
        ] {
            assert_eq!(code(Some(status), said), expected, "{status} {said}");
        }
    }

    #[test]
    fn the_line_that_says_most_is_the_message() {
        for (stderr, expected) in [
            ("Warning: slow\nError: no input\n", Some("no input")),
            ("error: unknown option '--x'\n  at main (cli.js:1)\n", Some("unknown option '--x'")),
            ("Error: first\nerror: second\n\nBun v1\n", Some("second")),
            ("cannot be used: with root\n", Some("cannot be used: with root")),
            ("Warning: only\n", None),
            ("\n \n", None),
            ("é", Some("é")),
        ] {
            let line = error_line(stderr).or_else(|| last_line(stderr));
            assert_eq!(line.as_deref(), expected, "{stderr:?}");
        }
    }

    #[test]
    fn messages_are_one_bounded_line() {
        let long = "é\n".repeat(10_000);
        let message = failure(ErrorCode::ProviderFailed, &long, "").message;
        assert_eq!(message.chars().count(), MESSAGE_CHARS);
        assert!(!message.contains('\n'));
    }

    #[test]
    fn an_error_object_on_stderr_is_summed_up() {
        for stderr in [
            "{\"level\":1}\n{\"error\":{\"message\":\"no\",\"type\":\"t\"}}\n",
            "Oops {\"error\":{\"message\":\"no\",\"type\":\"t\"}} at main",
        ] {
            let summary = failure(ErrorCode::ProviderFailed, "", stderr).summary.unwrap();
            assert_eq!(
                (summary.message.as_deref(), summary.kind.as_deref()),
                (Some("no"), Some("t"))
            );
        }
        assert_eq!(failure(ErrorCode::ProviderFailed, "", "plain {text}").summary, None);
    }
}
