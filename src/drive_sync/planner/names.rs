//! Names for what loses a conflict: readable, and the same whenever the same conflict is planned.

use crate::drive_sync::model::{Local, Stat};
use crate::drive_sync::path::{LONGEST_NAME, LONGEST_PATH, RelPath};

/// Every conflict name holds it.
const MARK: &str = " (conflict ";
/// What may be the ending of a file's name, in bytes with the dot: a longer one is part of the stem.
const LONGEST_ENDING: usize = 17;
/// How much of a machine's label is told, in bytes.
const LONGEST_LABEL: usize = 64;

/// Whether a name looks like one that [`conflict_name`] gives.
pub(super) fn is_conflict(name: &str) -> bool {
    name.contains(MARK)
}

/// A free name beside `path`: `stem (conflict <label> <time> <hash>).ending`, with the UTC time of
/// the loser's last change and the first 8 digits of its hash; a folder has `folder` for the hash.
/// `None` when the path leaves no room for it.
pub(in crate::drive_sync) fn conflict_name(
    path: &RelPath,
    local: &Local,
    label: &str,
    taken: impl Fn(&RelPath) -> bool,
) -> Option<RelPath> {
    let (stem, ending, what, stat) = match local {
        Local::File { content, stat, .. } => {
            let (stem, ending) = split(path.name());
            let [a, b, c, d, ..] = content.sha256.0;
            (stem, ending, format!("{:08x}", u32::from_be_bytes([a, b, c, d])), stat)
        }
        Local::Directory { stat } => (path.name(), "", "folder".to_owned(), stat),
        Local::Opaque(_) => return None,
    };
    let above = path.key().len() - path.name().len();
    let room = LONGEST_NAME.min(LONGEST_PATH.saturating_sub(above));
    let told = format!("{MARK}{} {} {what}", clean(label), time(stat));
    (1..=u32::MAX).find_map(|number| {
        let again = if number == 1 { String::new() } else { format!(" {number}") };
        let tail = format!("{told}{again}){ending}");
        let stem = match room.checked_sub(tail.len()) {
            None | Some(0) => return Some(None),
            Some(room) => cut(stem, room),
        };
        match path.with_name(&format!("{stem}{tail}")) {
            Ok(name) if taken(&name) => None,
            name => Some(name.ok()),
        }
    })?
}

/// Stem and ending (with its dot) of a file's name.
fn split(name: &str) -> (&str, &str) {
    let dot = name.rfind('.').filter(|dot| {
        let ending = &name[*dot..];
        *dot > 0
            && (2..=LONGEST_ENDING).contains(&ending.len())
            && ending[1..].chars().all(char::is_alphanumeric)
    });
    name.split_at(dot.unwrap_or(name.len()))
}

/// As many whole characters as fit.
fn cut(text: &str, room: usize) -> &str {
    &text[..text.floor_char_boundary(room)]
}

/// A label that can stand in a name.
fn clean(label: &str) -> String {
    let label: String = cut(label, LONGEST_LABEL)
        .chars()
        .map(|character| if character == '/' || character.is_control() { '-' } else { character })
        .collect();
    let label = label.trim();
    if label.is_empty() { "vm".to_owned() } else { label.to_owned() }
}

/// `20261122T132600Z`.
fn time(stat: &Stat) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(stat.mtime))
        .map_or_else(|_| "unknown".to_owned(), |time| time.strftime("%Y%m%dT%H%M%SZ").to_string())
}
