//! Reads a log from its end, on into its rotated forerunners, as far as needed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::line::Filter;
use crate::fs::open_to_look;
use crate::observe::rotate::rotated;
use crate::observe::{audit, logging};

const BLOCK: u64 = 64 * 1024;
/// A line that is longer is shown in pieces.
const LONGEST_LINE: usize = 1024 * 1024;
/// Rotated files that may exist.
pub(super) const MOST_ROTATED: u32 =
    if audit::KEEP > logging::KEEP { audit::KEEP } else { logging::KEEP };

/// The last `most` lines that `filter` shows, oldest first. `log` is the open log, which is read up
/// to `end`; `path` leads to its forerunners.
pub(super) fn last_lines(
    path: &Path,
    (log, end): (&mut File, u64),
    most: usize,
    filter: &Filter,
) -> io::Result<Vec<String>> {
    let mut found = VecDeque::new();
    let mut complete = take(log, end, most, filter, &mut found)?;
    for number in 1..=MOST_ROTATED {
        if complete {
            break;
        }
        let Ok(Some(mut file)) = open_to_look(&rotated(path, number)) else { break };
        let end = file.metadata()?.len();
        complete = take(&mut file, end, most, filter, &mut found)?;
    }
    Ok(found.into())
}

/// Puts lines in front of `found`; true when no more are wanted.
fn take(
    file: &mut File,
    end: u64,
    most: usize,
    filter: &Filter,
    found: &mut VecDeque<String>,
) -> io::Result<bool> {
    let mut position = end;
    // What was read of the line that begins before `position`.
    let mut rest: Vec<u8> = Vec::new();
    loop {
        if found.len() >= most {
            return Ok(true);
        }
        let cut = match rest.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => Some(at + 1),
            None if position == 0 || rest.len() >= LONGEST_LINE => Some(0),
            None => None,
        };
        if let Some(from) = cut {
            let line = String::from_utf8_lossy(&rest[from..]).into_owned();
            // The newline before the line goes, too: it ends the one in front.
            rest.truncate(from.saturating_sub(1));
            if filter.ends_at(&line) {
                return Ok(true);
            }
            if !line.is_empty() && filter.shows(&line) {
                found.push_front(line);
            }
            if from == 0 && position == 0 {
                return Ok(found.len() >= most);
            }
        } else {
            let size = position.min(BLOCK);
            position -= size;
            let mut block = vec![0; usize::try_from(size).unwrap_or(0)];
            file.seek(SeekFrom::Start(position))?;
            file.read_exact(&mut block)?;
            block.extend_from_slice(&rest);
            rest = block;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn last(path: &Path, most: usize) -> Vec<String> {
        let end = std::fs::metadata(path).unwrap().len();
        last_lines(path, (&mut File::open(path).unwrap(), end), most, &Filter::default()).unwrap()
    }

    #[test]
    fn goes_on_into_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "d\ne\n").unwrap();
        std::fs::write(rotated(&path, 1), "c\n").unwrap();
        std::fs::write(rotated(&path, 2), "a\nb\n").unwrap();
        assert_eq!(last(&path, 1), ["e"]);
        assert_eq!(last(&path, 4), ["b", "c", "d", "e"]);
        assert_eq!(last(&path, 99), ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn stops_where_lines_are_too_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line =
            |hour| format!("{{\"timestamp\":\"2026-01-01T{hour}:00:00Z\",\"level\":\"INFO\"}}\n");
        std::fs::write(&path, [line("10"), line("11"), line("12")].concat()).unwrap();
        let filter = Filter { since: "2026-01-01T10:30:00Z".parse().ok(), ..Filter::default() };
        let end = std::fs::metadata(&path).unwrap().len();
        let log = &mut File::open(&path).unwrap();
        assert_eq!(last_lines(&path, (log, end), usize::MAX, &filter).unwrap().len(), 2);
    }

    #[test]
    fn an_empty_log_has_no_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "").unwrap();
        assert_eq!(last(&path, 5), Vec::<String>::new());
    }

    #[test]
    fn a_huge_line_comes_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "x".repeat(3 * LONGEST_LINE)).unwrap();
        let lines = last(&path, 99);
        assert!(lines.len() >= 3);
        assert_eq!(lines.iter().map(String::len).sum::<usize>(), 3 * LONGEST_LINE);
    }

    proptest! {
        #[test]
        fn reads_what_splitting_reads(
            lines in proptest::collection::vec("[a-zä]{1,9}", 0..40),
            most in 1usize..50,
            ended in any::<bool>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut text = lines.join("\n");
            if ended && !text.is_empty() {
                text.push('\n');
            }
            std::fs::write(&path, text).unwrap();
            let wanted = &lines[lines.len().saturating_sub(most)..];
            prop_assert_eq!(last(&path, most), wanted);
        }
    }
}
