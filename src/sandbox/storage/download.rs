//! Objects on their way out: whole or in part, streamed from the disk.

use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_util::io::ReaderStream;

use super::error::StorageError;
use super::objects::Object;
use super::range::{Wanted, wanted};
use crate::sandbox::contents::Contents;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
/// An object is somebody's file, and this is the console's origin: nothing in it may run.
const POLICY: HeaderValue =
    HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'");

/// How a reader wants an object.
#[derive(Debug)]
pub(in crate::sandbox) struct Reader<'a> {
    pub(in crate::sandbox) method: &'a Method,
    pub(in crate::sandbox) headers: &'a HeaderMap,
    /// Save it, under this name if there is one.
    pub(in crate::sandbox) download: Option<String>,
}

/// The answer; `None` when the content is gone, as after a change of the object since it was
/// looked up. `small` is the content if it is kept in the database.
pub(in crate::sandbox) async fn answer(
    contents: &Contents,
    (object, small): (&Object, Option<Bytes>),
    reader: &Reader<'_>,
) -> Result<Option<Response>, StorageError> {
    let etag = format!("\"{}\"", object.hash);
    let text = |name: HeaderName| reader.headers.get(name).and_then(|value| value.to_str().ok());
    let is_wanted =
        |tags: &str| tags.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag);
    if text(header::IF_MATCH).is_some_and(|tags| !is_wanted(tags)) {
        return Ok(Some(StorageError::another_content().response()));
    }
    // A part of an older content is of no use to somebody who has the rest of it.
    let is_current = text(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let range = text(header::RANGE).filter(|_| is_current && reader.method == Method::GET);
    let (status, part) = match wanted(range, object.size) {
        Wanted::Whole => (StatusCode::OK, 0..object.size),
        Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Wanted::Outside => {
            let mut response = StorageError::range_outside().response();
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{}", object.size))?;
            return Ok(Some(response));
        }
    };
    let body = match small {
        Some(bytes) => Body::from(slice(&bytes, &part)),
        None => match contents.open(object.hash, part.clone()).await? {
            Some(file) => Body::from_stream(ReaderStream::with_capacity(file, CHUNK)),
            None => return Ok(None),
        },
    };
    let is_head = reader.method == Method::HEAD;
    let mut response = Response::new(if is_head { Body::empty() } else { body });
    *response.status_mut() = status;
    let length = part.end.saturating_sub(part.start);
    set(&mut response, header::CONTENT_LENGTH, &length.to_string())?;
    if status == StatusCode::PARTIAL_CONTENT {
        let last = part.end.saturating_sub(1);
        let range = format!("bytes {}-{last}/{}", part.start, object.size);
        set(&mut response, header::CONTENT_RANGE, &range)?;
    }
    set(&mut response, header::ETAG, &etag)?;
    set(&mut response, header::CONTENT_TYPE, shown_type(&object.describe.content_type))?;
    set(&mut response, header::CACHE_CONTROL, &cache_control(object.describe.max_age))?;
    set(&mut response, header::LAST_MODIFIED, &http_time(object.updated_at))?;
    if let Some(name) = &reader.download {
        set(&mut response, header::CONTENT_DISPOSITION, &attachment(name))?;
    }
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    Ok(Some(response))
}

fn slice(bytes: &Bytes, part: &Range<u64>) -> Bytes {
    let at = |position| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(at(part.start)..at(part.end))
}

fn set(response: &mut Response, name: HeaderName, value: &str) -> Result<(), StorageError> {
    let value = value.parse().map_err(|_| StorageError::internal())?;
    response.headers_mut().insert(name, value);
    Ok(())
}

/// The content type as uploaded, but a script is shown as text: the policy above does not hold for
/// a script that one of our own pages loads, and browsers load none from `text/plain`.
fn shown_type(content_type: &str) -> &str {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_script = ["javascript", "ecmascript", "jscript", "livescript"]
        .iter()
        .any(|language| essence.contains(language));
    if is_script { "text/plain; charset=utf-8" } else { content_type }
}

fn cache_control(max_age: Option<u32>) -> String {
    max_age.map_or_else(|| "no-cache".to_owned(), |seconds| format!("private, max-age={seconds}"))
}

fn attachment(name: &str) -> String {
    if name.is_empty() {
        return "attachment".to_owned();
    }
    format!("attachment; filename*=UTF-8''{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

fn http_time(micros: i64) -> String {
    let at = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_shown_as_text() {
        for script in ["text/javascript", "Application/JavaScript; charset=utf-8", "text/jscript"] {
            assert_eq!(shown_type(script), "text/plain; charset=utf-8", "{script}");
        }
        assert_eq!(shown_type("text/html"), "text/html");
    }

    #[test]
    fn a_file_name_cannot_leave_its_header() {
        assert_eq!(attachment(""), "attachment");
        assert_eq!(attachment("a\"\r\né"), "attachment; filename*=UTF-8''a%22%0D%0A%C3%A9");
    }

    #[test]
    fn times_are_written_as_http_wants_them() {
        assert_eq!(http_time(784_111_777_000_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
