//! Names that are no work of the user's: locks, swap files and half-made downloads of programs.

/// The whole list, as people read it; `*` stands for anything.
pub const IGNORED: [&str; 8] = [
    ".~lock.*",
    "~$*",
    "*.swp",
    ".#*",
    "4913",
    ".goutputstream-*",
    "*.crdownload",
    ".fuse_hidden*",
];

/// Whether entries of this name take no part.
pub(super) fn is_ignored(name: &str) -> bool {
    IGNORED.iter().any(|pattern| match pattern.split_once('*') {
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
        None => name == *pattern,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_the_list_are_ignored() {
        for name in [
            ".~lock.a.odt#",
            "~$report.docx",
            ".notes.txt.swp",
            ".#main.rs",
            "4913",
            ".goutputstream-X1Y2Z3",
            "big.iso.crdownload",
            ".fuse_hidden0001",
        ] {
            assert!(is_ignored(name), "{name}");
        }
        for name in ["lock", "~report", "a.swo", "#main#", "49130", "crdownload", "swp"] {
            assert!(!is_ignored(name), "{name}");
        }
    }
}
