use super::*;

fn file(path: &str) -> PlanFile {
    PlanFile { path: path.to_owned(), contents: "x".to_owned() }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_work_dir_is_private_and_goes_with_its_empty_parents() {
    let root = tempfile::tempdir().unwrap();
    let work = root.path().join("state/work/model");
    std::fs::create_dir(root.path().join("state")).unwrap();
    let [one, other] = ["one", "other"];
    let files = [file("schema.json"), file(".gemini/settings.json")];
    let one = WorkDir::make(&work, one, &files).await.unwrap();
    let other = WorkDir::make(&work, other, &[]).await.unwrap();
    for dir in [one.path(), &one.tmp(), &one.path().join(".gemini")] {
        assert_eq!(mode(dir), 0o700, "{}", dir.display());
    }
    assert_eq!(mode(&one.path().join(".gemini/settings.json")), 0o600);
    std::fs::write(one.tmp().join("left"), "behind").unwrap();
    one.remove().await;
    assert!(work.exists(), "the other one is still there");
    drop(other);
    assert!(!root.path().join("state/work").exists());
    assert!(root.path().join("state").exists());
}

#[tokio::test]
async fn what_an_earlier_run_of_the_id_left_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let work = root.path().join("work/model");
    let outside = root.path().join("outside");
    std::fs::create_dir_all(work.join("id")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "").unwrap();
    std::fs::write(work.join("id/old"), "").unwrap();
    let dir = WorkDir::make(&work, "id", &[]).await.unwrap();
    assert!(!dir.path().join("old").exists());
    dir.remove().await;
    // A link in its place leads nowhere.
    std::fs::create_dir_all(&work).unwrap();
    std::os::unix::fs::symlink(&outside, work.join("id")).unwrap();
    let dir = WorkDir::make(&work, "id", &[file("kept")]).await.unwrap();
    dir.remove().await;
    assert_eq!(std::fs::read_to_string(outside.join("kept")).unwrap(), "");
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    let root = tempfile::tempdir().unwrap();
    for id in ["", ".", "..", "a/b", "/a", "a/", "./a", "../a", "a\0b"] {
        let made = WorkDir::make(root.path(), id, &[]).await;
        assert!(matches!(made, Err(WorkDirError::Name(_))), "{id:?}");
    }
    for path in ["", "..", "../a", "/etc/a", "a/../../b"] {
        let made = WorkDir::make(root.path(), "id", &[file(path)]).await;
        assert!(matches!(made, Err(WorkDirError::FileName(_))), "{path:?}");
    }
    assert!(!root.path().join("id").exists(), "a half-made one is removed");
}

#[test]
fn a_sweep_takes_everything_but_follows_no_link() {
    let root = tempfile::tempdir().unwrap();
    let work = root.path().join("state/work/model");
    let outside = root.path().join("outside");
    std::fs::create_dir_all(work.join("one/deep/er")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "").unwrap();
    std::fs::write(work.join("file"), "").unwrap();
    std::os::unix::fs::symlink(&outside, work.join("link")).unwrap();
    std::fs::set_permissions(work.join("one/deep"), Permissions::from_mode(0o500)).unwrap();
    sweep_work_dirs(&work);
    assert!(!root.path().join("state/work").exists());
    assert!(outside.join("kept").exists());
    sweep_work_dirs(&work);
    std::fs::create_dir(root.path().join("state/work")).unwrap();
    std::os::unix::fs::symlink(&outside, &work).unwrap();
    sweep_work_dirs(&work);
    assert!(outside.join("kept").exists(), "the dir itself may be a link");
}

#[tokio::test]
async fn a_kept_dir_keeps_what_a_run_left_but_for_its_temporary_files() {
    let root = tempfile::tempdir().unwrap();
    let work = root.path().join("work/subagents");
    let dir = WorkDir::keep(&work, "id", &[file("system.md")]).await.unwrap();
    std::fs::write(dir.path().join("made"), "by the agent").unwrap();
    std::fs::write(dir.path().join("system.md"), "changed by the agent").unwrap();
    std::fs::write(dir.tmp().join("left"), "").unwrap();
    dir.remove().await;
    assert!(!work.join("id/.tmp").exists());
    let again = WorkDir::keep(&work, "id", &[file("system.md")]).await.unwrap();
    assert_eq!(std::fs::read_to_string(again.path().join("made")).unwrap(), "by the agent");
    assert_eq!(std::fs::read_to_string(again.path().join("system.md")).unwrap(), "x");
    assert_eq!(mode(&again.tmp()), 0o700);
    drop(again);
    assert!(work.join("id/made").exists());
    for id in ["..", "a/b"] {
        assert!(matches!(WorkDir::keep(&work, id, &[]).await, Err(WorkDirError::Name(_))));
    }
    // A link in its place leads nowhere.
    let outside = root.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, work.join("link")).unwrap();
    let dir = WorkDir::keep(&work, "link", &[file("system.md")]).await.unwrap();
    assert!(dir.path().join("system.md").exists() && !outside.join("system.md").exists());
}

#[test]
fn kept_dirs_go_by_age_and_by_size_the_oldest_first() {
    let root = tempfile::tempdir().unwrap();
    let work = root.path().join("work/subagents");
    let day = Duration::from_hours(24);
    let outside = root.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    for (name, age) in [("ancient", 40), ("busy", 39), ("old", 3), ("middle", 2), ("new", 1)] {
        let dir = work.join(name);
        std::fs::create_dir_all(dir.join("deep")).unwrap();
        std::fs::write(dir.join("deep/file"), vec![0; 1000]).unwrap();
        std::os::unix::fs::symlink(&outside, dir.join("link")).unwrap();
        let at = std::time::SystemTime::now() - day * age;
        std::fs::File::open(&dir).unwrap().set_modified(at).unwrap();
    }
    let left = |bytes: u64| {
        let bounds = KeptBounds { age: day * 30, bytes };
        bound_kept_dirs(&work, bounds, &|name| name == "busy");
        let entries = std::fs::read_dir(&work).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(left(1 << 20), ["busy", "middle", "new", "old"]);
    assert_eq!(left(3_500), ["busy", "middle", "new"]);
    assert_eq!(left(10), ["busy"]);
    assert!(outside.exists());
}

#[test]
fn a_dead_runs_dir_goes_with_its_empty_parents_and_no_other_does() {
    let root = tempfile::tempdir().unwrap();
    let work = root.path().join("work/subagents");
    let outside = root.path().join("outside");
    std::fs::create_dir_all(outside.join("run")).unwrap();
    for dir in ["one/run/.tmp", "two/run", "two/made"] {
        std::fs::create_dir_all(work.join(dir)).unwrap();
    }
    std::os::unix::fs::symlink(&outside, work.join("link")).unwrap();
    for names in [["one", ".."], ["..", "run"], ["one", ""], ["one", "other"], ["link", "run"]] {
        remove_work_dir(&work, &names);
        assert!(work.join("one/run/.tmp").exists() && outside.join("run").exists(), "{names:?}");
    }
    remove_work_dir(&work, &["one", "run"]);
    assert!(!work.join("one").exists());
    remove_work_dir(&work, &["two", "run"]);
    assert!(!work.join("two/run").exists() && work.join("two/made").exists());
    // One that was being removed when the gateway was killed.
    std::fs::create_dir_all(work.join(".going.three")).unwrap();
    bound_kept_dirs(&work, KeptBounds::USUAL, &|_| true);
    assert!(!work.join(".going.three").exists() && work.join("two/made").exists());
}
