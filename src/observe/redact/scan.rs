//! Finds secrets in foreign text by their look and by their key, in one pass.
//!
//! Spans may overlap. Each scan forward either covers new bytes or is bounded, so that hostile
//! text (`token=token=token=…`, `eyJeyJeyJ…`) costs no more than any other.

use super::Span;
use super::text::{Text, is_word};
use super::values::Values;

/// Prefixes of provider keys, and how many characters must follow.
const KEY_PREFIXES: [(&str, usize); 8] = [
    ("AIza", 8),
    ("ghp_", 4),
    ("gho_", 4),
    ("ghu_", 4),
    ("ghs_", 4),
    ("ghr_", 4),
    ("github_pat_", 4),
    ("sb_secret_", 4),
];
/// `sk-ant-…` is a key in the middle of a word too; `sk-…` would be the end of `disk-…`.
const ANTHROPIC: &str = "sk-ant-";
/// Where secrets stand.
pub(super) fn secret_spans(text: &str) -> Vec<Span> {
    spans_of(&Text::new(text))
}

/// [`secret_spans`] of a text that counts how often it is looked at.
pub(super) fn spans_of(text: &Text<'_>) -> Vec<Span> {
    let mut scan = Scan { text, spans: Vec::new(), words_until: 0, jwt_until: 0 };
    let mut values = Values::new(text);
    for at in 0..text.len() {
        let Some(byte) = text.byte(at) else { break };
        match byte {
            b'=' => values.separator(at, 1, &mut scan.spans),
            b':' => {
                values.separator(at, 1, &mut scan.spans);
                values.userinfo(at, &mut scan.spans);
            }
            b'%' if is_encoded_separator(text, at) => values.separator(at, 3, &mut scan.spans),
            b'B' | b'b' => values.bearer(at, &mut scan.spans),
            b'e' => scan.jwt(at),
            b's' => {
                scan.dashed_key(at);
                scan.prefixed_key(at);
            }
            b'A' => {
                scan.prefixed_key(at);
                scan.amazon_key(at);
            }
            b'g' => scan.prefixed_key(at),
            b'x' => scan.slack_key(at),
            _ => {}
        }
    }
    scan.spans
}

fn is_encoded_separator(text: &Text<'_>, at: usize) -> bool {
    text.starts_with_any_case(at, "%3D") || text.starts_with_any_case(at, "%3A")
}

struct Scan<'a> {
    text: &'a Text<'a>,
    spans: Vec<Span>,
    /// A key with a known prefix reaches up to here.
    words_until: usize,
    /// A run that starts like a JWT was looked at up to here.
    jwt_until: usize,
}

impl Scan<'_> {
    /// `eyJ….….…`; a cut one without its last part counts too.
    fn jwt(&mut self, at: usize) {
        let text = self.text;
        if at < self.jwt_until || !text.starts_with(at, "eyJ") {
            return;
        }
        let first = text.end_of_word(at);
        let mut end = first;
        while text.byte(end) == Some(b'.') && text.byte(end + 1).is_some_and(is_word) {
            end = text.end_of_word(end + 1);
        }
        self.jwt_until = end;
        if end > first {
            self.spans.push((at, end));
        }
    }

    fn prefixed_key(&mut self, at: usize) {
        let text = self.text;
        if at < self.words_until {
            return;
        }
        let found = KEY_PREFIXES.iter().find(|(prefix, _)| text.starts_with(at, prefix));
        if let Some((prefix, least)) = found {
            self.key_of(at, prefix.len(), *least);
        }
    }

    fn dashed_key(&mut self, at: usize) {
        let text = self.text;
        if at < self.words_until || !text.starts_with(at, "sk-") {
            return;
        }
        // The `n` of an escaped newline begins no word.
        let escape = at > 1 && text.byte(at - 2) == Some(b'\\');
        let inside_word =
            !escape && text.before(at).is_some_and(|byte| byte.is_ascii_alphanumeric());
        if text.starts_with(at, ANTHROPIC) {
            self.key_of(at, ANTHROPIC.len(), 4);
        } else if !inside_word {
            self.key_of(at, 3, 8);
        }
    }

    /// `AKIA…`: capitals and digits only.
    fn amazon_key(&mut self, at: usize) {
        let text = self.text;
        if at < self.words_until || !text.starts_with(at, "AKIA") {
            return;
        }
        let end = text.skip(at + 4, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        if end - at >= 12 {
            self.key_of(at, 4, 8);
        }
    }

    /// `xoxb-…`
    fn slack_key(&mut self, at: usize) {
        let text = self.text;
        let looks_so = at >= self.words_until
            && text.starts_with(at, "xox")
            && text.byte(at + 3).is_some_and(|byte| byte.is_ascii_alphanumeric())
            && text.byte(at + 4) == Some(b'-');
        if looks_so {
            self.key_of(at, 5, 4);
        }
    }

    /// Hides the whole word when it is long enough.
    fn key_of(&mut self, at: usize, prefix: usize, least: usize) {
        let end = self.text.end_of_word(at + prefix);
        // One that is too short has no other that is long enough inside.
        if end - (at + prefix) >= least {
            self.words_until = self.words_until.max(end);
            self.spans.push((at, end));
        }
    }
}
