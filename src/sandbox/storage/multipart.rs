//! `multipart/form-data`, split as it comes in: never more than a chunk and a part's head is held.

use bytes::{Buf as _, Bytes, BytesMut};

/// Bytes of all headers of one part.
const MAX_HEAD: usize = 8 * 1024;
/// Characters, as the standard has it.
const MAX_BOUNDARY: usize = 70;

/// What comes next in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A part begins.
    Head {
        /// Its field; supabase-js sends files as the field of no name.
        name: String,
        /// Of a file.
        content_type: Option<String>,
    },
    /// More of the part's content; may be empty.
    Data(Bytes),
    /// Nothing follows that counts.
    End,
}

/// The body is no `multipart/form-data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not valid multipart/form-data")]
pub(super) struct BadMultipart;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first part: nobody writes anything there.
    Preamble,
    /// Just after a delimiter.
    Delimited,
    Head,
    Data,
    End,
}

/// Splits one body.
#[derive(Debug)]
pub(super) struct Splitter {
    /// Line break, two hyphens, boundary.
    delimiter: Vec<u8>,
    buffer: BytesMut,
    state: State,
}

impl Splitter {
    /// For a body of this `Content-Type`; `None` when that is not multipart.
    pub(super) fn new(content_type: &str) -> Option<Result<Self, BadMultipart>> {
        let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary")
            .filter(|boundary| (1..=MAX_BOUNDARY).contains(&boundary.len()));
        Some(boundary.ok_or(BadMultipart).map(|boundary| Self {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // The first delimiter may lack its line break.
            buffer: BytesMut::from(&b"\r\n"[..]),
            state: State::Preamble,
        }))
    }

    /// Adds what came in.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.state != State::End {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next piece of what came in; `None`: more must come.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, BadMultipart> {
        loop {
            match self.state {
                State::Preamble => match self.content() {
                    Some(text) if text.is_empty() => {}
                    Some(_) => return Err(BadMultipart),
                    None => return Ok(None),
                },
                State::Data => return Ok(self.content().map(Piece::Data)),
                State::Delimited => {
                    if !self.delimited()? {
                        return Ok(None);
                    }
                }
                State::Head => return self.head(),
                State::End => return Ok(Some(Piece::End)),
            }
        }
    }

    /// Content up to a delimiter, which is taken as well, or as far as no delimiter can begin.
    fn content(&mut self) -> Option<Bytes> {
        if let Some(at) = find(&self.buffer, &self.delimiter) {
            let content = self.buffer.split_to(at).freeze();
            self.buffer.advance(self.delimiter.len());
            self.state = State::Delimited;
            return Some(content);
        }
        let sure = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
        (sure > 0).then(|| self.buffer.split_to(sure).freeze())
    }

    /// The rest of a delimiter's line. False: more must come.
    fn delimited(&mut self) -> Result<bool, BadMultipart> {
        let padding = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if padding > MAX_HEAD {
            return Err(BadMultipart);
        }
        let Some(mark) = self.buffer.get(padding..padding + 2) else { return Ok(false) };
        self.state = match mark {
            b"--" if padding == 0 => State::End,
            b"\r\n" => State::Head,
            _ => return Err(BadMultipart),
        };
        // One line break stays: a head without headers ends with it.
        self.buffer.advance(padding);
        Ok(true)
    }

    fn head(&mut self) -> Result<Option<Piece>, BadMultipart> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(at) = find(&self.buffer, END) else {
            return if self.buffer.len() > MAX_HEAD { Err(BadMultipart) } else { Ok(None) };
        };
        let head = self.buffer.split_to(at);
        self.buffer.advance(END.len());
        if head.len() > MAX_HEAD {
            return Err(BadMultipart);
        }
        self.state = State::Data;
        let head = std::str::from_utf8(&head).map_err(|_| BadMultipart)?;
        let value = |wanted: &str| {
            head.split("\r\n")
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.trim())
        };
        let name = value("content-disposition")
            .and_then(|value| value.split_once(';'))
            .filter(|(kind, _)| kind.trim().eq_ignore_ascii_case("form-data"))
            .and_then(|(_, parameters)| parameter(parameters, "name"))
            .ok_or(BadMultipart)?;
        let content_type = value("content-type").map(str::to_owned);
        Ok(Some(Piece::Head { name, content_type }))
    }
}

/// A parameter of a header's value: `; name=value; other="quoted; value"`.
fn parameter(mut parameters: &str, wanted: &str) -> Option<String> {
    loop {
        parameters = parameters.trim_start_matches([';', ' ', '\t']);
        let (name, rest) = parameters.split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find(';').unwrap_or(rest.len())),
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value.trim_end().to_owned());
        }
        parameters = rest;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(found) = haystack.get(from..)?.iter().position(|byte| *byte == first) {
        let at = from + found;
        if haystack.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=----b";

    /// Field and content of each part, whatever the chunks.
    fn split(body: &[u8], chunk: usize) -> Result<Vec<(String, Vec<u8>)>, BadMultipart> {
        let mut splitter = Splitter::new(TYPE).unwrap()?;
        let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
        for bytes in body.chunks(chunk.max(1)) {
            splitter.push(bytes);
            while let Some(piece) = splitter.next()? {
                match piece {
                    Piece::Head { name, .. } => parts.push((name, Vec::new())),
                    Piece::Data(data) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                    Piece::End => return Ok(parts),
                }
            }
            assert!(splitter.buffer.len() <= chunk + MAX_HEAD);
        }
        Err(BadMultipart)
    }

    fn body(content: &[u8]) -> Vec<u8> {
        let mut body =
            b"------b\r\nContent-Disposition: form-data; name=\"cacheControl\"\r\n\r\n3600\
            \r\n------b\r\nContent-Disposition: form-data; name=\"\"; filename=\"a;name=x\"\r\n\
            Content-Type: image/png\r\n\r\n"
                .to_vec();
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n------b--\r\n");
        body
    }

    #[test]
    fn parts_come_out_as_they_went_in_whatever_the_chunks() {
        let content = b"\r\n--\r\n------\r\n------c\r\n";
        for chunk in 1..200 {
            let parts = split(&body(content), chunk).unwrap();
            let expected =
                [("cacheControl".to_owned(), b"3600".to_vec()), (String::new(), content.to_vec())];
            assert_eq!(parts, expected, "{chunk}");
        }
    }

    #[test]
    fn what_breaks_off_or_is_no_multipart_is_refused() {
        let whole = body(b"content");
        let cut = whole.get(..whole.len() - 4).unwrap();
        assert_eq!(split(cut, 7), Err(BadMultipart));
        for bad in [
            "------b\r\nContent-Type: text/plain\r\n\r\nx\r\n------b--",
            "------b\r\n\r\n\r\nx\r\n------b--",
            "------bX\r\nContent-Disposition: form-data; name=\"\"\r\n\r\nx\r\n------b--",
            &format!("------b\r\nX: {}", "x".repeat(2 * MAX_HEAD)),
        ] {
            assert_eq!(split(bad.as_bytes(), 4096), Err(BadMultipart), "{bad:.40}");
        }
        assert!(Splitter::new("text/plain").is_none());
        assert!(Splitter::new("multipart/form-data").unwrap().is_err());
        let quoted = Splitter::new("Multipart/Form-Data; charset=x; boundary=\"a b\"");
        assert_eq!(quoted.unwrap().unwrap().delimiter, b"\r\n--a b");
    }

    proptest! {
        #[test]
        fn any_content_survives(
            content in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), any::<u8>()], 0..300),
            chunk in 1_usize..50,
        ) {
            prop_assume!(find(&content, b"\r\n------b").is_none());
            let parts = split(&body(&content), chunk).unwrap();
            prop_assert_eq!(&parts[1].1, &content);
        }

        #[test]
        fn nonsense_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), chunk in 1_usize..50) {
            let mut all = b"------b\r\n".to_vec();
            all.extend_from_slice(&bytes);
            let _ = split(&all, chunk);
        }
    }
}
