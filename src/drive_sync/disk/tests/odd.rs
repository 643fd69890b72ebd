//! Odd names, kinds, sizes and owners of files.

use super::super::reading::LARGE_AT_ONCE;
use super::*;

#[test]
fn names_that_are_not_utf8_are_told_of_and_hide_nothing() {
    use std::os::unix::ffi::OsStrExt;
    let scene = Scene::new();
    let name = |bytes: &[u8]| scene.at("").join(std::ffi::OsStr::from_bytes(bytes));
    scene.write("caf", b"real");
    fs::write(name(b"caf\xe9"), b"x").unwrap();
    fs::write(name(b"caf\xe8"), b"y").unwrap();
    let mut long = vec![b'n'; 254];
    long.push(0xff);
    fs::write(name(&long), b"z").unwrap();
    fs::create_dir(name(b"folder\xff")).unwrap();
    fs::write(name(b"folder\xff/inside"), b"").unwrap();
    let tree = scene.scan();
    let odd: Vec<_> =
        tree.iter().filter(|(_, local)| **local == Local::Opaque(Opaque::Name)).collect();
    assert_eq!((tree.len(), odd.len()), (5, 4), "{tree:?}");
    assert!(tree[&path("caf")].kind().is_some());
    // The same names at the next look, whatever kind of look.
    let again = scene.disk.scan(tree.clone(), &Scope::All).unwrap();
    assert_eq!(names(&again), names(&tree));
}

#[test]
fn names_with_anything_but_a_slash_are_names() {
    let scene = Scene::new();
    let long = "ä".repeat(127) + "n";
    let odd = ["new\nline", "tab\t", "\u{1}\u{7f}", " ", "-rf", "a\\b", "*?[", "\u{202e}x", &long];
    for name in odd {
        scene.write(name, name.as_bytes());
    }
    let tree = scene.scan();
    for name in odd {
        assert_eq!(tree[&path(name)].kind().unwrap().content(), Some(&content(name.as_bytes())));
        scene.disk.delete(&path(name), &scene.replaced(name)).unwrap();
        scene.install(name, b"back", None).unwrap();
        assert_eq!(scene.read(name), "back");
    }
}

/// Folders inside one another, made with short paths.
fn dig(scene: &Scene, name: &str, depth: usize) -> OwnedFd {
    let mut at: OwnedFd = fs::File::open(scene.at("")).unwrap().into();
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .unwrap();
    }
    at
}

#[test]
fn a_deep_tree_is_seen_and_one_without_end_is_unknown() {
    let scene = Scene::new();
    let bottom = dig(&scene, "f", 200);
    rustix::fs::openat(&bottom, "leaf", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    let leaf = path(&format!("{}leaf", "f/".repeat(200)));
    let tree = scene.scan();
    assert_eq!(tree.len(), 201);
    assert!(tree[&leaf].kind().is_some());
    // 16 names of 250 bytes: beside it there is room for the root's own path no more.
    dig(&scene, &"n".repeat(250), 16);
    dig(&scene, "z", 3000);
    let tree = scene.scan();
    assert!(tree[&leaf].kind().is_some());
    let unknown: Vec<_> = tree
        .iter()
        .filter(|(_, local)| **local == Local::Opaque(Opaque::Unreadable))
        .map(|(path, _)| path.depth())
        .collect();
    assert_eq!(unknown, [513], "only the one without end");
    assert_eq!(tree.keys().map(RelPath::depth).max(), Some(513));
}

#[test]
fn what_takes_no_part_is_told_by_its_kind() {
    let scene = Scene::new();
    scene.write("file", b"text");
    let kinds = [
        ("pipe", rustix::fs::FileType::Fifo),
        ("socket", rustix::fs::FileType::Socket),
        ("null", rustix::fs::FileType::CharacterDevice),
        ("disk", rustix::fs::FileType::BlockDevice),
    ];
    let root = fs::File::open(scene.at("")).unwrap();
    for (name, kind) in kinds {
        let made = rustix::fs::mknodat(&root, name, kind, Mode::RUSR, 0);
        let needs_root = name == "null" || name == "disk";
        if made.is_err() && needs_root {
            continue;
        }
        assert_eq!(scene.scan()[&path(name)], Local::Opaque(Opaque::Special), "{name}");
    }
    symlink("/etc", scene.at("link")).unwrap();
    symlink(".", scene.at("loop")).unwrap();
    let tree = scene.scan();
    for name in ["link", "loop"] {
        assert_eq!(tree[&path(name)], Local::Opaque(Opaque::Symlink), "{name}");
    }
}

/// That it was put off does not make anybody forget that something stood there.
#[test]
fn a_large_file_that_was_emptied_by_a_crash_is_held_back_too() {
    let scene = Scene::new();
    scene.write("large", b"text");
    let before = scene.scan();
    fs::File::create(scene.at("large")).unwrap().set_len(65 << 20).unwrap();
    scene.write("small", b"read first");
    let disk = Disk::open(&scene.at("."), "vm", false, Some(wall())).unwrap();
    let put_off = disk.scan(before, &Scope::All).unwrap();
    assert_eq!(put_off[&path("large")], Local::Opaque(Opaque::Unread));
    let read = disk.scan(put_off, &Scope::Only(BTreeSet::new())).unwrap();
    assert_eq!(read[&path("large")], Local::Opaque(Opaque::Suspicious));
}

#[test]
fn a_file_that_the_server_would_not_take_is_not_read() {
    let scene = Scene::new();
    scene.write("small", b"text");
    let file = fs::File::create(scene.at("large")).unwrap();
    file.set_len(10 << 30).unwrap();
    scene.disk.limit_files(5 << 30);
    let tree = scene.scan();
    assert_eq!(tree[&path("large")], Local::Opaque(Opaque::TooLarge));
    assert!(tree[&path("small")].kind().is_some());
}

#[test]
fn large_files_are_read_when_the_others_are_done_and_nothing_is_read_after_the_end() {
    let scene = Scene::new();
    scene.write("a", b"text");
    let large = |name: &str| {
        fs::File::create(scene.at(name)).unwrap().set_len(65 << 20).unwrap();
    };
    large("large");
    let unread = Local::Opaque(Opaque::Unread);
    let first = scene.scan();
    assert!(first[&path("a")].kind().is_some());
    assert_eq!(first[&path("large")], unread);
    // The small one has just changed, and is read again; that keeps nothing waiting for ever.
    let second = scene.disk.scan(first, &Scope::Only(BTreeSet::new())).unwrap();
    assert_eq!(second[&path("large")].kind().unwrap().content().unwrap().size, 65 << 20);

    let stop = CancellationToken::new();
    let disk = Disk::open(&scene.at("."), "vm", false, None).unwrap().until(stop.clone());
    stop.cancel();
    assert!(matches!(disk.scan(LocalTree::new(), &Scope::All), Err(FsError::Stopped)));
}

#[test]
fn the_hidden_folders_inner_ones_are_made_anew_but_not_the_marker() {
    let scene = Scene::new();
    scene.write("f", b"old");
    for name in ["stage", "trash"] {
        fs::remove_dir_all(scene.at(".panorama-sync").join(name)).unwrap();
    }
    scene.disk.delete(&path("f"), &scene.replaced("f")).unwrap();
    scene.install("g", b"new", None).unwrap();
    assert_eq!(scene.trash(), ["old"]);
    fs::remove_dir_all(scene.at(".panorama-sync")).unwrap();
    assert_eq!(scene.disk.root().unwrap(), None);
    assert!(matches!(scene.disk.stage("k", &content(b"x")).map(drop), Err(FsError::RootLost(_))));
}

/// "Unknown" is not "empty": nothing that was known is taken for gone.
#[test]
fn what_other_users_keep_to_themselves_is_unknown_and_not_empty() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scene = Scene::new();
    fs::set_permissions(scene.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let modes = [("closed", 0o700), ("listed", 0o744), ("passed", 0o711)];
    for (folder, _) in modes {
        scene.write(&format!("{folder}/inside"), b"text");
    }
    scene.write("open", b"text");
    scene.write("secret", b"text");
    let before = scene.scan();
    for (folder, mode) in modes {
        fs::set_permissions(scene.at(folder), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(scene.at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    scene.write("open", b"changed");
    let nobody = Some(crate::fs::Owner::new(65_534, 65_534));
    let as_nobody = |scope: &Scope| {
        let looked = crate::fs::acting_as(nobody, || scene.disk.scan(before.clone(), scope));
        looked.unwrap().unwrap()
    };
    // Also when only single places are looked at.
    let places = ["closed/inside", "listed/inside", "passed/x", "open", "secret"];
    for scope in [Scope::All, Scope::Only(places.map(path).into())] {
        let tree = as_nobody(&scope);
        let unknown: Vec<_> = tree
            .iter()
            .filter(|(_, local)| **local == Local::Opaque(Opaque::Unreadable))
            .map(|(path, _)| path.to_string())
            .collect();
        assert_eq!(unknown, ["closed", "listed", "passed", "secret"], "{scope:?}");
        assert_eq!(tree[&path("open")].kind().unwrap().content(), Some(&content(b"changed")));
    }
}

fn enlarge(scene: &Scene, name: &str) {
    let file = fs::OpenOptions::new().create(true).append(true).open(scene.at(name)).unwrap();
    file.set_len(65 << 20).unwrap();
}

/// A file that is read in three pieces.
fn very_large(scene: &Scene, name: &str) -> fs::File {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create(scene.at(name)).unwrap();
    file.set_len(2 * LARGE_AT_ONCE + (1 << 20)).unwrap();
    // Zeros all along are looked for byte by byte.
    file.write_all_at(b"begins", 0).unwrap();
    file
}

fn whole(scene: &Scene, name: &str) -> Sha256 {
    let file = fs::File::open(scene.at(name)).unwrap();
    super::super::hash::of_open(&file.into()).unwrap()
}

fn hash(tree: &LocalTree, name: &str) -> Option<Sha256> {
    tree[&path(name)].kind()?.content().map(|content| content.sha256)
}

/// Other work has its turn between two pieces.
#[test]
fn a_very_large_file_is_read_in_pieces() {
    let scene = Scene::new();
    very_large(&scene, "a");
    enlarge(&scene, "z");
    let unread = Local::Opaque(Opaque::Unread);
    let mut tree = scene.scan();
    // What has just changed is sent before the next piece, which would hold it up.
    scene.write("small", b"first");
    tree = scene.disk.scan(tree, &Scope::Only([path("small")].into())).unwrap();
    assert_eq!(scene.disk.unfinished.read_of(&path("a")), Some(LARGE_AT_ONCE));
    let mut pieces = 1;
    while hash(&tree, "a").is_none() {
        assert_eq!((tree[&path("a")], tree[&path("z")]), (unread, unread), "piece {pieces}");
        scene.write("small", format!("{pieces}").as_bytes());
        tree = scene.disk.scan(tree, &Scope::Only([path("small")].into())).unwrap();
        assert_eq!(hash(&tree, "small"), Some(whole(&scene, "small")), "it need not wait");
        pieces += 1;
        assert!(pieces <= 5, "each second look at least goes on with it");
    }
    assert!(pieces >= 3, "it was read at once");
    assert_eq!(hash(&tree, "a"), Some(whole(&scene, "a")));
}

/// What was read of another state is not used, and others have their turn first.
#[test]
fn a_very_large_file_that_changes_between_two_pieces_is_read_anew() {
    use std::os::unix::fs::FileExt;
    let scene = Scene::new();
    let file = very_large(&scene, "a");
    enlarge(&scene, "y");
    let mut tree = scene.scan();
    assert_eq!(tree[&path("a")], Local::Opaque(Opaque::Unread));
    file.write_all_at(b"Begins", 0).unwrap();
    let mut next = || {
        let before = std::mem::take(&mut tree);
        tree = scene.disk.scan(before, &Scope::Only(BTreeSet::new())).unwrap();
        tree.clone()
    };
    assert_eq!(next()[&path("a")], Local::Opaque(Opaque::Unsettled));
    assert!(hash(&next(), "y").is_some());
    let read = (0..4).find_map(|_| hash(&next(), "a"));
    assert_eq!(read, Some(whole(&scene, "a")));
}

/// What was known of it is not what it holds now, and not what it is to be planned by.
#[test]
fn a_known_file_that_has_become_large_is_put_off_and_then_read() {
    let scene = Scene::new();
    for name in ["grown", "known", "other"] {
        scene.write(name, b"text");
    }
    let before = scene.scan();
    enlarge(&scene, "grown");
    enlarge(&scene, "new");
    scene.write("other", b"edited");
    let unread = Local::Opaque(Opaque::Unread);
    // Also where only other places are looked at: it is looked at again because it was new.
    for scope in [Scope::All, Scope::Only([path("new"), path("other")].into())] {
        let first = scene.disk.scan(before.clone(), &scope).unwrap();
        assert_eq!(names(&first), ["grown", "known", "new", "other"]);
        assert_eq!((first[&path("grown")], first[&path("new")]), (unread, unread), "{scope:?}");
        assert_eq!(first[&path("known")], before[&path("known")]);
        let other = first[&path("other")].kind().unwrap();
        assert_eq!(other.content(), Some(&content(b"edited")));
        let second = scene.disk.scan(first, &Scope::Only(BTreeSet::new())).unwrap();
        for name in ["grown", "new"] {
            assert_eq!(second[&path(name)].kind().unwrap().content().unwrap().size, 65 << 20);
        }
    }
    scene.disk.limit_files(1 << 20);
    for scope in [Scope::All, Scope::Only([path("new")].into())] {
        let tree = scene.disk.scan(before.clone(), &scope).unwrap();
        for name in ["grown", "new"] {
            assert_eq!(tree[&path(name)], Local::Opaque(Opaque::TooLarge), "{name} {scope:?}");
        }
    }
}

/// Files that have just changed are read again wherever they are, also where nobody may look now.
#[test]
fn a_folder_that_closes_after_its_files_changed_is_unknown() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scene = Scene::new();
    fs::set_permissions(scene.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    scene.write("folder/inner/file", b"text");
    scene.write("folder/inner/other", b"text");
    scene.write("open", b"text");
    let before = scene.scan();
    fs::set_permissions(scene.at("folder/inner"), fs::Permissions::from_mode(0o700)).unwrap();
    let nobody = Some(crate::fs::Owner::new(65_534, 65_534));
    for scope in [Scope::All, Scope::Only([path("open")].into())] {
        let look = || scene.disk.scan(before.clone(), &scope);
        let tree = crate::fs::acting_as(nobody, look).unwrap().unwrap();
        assert_eq!(names(&tree), ["folder", "folder/inner", "open"], "{scope:?}");
        assert_eq!(tree[&path("folder/inner")], Local::Opaque(Opaque::Unreadable));
        // And all of it is there again when it opens.
        let again = scene.disk.scan(tree, &Scope::Only(BTreeSet::new())).unwrap();
        assert_eq!(names(&again), names(&before));
    }
}
