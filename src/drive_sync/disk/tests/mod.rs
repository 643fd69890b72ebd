use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use sha2::Digest;
use tempfile::TempDir;

use super::super::model::{Local, Opaque, Sha256};
use super::super::ports::Staged;
use super::*;

mod odd;

struct Scene {
    dir: TempDir,
    disk: Disk,
}

fn sha(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

fn content(bytes: &[u8]) -> Content {
    Content { sha256: sha(bytes), size: bytes.len() as u64, executable: false }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(&dir.path().join("drive"), "vm", true, None).unwrap();
        disk.plant_marker("d1", "m1").unwrap();
        Self { dir, disk }
    }

    fn at(&self, place: &str) -> PathBuf {
        self.dir.path().join("drive").join(place)
    }

    fn write(&self, place: &str, bytes: &[u8]) {
        fs::create_dir_all(self.at(place).parent().unwrap()).unwrap();
        fs::write(self.at(place), bytes).unwrap();
    }

    fn read(&self, place: &str) -> String {
        fs::read_to_string(self.at(place)).unwrap()
    }

    fn scan(&self) -> LocalTree {
        self.disk.scan(LocalTree::new(), &Scope::All).unwrap()
    }

    fn stat(&self, place: &str) -> Stat {
        *self.scan()[&path(place)].stat().unwrap()
    }

    fn replaced(&self, place: &str) -> Replaced {
        let Local::File { content, stat, .. } = self.scan()[&path(place)] else {
            panic!("{place} is no file")
        };
        Replaced { stat, content }
    }

    fn staged(&self, key: &str, bytes: &[u8]) -> Staged {
        let mut writer = self.disk.stage(key, &content(bytes)).unwrap();
        let there = usize::try_from(writer.written()).unwrap();
        writer.write(&bytes[there..]).unwrap();
        writer.finish().unwrap()
    }

    fn install(
        &self,
        place: &str,
        bytes: &[u8],
        replaces: Option<Replaced>,
    ) -> Result<Installed, FsError> {
        let staged = self.staged(&sha(bytes).hex(), bytes);
        let item = Install { staged, path: path(place), replaces, mtime: Some(1_000_000_000) };
        self.disk.install(vec![item]).pop().unwrap()
    }

    /// Every file in the trash.
    fn trash(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.at(".panorama-sync/trash")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap().path();
                if entry.is_dir() {
                    folders.push(entry);
                } else {
                    files.push(fs::read_to_string(entry).unwrap());
                }
            }
        }
        files.sort();
        files
    }
}

fn names(tree: &LocalTree) -> Vec<String> {
    tree.keys().map(ToString::to_string).collect()
}

#[test]
fn a_scan_sees_everything_in_the_order_of_paths() {
    let scene = Scene::new();
    for place in ["b", "a/y/1", "a/x", "a b", "a-b/c"] {
        scene.write(place, place.as_bytes());
    }
    scene.write("n.swp", b"");
    symlink("/etc", scene.at("link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        scene.at("pipe"),
        rustix::fs::FileType::Fifo,
        Mode::RWXU,
        0,
    )
    .unwrap();
    let tree = scene.scan();
    assert_eq!(
        names(&tree),
        ["a", "a/x", "a/y", "a/y/1", "a b", "a-b", "a-b/c", "b", "link", "n.swp", "pipe"]
    );
    for (place, why) in
        [("link", Opaque::Symlink), ("n.swp", Opaque::Ignored), ("pipe", Opaque::Special)]
    {
        assert_eq!(tree[&path(place)], Local::Opaque(why));
    }
    let Local::File { content: read, racy, .. } = tree[&path("a/y/1")] else { panic!() };
    assert_eq!((read, racy), (content(b"a/y/1"), true));
}

#[test]
fn a_file_is_read_again_only_when_it_may_have_changed() {
    let scene = Scene::new();
    scene.write("same", b"same");
    let seen = scene.scan();
    let other = content(b"what the last look is said to have read");
    for (trusted, expected) in [(true, other), (false, content(b"same"))] {
        let mut before = seen.clone();
        let Some(Local::File { content, racy, .. }) = before.get_mut(&path("same")) else {
            panic!()
        };
        (*content, *racy) = (other, !trusted);
        let after = scene.disk.scan(before, &Scope::All).unwrap();
        assert_eq!(after[&path("same")].kind().unwrap().content(), Some(&expected));
    }
    let before = seen;
    scene.write("same", b"else");
    let after = scene.disk.scan(before, &Scope::All).unwrap();
    assert_eq!(after[&path("same")].kind().unwrap().content(), Some(&content(b"else")));
}

#[test]
fn a_look_at_some_places_leaves_the_rest_as_it_was() {
    let scene = Scene::new();
    for place in ["a/1", "a/2", "b/1", "c"] {
        scene.write(place, b"1");
    }
    let mut before = scene.scan();
    for local in before.values_mut() {
        if let Local::File { racy, .. } = local {
            *racy = false;
        }
    }
    scene.write("a/3", b"1");
    fs::remove_file(scene.at("a/1")).unwrap();
    fs::remove_file(scene.at("c")).unwrap();
    scene.write("b/deep/er/1", b"1");
    let look = |places: &[&str]| Scope::Only(places.iter().map(|place| path(place)).collect());
    let after = scene.disk.scan(before.clone(), &look(&["a", "a/1"])).unwrap();
    assert_eq!(names(&after), ["a", "a/2", "a/3", "b", "b/1", "c"]);
    // The folders on the way to a place are looked at with it.
    let after = scene.disk.scan(after, &look(&["b/deep/er/1", "nowhere/at/all"])).unwrap();
    assert_eq!(
        names(&after),
        ["a", "a/2", "a/3", "b", "b/1", "b/deep", "b/deep/er", "b/deep/er/1", "c"]
    );
    assert_eq!(scene.disk.scan(after, &look(&["c"])).unwrap().get(&path("c")), None);
}

/// One change of the disk, as anybody may make it.
fn change(scene: &Scene, (kind, place): (u8, usize)) {
    const PLACES: [&str; 7] = ["a", "a/b", "a/b/c", "a/d", "e", "e/f", "a b"];
    let at = scene.at(PLACES[place % PLACES.len()]);
    let _ = match kind % 5 {
        0 => fs::create_dir_all(&at),
        1 => fs::remove_file(&at).or_else(|_| fs::remove_dir_all(&at)),
        2 => symlink("/nowhere/at/all", &at),
        3 => fs::rename(&at, scene.at("moved")),
        _ => fs::write(&at, format!("{kind}")),
    };
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]

    #[test]
    fn a_look_beside_an_older_one_sees_what_a_first_look_sees(
        rounds in proptest::collection::vec(
            proptest::collection::vec(proptest::prelude::any::<(u8, usize)>(), 1..5), 1..6)
    ) {
        let scene = Scene::new();
        let kinds = |tree: &LocalTree| -> Vec<(String, Option<crate::drive_sync::model::Kind>)> {
            tree.iter().map(|(path, local)| (path.to_string(), local.kind())).collect()
        };
        let (mut all, mut some) = (LocalTree::new(), LocalTree::new());
        for changes in rounds {
            for one in changes {
                change(&scene, one);
            }
            let expected = kinds(&scene.scan());
            all = scene.disk.scan(all, &Scope::All).unwrap();
            proptest::prop_assert_eq!(kinds(&all), &expected[..]);
            let places = ["a", "e", "a b", "moved"].map(path).into();
            some = scene.disk.scan(some, &Scope::Only(places)).unwrap();
            proptest::prop_assert_eq!(kinds(&some), &expected[..]);
        }
    }
}

#[test]
fn what_was_emptied_by_a_loss_of_power_is_held_back() {
    let scene = Scene::new();
    for (place, bytes) in [("full", &b"text"[..]), ("zeros", b"text"), ("empty", b"")] {
        scene.write(place, bytes);
    }
    let before = scene.scan();
    scene.write("full", b"");
    scene.write("zeros", &[0; 9]);
    let disk = Disk::open(&scene.at("."), "vm", false, Some(super::wall())).unwrap();
    let after = disk.scan(before, &Scope::All).unwrap();
    let opaque = Local::Opaque(Opaque::Suspicious);
    assert_eq!((after[&path("full")], after[&path("zeros")]), (opaque, opaque));
    assert_eq!(after[&path("empty")].kind().unwrap().content(), Some(&content(b"")));
    // What somebody empties from now on is his wish.
    scene.write("full", b"text");
    let seen = disk.scan(after.clone(), &Scope::All).unwrap();
    scene.write("full", b"");
    let seen = disk.scan(seen, &Scope::All).unwrap();
    assert_eq!(seen[&path("full")].kind().unwrap().content(), Some(&content(b"")));
    // As long as nobody writes to it, and no longer.
    let after = disk.scan(after, &Scope::All).unwrap();
    assert_eq!(after[&path("zeros")], opaque);
    scene.write("zeros", b"new");
    let after = disk.scan(after, &Scope::Only(BTreeSet::new())).unwrap();
    assert_eq!(after[&path("zeros")].kind().unwrap().content(), Some(&content(b"new")));
}

#[test]
fn a_new_file_takes_only_a_free_place() {
    let scene = Scene::new();
    let made = scene.install("new", b"one", None).unwrap();
    assert_eq!((scene.read("new"), made.stat), ("one".into(), scene.stat("new")));
    assert_eq!(made.stat.mtime, 1_000_000_000);
    assert!(matches!(scene.install("new", b"two", None), Err(FsError::Exists)));
    assert!(matches!(scene.install("no/where", b"two", None), Err(FsError::Changed)));
    assert_eq!(scene.read("new"), "one");
    assert!(matches!(scene.disk.make_directory(&path("new")), Err(FsError::Exists)));
}

#[test]
fn a_file_is_replaced_only_if_it_is_the_one_that_was_meant() {
    let scene = Scene::new();
    scene.write("f", b"old");
    fs::set_permissions(scene.at("f"), fs::Permissions::from_mode(0o640)).unwrap();
    let old = scene.replaced("f");
    scene.write("f", b"edited");
    assert!(matches!(scene.install("f", b"new", Some(old)), Err(FsError::Changed)));
    assert_eq!(scene.read("f"), "edited");
    let installed = scene.install("f", b"new", Some(scene.replaced("f"))).unwrap();
    assert_eq!((scene.read("f"), installed.rescued), ("new".into(), None));
    assert_eq!(installed.stat.mode & 0o777, 0o640);
    assert_eq!(scene.trash(), ["edited"]);
}

/// The moment between the look and the exchange cannot be hit from outside; that the stat says one
/// thing and the content another is what it comes to.
#[test]
fn what_was_written_in_the_last_moment_is_kept() {
    let scene = Scene::new();
    scene.write("dir/f.txt", b"unseen");
    let mut meant = scene.replaced("dir/f.txt");
    meant.content = content(b"seen");
    let installed = scene.install("dir/f.txt", b"new", Some(meant)).unwrap();
    let copy = installed.rescued.unwrap().to_string();
    assert_eq!((scene.read("dir/f.txt"), scene.read(&copy)), ("new".into(), "unseen".into()));
    assert!(copy.starts_with("dir/f (conflict vm ") && copy.ends_with(").txt"), "{copy}");

    let mut meant = scene.replaced("dir/f.txt");
    meant.content = content(b"seen");
    meant.stat.mtime = scene.stat("dir/f.txt").mtime;
    fs::write(scene.at("dir/f.txt"), b"unseen too").unwrap();
    meant.stat = scene.stat("dir/f.txt");
    assert!(matches!(scene.disk.delete(&path("dir/f.txt"), &meant), Err(FsError::Changed)));
    assert_eq!(scene.read("dir/f.txt"), "unseen too");
    assert_eq!(scene.trash(), [""; 0]);
}

#[test]
fn deleted_files_lie_in_the_trash_under_their_paths() {
    let scene = Scene::new();
    for round in ["one", "two"] {
        scene.write("a/b/f", round.as_bytes());
        scene.disk.delete(&path("a/b/f"), &scene.replaced("a/b/f")).unwrap();
        assert!(!scene.at("a/b/f").exists());
    }
    assert_eq!(scene.trash(), ["one", "two"]);
    assert!(matches!(scene.disk.remove_directory(&path("a")), Err(FsError::NotEmpty)));
    scene.disk.remove_directory(&path("a/b")).unwrap();
    scene.disk.remove_directory(&path("a")).unwrap();
    assert!(matches!(scene.disk.remove_directory(&path("a")), Err(FsError::Changed)));

    let day = std::time::Duration::from_hours(24);
    scene.disk.purge_trash(day, 0).unwrap();
    assert_eq!(scene.trash(), ["one", "two"]);
    // What has lain there for less than an hour stays even where space is short.
    scene.disk.purge_trash(day, u64::MAX).unwrap();
    assert_eq!(scene.trash(), ["one", "two"]);
    let trash = scene.at(".panorama-sync/trash");
    let batch = fs::read_dir(&trash).unwrap().next().unwrap().unwrap().path();
    fs::rename(batch, trash.join("2026-01-01T00-00Z")).unwrap();
    scene.disk.purge_trash(std::time::Duration::MAX, 0).unwrap();
    assert_eq!(scene.trash(), ["one", "two"]);
    scene.disk.purge_trash(std::time::Duration::MAX, u64::MAX).unwrap();
    assert_eq!(scene.trash(), [""; 0]);
}

/// A name may be a file's, then a folder's, and a file's again within the minute.
#[test]
fn a_file_and_a_folder_of_one_name_can_both_go_to_the_trash() {
    let scene = Scene::new();
    for text in ["file", "later file"] {
        scene.write("x", text.as_bytes());
        scene.disk.delete(&path("x"), &scene.replaced("x")).unwrap();
        let inside = format!("in folder after {text}");
        scene.write("x/y", inside.as_bytes());
        scene.disk.delete(&path("x/y"), &scene.replaced("x/y")).unwrap();
        scene.disk.remove_directory(&path("x")).unwrap();
    }
    let all = ["file", "in folder after file", "in folder after later file", "later file"];
    assert_eq!(scene.trash(), all);
}

#[test]
fn a_late_write_into_the_trash_comes_back() {
    use std::io::Write;
    let scene = Scene::new();
    for place in ["f", "quiet"] {
        scene.write(place, b"before");
        fs::File::options()
            .write(true)
            .open(scene.at(place))
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    }
    let mut open = fs::File::options().append(true).open(scene.at("f")).unwrap();
    for place in ["f", "quiet"] {
        scene.disk.delete(&path(place), &scene.replaced(place)).unwrap();
    }
    assert_eq!(scene.disk.rescue_late_writes().unwrap(), []);
    open.write_all(b" and after").unwrap();
    let rescued = scene.disk.rescue_late_writes().unwrap();
    let [copy] = &rescued[..] else { panic!("{rescued:?}") };
    assert_eq!(scene.read(&copy.to_string()), "before and after");
    assert_eq!(scene.trash(), ["before"]);
}

/// A crash between the exchange and the look at what was displaced.
#[test]
fn what_a_crash_left_unseen_in_the_trash_is_looked_at_later() {
    let scene = Scene::new();
    scene.write("dir/f", b"at its place");
    // Batches are looked at for an hour.
    let minute = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%MZ").to_string();
    let batch = scene.at(&format!(".panorama-sync/trash/{minute}"));
    fs::create_dir_all(batch.join("dir")).unwrap();
    let leave = |expected: &[u8], found: &[u8]| {
        let hash = &sha(expected).hex()[..16];
        let name = format!("dir/.panorama-sync-unseen-{hash}-0123abcd-f");
        fs::write(batch.join(name), found).unwrap();
        let file = fs::File::options()
            .write(true)
            .open(batch.join(format!("dir/.panorama-sync-unseen-{hash}-0123abcd-f")));
        // As a rename leaves it: the inode's time is the younger one.
        file.unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(scene.disk.rescue_late_writes().unwrap(), [], "it may be under way");
        scene.disk.trash.look_at_all();
        let rescued = scene.disk.rescue_late_writes().unwrap();
        scene.disk.trash.look_at_young();
        rescued.iter().map(|path| scene.read(&path.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(leave(b"expected", b"expected"), [""; 0]);
    assert_eq!(leave(b"expected", b"at its place"), [""; 0]);
    assert_eq!(scene.trash(), ["at its place", "expected"]);
    assert_eq!(leave(b"expected", b"the user's"), ["the user's"]);
    assert_eq!(scene.trash(), ["at its place", "expected"]);

    // However long ago that was, the first look after a start finds it.
    let old = scene.at(".panorama-sync/trash/2026-01-01T00-00Z");
    fs::create_dir(&old).unwrap();
    let name = format!(".panorama-sync-unseen-{}-0123abcd-g", &sha(b"expected").hex()[..16]);
    fs::write(old.join(name), b"long ago").unwrap();
    scene.disk.trash.look_at_all();
    assert_eq!(scene.disk.rescue_late_writes().unwrap(), []);
    let disk = Disk::open(&scene.dir.path().join("drive"), "vm", false, None).unwrap();
    disk.trash.look_at_all();
    let [copy] = &disk.rescue_late_writes().unwrap()[..] else { panic!() };
    assert_eq!(scene.read(&copy.to_string()), "long ago");
}

#[test]
fn a_rename_takes_the_entry_that_was_meant_to_a_free_place() {
    let scene = Scene::new();
    scene.write("a", b"a");
    scene.write("dir/b", b"b");
    let stat = scene.stat("a");
    let (from, to) = (path("a"), path("dir/a"));
    assert!(matches!(scene.disk.rename(&from, &path("dir/b"), &stat), Err(FsError::Exists)));
    let other = scene.stat("dir/b");
    assert!(matches!(scene.disk.rename(&from, &to, &other), Err(FsError::Changed)));
    let moved = scene.disk.rename(&from, &to, &stat).unwrap();
    assert_eq!((scene.read("dir/a"), moved), ("a".into(), scene.stat("dir/a")));
    assert!(matches!(scene.disk.rename(&from, &to, &stat), Err(FsError::Changed)));
    let folder = scene.stat("dir");
    scene.disk.rename(&path("dir"), &path("other"), &folder).unwrap();
    assert_eq!(scene.read("other/a"), "a");
}

#[test]
fn nothing_leaves_the_root() {
    for without_openat2 in [false, true] {
        let scene = Scene::new();
        if without_openat2 {
            scene.disk.root.without_openat2();
        }
        scene.write("dir/f", b"inside");
        let (meant, stat) = (scene.replaced("dir/f"), scene.stat("dir/f"));
        let outside = scene.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), b"outside").unwrap();
        fs::rename(scene.at("dir"), scene.at("was")).unwrap();
        symlink(&outside, scene.at("dir")).unwrap();

        let (disk, inner) = (&scene.disk, path("dir/f"));
        let changed = |result: Result<(), FsError>| {
            assert!(matches!(result, Err(FsError::Changed)), "{result:?}");
        };
        changed(scene.install("dir/f", b"new", Some(meant)).map(drop));
        changed(scene.install("dir/g", b"new", None).map(drop));
        changed(disk.delete(&inner, &meant));
        changed(disk.rename(&inner, &path("g"), &stat).map(drop));
        changed(disk.rename(&path("was/f"), &path("dir/g"), &scene.stat("was/f")).map(drop));
        changed(disk.make_directory(&path("dir/sub")).map(drop));
        changed(disk.open(&inner, &stat).map(drop));
        let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|it| it.unwrap().path()).collect();
        assert_eq!(left, [outside.join("f")]);
        assert_eq!(fs::read(outside.join("f")).unwrap(), b"outside");
        let tree = scene.scan();
        assert_eq!(tree[&path("dir")], Local::Opaque(Opaque::Symlink));
        assert_eq!(names(&tree), ["dir", "was", "was/f"]);
    }
}

#[test]
fn a_download_goes_on_where_it_stopped_and_is_checked() {
    let scene = Scene::new();
    let wanted = content(b"0123456789");
    let mut writer = scene.disk.stage("k", &wanted).unwrap();
    writer.write(b"01234").unwrap();
    drop(writer);
    let mut writer = scene.disk.stage("k", &wanted).unwrap();
    assert_eq!(writer.written(), 5);
    writer.write(b"56789").unwrap();
    assert_eq!(writer.finish().unwrap().content, wanted);

    let mut writer = scene.disk.stage("other", &wanted).unwrap();
    writer.write(b"01234").unwrap();
    assert!(matches!(writer.write(b"567890"), Err(FsError::WrongContent)));
    let mut writer = scene.disk.stage("other", &wanted).unwrap();
    assert_eq!(writer.written(), 0);
    writer.write(b"9876543210").unwrap();
    assert!(matches!(writer.finish(), Err(FsError::WrongContent)));
    let mut writer = scene.disk.stage("other", &wanted).unwrap();
    assert_eq!(writer.written(), 0);
    writer.write(b"x").unwrap();
    writer.restart().unwrap();
    writer.write(b"0123456789").unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_source_is_the_file_that_was_opened_and_nothing_else() {
    type Change = fn(&Scene);
    let changes: [Change; 4] = [
        |scene| scene.write("f", b"other"),
        |scene| fs::remove_file(scene.at("f")).unwrap(),
        |scene| {
            scene.write("new", b"text");
            fs::rename(scene.at("new"), scene.at("f")).unwrap();
        },
        |scene| {
            fs::set_permissions(scene.at("f"), fs::Permissions::from_mode(0o755)).unwrap();
        },
    ];
    for change in changes {
        let scene = Scene::new();
        scene.write("f", b"text");
        let stat = scene.stat("f");
        let mut early = scene.disk.open(&path("f"), &stat).unwrap();
        let mut source = scene.disk.open(&path("f"), &stat).unwrap();
        let mut buffer = [0; 9];
        assert_eq!(source.read_at(1, &mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"ext");
        source.check().unwrap();
        change(&scene);
        assert!(matches!(source.check(), Err(FsError::Changed)));
        assert!(matches!(early.read_at(0, &mut buffer), Err(FsError::Changed)));
        assert!(matches!(scene.disk.open(&path("f"), &stat).map(drop), Err(FsError::Changed)));
    }
}

/// Its bytes come in many pieces, which have to be of one file.
#[test]
fn a_large_source_stays_open() {
    let scene = Scene::new();
    scene.write("f", &vec![1; 100_000]);
    let mut source = scene.disk.open(&path("f"), &scene.stat("f")).unwrap();
    let mut buffer = [0; 9];
    assert_eq!(source.read_at(0, &mut buffer).unwrap(), 9);
    fs::remove_file(scene.at("f")).unwrap();
    scene.write("f", &vec![2; 100_000]);
    assert_eq!(source.read_at(99_997, &mut buffer).unwrap(), 3);
    assert_eq!(&buffer[..3], [1; 3]);
    assert!(matches!(source.check(), Err(FsError::Changed)));
}

#[test]
fn a_root_is_known_by_its_marker_and_its_inode() {
    let scene = Scene::new();
    let root = scene.disk.root().unwrap().unwrap();
    assert_eq!((root.drive_id.as_str(), root.marker.as_str()), ("d1", "m1"));
    let marker = scene.at(".panorama-sync/root.json");
    fs::write(&marker, r#"{"format": 2, "drive_id": "d1", "marker": "m1"}"#).unwrap();
    assert!(matches!(scene.disk.root(), Err(FsError::RootLost(_))));
    fs::write(&marker, "{").unwrap();
    assert!(matches!(scene.disk.root(), Err(FsError::RootLost(_))));
    fs::remove_file(&marker).unwrap();
    assert_eq!(scene.disk.root().unwrap(), None);
    let drive = scene.dir.path().join("drive");
    fs::rename(&drive, scene.dir.path().join("away")).unwrap();
    assert!(matches!(scene.disk.root(), Err(FsError::RootLost(_))));
    fs::create_dir(&drive).unwrap();
    assert!(matches!(scene.disk.root(), Err(FsError::RootLost(_))));
    let link = scene.dir.path().join("link");
    symlink(&drive, &link).unwrap();
    assert!(matches!(Disk::open(&link, "vm", true, None), Err(FsError::RootLost(_))));
    let missing = scene.dir.path().join("missing");
    assert!(matches!(Disk::open(&missing, "vm", false, None), Err(FsError::RootLost(_))));
}

#[test]
fn scripts_stay_scripts() {
    let scene = Scene::new();
    let mut script = scene.staged("s", b"#!/bin/sh");
    script.content.executable = true;
    let item = Install { staged: script, path: path("s"), replaces: None, mtime: None };
    let installed = scene.disk.install(vec![item]).pop().unwrap().unwrap();
    assert_eq!(installed.stat.mode & 0o777, 0o755);
    assert!(scene.scan()[&path("s")].kind().unwrap().content().unwrap().executable);
    let plain = scene.install("s", b"text", Some(scene.replaced("s"))).unwrap();
    assert_eq!(plain.stat.mode & 0o777, 0o644);
}

#[test]
fn a_batch_is_placed_item_by_item() {
    let scene = Scene::new();
    scene.write("taken", b"mine");
    let mut items: Vec<_> = (0..20)
        .map(|number| {
            let name = format!("f{number}");
            let staged = scene.staged(&name, name.as_bytes());
            Install { staged, path: path(&name), replaces: None, mtime: None }
        })
        .collect();
    items[7].path = path("taken");
    let results = scene.disk.install(items);
    for (number, result) in results.iter().enumerate() {
        assert_eq!(result.is_ok(), number != 7, "{number}: {result:?}");
    }
    assert_eq!((scene.read("taken"), scene.read("f19")), ("mine".into(), "f19".into()));
}

struct Ends<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A writer that saves in place and by rename while its file is replaced again and again: all that it
/// wrote is at the path, in a copy or in the trash.
#[test]
fn a_hot_writer_loses_nothing() {
    let scene = Scene::new();
    scene.write("hot", b"0");
    let done = std::sync::atomic::AtomicBool::new(false);
    // One save for each install, at any moment of it.
    let rounds = std::sync::atomic::AtomicU32::new(0);
    let file = scene.at("hot");
    let temp = scene.at("saved~");
    let (saves, installs) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut saves = 0_u32;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                if saves > rounds.load(std::sync::atomic::Ordering::Relaxed) {
                    std::thread::yield_now();
                    continue;
                }
                saves += 1;
                fs::write(&temp, format!("save {saves}")).unwrap();
                fs::rename(&temp, &file).unwrap();
            }
            saves
        });
        // However this ends, the writer does.
        let end = Ends(&done);
        let mut installs = 0_u32;
        for round in 0..300 {
            rounds.store(round, std::sync::atomic::Ordering::Relaxed);
            let tree = scene.disk.scan(LocalTree::new(), &Scope::All).unwrap();
            let Some(Local::File { content, stat, .. }) = tree.get(&path("hot")) else { continue };
            let meant = Replaced { stat: *stat, content: *content };
            match scene.install("hot", format!("server {round}").as_bytes(), Some(meant)) {
                Ok(_) => installs += 1,
                Err(FsError::Changed) => {}
                Err(error) => panic!("{error}"),
            }
        }
        drop(end);
        (writer.join().unwrap(), installs)
    });
    assert!(saves > 100 && installs > 0, "{saves} saves, {installs} installs");
    // What a save by rename replaces is gone by the writer's own will; what we displace is not.
    let copies = names(&scene.scan()).iter().filter(|name| name.contains("(conflict vm")).count();
    assert_eq!(scene.trash().len() + copies, installs as usize);
}
