//! Values that follow what names them: `key=value`, `key: value` and JSON members whose key names a
//! secret, at any depth of escaping, `Bearer value`, and the userinfo of URLs.

use super::text::{Quote, Text, ends_bare, is_blank, is_quote, is_word};
use super::{Span, is_content_mark};

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
/// Of a longer key its end is looked at.
const LONGEST_KEY: usize = 64;
/// What may stand before the secret in a value of two words.
const SCHEMES: [&str; 7] = ["basic", "bearer", "digest", "negotiate", "ntlm", "token", "apikey"];
/// Debug output has these around a quoted value.
const WRAPPERS: [&str; 5] = ["Some", "Ok", "String", "Secret", "SecretString"];
/// What people write behind "Bearer" when they speak of it.
const ABOUT_BEARER: [&str; 7] =
    ["token", "tokens", "auth", "authentication", "authorization", "scheme", "schema"];

/// True when a key, flag or field of this name holds a secret: `session_id`, `apiKey`,
/// `OPENAI_API_KEY`, but not `max_tokens`.
pub(super) fn names_secret(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    SECRET_NAMES.iter().any(|secret| plain.ends_with(secret))
}

/// Finds values, given their separators and `Bearer`s from first to last.
///
/// What is hidden already is not looked at again, so that `token=token=token=…` costs no more than
/// any other text.
pub(super) struct Values<'a> {
    text: &'a Text<'a>,
    /// Values are hidden up to here.
    done: usize,
    /// The last quoted value or header ends here: what starts inside it ends there too, while a
    /// bare value may be the key of one that goes on (`token=authorization: Basic …`).
    closed: Option<usize>,
}

struct Key {
    name: String,
    /// A sign stands around it.
    quoted: bool,
    /// It is quoted without escapes: in JSON, the name of a member and not part of a string.
    member: bool,
    /// The quote right before it, which closes behind the value.
    around: Option<Quote>,
}

impl Key {
    /// Its value may have blanks and goes to the end of the line.
    fn is_header(&self) -> bool {
        self.name.ends_with("authorization") || self.name.ends_with("cookie")
    }
}

impl<'a> Values<'a> {
    pub(super) fn new(text: &'a Text<'a>) -> Self {
        Self { text, done: 0, closed: None }
    }

    /// Looks at the `=`, `:` or the percent-encoded one (three bytes) at `at`.
    pub(super) fn separator(&mut self, at: usize, length: usize, spans: &mut Vec<Span>) {
        let text = self.text;
        let colon = text.byte(at) == Some(b':');
        // `::` separates the parts of a path, not a key from its value.
        if colon && (text.byte(at + 1) == Some(b':') || text.before(at) == Some(b':')) {
            return;
        }
        let Some(key) = self.key_before(at) else { return };
        // `:=`, `=>`, `==`
        let after = text.skip(at + length, |byte| matches!(byte, b'=' | b':' | b'>' | b'~'));
        let mut start = text.skip_blanks(after);
        if key.quoted {
            let next = text.skip(start, |byte| byte.is_ascii_whitespace());
            let opens = text.quote_at(next, key.member).is_some() || text.byte(next) == Some(b'[');
            start = if opens { next } else { start };
        }
        if self.is_closed(start) {
            return;
        }
        let quote = text.quote_at(start, key.member).or_else(|| self.wrapped_quote(start, &key));
        if let Some(quote) = quote {
            self.quoted(quote, spans);
            return;
        }
        let listed = text.byte(start) == Some(b'[') && self.list(start + 1, &key, spans);
        if listed || key.quoted && self.is_json_literal(start) {
            return;
        }
        if colon && key.is_header() {
            let end = header_end(text, start.max(self.done), key.around);
            self.push(start, end, spans);
            self.closed = Some(end);
        } else {
            self.bare(start, &key, spans);
        }
    }

    /// `Bearer …`, `bearer "…"` at `at`; not the words of those who speak of it.
    pub(super) fn bearer(&mut self, at: usize, spans: &mut Vec<Span>) {
        const WORD: &str = "bearer";
        let text = self.text;
        if !text.starts_with_any_case(at, WORD) {
            return;
        }
        let behind = at + WORD.len();
        let start = match text.skip_blanks(behind) {
            start if start > behind => start,
            _ if text.starts_with(behind, "+") => behind + 1,
            _ if text.starts_with(behind, "%20") => behind + 3,
            _ => return,
        };
        if self.is_closed(start) {
            return;
        }
        if let Some(quote) = text.quote_at(start, false) {
            self.quoted(quote, spans);
            return;
        }
        let end = self.bare_end(start);
        let word = text.slice(start, end);
        let word = word.strip_suffix(b".").or_else(|| word.strip_suffix(b":")).unwrap_or(word);
        if !ABOUT_BEARER.iter().any(|about| word.eq_ignore_ascii_case(about.as_bytes())) {
            self.push(start, end, spans);
        }
    }

    /// `scheme://user:password@host` at its `:`, also with the slashes as some write them in JSON.
    pub(super) fn userinfo(&mut self, at: usize, spans: &mut Vec<Span>) {
        let text = self.text;
        let slash = |at: usize| {
            let at = text.skip(at, |byte| byte == b'\\');
            (text.byte(at) == Some(b'/')).then_some(at + 1)
        };
        let Some(start) = slash(at + 1).and_then(slash) else { return };
        let end = text.skip(start, |byte| {
            !byte.is_ascii_whitespace()
                && !is_quote(byte)
                && !matches!(byte, b'/' | b'?' | b'#' | b'<' | b'>' | b'\\')
        });
        let userinfo = text.slice(start, end).iter().rposition(|byte| *byte == b'@');
        let Some(mut end) = userinfo.map(|length| start + length) else { return };
        if start <= self.done && self.done < end {
            // A value that ends at a sign in the password goes on to the end of the URL.
            end = text.end_where(end, ends_bare);
            self.done = end;
        }
        spans.push((start, end));
    }

    fn key_before(&self, separator: usize) -> Option<Key> {
        let text = self.text;
        let mut end = text.skip_blanks_back(separator);
        // `user[token]=`, `headers["token"] =`, `user%5Btoken%5D=`
        if text.before(end) == Some(b']') {
            end -= 1;
        } else if end >= 3 && text.starts_with_any_case(end - 3, "%5D") {
            end -= 3;
        }
        let sign = text.before(end).filter(|byte| is_quote(*byte));
        let mut member = false;
        if let Some(sign) = sign {
            let closing = end - 1;
            end = text.skip_back(closing, |byte| byte == b'\\');
            member = sign == b'"' && end == closing;
        }
        let quoted = sign.is_some();
        let mut start = text.skip_back(end, is_word);
        if !quoted && start < end {
            start = self.start_of_words(start, end);
        }
        let first = start.max(end.saturating_sub(LONGEST_KEY));
        let name = std::str::from_utf8(text.slice(first, end)).ok()?.to_ascii_lowercase();
        names_secret(&name).then(|| Key {
            name,
            quoted,
            member,
            around: (!quoted).then(|| self.quote_before(start)).flatten(),
        })
    }

    fn quote_before(&self, content: usize) -> Option<Quote> {
        let sign = self.text.before(content).filter(|byte| is_quote(*byte))?;
        let escapes = content - 1 - self.text.skip_back(content - 1, |byte| byte == b'\\');
        Some(Quote { sign, escapes, content })
    }

    /// `API key`, `service role key` and `session ID` are keys of two and three words.
    fn start_of_words(&self, start: usize, end: usize) -> usize {
        let text = self.text;
        let is =
            |word: &str, start, end| text.slice(start, end).eq_ignore_ascii_case(word.as_bytes());
        let word_before = |start: usize| {
            let end = start.saturating_sub(1);
            let blank = text.before(start).is_some_and(is_blank);
            blank.then(|| {
                (
                    end - text
                        .slice(0, end)
                        .iter()
                        .rev()
                        .take(LONGEST_KEY)
                        .take_while(|byte| is_word(**byte))
                        .count(),
                    end,
                )
            })
        };
        if !is("key", start, end) && !is("id", start, end) {
            return start;
        }
        match word_before(start) {
            Some((before, end)) if is("role", before, end) => {
                word_before(before).map_or(start, |(start, _)| start)
            }
            Some((before, _)) => before,
            None => start,
        }
    }

    fn is_closed(&self, start: usize) -> bool {
        self.closed.is_some_and(|closed| start <= closed)
    }

    fn push(&mut self, start: usize, end: usize, spans: &mut Vec<Span>) {
        self.done = self.done.max(end);
        if start < end && !is_content_mark(self.text.slice(start, end)) {
            spans.push((start, end));
        }
    }

    /// The quote of `Some("…")`, as in debug output, or of Python's `b'…'`.
    fn wrapped_quote(&self, start: usize, key: &Key) -> Option<Quote> {
        let text = self.text;
        let end = text.end_of_word(start);
        let name = text.slice(start, end);
        if text.byte(end) == Some(b'(') && WRAPPERS.iter().any(|known| known.as_bytes() == name) {
            return text.quote_at(end + 1, key.member);
        }
        let prefixed = matches!(name, [b'b' | b'r' | b'u' | b'f']);
        text.quote_at(end, key.member).filter(|quote| prefixed && quote.sign == b'\'')
    }

    /// Gives what follows the closing quote.
    fn quoted(&mut self, quote: Quote, spans: &mut Vec<Span>) -> Option<usize> {
        // Quoted text inside a hidden value ends there at the latest.
        if quote.content <= self.done {
            return None;
        }
        let (end, after) = self.text.end_of_quoted(quote);
        self.push(quote.content, end, spans);
        self.closed = Some(end);
        after
    }

    /// The strings of `["a", "b"]`, from behind the bracket. False when there are none.
    fn list(&mut self, from: usize, key: &Key, spans: &mut Vec<Span>) -> bool {
        let text = self.text;
        let quote_behind = |at| {
            let at = text.skip(at, |byte| byte.is_ascii_whitespace() || byte == b',');
            text.quote_at(at, key.member)
        };
        let mut next = quote_behind(from);
        let found = next.is_some();
        while let Some(quote) = next {
            next = self.quoted(quote, spans).and_then(quote_behind);
        }
        found
    }

    fn is_json_literal(&self, at: usize) -> bool {
        let text = self.text;
        if text.byte(at).is_some_and(|byte| matches!(byte, b'[' | b'{')) {
            return true;
        }
        let end = text
            .skip(at, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'));
        let literal = text.slice(at, end);
        let ends = text.byte(end).is_none_or(|byte| {
            byte.is_ascii_whitespace() || matches!(byte, b',' | b'}' | b']' | b'\\')
        });
        let number = literal.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-')
            && std::str::from_utf8(literal).is_ok_and(|text| text.parse::<f64>().is_ok());
        ends && (number || matches!(literal, b"null" | b"true" | b"false"))
    }

    fn bare_end(&self, start: usize) -> usize {
        // `<value>`: the sign does not end what it begins.
        let from = if self.text.byte(start) == Some(b'<') { start + 1 } else { start };
        self.text.end_where(from.max(self.done), ends_bare)
    }

    fn bare(&mut self, start: usize, key: &Key, spans: &mut Vec<Span>) {
        let text = self.text;
        let mut end = self.bare_end(start);
        let word = text.slice(start, end);
        if is_blank(text.byte(end).unwrap_or(b'\n'))
            && SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme.as_bytes()))
        {
            end = self.bare_end(text.skip_blanks(end));
        }
        // `cookie=a=b; c=d`
        while key.name.ends_with("cookie") && start < end && text.byte(end) == Some(b';') {
            let name = text.skip(end + 1, is_blank);
            let equals = text.end_of_word(name);
            if equals == name || text.byte(equals) != Some(b'=') {
                break;
            }
            end = self.bare_end(equals);
        }
        self.push(start, end, spans);
    }
}

/// Where the value of a header ends: with the line, or where the text around is closed. A quote
/// behind `=` is a parameter's (`Digest username="a"`).
fn header_end(text: &Text<'_>, from: usize, around: Option<Quote>) -> usize {
    let sign = around.map_or(b'"', |around| around.sign);
    let mut at = from;
    loop {
        at = text.end_where(at, |byte| matches!(byte, b'\n' | b'\r' | b'"') || byte == sign);
        let Some(quote) = text.quote_at(at, false) else { return at };
        let closes = around.is_some_and(|a| a.sign == quote.sign && a.escapes >= quote.escapes);
        if closes {
            return at;
        }
        if quote.sign != b'"' {
            // Escaped ones of other signs stop the search, but belong to the value.
            at = quote.content;
            continue;
        }
        if text.before(at) != Some(b'=') {
            return at;
        }
        match text.end_of_quoted(quote) {
            (_, Some(after)) => at = after,
            (end, None) => return end,
        }
    }
}
