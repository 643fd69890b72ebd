//! Takes secrets out of text that people or backends will read.
//!
//! One pass over the bytes collects the spans to hide (see [`scan`]), merges them, and puts
//! [`MARK`] in their place. Linear in the text; applying it twice changes nothing.

mod scan;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value};

/// What stands where a secret stood.
const MARK: &str = "[REDACTED]";
/// Start of what stands for an argument whose content is nobody's business; its length follows.
const CONTENT_MARK: &str = "[REDACTED_CONTENT:";
/// Arguments with more characters than this are content, not options.
const LONGEST_ARGUMENT: usize = 256;
/// Shorter "secrets" would tear ordinary words out of text.
const SHORTEST_SECRET: usize = 8;
/// How many own secrets are remembered. Rotated tokens add up over weeks; the oldest go first.
const MOST_SECRETS: usize = 256;
/// Hiding one thing can uncover the word boundary of the next; two rounds settle all but text
/// that was made to need more.
const MOST_ROUNDS: usize = 4;

/// Cheap to clone; all clones know the same secrets.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<RwLock<Vec<String>>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Adds a secret that the gateway itself holds (at least 8 bytes, else it is ignored).
    pub fn add_secret(&self, secret: &str) {
        if secret.len() < SHORTEST_SECRET || MARK.contains(secret) {
            return;
        }
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = secrets.iter().position(|known| known == secret) {
            // Known again is young again: a long-lived key is not pushed out by rotated tokens.
            let known = secrets.remove(at);
            secrets.push(known);
            return;
        }
        if secrets.len() >= MOST_SECRETS {
            secrets.remove(0);
        }
        secrets.push(secret.to_owned());
    }

    /// Replaces the gateway's own secrets only, by exact value: for results and commands, which
    /// are otherwise the caller's own text.
    ///
    /// Takes the text so that megabytes of output without a secret are not copied.
    pub fn own_secrets(&self, text: impl Into<String>) -> String {
        let text = text.into();
        let mut spans = Vec::new();
        self.find_own(&text, &mut spans);
        if spans.is_empty() { text } else { hide(&text, spans) }
    }

    /// The whole rule: own secrets, `key=value` and JSON pairs whose key names a secret, `Bearer`,
    /// JWTs, provider keys, userinfo of URLs. Idempotent, linear time.
    pub fn text(&self, text: &str) -> String {
        let mut current = self.text_once(text);
        for _ in 1..MOST_ROUNDS {
            let next = self.text_once(&current);
            if next == current {
                break;
            }
            current = next;
        }
        current
    }

    /// [`Self::text`] for every string of a JSON value; a string under a key that names a secret
    /// is hidden whole.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.value(item)).collect())
            }
            Value::Object(fields) => Value::Object(self.fields(fields)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn fields(&self, fields: &Map<String, Value>) -> Map<String, Value> {
        fields
            .iter()
            .map(|(name, value)| {
                let hidden =
                    value.as_str().is_some_and(|text| !text.is_empty()) && scan::names_secret(name);
                let shown = if hidden { Value::String(MARK.to_owned()) } else { self.value(value) };
                (name.clone(), shown)
            })
            .collect()
    }

    /// An argument list as it may be shown: the value after a flag that names a secret, a prompt
    /// or a schema, and every argument with blanks or over 256 characters, becomes
    /// `[REDACTED_CONTENT:<characters>]`; the rest passes [`Self::text`].
    pub fn arguments<S: AsRef<str>>(&self, arguments: &[S]) -> Vec<String> {
        let mut value_is_content = false;
        arguments
            .iter()
            .map(|argument| {
                let argument = argument.as_ref();
                let hidden_by_flag = value_is_content && !argument.starts_with("--");
                value_is_content = false;
                if hidden_by_flag {
                    return content_mark(argument);
                }
                if let Some((flag, value)) = argument.split_once('=')
                    && names_content(flag)
                {
                    return format!("{flag}={}", content_mark(value));
                }
                value_is_content = names_content(argument);
                if is_content(argument) { content_mark(argument) } else { self.text(argument) }
            })
            .collect()
    }

    /// [`Self::arguments`] behind their program, joined by blanks.
    pub fn command_line<S: AsRef<str>>(&self, program: &str, arguments: &[S]) -> String {
        let mut words = vec![self.text(program)];
        words.extend(self.arguments(arguments));
        words.join(" ")
    }

    fn text_once(&self, text: &str) -> String {
        let mut spans = scan::secret_spans(text.as_bytes());
        self.find_own(text, &mut spans);
        hide(text, spans)
    }

    fn find_own(&self, text: &str, spans: &mut Vec<(usize, usize)>) {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        for secret in secrets.iter() {
            spans.extend(text.match_indices(secret.as_str()).map(|(at, hit)| (at, at + hit.len())));
        }
    }
}

/// Puts [`MARK`] over the spans, one for those that overlap or touch.
fn hide(text: &str, mut spans: Vec<(usize, usize)>) -> String {
    spans.retain(|(start, end)| start < end);
    if spans.is_empty() {
        return text.to_owned();
    }
    spans.sort_unstable();
    let mut shown = String::with_capacity(text.len());
    let mut done = 0;
    let mut pending = spans[0];
    for span in spans.into_iter().skip(1) {
        if span.0 <= pending.1 {
            pending.1 = pending.1.max(span.1);
            continue;
        }
        shown.push_str(text.get(done..pending.0).unwrap_or_default());
        shown.push_str(MARK);
        done = pending.1;
        pending = span;
    }
    shown.push_str(text.get(done..pending.0).unwrap_or_default());
    shown.push_str(MARK);
    shown.push_str(text.get(pending.1..).unwrap_or_default());
    shown
}

fn names_content(flag: &str) -> bool {
    let Some(name) = flag.strip_prefix("--") else { return false };
    let name = name.to_ascii_lowercase();
    name.contains("prompt") || name.contains("schema") || scan::names_secret(&name)
}

fn is_content(argument: &str) -> bool {
    argument.chars().any(char::is_whitespace) || argument.chars().nth(LONGEST_ARGUMENT).is_some()
}

fn content_mark(argument: &str) -> String {
    let is_mark = argument
        .strip_prefix(CONTENT_MARK)
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if is_mark {
        return argument.to_owned();
    }
    format!("{CONTENT_MARK}{}]", argument.chars().count())
}
