//! What `gemini --help` and `gemini extensions list` tell.

use super::uncoloured;
use crate::providers::{Flags, help};

/// `supported_flags` key of `--output-format`.
pub(super) const OUTPUT_FORMAT: &str = "outputFormatFlag";
/// `supported_flags` key of `--model`.
pub(super) const MODEL: &str = "modelFlag";
/// `supported_flags` key of `--extensions`, which every version has.
pub(super) const EXTENSIONS: &str = "extensionsFlag";

/// `supported_flags` key of `--approval-mode`.
pub(super) const APPROVAL_MODE: &str = "approvalModeFlag";
/// `supported_flags` key of `--yolo`.
pub(super) const YOLO: &str = "yoloFlag";

const FLAGS: [(&str, &str); 5] = [
    (OUTPUT_FORMAT, "--output-format"),
    (MODEL, "--model"),
    (APPROVAL_MODE, "--approval-mode"),
    (YOLO, "--yolo"),
    ("sandboxFlag", "--sandbox"),
];

/// The flags of a help text; without one, what every version had.
pub(super) fn of(help: Option<&str>) -> Flags {
    let has = |key: &str, flag: &str| match help {
        Some(help) => help::names(help, flag),
        None => matches!(key, OUTPUT_FORMAT | MODEL),
    };
    let mut flags: Flags = FLAGS.map(|(key, flag)| (key, has(key, flag))).into();
    flags.insert(EXTENSIONS, true);
    flags
}

/// The names in a listing: `✓ name (version)`, `✗ name (version)` for a disabled one, each followed
/// by indented details; `- name` in older versions.
pub(super) fn extensions(listing: &str) -> Vec<String> {
    uncoloured(listing).lines().filter_map(name).map(str::to_owned).collect()
}

fn name(line: &str) -> Option<&str> {
    let rest = ["✓ ", "✗ ", "- "].into_iter().find_map(|mark| line.strip_prefix(mark))?;
    rest.split_whitespace().next()
}
