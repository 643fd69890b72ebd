//! The secrets that the gateway itself holds, found by exact value in one pass.
//!
//! Every form of a secret is known by its last eight bytes: tokens share their beginnings, hardly
//! ever their ends. A bit set of hashed ends rules out nearly every place of a text at once.

use std::collections::HashMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{MARK, Span};

/// Shorter "secrets" would tear ordinary words out of text.
pub(super) const SHORTEST_SECRET: usize = size_of::<u64>();
/// How many own secrets are remembered. Rotated tokens add up over weeks; the oldest go first.
pub(super) const MOST_SECRETS: usize = 256;

/// What RFC 3986 leaves as it is.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// What JavaScript's `encodeURIComponent` leaves as it is.
const COMPONENT: &AsciiSet =
    &STRICT.remove(b'!').remove(b'*').remove(b'\'').remove(b'(').remove(b')');

/// The own secrets.
#[derive(Default)]
pub(super) struct OwnSecrets {
    secrets: Vec<Secret>,
    ends: Ends,
    /// Counts additions, so that the oldest secret can be told.
    additions: u64,
}

struct Secret {
    text: String,
    forms: Vec<String>,
    /// The addition that named it last.
    added: u64,
}

impl OwnSecrets {
    /// Too short ones are ignored, and so are those that are part of what stands for a secret.
    pub(super) fn add(&mut self, text: &str) {
        if text.len() < SHORTEST_SECRET || MARK.contains(text) {
            return;
        }
        self.additions += 1;
        let added = self.additions;
        if let Some(known) = self.secrets.iter_mut().find(|known| known.text == text) {
            // Known again is young again: a long-lived key is not pushed out by rotated tokens.
            known.added = added;
            return;
        }
        let secret = Secret { text: text.to_owned(), forms: forms(text), added };
        let full = self.secrets.len() >= MOST_SECRETS;
        match self.secrets.iter_mut().min_by_key(|known| known.added) {
            Some(oldest) if full => *oldest = secret,
            Some(_) | None => self.secrets.push(secret),
        }
        self.ends = Ends::of(&self.secrets);
    }

    /// Adds the places where one stands.
    pub(super) fn find(&self, text: &[u8], spans: &mut Vec<Span>) {
        if self.secrets.is_empty() {
            return;
        }
        let mut window = 0;
        for (at, byte) in text.iter().enumerate() {
            window = window << 8 | u64::from(*byte);
            if !self.ends.may_hold(window) {
                continue;
            }
            for (secret, form) in self.ends.by_window.get(&window).into_iter().flatten() {
                let form = self.secrets[*secret].forms[*form].as_bytes();
                let end = at + 1;
                if text[..end].ends_with(form) {
                    spans.push((end - form.len(), end));
                }
            }
        }
    }
}

/// The last eight bytes of all forms.
#[derive(Default)]
struct Ends {
    bits: Vec<u64>,
    /// Which secrets, and which of their forms, end so.
    by_window: HashMap<u64, Vec<(usize, usize)>>,
}

impl Ends {
    const BITS: u32 = 16;

    fn of(secrets: &[Secret]) -> Self {
        let mut ends = Self { bits: vec![0; 1 << (Self::BITS - 6)], by_window: HashMap::new() };
        for (secret, known) in secrets.iter().enumerate() {
            for (form, text) in known.forms.iter().enumerate() {
                let Some(end) = text.as_bytes().last_chunk() else { continue };
                let window = u64::from_be_bytes(*end);
                let (word, bit) = Self::place(window);
                ends.bits[word] |= bit;
                ends.by_window.entry(window).or_default().push((secret, form));
            }
        }
        ends
    }

    fn may_hold(&self, window: u64) -> bool {
        let (word, bit) = Self::place(window);
        self.bits[word] & bit != 0
    }

    fn place(window: u64) -> (usize, u64) {
        let hash = window.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - Self::BITS);
        (usize::try_from(hash >> 6).unwrap_or(0), 1 << (hash & 63))
    }
}

/// The secret as it stands in plain text, in JSON (also in JSON inside JSON), in debug output and
/// in URLs and forms.
fn forms(secret: &str) -> Vec<String> {
    let json = |text: &str| {
        let quoted = serde_json::Value::from(text).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let debug = format!("{secret:?}");
    let component = utf8_percent_encode(secret, COMPONENT).to_string();
    let strict = utf8_percent_encode(secret, STRICT).to_string();
    let mut forms = vec![
        json(secret),
        json(&json(secret)),
        json(secret).replace('/', "\\/"),
        debug[1..debug.len() - 1].to_owned(),
        lower_escapes(&component),
        lower_escapes(&strict),
        strict.replace("%20", "+"),
        component,
        strict,
        secret.to_owned(),
    ];
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// `%2F` as `%2f`.
fn lower_escapes(encoded: &str) -> String {
    let mut digits = 0;
    encoded
        .chars()
        .map(|char| {
            if char == '%' {
                digits = 2;
                return char;
            }
            if digits > 0 {
                digits -= 1;
                return char.to_ascii_lowercase();
            }
            char
        })
        .collect()
}
