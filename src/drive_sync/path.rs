//! Paths inside a drive, in an order that keeps every subtree together.

use std::borrow::Borrow;
use std::fmt;

/// The longest name of one entry, in bytes.
pub const LONGEST_NAME: usize = 255;
/// The longest path inside a drive, in bytes, separators counted.
pub const LONGEST_PATH: usize = 4096;
/// Names with this beginning are the engine's own: its marker, temporary files and trash.
pub const RESERVED_PREFIX: &str = ".panorama-sync";

/// A path relative to a drive's root: at least one name, all of them valid.
///
/// Kept with NUL between the names instead of a slash: no name holds one, and plain byte order then
/// puts a folder directly before all that is in it, in memory as in an index of a database.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Box<str>);

/// Why a path cannot be one of a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No name, two slashes in a row, or one at either end.
    #[error("an empty name")]
    Empty,
    /// `.` or `..`.
    #[error("`.` and `..` are no names")]
    Dots,
    /// NUL or a slash.
    #[error("a character that no name may hold")]
    Character,
    /// Not UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// A name of over 255 bytes, or a path of over 4,096.
    #[error("too long")]
    TooLong,
    /// A name that the engine uses itself.
    #[error("a name that drive sync keeps for itself")]
    Reserved,
}

impl RelPath {
    /// Reads `a/b/c`, as the wire and people write it.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > LONGEST_PATH {
            return Err(PathError::TooLong);
        }
        for name in text.split('/') {
            check_name(name)?;
        }
        Ok(Self(text.replace('/', "\0").into()))
    }

    /// Reads the form in which [`Self::key`] gives it.
    pub fn from_key(key: &str) -> Result<Self, PathError> {
        if key.len() > LONGEST_PATH {
            return Err(PathError::TooLong);
        }
        for name in key.split('\0') {
            check_name(name)?;
        }
        Ok(Self(key.into()))
    }

    /// With NUL between the names; sorts as the path does.
    pub fn key(&self) -> &str {
        &self.0
    }

    /// The names, the outermost first.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('\0')
    }

    /// The last name.
    pub fn name(&self) -> &str {
        self.0.rsplit('\0').next().unwrap_or(&self.0)
    }

    /// The folder that holds it; `None` for an entry of the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('\0').map(|(parent, _)| Self(parent.into()))
    }

    /// An entry of this folder.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        check_name(name)?;
        let key = format!("{}\0{name}", self.0);
        if key.len() > LONGEST_PATH { Err(PathError::TooLong) } else { Ok(Self(key.into())) }
    }

    /// The same folder, another last name.
    pub fn with_name(&self, name: &str) -> Result<Self, PathError> {
        match self.parent() {
            Some(parent) => parent.join(name),
            None => Self::parse(name),
        }
    }

    /// Whether it lies somewhere inside `folder` (and is not `folder` itself).
    pub fn is_inside(&self, folder: &Self) -> bool {
        self.0.strip_prefix(&*folder.0).is_some_and(|rest| rest.starts_with('\0'))
    }

    /// How many names it has.
    pub fn depth(&self) -> usize {
        self.names().count()
    }

    /// The same place under another folder: what `from` was to it, `to` becomes. `None` when it is
    /// neither `from` nor inside it, or would be too long.
    pub fn rebased(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&*from.0)?;
        if !rest.is_empty() && !rest.starts_with('\0') {
            return None;
        }
        let key = format!("{}{rest}", to.0);
        (key.len() <= LONGEST_PATH).then(|| Self(key.into()))
    }
}

/// Whether this can be the name of an entry.
pub fn check_name(name: &str) -> Result<(), PathError> {
    match name {
        "" => Err(PathError::Empty),
        "." | ".." => Err(PathError::Dots),
        _ if name.len() > LONGEST_NAME => Err(PathError::TooLong),
        _ if memchr::memchr2(b'/', 0, name.as_bytes()).is_some() => Err(PathError::Character),
        _ if name.starts_with(RESERVED_PREFIX) => Err(PathError::Reserved),
        _ => Ok(()),
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.replace('\0', "/"))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.to_string())
    }
}

impl Borrow<str> for RelPath {
    /// The key: hashing and order are those of the path.
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    #[test]
    fn a_folder_stands_directly_before_what_is_in_it() {
        let mut paths = ["a.b", "a", "a/b", "a b", "a/b/c", "a-b", "b"].map(path);
        paths.sort();
        assert_eq!(
            paths.map(|path| path.to_string()),
            ["a", "a/b", "a/b/c", "a b", "a-b", "a.b", "b"]
        );
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for (text, why) in [
            ("", PathError::Empty),
            ("/a", PathError::Empty),
            ("a//b", PathError::Empty),
            ("a/", PathError::Empty),
            ("a/../b", PathError::Dots),
            (".", PathError::Dots),
            ("a\0b", PathError::Character),
            (".panorama-sync-root", PathError::Reserved),
            ("a/.panorama-sync.tmp", PathError::Reserved),
        ] {
            assert_eq!(RelPath::parse(text), Err(why), "{text:?}");
        }
        assert!(RelPath::parse(&"n".repeat(255)).is_ok());
        assert_eq!(RelPath::parse(&"n".repeat(256)), Err(PathError::TooLong));
        let long = vec!["n".repeat(255); 16].join("/");
        assert!(RelPath::parse(&long).is_ok());
        assert_eq!(RelPath::parse(&format!("{long}n/")), Err(PathError::TooLong));
    }

    #[test]
    fn a_path_knows_its_family() {
        let deep = path("a/b/c");
        assert_eq!(deep.parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), None);
        assert_eq!((deep.name(), deep.depth()), ("c", 3));
        assert!(deep.is_inside(&path("a")) && deep.is_inside(&path("a/b")));
        assert!(!deep.is_inside(&deep) && !path("ab/c").is_inside(&path("a")));
        assert_eq!(deep.rebased(&path("a/b"), &path("x")), Some(path("x/c")));
        assert_eq!(deep.rebased(&deep, &path("x")), Some(path("x")));
        assert_eq!(path("ab").rebased(&path("a"), &path("x")), None);
        assert_eq!(RelPath::from_key(deep.key()), Ok(deep));
    }
}
