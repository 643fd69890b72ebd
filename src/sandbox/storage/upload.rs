//! Objects on their way in: a body, raw or as a form, becomes a content.
//!
//! A chunk at a time is held. A body that breaks off, stalls or grows too large leaves nothing.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::error::StorageError;
use super::multipart::{BadMultipart, Piece, Splitter};
use super::objects::Describe;
use crate::sandbox::contents::{Contents, Finished, Upload};

/// Within this time something more must come; how long all of it takes does not matter.
const PROGRESS_TIME_LIMIT: Duration = Duration::from_mins(1);
/// How much of a refused body is read and thrown away, so that its sender reads the answer.
const DRAIN: usize = 8 * 1024 * 1024;
const DRAIN_TIME_LIMIT: Duration = Duration::from_secs(10);
const DEFAULT_TYPE: &str = "application/octet-stream";
/// Bytes of a content type.
const MAX_TYPE: usize = 255;
/// Bytes of a form's field that is not the file.
const MAX_FIELD: usize = 64;

/// Reads an object of at most `most` bytes.
pub(super) async fn receive(
    contents: &Contents,
    headers: &HeaderMap,
    body: &mut Body,
    most: u64,
) -> Result<(Describe, Finished), StorageError> {
    if headers.contains_key("x-metadata") {
        return Err(no_metadata());
    }
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str);
    let content_type = match content_type {
        None => DEFAULT_TYPE,
        Some(Ok(text)) => text,
        Some(Err(_)) => return Err(bad_type()),
    };
    if let Some(splitter) = Splitter::new(content_type) {
        return receive_form(contents, splitter?, body, most).await;
    }
    let describe = Describe {
        content_type: checked_type(content_type)?,
        max_age: headers
            .get(header::CACHE_CONTROL)
            .and_then(|value| value.to_str().ok())
            .and_then(max_age),
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|size| size > most) {
        return Err(StorageError::too_large(most));
    }
    let mut upload = contents.begin(most).await?;
    while let Some(bytes) = next_chunk(body).await? {
        upload = upload.write(bytes).await?;
    }
    Ok((describe, upload.finish().await?))
}

/// The file is the field without a name; `cacheControl` (seconds) may stand before or after it.
async fn receive_form(
    contents: &Contents,
    mut splitter: Splitter,
    body: &mut Body,
    most: u64,
) -> Result<(Describe, Finished), StorageError> {
    let mut form = Form::default();
    loop {
        while let Some(piece) = splitter.next()? {
            match piece {
                Piece::Head { name, content_type } => {
                    form.begin(&name, content_type, contents, most).await?;
                }
                Piece::Data(bytes) => form.add(bytes).await?,
                Piece::End => {
                    let upload = form.file.ok_or_else(no_file)?;
                    let max_age = form.max_age.as_deref().map(seconds).transpose()?;
                    let describe = Describe { content_type: form.content_type, max_age };
                    return Ok((describe, upload.finish().await?));
                }
            }
        }
        let more = next_chunk(body).await?.ok_or_else(StorageError::broken_body)?;
        splitter.push(&more);
    }
}

/// A form as far as it has come.
#[derive(Debug, Default)]
struct Form {
    file: Option<Upload>,
    content_type: String,
    max_age: Option<Vec<u8>>,
    in_file: bool,
}

impl Form {
    async fn begin(
        &mut self,
        name: &str,
        content_type: Option<String>,
        contents: &Contents,
        most: u64,
    ) -> Result<(), StorageError> {
        match name {
            "" if self.file.is_none() => {
                self.content_type = checked_type(content_type.as_deref().unwrap_or(DEFAULT_TYPE))?;
                self.file = Some(contents.begin(most).await?);
                self.in_file = true;
            }
            "cacheControl" if self.max_age.is_none() => {
                self.max_age = Some(Vec::new());
                self.in_file = false;
            }
            "" | "cacheControl" => return Err(StorageError::invalid("a field comes twice")),
            "metadata" => return Err(no_metadata()),
            _ => return Err(StorageError::invalid("the form has a field that is not known here")),
        }
        Ok(())
    }

    async fn add(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        if self.in_file {
            let file = self.file.take().ok_or_else(no_file)?;
            self.file = Some(file.write(bytes).await?);
            return Ok(());
        }
        let field = self.max_age.get_or_insert_default();
        field.extend_from_slice(&bytes);
        if field.len() > MAX_FIELD {
            return Err(StorageError::invalid("a field of the form is too long"));
        }
        Ok(())
    }
}

/// The next bytes of a body; `None` at its end.
pub(in crate::sandbox) async fn next_chunk(body: &mut Body) -> Result<Option<Bytes>, StorageError> {
    loop {
        let frame = tokio::time::timeout(PROGRESS_TIME_LIMIT, body.frame());
        let Some(frame) = frame.await.map_err(|_| StorageError::stalled())? else {
            return Ok(None);
        };
        match frame.map_err(|_| StorageError::broken_body())?.into_data() {
            Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
            // Nothing, or trailers.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Reads on for a while without keeping anything.
pub(in crate::sandbox) async fn drain(mut body: Body) {
    let drained = async {
        let mut seen = 0_usize;
        while let Some(Ok(frame)) = body.frame().await {
            seen = seen.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if seen > DRAIN {
                return;
            }
        }
    };
    // Whoever is slower than that does without the answer.
    let _ = tokio::time::timeout(DRAIN_TIME_LIMIT, drained).await;
}

/// A content type that can be sent back as a header.
fn checked_type(text: &str) -> Result<String, StorageError> {
    let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let is_type = text.split(';').next().is_some_and(|essence| {
        essence.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty())
    });
    if text.len() > MAX_TYPE || !printable || !is_type {
        return Err(bad_type());
    }
    Ok(text.to_owned())
}

/// `max-age` of a `Cache-Control` header.
fn max_age(header: &str) -> Option<u32> {
    header.split(',').find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| value.trim().parse().ok())?
    })
}

fn seconds(field: &[u8]) -> Result<u32, StorageError> {
    let text = std::str::from_utf8(field).ok();
    text.and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| StorageError::invalid("cacheControl is a number of seconds"))
}

fn bad_type() -> StorageError {
    StorageError::invalid("the content type is not one, or too long")
}

fn no_file() -> StorageError {
    StorageError::invalid("the form has no file in the field without a name")
}

fn no_metadata() -> StorageError {
    StorageError::invalid("the sandbox's storage keeps no metadata of the client's own")
}

impl From<BadMultipart> for StorageError {
    fn from(error: BadMultipart) -> Self {
        Self::invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up_and_a_slow_one_is_not() {
        let slow = futures_util::stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_secs(50)).await;
            (n < 100).then(|| (Ok::<_, std::io::Error>("x"), n + 1))
        });
        let mut body = Body::from_stream(slow);
        let mut seen = 0;
        while next_chunk(&mut body).await.unwrap().is_some() {
            seen += 1;
        }
        assert_eq!(seen, 100);
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let stalled = next_chunk(&mut Body::from_stream(silent)).await;
        assert_eq!(stalled, Err(StorageError::stalled()));
    }

    #[test]
    fn the_age_is_found_among_the_directives() {
        assert_eq!(max_age("max-age=3600"), Some(3600));
        assert_eq!(max_age("public, Max-Age=7"), Some(7));
        assert_eq!(max_age("no-store"), None);
        assert_eq!(max_age("max-age=soon"), None);
        assert_eq!(max_age("s-maxage=7"), None);
    }

    #[test]
    fn only_content_types_are_taken() {
        for text in ["text/html", "text/plain;charset=UTF-8", "application/x; a=\"b c\""] {
            assert_eq!(checked_type(text), Ok(text.to_owned()));
        }
        for text in
            ["", "text", "/", "text/", "a/b\r\nx: y", "a/é", &format!("a/{}", "b".repeat(255))]
        {
            assert!(checked_type(text).is_err(), "{text:?}");
        }
    }
}
