//! Takes secrets out of text that people or backends will read.
//!
//! One pass over the bytes collects the spans to hide (see [`scan`] and [`own`]), merges them, and
//! puts [`MARK`] in their place. Linear in the text, in time and in memory; applying it twice
//! changes nothing. `docs/SECURITY.md` says what passes it and what does not.

mod own;
mod scan;
mod text;
mod values;

#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value};

use own::OwnSecrets;

/// What stands where a secret stood.
const MARK: &str = "[REDACTED]";
/// Start of what stands for an argument whose content is nobody's business; its length follows.
const CONTENT_MARK: &str = "[REDACTED_CONTENT:";
/// Arguments with more characters than this are content, not options.
const LONGEST_ARGUMENT: usize = 256;

/// First byte and the byte behind the last one.
type Span = (usize, usize);

/// Cheap to clone; all clones know the same secrets.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<RwLock<OwnSecrets>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Adds a secret that the gateway itself holds (at least 8 bytes, else it is ignored). It is
    /// found as it is, escaped in JSON, and percent-encoded. The 256 youngest are remembered.
    pub fn add_secret(&self, secret: &str) {
        self.secrets.write().unwrap_or_else(PoisonError::into_inner).add(secret);
    }

    /// Replaces the gateway's own secrets only, by exact value: for results and commands, which
    /// are otherwise the caller's own text.
    ///
    /// Takes the text so that megabytes of output without a secret are not copied.
    pub fn own_secrets(&self, text: impl Into<String>) -> String {
        let text = text.into();
        let spans = self.own_spans(&text);
        if spans.is_empty() { text } else { hide(&text, spans) }
    }

    /// [`Self::own_secrets`] for every string and key of a result.
    pub fn own_secrets_in(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.own_secrets(text)),
            Value::Array(items) => {
                Value::Array(items.into_iter().map(|item| self.own_secrets_in(item)).collect())
            }
            Value::Object(fields) => {
                let field = |(name, value): (String, Value)| {
                    (self.own_secrets(name), self.own_secrets_in(value))
                };
                Value::Object(fields.into_iter().map(field).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    /// The whole rule: own secrets, `key=value` and JSON pairs whose key names a secret, `Bearer`,
    /// JWTs, provider keys, userinfo of URLs. Idempotent, linear time.
    pub fn text(&self, text: &str) -> String {
        let own = self.own_spans(text);
        let has_own = !own.is_empty();
        let mut spans = scan::secret_spans(text);
        spans.extend(own);
        let shown = hide(text, spans);
        if !has_own {
            return shown;
        }
        // An own secret may stand right before something that looks like a secret only now that
        // it begins a word.
        let spans = scan::secret_spans(&shown);
        hide(&shown, spans)
    }

    /// [`Self::text`] for every string and key of a JSON value; strings under a key that names a
    /// secret, alone or in an array, are hidden whole.
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
                let secret = values::names_secret(name);
                let shown = if secret { self.secret_value(value) } else { self.value(value) };
                (self.text(name), shown)
            })
            .collect()
    }

    /// The value of a key that names a secret.
    fn secret_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) if !text.is_empty() => Value::from(MARK),
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.secret_value(item)).collect())
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => self.value(value),
        }
    }

    /// An argument list as it may be shown: the value after a flag that names a secret, a prompt
    /// or a schema, and every argument with blanks or over 256 characters, becomes
    /// `[REDACTED_CONTENT:<characters>]`; the rest passes [`Self::text`].
    pub fn arguments<S: AsRef<str>>(&self, arguments: &[S]) -> Vec<String> {
        self.arguments_with_prompt(arguments, None)
    }

    /// [`Self::arguments`] of a program that had to get its prompt as an argument.
    pub fn arguments_with_prompt<S: AsRef<str>>(
        &self,
        arguments: &[S],
        prompt: Option<&str>,
    ) -> Vec<String> {
        let mut value_is_content = false;
        arguments
            .iter()
            .map(|argument| {
                let argument = argument.as_ref();
                let is_value = value_is_content && !looks_like_flag(argument);
                value_is_content = false;
                if is_value || prompt == Some(argument) {
                    return content_mark(argument);
                }
                if let Some((flag, value)) = argument.split_once('=')
                    && names_content(flag)
                {
                    return format!("{flag}={}", content_mark(value));
                }
                value_is_content = names_content(argument);
                if is_content(argument) {
                    return content_mark(argument);
                }
                // A mark may be longer than what it stands for.
                let shown = self.text(argument);
                if is_content(&shown) { content_mark(argument) } else { shown }
            })
            .collect()
    }

    /// [`Self::arguments`] behind their program, joined by blanks.
    pub fn command_line<S: AsRef<str>>(&self, program: &str, arguments: &[S]) -> String {
        let mut words = vec![self.text(program)];
        words.extend(self.arguments(arguments));
        words.join(" ")
    }

    fn own_spans(&self, text: &str) -> Vec<Span> {
        let mut spans = Vec::new();
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        secrets.find(text.as_bytes(), &mut spans);
        spans
    }
}

/// Puts [`MARK`] over the spans, one for those that overlap or touch.
fn hide(text: &str, mut spans: Vec<Span>) -> String {
    spans.retain(|(start, end)| start < end);
    spans.sort_unstable();
    let mut shown = String::with_capacity(text.len());
    let mut done = 0;
    let mut spans = spans.into_iter().peekable();
    while let Some((start, mut end)) = spans.next() {
        while let Some(more) = spans.next_if(|more| more.0 <= end) {
            end = end.max(more.1);
        }
        shown.push_str(text.get(done..start).unwrap_or_default());
        shown.push_str(MARK);
        done = end;
    }
    shown.push_str(text.get(done..).unwrap_or_default());
    shown
}

/// `--api-key` or `-api-key`; a single letter names nothing.
fn names_content(flag: &str) -> bool {
    let Some(name) = flag.strip_prefix("--").or_else(|| flag.strip_prefix('-')) else {
        return false;
    };
    let name = name.to_ascii_lowercase();
    let words = !name.is_empty() && name.bytes().all(text::is_word);
    words && (name.contains("prompt") || name.contains("schema") || values::names_secret(&name))
}

/// A flag that follows another one is no value of it.
fn looks_like_flag(argument: &str) -> bool {
    argument.strip_prefix("--").is_some_and(|name| {
        let name = name.split_once('=').map_or(name, |(name, _)| name);
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    })
}

fn is_content(argument: &str) -> bool {
    argument.chars().any(char::is_whitespace) || argument.chars().nth(LONGEST_ARGUMENT).is_some()
}

fn content_mark(argument: &str) -> String {
    if is_content_mark(argument.as_bytes()) {
        return argument.to_owned();
    }
    format!("{CONTENT_MARK}{}]", argument.chars().count())
}

fn is_content_mark(text: &[u8]) -> bool {
    text.strip_prefix(CONTENT_MARK.as_bytes())
        .and_then(|rest| rest.strip_suffix(b"]"))
        .is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
}
