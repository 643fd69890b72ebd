//! The sweep over real files.

use std::path::Path;

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn write(path: &Path, age: Duration) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "text").unwrap();
    set_age(path, age);
}

fn set_age(path: &Path, age: Duration) {
    std::fs::File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn what_is_past_its_bounds_goes_and_all_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::in_dir(dir.path());
    let old = DAY * 400;
    let goes = [
        "jobs/rejected/old.json",
        "jobs/events/old.jsonl",
        "work/model/dead/answer",
        "work/validation/dead/answer",
        "tmp/old",
        "tmp/dir/old",
        ".gateway.json.abcdefghij.tmp",
        "gateway.log.3",
        "audit.jsonl.2",
    ];
    let stays = [
        "jobs/waiting.json",
        "work/subagents/s/session",
        "work/model/live/answer",
        "gateway.json",
        "gateway.log",
        "gateway.log.old",
        "audit.jsonl",
        "gateway.lock",
        "other/file",
    ];
    for name in goes.iter().chain(&stays) {
        write(&dir.path().join(name), old);
    }
    for dir_of in ["work/model/dead", "work/validation/dead", "work/model/live", "tmp/dir"] {
        set_age(&dir.path().join(dir_of), old);
    }
    // Young, but beyond what is kept by number.
    write(&dir.path().join("gateway.log.6"), Duration::ZERO);
    let young = ["jobs/rejected/young.json", "tmp/young", "gateway.log.1", "gateway.log.5"];
    for name in young {
        write(&dir.path().join(name), DAY / 2);
    }
    sweep(&paths, &HashSet::from(["live".to_owned()]));
    for name in goes.iter().chain(&["gateway.log.6"]) {
        assert!(!dir.path().join(name).exists(), "{name} stays");
    }
    for name in stays.iter().chain(&young) {
        assert!(dir.path().join(name).exists(), "{name} is gone");
    }
}

#[test]
fn the_log_that_is_written_stays_although_its_last_line_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::in_dir(dir.path());
    write(&paths.log_file, DAY * 1000);
    write(&paths.audit_file(), DAY * 1000);
    sweep(&paths, &HashSet::new());
    assert!(paths.log_file.exists() && paths.audit_file().exists());
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_process_works_with_stays_however_old() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::in_dir(dir.path());
    let (open, left) = (paths.tmp().join("open/file"), paths.tmp().join("left/file"));
    for path in [&open, &left] {
        write(path, DAY * 30);
        set_age(path.parent().unwrap(), DAY * 30);
    }
    let held = std::fs::File::open(&open).unwrap();
    sweep(&paths, &HashSet::new());
    assert!(open.exists() && !left.exists());
    drop(held);
    sweep(&paths, &HashSet::new());
    assert!(!open.exists());
}

#[test]
fn a_link_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let precious = elsewhere.path().join("precious");
    write(&precious, DAY * 400);
    let paths = Paths::in_dir(dir.path());
    std::fs::create_dir_all(paths.tmp()).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), paths.tmp().join("link")).unwrap();
    std::fs::create_dir_all(paths.dir.join("work")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), paths.work("model")).unwrap();
    sweep(&paths, &HashSet::new());
    assert!(precious.exists());
}
