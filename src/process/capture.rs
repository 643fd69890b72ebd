//! Bounded capture of a stream.

/// What is kept of a stream: at most the bound, as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes, at most the bound, cut at a character boundary.
    pub bytes: Vec<u8>,
    /// More came than was kept.
    pub truncated: bool,
    /// How many bytes came in all until the result was made.
    pub total: u64,
}

impl Captured {
    /// UTF-8 with replacement.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// As [`Captured::text`], without a copy when the bytes are UTF-8 already.
    pub fn into_text(self) -> String {
        String::from_utf8(self.bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// Keeps the first `limit` bytes of what is pushed and counts the rest.
#[derive(Debug)]
pub(super) struct Capture {
    limit: usize,
    bytes: Vec<u8>,
    total: u64,
}

impl Capture {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, bytes: Vec::new(), total: 0 }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.total += chunk.len() as u64;
        let kept = chunk.len().min(self.limit - self.bytes.len());
        let wanted = self.bytes.len() + kept;
        if wanted > self.bytes.capacity() {
            // Doubling, but never past the bound: `Vec` alone would reserve up to twice of it.
            let capacity = wanted.max(self.bytes.capacity() * 2).min(self.limit);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(&chunk[..kept]);
    }

    pub(super) fn finish(mut self) -> Captured {
        let truncated = self.total > self.bytes.len() as u64;
        if truncated {
            let whole = self.bytes.len() - open_character(&self.bytes);
            self.bytes.truncate(whole);
        }
        Captured { bytes: self.bytes, truncated, total: self.total }
    }
}

/// How many bytes at the end of `bytes` begin a UTF-8 character that the end cuts off.
fn open_character(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let Some(lead) = tail.iter().rposition(|byte| byte & 0xC0 != 0x80) else { return 0 };
    let open = &tail[lead..];
    // `error_len` is `None` exactly when more bytes could complete the character.
    match std::str::from_utf8(open) {
        Err(error) if error.error_len().is_none() => open.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(limit: usize, chunks: &[&[u8]]) -> Captured {
        let mut capture = Capture::new(limit);
        for chunk in chunks {
            capture.push(chunk);
        }
        capture.finish()
    }

    #[test]
    fn up_to_the_bound_everything_is_kept_as_it_came() {
        let captured = capture(6, &[b"a\0b", b"\xff\xfec"]);
        assert_eq!(captured.bytes, b"a\0b\xff\xfec");
        assert!(!captured.truncated);
        assert_eq!(captured.total, 6);
        assert_eq!(captured.text(), "a\0b\u{fffd}\u{fffd}c");
        assert_eq!(captured.into_text(), "a\0b\u{fffd}\u{fffd}c");
    }

    #[test]
    fn the_rest_is_counted_and_memory_stays_within_the_bound() {
        let mut capture = Capture::new(1000);
        for _ in 0..1000 {
            capture.push(&[b'x'; 777]);
        }
        assert!(capture.bytes.capacity() <= 1000, "{}", capture.bytes.capacity());
        let captured = capture.finish();
        assert_eq!(
            (captured.bytes.len(), captured.truncated, captured.total),
            (1000, true, 777_000)
        );
    }

    #[test]
    fn a_character_is_never_cut() {
        let text = "aé€😀z".as_bytes();
        for limit in 0..=text.len() {
            let captured = capture(limit, &[text]);
            let kept = std::str::from_utf8(&captured.bytes).expect("whole characters");
            assert!("aé€😀z".starts_with(kept));
            assert!(limit - kept.len() <= 3, "{limit} {kept}");
            assert_eq!(captured.truncated, limit < text.len());
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_not_trimmed() {
        assert_eq!(capture(3, &[b"\x80\x80\x80\x80"]).bytes, b"\x80\x80\x80");
        assert_eq!(capture(3, &[b"ab\xff\xff"]).bytes, b"ab\xff");
        assert_eq!(capture(0, &[b"ab"]), Captured { bytes: vec![], truncated: true, total: 2 });
    }

    #[test]
    fn whole_text_that_ends_open_by_itself_is_left_alone() {
        assert_eq!(capture(10, &[b"ab\xe2\x82"]).bytes, b"ab\xe2\x82");
    }
}
