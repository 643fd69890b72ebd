//! A cursor over the text of one parameter.

use super::error::RestError;
use super::query::{Field, Step};

/// Names in a JSON path at most.
const MOST_STEPS: usize = 20;

/// What is left of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanner<'a> {
    whole: &'a str,
    rest: &'a str,
    what: &'static str,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning; `what` names the parameter in errors.
    pub(super) fn new(what: &'static str, text: &'a str) -> Self {
        Self { whole: text, rest: text, what }
    }

    /// The error for this parameter.
    pub(super) fn error(&self) -> RestError {
        let at = self.whole.len() - self.rest.len();
        RestError::syntax(self.what, self.whole).details(format!("unexpected input at byte {at}"))
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    /// Fails when something is left.
    pub(super) fn end(&self) -> Result<(), RestError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error()) }
    }

    /// Skips a word if it comes next.
    pub(super) fn take(&mut self, word: &str) -> bool {
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Skips a word that must come next.
    pub(super) fn expect(&mut self, word: &str) -> Result<(), RestError> {
        if self.take(word) { Ok(()) } else { Err(self.error()) }
    }

    /// The text up to one of `stops` or the end.
    pub(super) fn until(&mut self, stops: &[char]) -> &'a str {
        let end = self.rest.find(stops).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text
    }

    /// A text in double quotes, `\` before a character takes it literally; `None` when no quote
    /// comes next.
    pub(super) fn quoted(&mut self) -> Result<Option<String>, RestError> {
        let Some(inside) = self.rest.strip_prefix('"') else { return Ok(None) };
        let mut text = String::new();
        let mut chars = inside.char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.rest = inside.get(at + 1..).unwrap_or_default();
                    return Ok(Some(text));
                }
                '\\' => match chars.next() {
                    Some((_, char)) => text.push(char),
                    None => break,
                },
                char => text.push(char),
            }
        }
        Err(self.error())
    }

    /// A value inside brackets: quoted, or raw up to `,` or `)`. A quoted text that goes on after
    /// its closing quote is raw.
    pub(super) fn list_value(&mut self) -> String {
        let start = *self;
        if let Ok(Some(text)) = self.quoted()
            && (self.rest.is_empty() || self.rest.starts_with([',', ')']))
        {
            return text;
        }
        *self = start;
        self.until(&[',', ')']).to_owned()
    }

    /// A column, perhaps with a JSON path behind it; names end at one of `stops` or an arrow.
    pub(super) fn field(&mut self, stops: &[char]) -> Result<Field, RestError> {
        let column = self.name(stops)?;
        let (mut path, mut as_text) = (Vec::new(), false);
        while self.rest.starts_with("->") {
            if as_text {
                return Err(self.error().hint("->> gives a text and must be the last arrow"));
            }
            if path.len() == MOST_STEPS {
                return Err(RestError::too_complex("steps in a JSON path", MOST_STEPS));
            }
            as_text = self.take("->>");
            if !as_text {
                self.take("->");
            }
            let quoted = self.rest.starts_with('"');
            let name = self.name(stops)?;
            path.push(match name.parse() {
                Ok(index) if !quoted => Step::Index(index),
                _ => Step::Key(name),
            });
        }
        Ok(Field { column, path, as_text })
    }

    fn name(&mut self, stops: &[char]) -> Result<String, RestError> {
        if let Some(name) = self.quoted()? {
            return Ok(name);
        }
        let end = self.rest.find(stops).unwrap_or(self.rest.len());
        let end = self.rest.find("->").map_or(end, |arrow| arrow.min(end));
        let (name, rest) = self.rest.split_at(end);
        let name = name.trim();
        if name.is_empty() || name.contains(['"', '\0']) {
            return Err(self.error());
        }
        self.rest = rest;
        Ok(name.to_owned())
    }
}
