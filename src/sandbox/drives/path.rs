//! Which texts are paths in a drive.

use super::error::Refused;
use crate::drive_sync::wire::{Code, MAX_NAME, MAX_PATH};

/// Refuses what is no path: see [`crate::drive_sync::wire`].
pub(super) fn check(path: &str) -> Result<(), Refused> {
    let refuse = |why: &str| Err(Refused::new(Code::InvalidPath, format!("the path {why}")));
    if path.len() > MAX_PATH {
        return refuse("is longer than 4096 bytes");
    }
    if path.contains('\0') {
        return refuse("holds U+0000");
    }
    for name in path.split('/') {
        match name {
            "" => return refuse("has an empty component"),
            "." | ".." => return refuse("has a component `.` or `..`"),
            _ if name.len() > MAX_NAME => {
                return refuse("has a component that is longer than 255 bytes");
            }
            _ => {}
        }
    }
    Ok(())
}

/// The directory that it is in; `None` for the root.
pub(super) fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// Whether `path` is below the directory `above`.
pub(super) fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

/// What all paths below a directory lie between, as bytes.
pub(super) fn below(directory: &str) -> (String, String) {
    // `0` is the byte after `/`.
    (format!("{directory}/"), format!("{directory}0"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_names_with_slashes_between() {
        let long = "n".repeat(MAX_NAME);
        let deep = vec![long.as_str(); 16].join("/");
        assert_eq!(deep.len(), 4095);
        for path in ["a", "a/b", "...", ".a", "a b/ü", "A", "\u{1}", "a\\b", &long, &deep] {
            assert_eq!(check(path), Ok(()), "{path:?}");
        }
        let longer = "n".repeat(MAX_NAME + 1);
        let wide = "ü".repeat(128);
        let deeper = format!("{deep}/n");
        for path in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0", &longer, &wide,
            &deeper,
        ] {
            assert_eq!(check(path).unwrap_err().code, Code::InvalidPath, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_below_lies_between(above in "[a-c./0]{1,4}", path in "[a-c./0]{1,6}") {
            let (from, to) = below(&above);
            let between = path.as_bytes() > from.as_bytes() && path.as_bytes() < to.as_bytes();
            prop_assert_eq!(between, is_below(&path, &above) && path != from);
        }
    }
}
