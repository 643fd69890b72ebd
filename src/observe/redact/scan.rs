//! Finds secrets in foreign text by their look, in one pass.
//!
//! Spans may overlap. Each scan forward either covers new bytes or is bounded, so that hostile
//! text (`token=token=token=…`, `eyJeyJeyJ…`) costs no more than any other.

use super::MARK;

/// Names of secrets, without `_` and `-`, in lower case; a key that ends with one of them counts.
const SECRET_NAMES: [&str; 11] = [
    "accesstoken",
    "refreshtoken",
    "apikey",
    "servicerolekey",
    "secret",
    "password",
    "authorization",
    "cookie",
    "session",
    "sessionid",
    "token",
];
/// Longest key that is looked at.
const LONGEST_KEY: usize = 64;
/// Blanks and backslashes that may stand around a separator.
const LONGEST_GAP: usize = 16;

/// Prefixes of provider keys, and how many characters must follow.
const KEY_PREFIXES: [(&str, usize); 9] = [
    ("AIza", 12),
    ("AKIA", 12),
    ("ghp_", 8),
    ("gho_", 8),
    ("ghu_", 8),
    ("ghs_", 8),
    ("ghr_", 8),
    ("github_pat_", 8),
    ("sb_secret_", 8),
];

/// True when a key, flag or field of this name holds a secret.
pub(super) fn names_secret(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    SECRET_NAMES.iter().any(|secret| plain.ends_with(secret))
}

/// Where secrets stand.
pub(super) fn secret_spans(text: &[u8]) -> Vec<(usize, usize)> {
    let mut scan = Scan { text, spans: Vec::new(), pairs_until: 0, words_until: 0, jwt_until: 0 };
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'=' | b':' => scan.separator(at),
            b'/' => scan.userinfo(at),
            b'B' | b'b' => scan.bearer(at),
            b'e' => scan.jwt(at),
            b's' => {
                scan.dashed_key(at);
                scan.prefixed_key(at);
            }
            b'A' | b'g' => scan.prefixed_key(at),
            b'x' => scan.slack_key(at),
            _ => {}
        }
    }
    scan.spans
}

struct Scan<'a> {
    text: &'a [u8],
    spans: Vec<(usize, usize)>,
    /// Values of pairs are hidden up to here.
    pairs_until: usize,
    /// A key with a known prefix reaches up to here.
    words_until: usize,
    /// A run that starts like a JWT was looked at up to here.
    jwt_until: usize,
}

impl Scan<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(b'\n')
    }

    fn starts_with(&self, at: usize, prefix: &str) -> bool {
        self.text.get(at..).is_some_and(|rest| rest.starts_with(prefix.as_bytes()))
    }

    fn end_of_word(&self, from: usize) -> usize {
        let mut end = from;
        while end < self.text.len() && is_word(self.text[end]) {
            end += 1;
        }
        end
    }

    /// `key=value`, `key: value`, `"key":"value"`, at any depth of JSON escaping.
    fn separator(&mut self, at: usize) {
        // `::` separates the parts of a path, not a key from its value.
        if self.byte(at + 1) == b':' || (at > 0 && self.text[at - 1] == b':') {
            return;
        }
        let Some(key) = self.key_before(at) else { return };
        let mut start = at + 1;
        if self.byte(start) == b'>' {
            start += 1;
        }
        while matches!(self.byte(start), b' ' | b'\t') && start < self.text.len() {
            start += 1;
        }
        if self.starts_with(start, MARK) {
            return;
        }
        let end = match self.quote_at(start) {
            Some(quote) => {
                start = quote.content;
                self.end_of_quoted(start, &quote)
            }
            None if key.quoted && self.is_json_literal(start) => return,
            None if key.whole_line => self.end_of_line(start),
            None => self.end_of_bare(start),
        };
        if start < end {
            self.pairs_until = self.pairs_until.max(end);
            self.spans.push((start, end));
        }
    }

    fn key_before(&self, separator: usize) -> Option<Key> {
        let mut end = separator;
        let limit = separator.saturating_sub(LONGEST_GAP);
        while end > limit && matches!(self.text[end - 1], b' ' | b'\t') {
            end -= 1;
        }
        let quoted = end > 0 && matches!(self.text[end - 1], b'"' | b'\'');
        if quoted {
            end -= 1;
            while end > limit && self.text[end - 1] == b'\\' {
                end -= 1;
            }
        }
        let mut start = end;
        let limit = end.saturating_sub(LONGEST_KEY);
        while start > limit && is_word(self.text[start - 1]) {
            start -= 1;
        }
        let name = std::str::from_utf8(&self.text[start..end]).ok()?;
        if !names_secret(name) {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let whole_line = self.text[separator] == b':'
            && (name.ends_with("authorization") || name.ends_with("cookie"));
        Some(Key { quoted, whole_line })
    }

    fn quote_at(&self, at: usize) -> Option<Quote> {
        let mut mark = at;
        while self.byte(mark) == b'\\' && mark - at < LONGEST_GAP {
            mark += 1;
        }
        let sign = self.byte(mark);
        matches!(sign, b'"' | b'\'').then_some(Quote {
            sign,
            escapes: mark - at,
            content: mark + 1,
        })
    }

    /// A quote inside text that is itself quoted `n` deep carries `2^n - 1` backslashes; content
    /// that ends in backslashes adds multiples of `2^(n+1)` to them. A quote with fewer closes the
    /// text around.
    fn end_of_quoted(&self, from: usize, quote: &Quote) -> usize {
        let mut at = from.max(self.pairs_until);
        let mut backslashes = 0;
        while at < self.text.len() {
            let byte = self.text[at];
            if byte == b'\\' {
                backslashes += 1;
            } else {
                let closes = backslashes < quote.escapes
                    || backslashes % (2 * (quote.escapes + 1)) == quote.escapes;
                if byte == quote.sign && closes {
                    return (at - backslashes.min(quote.escapes)).max(from);
                }
                backslashes = 0;
            }
            at += 1;
        }
        self.text.len()
    }

    fn is_json_literal(&self, at: usize) -> bool {
        matches!(self.byte(at), b'0'..=b'9' | b'-' | b'[' | b'{')
            || ["null", "true", "false"].iter().any(|literal| self.starts_with(at, literal))
    }

    fn end_of_line(&self, from: usize) -> usize {
        self.end_where(from, |byte| matches!(byte, b'\n' | b'\r' | b'"' | b'\''))
    }

    fn end_of_bare(&self, from: usize) -> usize {
        let end = self.end_where(from, |byte| {
            byte.is_ascii_whitespace()
                || matches!(byte, b',' | b';' | b'&' | b'"' | b'\'' | b'`' | b'<' | b')' | b'}')
        });
        // Debug output: `token: Some("…")`.
        if end > from
            && matches!(self.text[end - 1], b'(' | b'[' | b'{')
            && let Some(quote) = self.quote_at(end)
        {
            return self.end_of_quoted(quote.content, &quote);
        }
        end
    }

    /// Backslash escapes stay whole: one of a quote or of a blank ends the value (the text may be a
    /// line of JSON, which must stay one), others belong to it.
    fn end_where(&self, from: usize, ends: impl Fn(u8) -> bool) -> usize {
        let mut at = from.max(self.pairs_until);
        while at < self.text.len() {
            let byte = self.text[at];
            if ends(byte) {
                break;
            }
            if byte == b'\\' {
                if matches!(self.byte(at + 1), b'"' | b'\'' | b'n' | b'r' | b't') {
                    break;
                }
                // The byte after a backslash may be the first of a character: take it alone only
                // when it is ASCII, so that the span ends between characters.
                at += if self.byte(at + 1).is_ascii() && at + 1 < self.text.len() { 2 } else { 1 };
                continue;
            }
            at += 1;
        }
        at
    }

    fn bearer(&mut self, at: usize) {
        const WORD: &str = "bearer";
        let is_word = self
            .text
            .get(at..at + WORD.len())
            .is_some_and(|w| w.eq_ignore_ascii_case(WORD.as_bytes()));
        let mut start = at + WORD.len();
        if !is_word || !matches!(self.byte(start), b' ' | b'\t') || start >= self.text.len() {
            return;
        }
        while start < self.text.len() && matches!(self.text[start], b' ' | b'\t') {
            start += 1;
        }
        if self.starts_with(start, MARK) {
            return;
        }
        let mut end = start;
        while end < self.text.len()
            && !self.text[end].is_ascii_whitespace()
            && !matches!(
                self.text[end],
                b'"' | b'\'' | b'`' | b',' | b';' | b'\\' | b'<' | b')' | b'}'
            )
        {
            end += 1;
        }
        self.spans.push((start, end));
    }

    /// `eyJ….….…`; a cut one without its last part counts too.
    fn jwt(&mut self, at: usize) {
        if at < self.jwt_until || !self.starts_with(at, "eyJ") {
            return;
        }
        let mut end = self.end_of_word(at);
        self.jwt_until = end;
        let mut parts = 1;
        while parts < 5 && self.byte(end) == b'.' && is_word(self.byte(end + 1)) {
            end = self.end_of_word(end + 1);
            parts += 1;
        }
        if parts > 1 {
            self.jwt_until = end;
            self.spans.push((at, end));
        }
    }

    fn prefixed_key(&mut self, at: usize) {
        if at < self.words_until {
            return;
        }
        if let Some((prefix, least)) =
            KEY_PREFIXES.iter().find(|(prefix, _)| self.starts_with(at, prefix))
        {
            self.key_of(at, prefix.len(), *least);
        }
    }

    /// `sk-…` and `sk-ant-…`, but not the end of `disk-…` or `task-…`.
    fn dashed_key(&mut self, at: usize) {
        let inside_word = at > 0 && is_word(self.text[at - 1]);
        if !inside_word && self.starts_with(at, "sk-") {
            self.key_of(at, 3, 8);
        }
    }

    fn slack_key(&mut self, at: usize) {
        let looks_so = self.starts_with(at, "xox")
            && self.byte(at + 3).is_ascii_alphanumeric()
            && self.byte(at + 4) == b'-';
        if at >= self.words_until && looks_so {
            self.key_of(at, 5, 8);
        }
    }

    fn key_of(&mut self, at: usize, prefix: usize, least: usize) {
        let end = self.end_of_word(at + prefix);
        if end - (at + prefix) >= least {
            self.words_until = self.words_until.max(end);
            self.spans.push((at, end));
        }
    }

    /// `scheme://user:password@host`.
    fn userinfo(&mut self, at: usize) {
        if at == 0 || self.text[at - 1] != b':' || self.byte(at + 1) != b'/' {
            return;
        }
        let start = at + 2;
        let mut last_at_sign = None;
        for (offset, byte) in self.text.get(start..).unwrap_or_default().iter().enumerate() {
            match byte {
                b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'\\' | b'`' => break,
                byte if byte.is_ascii_whitespace() => break,
                b'@' => last_at_sign = Some(start + offset),
                _ => {}
            }
        }
        if let Some(end) = last_at_sign {
            self.spans.push((start, end));
        }
    }
}

struct Key {
    quoted: bool,
    /// A header whose value has blanks.
    whole_line: bool,
}

struct Quote {
    sign: u8,
    escapes: usize,
    content: usize,
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}
