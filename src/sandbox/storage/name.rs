//! Names of objects. They never become names of files.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Bytes.
const MAX_LENGTH: usize = 1024;
/// What stays as it is in the path of a URL.
const IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Segments joined by `/`: none is empty, `.` or `..`; no control characters; 1 to 1024 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectName(String);

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    /// Of no or of too many bytes.
    #[error("an object's name has 1 to {MAX_LENGTH} bytes")]
    Length,
    /// Not UTF-8, or control characters in it.
    #[error("an object's name is UTF-8 text without control characters")]
    Characters,
    /// Empty, `.` or `..`.
    #[error("no segment of an object's name is empty, `.` or `..`")]
    Segment,
}

impl ObjectName {
    /// Checks a name.
    pub(super) fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(NameError::Length);
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::Characters);
        }
        if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(NameError::Segment);
        }
        Ok(Self(text.to_owned()))
    }

    /// Decodes the path of a URL, once, and checks what it names.
    pub(super) fn from_path(path: &str) -> Result<Self, NameError> {
        let text = percent_decode_str(path).decode_utf8().map_err(|_| NameError::Characters)?;
        Self::new(&text)
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As the path of a URL.
    pub(super) fn to_path(&self) -> String {
        utf8_percent_encode(&self.0, IN_PATH).to_string()
    }

    /// As the path of a URL that its reader escapes as `encodeURI` of JavaScript does; that leaves
    /// alone what would end the path.
    pub(super) fn to_unescaped_path(&self) -> String {
        self.0.replace('?', "%3F").replace('#', "%23")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(path: &str) -> Result<String, NameError> {
        ObjectName::from_path(path).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(name("dir%20a/file+1.bin"), Ok("dir a/file+1.bin".into()));
        assert_eq!(name("%2525"), Ok("%25".into()));
        assert_eq!(name("%252e%252e/x"), Ok("%2e%2e/x".into()));
        assert_eq!(name("caf%C3%A9"), Ok("café".into()));
        assert_eq!(name("a%2Fb"), Ok("a/b".into()));
        assert_eq!(name("..."), Ok("...".into()));
        assert_eq!(name(r"..\..\x"), Ok(r"..\..\x".into()));
    }

    #[test]
    fn what_could_mean_another_place_is_no_name() {
        for path in
            ["..", "../x", "a/../b", "a/..", ".", "a/./b", "%2e%2e/x", "a%2F..%2Fb", "/a", "a/"]
        {
            assert_eq!(name(path), Err(NameError::Segment), "{path}");
        }
        for path in ["a//b", "%2Fa"] {
            assert_eq!(name(path), Err(NameError::Segment), "{path}");
        }
        for path in ["a%00", "a%0A", "%7F", "%C2%85", "%FF", "%C3"] {
            assert_eq!(name(path), Err(NameError::Characters), "{path}");
        }
        assert_eq!(name(""), Err(NameError::Length));
    }

    #[test]
    fn the_bound_on_the_length_is_in_bytes() {
        assert!(ObjectName::new(&"é".repeat(512)).is_ok());
        assert_eq!(ObjectName::new(&"é".repeat(513)), Err(NameError::Length));
    }

    proptest! {
        #[test]
        fn a_name_survives_its_path(text in "\\PC{1,40}") {
            if let Ok(name) = ObjectName::new(&text) {
                prop_assert_eq!(ObjectName::from_path(&name.to_path()), Ok(name.clone()));
                prop_assert!(name.to_path().is_ascii());
                let unescaped = name.to_unescaped_path();
                prop_assert!(!unescaped.contains(['?', '#']));
            }
        }

        #[test]
        fn what_is_taken_keeps_the_rules(path in "[a./%0-9A-F\\\\é]{0,30}") {
            if let Ok(name) = ObjectName::from_path(&path) {
                let name = name.as_str();
                prop_assert!(!name.is_empty() && name.len() <= MAX_LENGTH);
                prop_assert!(!name.chars().any(char::is_control));
                prop_assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
