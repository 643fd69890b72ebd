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
}
