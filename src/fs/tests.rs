use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::testing::{SOMEBODY_ELSE, as_ordinary_user, is_root};
use super::*;

/// A directory of ours (0700) that is gone after the test.
fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Gives `path` to another user; false (and a word about it) where only root could.
fn give_away(path: &Path) -> bool {
    if !is_root() {
        writeln!(io::stderr(), "skipped: only root can give files to another user").unwrap();
        return false;
    }
    std::os::unix::fs::chown(path, Some(SOMEBODY_ELSE), Some(SOMEBODY_ELSE)).unwrap();
    true
}

fn wrong_kind(error: &FsError) -> &'static str {
    let FsError::WrongKind { found, .. } = error else {
        panic!("expected a refusal of the kind, got {error:?}");
    };
    found
}

#[test]
fn a_missing_directory_and_its_parents_are_made_private() {
    let scratch = scratch();
    let leaf = scratch.path().join("a/b/c");
    ensure_private_dir(&leaf).unwrap();
    for path in [leaf.as_path(), &scratch.path().join("a/b"), &scratch.path().join("a")] {
        assert_eq!(mode(path), 0o700, "{}", path.display());
    }
}

#[test]
fn a_looser_directory_of_ours_is_repaired_and_its_parent_left_alone() {
    let scratch = scratch();
    let parent = scratch.path().join("parent");
    let leaf = parent.join("leaf");
    std::fs::create_dir_all(&leaf).unwrap();
    chmod(&parent, 0o755);
    chmod(&leaf, 0o777);
    ensure_private_dir(&leaf).unwrap();
    assert_eq!((mode(&parent), mode(&leaf)), (0o755, 0o700));
}

#[test]
fn a_stricter_directory_is_not_opened_up() {
    let scratch = scratch();
    let leaf = scratch.path().join("leaf");
    std::fs::create_dir(&leaf).unwrap();
    chmod(&leaf, 0o500);
    ensure_private_dir(&leaf).unwrap();
    assert_eq!(mode(&leaf), 0o500);
}

#[test]
fn a_symlink_to_a_directory_of_ours_is_followed() {
    let scratch = scratch();
    let target = scratch.path().join("target");
    let link = scratch.path().join("link");
    std::fs::create_dir(&target).unwrap();
    chmod(&target, 0o755);
    symlink(&target, &link).unwrap();
    ensure_private_dir(&link).unwrap();
    assert_eq!(mode(&target), 0o700);
}

#[test]
fn a_directory_of_somebody_else_is_refused_directly_and_through_a_symlink() {
    let scratch = scratch();
    let target = scratch.path().join("target");
    let link = scratch.path().join("link");
    std::fs::create_dir(&target).unwrap();
    symlink(&target, &link).unwrap();
    if !give_away(&target) {
        return;
    }
    let before = mode(&target);
    for path in [&target, &link] {
        let error = ensure_private_dir(path).unwrap_err();
        assert!(matches!(&error, FsError::ForeignOwner { path: named } if named == path));
        assert!(error.to_string().ends_with("belongs to another user"));
    }
    assert_eq!(mode(&target), before, "what is refused is not touched");
}

#[test]
fn what_is_no_directory_is_refused_by_name() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    let dangling = scratch.path().join("dangling");
    std::fs::write(&file, "").unwrap();
    symlink(scratch.path().join("nothing"), &dangling).unwrap();
    assert_eq!(wrong_kind(&ensure_private_dir(&file).unwrap_err()), "a regular file");
    assert_eq!(
        wrong_kind(&ensure_private_dir(&dangling).unwrap_err()),
        "a symbolic link to nothing"
    );
    assert!(matches!(
        ensure_private_dir(&file.join("below")).unwrap_err(),
        FsError::Io { verb: "open", .. }
    ));
}

#[test]
fn shared_directories_are_never_taken_over() {
    let scratch = scratch();
    let shared = scratch.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    chmod(&shared, 0o1777);
    assert_eq!(
        wrong_kind(&ensure_private_dir(&shared).unwrap_err()),
        "a directory shared by all users"
    );
    assert_eq!(mode(&shared), 0o1777);
}

#[test]
fn an_absent_file_is_absent() {
    let scratch = scratch();
    let path = scratch.path().join("file");
    assert!(!check_private_file(&path).unwrap());
    assert_eq!(read_private(&path, 10).unwrap(), None);
    assert_eq!(read_private(&scratch.path().join("no/dir/file"), 10).unwrap(), None);
}

#[test]
fn a_looser_file_of_ours_is_repaired() {
    let scratch = scratch();
    let path = scratch.path().join("file");
    for loose in [0o644, 0o666, 0o777, 0o4711] {
        std::fs::write(&path, "text").unwrap();
        chmod(&path, loose);
        assert!(check_private_file(&path).unwrap());
        assert_eq!(mode(&path), 0o600);
        chmod(&path, loose);
        assert_eq!(read_private(&path, 10).unwrap().unwrap(), b"text");
        assert_eq!(mode(&path), 0o600);
        chmod(&path, loose);
        append_private(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }
}

#[test]
fn a_file_of_somebody_else_is_refused_and_not_touched() {
    let scratch = scratch();
    let path = scratch.path().join("file");
    std::fs::write(&path, "theirs").unwrap();
    chmod(&path, 0o666);
    if !give_away(&path) {
        return;
    }
    let errors = [
        check_private_file(&path).unwrap_err(),
        read_private(&path, 10).unwrap_err(),
        append_private(&path).unwrap_err(),
        save(&path, b"ours").unwrap_err(),
        read_unrepaired(&path, 10).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, FsError::ForeignOwner { .. }), "{error:?}");
    }
    assert_eq!(mode(&path), 0o666);
    assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    std::fs::write(at("target"), "text").unwrap();
    symlink(at("target"), at("link")).unwrap();
    symlink(at("nothing"), at("dangling")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir(at("dir")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    let cases = [
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("fifo", "a named pipe"),
        ("dir", "a directory"),
        ("socket", "a socket"),
    ];
    for (name, found) in cases {
        let path = at(name);
        assert_eq!(wrong_kind(&check_private_file(&path).unwrap_err()), found, "check {name}");
        assert_eq!(wrong_kind(&read_private(&path, 10).unwrap_err()), found, "read {name}");
        assert_eq!(wrong_kind(&append_private(&path).unwrap_err()), found, "append {name}");
        assert_eq!(wrong_kind(&save(&path, b"x").unwrap_err()), found, "save {name}");
    }
    assert_eq!(std::fs::read(at("target")).unwrap(), b"text");
    assert!(!at("nothing").exists(), "a link was written through");
}

#[test]
fn a_fifo_with_a_writer_is_refused_too() {
    let scratch = scratch();
    let path = scratch.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _peer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    assert_eq!(wrong_kind(&read_private(&path, 10).unwrap_err()), "a named pipe");
    assert_eq!(wrong_kind(&append_private(&path).unwrap_err()), "a named pipe");
}

#[test]
fn reading_is_bounded() {
    let scratch = scratch();
    let path = scratch.path().join("file");
    save(&path, b"12345").unwrap();
    assert_eq!(read_private(&path, 5).unwrap().unwrap(), b"12345");
    assert!(matches!(read_private(&path, 4), Err(FsError::TooLarge { limit: 4, .. })));
}

#[test]
fn appending_makes_the_file_and_its_parents_private_and_keeps_what_is_there() {
    let scratch = scratch();
    let path = scratch.path().join("logs/gateway.log");
    append_private(&path).unwrap().write_all(b"one ").unwrap();
    append_private(&path).unwrap().write_all(b"two").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one two");
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn saving_replaces_whole_and_leaves_nothing_else() {
    let scratch = scratch();
    let path = scratch.path().join("state/file.json");
    save(&path, b"a longer first text").unwrap();
    let first = path.metadata().unwrap().ino();
    save(&path, b"second").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"second");
    assert_ne!(path.metadata().unwrap().ino(), first, "it was written in place");
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_failed_save_keeps_the_old_contents_and_cleans_up() {
    let scratch = scratch();
    let long = scratch.path().join("x".repeat(250));
    assert!(matches!(save(&long, b"x"), Err(FsError::Io { verb: "write", .. })));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn readers_never_see_a_part() {
    let scratch = scratch();
    let path = scratch.path().join("file");
    let texts = [vec![b'a'; 100_000], vec![b'b'; 50_000]];
    save(&path, &texts[0]).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..20 {
                save(&path, &texts[round % 2]).unwrap();
            }
        });
        while !writer.is_finished() {
            let seen = read_private(&path, 1 << 20).unwrap().unwrap();
            assert!(texts.contains(&seen), "{} bytes seen", seen.len());
        }
    });
}

#[test]
fn only_leftovers_of_the_same_file_are_removed() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let kept =
        ["file.json", ".file.json.tmp", ".other.json.abcdefghij.tmp", ".file.json.short.tmp"];
    for name in kept.iter().chain(&[".file.json.abcdefghij.tmp"]) {
        std::fs::write(at(name), "").unwrap();
    }
    let (_, leaked) = temp_beside(&at("file.json")).unwrap().keep().unwrap();
    remove_leftovers(&at("file.json"));
    assert!(!leaked.exists());
    assert!(!at(".file.json.abcdefghij.tmp").exists());
    for name in kept {
        assert!(at(name).exists(), "{name}");
    }
}

#[test]
fn temp_files_are_private_from_birth() {
    let scratch = scratch();
    let temp = temp_beside(&scratch.path().join("file")).unwrap();
    assert_eq!(mode(temp.path()), 0o600);
}

#[test]
fn reading_unrepaired_changes_nothing() {
    let scratch = scratch();
    let path = scratch.path().join("file");
    std::fs::write(&path, "text").unwrap();
    chmod(&path, 0o644);
    assert_eq!(read_unrepaired(&path, 10).unwrap().unwrap(), b"text");
    assert_eq!(mode(&path), 0o644);
    assert_eq!(read_unrepaired(&scratch.path().join("none"), 10).unwrap(), None);
}

#[test]
fn writable_is_asked_of_the_nearest_directory_that_exists() {
    let scratch = scratch();
    check_writable_dir(&scratch.path().join("a/b/c")).unwrap();
    assert!(!scratch.path().join("a").exists(), "the check made something");
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(check_writable_dir(&file.join("below")).is_err());
}

#[test]
fn what_the_system_forbids_is_told_apart() {
    as_ordinary_user(|| {
        let scratch = scratch();
        let dir = scratch.path().join("dir");
        std::fs::create_dir(&dir).unwrap();
        chmod(&dir, 0o500);
        let errors = [
            check_writable_dir(&dir).unwrap_err(),
            check_writable_dir(&dir.join("below")).unwrap_err(),
            ensure_private_dir(&dir.join("below")).unwrap_err(),
            save(&dir.join("file"), b"").unwrap_err(),
            append_private(&dir.join("file")).unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_denied(), "{error:?}");
        }
        chmod(&dir, 0o700);
        save(&dir.join("file"), b"x").unwrap();
        assert_eq!(mode(&dir.join("file")), 0o600);
    });
}

#[test]
fn what_cannot_be_opened_for_its_owner_is_called_foreign() {
    let scratch = scratch();
    chmod(scratch.path(), 0o755);
    let path = scratch.path().join("theirs");
    std::fs::write(&path, "").unwrap();
    std::fs::create_dir(scratch.path().join("dir")).unwrap();
    chmod(&path, 0o600);
    chmod(&scratch.path().join("dir"), 0o700);
    if !is_root() {
        return;
    }
    as_ordinary_user(|| {
        let errors = [
            read_private(&path, 10).unwrap_err(),
            append_private(&path).unwrap_err(),
            ensure_private_dir(&scratch.path().join("dir")).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, FsError::ForeignOwner { .. }), "{error:?}");
        }
    });
}
