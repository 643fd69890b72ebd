//! The bytes under the scanner: where words, quotes and colours begin and end.

/// Blanks and backslashes that may stand before a quote.
const MOST_ESCAPES: usize = 64;

/// Text that is looked at byte by byte; every structure in it is ASCII, so that what is cut there
/// is cut between characters.
pub(super) struct Text<'a> {
    bytes: &'a [u8],
    /// The whole text is JSON: its own quotes carry no backslash, those inside its strings do.
    is_json: bool,
    /// How often a byte was looked at: what the test of linear time counts.
    #[cfg(test)]
    pub(super) looks: std::cell::Cell<usize>,
}

/// An opening quote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quote {
    pub(super) sign: u8,
    /// Backslashes before it.
    pub(super) escapes: usize,
    /// Where the quoted text starts.
    pub(super) content: usize,
}

impl<'a> Text<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let is_json = text.trim_ascii_start().starts_with(['{', '['])
            && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        Self {
            bytes: text.as_bytes(),
            is_json,
            #[cfg(test)]
            looks: std::cell::Cell::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        self.bytes.get(at).copied()
    }

    pub(super) fn before(&self, at: usize) -> Option<u8> {
        self.byte(at.checked_sub(1)?)
    }

    pub(super) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        self.bytes.get(from..to).unwrap_or_default()
    }

    pub(super) fn starts_with(&self, at: usize, word: &str) -> bool {
        self.byte(at) == word.bytes().next() && self.slice(at, at + word.len()) == word.as_bytes()
    }

    pub(super) fn starts_with_any_case(&self, at: usize, word: &str) -> bool {
        self.slice(at, at + word.len()).eq_ignore_ascii_case(word.as_bytes())
    }

    pub(super) fn skip(&self, from: usize, skipped: impl Fn(u8) -> bool) -> usize {
        let mut at = from;
        while self.byte(at).is_some_and(&skipped) {
            at += 1;
        }
        at
    }

    pub(super) fn skip_back(&self, from: usize, skipped: impl Fn(u8) -> bool) -> usize {
        let mut at = from;
        while self.before(at).is_some_and(&skipped) {
            at -= 1;
        }
        at
    }

    pub(super) fn end_of_word(&self, from: usize) -> usize {
        self.skip(from, is_word)
    }

    /// Skips blanks and colours.
    pub(super) fn skip_blanks(&self, from: usize) -> usize {
        let mut at = from;
        loop {
            at = self.skip(at, is_blank);
            if !self.starts_with(at, "\x1b[") {
                return at;
            }
            let end = self.skip(at + 2, is_colour);
            if self.byte(end) != Some(b'm') {
                return at;
            }
            at = end + 1;
        }
    }

    /// Skips blanks and colours, backwards.
    pub(super) fn skip_blanks_back(&self, from: usize) -> usize {
        let mut at = from;
        loop {
            at = self.skip_back(at, is_blank);
            if self.before(at) != Some(b'm') {
                return at;
            }
            let start = self.skip_back(at - 1, is_colour);
            if start < 2 || !self.starts_with(start - 2, "\x1b[") {
                return at;
            }
            at = start - 2;
        }
    }

    /// The quote that opens here. In JSON, one without backslashes opens the value of a member;
    /// behind a key inside a string it closes that string.
    pub(super) fn quote_at(&self, at: usize, behind_member: bool) -> Option<Quote> {
        let mut mark = at;
        while self.byte(mark) == Some(b'\\') && mark - at < MOST_ESCAPES {
            mark += 1;
        }
        let sign = self.byte(mark).filter(|byte| is_quote(*byte))?;
        let escapes = mark - at;
        let closes = self.is_json && sign == b'"' && escapes == 0 && !behind_member;
        (!closes).then_some(Quote { sign, escapes, content: mark + 1 })
    }

    /// Where the quoted text ends, before the backslashes of its closing quote, and what follows
    /// that quote; nothing does when the text around was closed instead, or everything ended.
    ///
    /// A quote inside text that is itself quoted `n` deep carries `2^n - 1` backslashes; content
    /// that ends in backslashes adds multiples of `2^(n+1)` to them. A quote with fewer closes the
    /// text around.
    pub(super) fn end_of_quoted(&self, quote: Quote) -> (usize, Option<usize>) {
        let mut at = quote.content;
        let mut backslashes = 0;
        while let Some(byte) = self.byte(at) {
            if byte == b'\\' {
                backslashes += 1;
            } else if byte == quote.sign && backslashes < quote.escapes {
                return (at - backslashes, None);
            } else if byte == quote.sign && backslashes % (2 * (quote.escapes + 1)) == quote.escapes
            {
                return (at - quote.escapes, Some(at + 1));
            } else if byte == b'"' && self.is_json && backslashes % 2 == 0 && quote.sign != b'"' {
                return (at, None);
            } else {
                backslashes = 0;
            }
            at += 1;
        }
        (at, None)
    }

    /// The first place that ends what starts at `from`. Backslash escapes stay whole: one of a
    /// quote or of the end of a line ends the text (it may be in a line of JSON, which must stay
    /// one), others belong to it.
    pub(super) fn end_where(&self, from: usize, ends: impl Fn(u8) -> bool) -> usize {
        let mut at = from;
        while let Some(byte) = self.byte(at) {
            if byte != b'\\' {
                if ends(byte) {
                    return at;
                }
                at += 1;
                continue;
            }
            let after = self.skip(at, |byte| byte == b'\\');
            let escapes = (after - at) % 2 == 1;
            match self.byte(after) {
                Some(byte) if is_quote(byte) => return at,
                Some(b'n' | b'r' | b't') if escapes => return after - 1,
                Some(b' '..=b'~') if escapes => at = after + 1,
                _ => at = after,
            }
        }
        at
    }
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

pub(super) fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_colour(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b';'
}

/// Ends a value that is not quoted.
pub(super) fn ends_bare(byte: u8) -> bool {
    byte.is_ascii_whitespace()
        || is_quote(byte)
        || matches!(byte, b',' | b';' | b'&' | b'<' | b')' | b'}' | 0x1b)
}
