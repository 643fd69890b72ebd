//! A log under rotation, full disks, and what else may stand at its path.

use std::fs::read_to_string;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

fn note(lost: &Lost) -> String {
    format!("{lost}\n")
}

fn open(dir: &Path, size: u64) -> (RotatingFile, FileState) {
    let state = FileState::default();
    let bounds = Bounds { size, keep: 2 };
    (RotatingFile::open(&dir.join("log"), bounds, state.clone(), note).unwrap(), state)
}

#[test]
fn old_files_move_up_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, state) = open(dir.path(), 10);
    for line in ["one-----\n", "two-----\n", "three---\n", "four----\n"] {
        log.write_all(line.as_bytes()).unwrap();
    }
    assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "four----\n");
    assert_eq!(read_to_string(dir.path().join("log.1")).unwrap(), "three---\n");
    assert_eq!(read_to_string(dir.path().join("log.2")).unwrap(), "two-----\n");
    assert!(!dir.path().join("log.3").exists());
    assert_eq!(state.failures(), 0);
    let mode = std::fs::metadata(dir.path().join("log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_line_longer_than_the_bound_is_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), 4);
    log.write_all(b"longer than four\n").unwrap();
    assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "longer than four\n");
}

#[test]
fn what_was_there_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), 10);
    log.write_all(b"12345678\n").unwrap();
    let (mut log, _) = open(dir.path(), 10);
    log.write_all(b"next\n").unwrap();
    assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "next\n");
}

#[test]
fn reopening_follows_a_file_that_was_moved_away() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, state) = open(dir.path(), 1000);
    log.write_all(b"old\n").unwrap();
    std::fs::rename(dir.path().join("log"), dir.path().join("moved")).unwrap();
    state.request_reopen();
    log.write_all(b"new\n").unwrap();
    assert_eq!(read_to_string(dir.path().join("moved")).unwrap(), "old\n");
    assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "new\n");
}

#[test]
fn a_full_disk_rotates_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, state) = open(dir.path(), 10);
    log.write_all(b"kept\n").unwrap();
    for _ in 0..9 {
        log.file = Some(File::options().write(true).open("/dev/full").unwrap());
        log.write_all(b"lost\n").unwrap();
    }
    assert_eq!(state.failures(), 9);
    assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "kept\n");
    assert!(!dir.path().join("log.1").exists());
    assert_eq!((state.lost_lines(), state.trouble()), (9, Some(Trouble::Full)));
}

#[test]
fn what_cannot_be_rotated_is_tried_again_only_after_as_much_again() {
    let dir = tempfile::tempdir().unwrap();
    for number in ["log.1", "log.2"] {
        std::fs::create_dir_all(dir.path().join(number).join("in the way")).unwrap();
    }
    let (mut log, state) = open(dir.path(), 20);
    for _ in 0..5 {
        log.write_all(b"12345678\n").unwrap();
    }
    assert_eq!(state.failures(), 2, "after 18 bytes and after 36");
    assert_eq!(std::fs::metadata(dir.path().join("log")).unwrap().len(), 45);
}

#[test]
fn a_full_disk_costs_lines_only() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, state) = open(dir.path(), 1000);
    log.file = Some(File::options().write(true).open("/dev/full").unwrap());
    log.write_all(b"lost\n").unwrap();
    assert_eq!(state.failures(), 1);
    log.file = None;
    log.write_all(b"kept\n").unwrap();
    log.write_all(b"next\n").unwrap();
    let said = "1 line was lost while the disk was full\nkept\nnext\n";
    assert_eq!(read_to_string(dir.path().join("log")).unwrap(), said);
    assert_eq!((state.lost_lines(), state.trouble()), (1, None));
}

#[test]
fn a_file_that_is_taken_away_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, state) = open(dir.path(), 1000);
    log.write_all(b"old\n").unwrap();
    std::fs::remove_file(dir.path().join("log")).unwrap();
    log.write_all(b"new\n").unwrap();
    assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "new\n");
    assert_eq!(state.lost_lines(), 0);
}

/// Puts something at a path; what must stay open meanwhile.
type Make<'a> = &'a dyn Fn(&Path) -> Option<File>;

#[test]
fn what_is_no_file_of_ours_is_refused_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let target = dir.path().join("target");
    std::fs::write(&target, "").unwrap();
    let fifo = |path: &Path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // With a reader, opening it for writing would succeed.
        Some(File::options().read(true).write(true).open(path).unwrap())
    };
    let kinds: [(&str, Make<'_>); 3] = [
        ("fifo", &fifo),
        ("directory", &|path| std::fs::create_dir(path).map(|()| None).unwrap()),
        ("link", &|path| std::os::unix::fs::symlink(&target, path).map(|()| None).unwrap()),
    ];
    for (kind, make) in kinds {
        let (mut log, state) = open(dir.path(), 1000);
        log.write_all(b"before\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        let _open = make(&path);
        log.write_all(b"lost\n").unwrap();
        log.write_all(b"lost\n").unwrap();
        let state_now = (state.lost_lines(), state.trouble());
        assert_eq!(state_now, (2, Some(Trouble::Refused)), "{kind}");
        if kind == "directory" {
            std::fs::remove_dir(&path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        log.write_all(b"after\n").unwrap();
        let said = "2 lines were lost while the file could not be used\nafter\n";
        assert_eq!(read_to_string(&path).unwrap(), said, "{kind}");
        assert_eq!(state.trouble(), None, "{kind}");
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(read_to_string(&target).unwrap(), "", "a link is not followed");
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut log, state) = open(dir.path(), 1000);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "theirs\n").unwrap();
    std::os::unix::fs::chown(&path, Some(1), Some(1)).unwrap();
    log.write_all(b"lost\n").unwrap();
    assert_eq!((state.lost_lines(), state.trouble()), (1, Some(Trouble::Refused)));
    assert_eq!(read_to_string(&path).unwrap(), "theirs\n");
}

#[test]
fn a_log_that_could_not_be_opened_at_first_is_tried_with_each_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::create_dir(&path).unwrap();
    let state = FileState::default();
    let bounds = Bounds { size: 1000, keep: 2 };
    let mut log = RotatingFile::later(&path, bounds, state.clone(), note);
    assert!(log.write_line(b"lost\n").is_err());
    std::fs::remove_dir(&path).unwrap();
    log.write_line(b"kept\n").unwrap();
    let said = "1 line was lost while the file could not be used\nkept\n";
    assert_eq!(read_to_string(&path).unwrap(), said);
}

proptest! {
    /// Whatever comes and goes at the path, what was written is whole lines, and every line is
    /// either in a file or counted.
    #[test]
    fn every_line_is_kept_or_counted(steps in proptest::collection::vec(0u8..6, 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let state = FileState::default();
        // Nothing is rotated out of sight.
        let bounds = Bounds { size: 40, keep: 1000 };
        let mut log = RotatingFile::open(&path, bounds, state.clone(), note).unwrap();
        let (mut written, mut moved) = (0, 0);
        for step in steps {
            match step {
                0 => {
                    moved += 1;
                    let _absent = std::fs::rename(&path, dir.path().join(format!("moved.{moved}")));
                }
                1 if !path.exists() => std::fs::create_dir(&path).unwrap(),
                2 if path.is_dir() => std::fs::remove_dir(&path).unwrap(),
                _ => {
                    written += 1;
                    log.write_all(b"a line\n").unwrap();
                }
            }
        }
        let mut kept = 0;
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let text = read_to_string(entry.path()).unwrap();
                prop_assert!(text.is_empty() || text.ends_with('\n'));
                kept += text.lines().filter(|line| *line == "a line").count() as u64;
            }
        }
        prop_assert_eq!(kept + state.lost_lines(), written);
    }
}
