//! Names, files and folders that nobody has in mind.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::time::{Duration, Instant};

use panorama_gateway::drive_sync::keeper::report::DriveState;
use panorama_gateway::drive_sync::keeper::request::{self, Request};
use serde_json::json;

use crate::common::{say, wait_until};
use crate::scene::{Scene, admin, all_at_server, at_server};

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_travel_as_they_are() {
    let scene = Scene::new().await;
    let (mut one, mut other) = (scene.mirror("vm-1").await, scene.mirror("vm-2").await);
    one.is(DriveState::UpToDate).await;
    let long = "ä".repeat(127) + "n";
    let deep = format!("{}leaf", "folder-18-letters/".repeat(200));
    let names =
        ["new\nline", "tab\t", "\u{1}bell\u{7f}", " ", "-rf", "a\\b", "%2e%2e", &long, &deep];
    for name in names {
        one.write(name, name);
    }
    let mut wanted: Vec<(&str, &str)> = names.iter().map(|name| (*name, *name)).collect();
    other.has(&wanted).await;
    // A conflict copy of the longest name is cut, and still a name.
    other.is(DriveState::UpToDate).await;
    other.stop().await;
    other.write(&long, "other's");
    one.write(&long, "one's own");
    wait_until("the server to have it", || async {
        at_server(&scene).await.iter().any(|(_, entry)| entry["size_bytes"] == 9).then_some(())
    })
    .await;
    other.start(&scene).await;
    let files = wait_until("both to have both", || async {
        let files = one.files();
        (files.len() == names.len() + 1 && files == other.files()).then_some(files)
    })
    .await;
    assert_eq!(files[&long], "one's own");
    wanted.retain(|(name, _)| *name != long);
    assert!(wanted.iter().all(|(name, text)| files[*name] == *text));
    fs::remove_dir_all(one.at("folder-18-letters")).unwrap();
    // Most of the drive, on either side: a person says that it is meant.
    wait_until("the deep tree to go", || async {
        for mirror in [&one, &other] {
            if mirror.report().is_some_and(|report| report.state == DriveState::Held) {
                request::ask(&mirror.state_dir, &scene.drive_id, Request::ReleaseDeletions)
                    .unwrap();
            }
        }
        (!other.at("folder-18-letters").exists()).then_some(())
    })
    .await;
    one.stop().await;
    other.stop().await;
}

/// Links, pipes, sockets and names that are not UTF-8 are told of, and stay when others delete the
/// folder that they are in.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_no_part_stays_and_is_told_of() {
    let scene = Scene::new().await;
    let mut one = scene.mirror("vm-1").await;
    let odd = one.at("folder").join(OsStr::from_bytes(b"caf\xe9"));
    one.write("folder/file", "text");
    one.write("links/file", "text");
    fs::write(&odd, "odd").unwrap();
    symlink("/etc/passwd", one.at("links/link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(one.at("links/socket")).unwrap();
    nix::unistd::mkfifo(&one.at("links/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let report = wait_until("all to be told", || async {
        one.report()
            .filter(|report| report.unsyncable_count == 4 && report.state == DriveState::UpToDate)
    })
    .await;
    let told: Vec<_> = report.unsyncable.iter().map(|it| (&*it.path, &*it.reason)).collect();
    let special = "neither a file nor a folder";
    let (name, reason) = told[0];
    assert!(name.starts_with("folder/caf\u{fffd} (not UTF-8 "), "{name}");
    assert_eq!(reason, "its name is not UTF-8");
    assert_eq!(
        told[1..],
        [("links/link", "a symbolic link"), ("links/pipe", special), ("links/socket", special)]
    );
    // Somebody at the server deletes both folders.
    for folder in ["folder", "links"] {
        for path in [format!("{folder}/file"), folder.to_owned()] {
            let entries = all_at_server(&scene).await;
            let entry = &entries.iter().find(|(known, _)| *known == path).unwrap().1;
            let is_file = entry["entry_type"] == "file";
            let mut delete = json!({"action": "delete", "drive_id": scene.drive_id, "path": path,
                                    "operation_id": path, "expect_empty": !is_file});
            if is_file {
                delete["expected_version_id"] = entry["current_version_id"].clone();
            }
            admin(&scene.control, "drive-sync", Some(delete)).await;
        }
    }
    wait_until("the files to go and the folders to come back", || async {
        let there: Vec<_> = all_at_server(&scene).await.into_iter().map(|(path, _)| path).collect();
        let is_so = there == ["folder", "links"] && !one.at("folder/file").exists();
        (is_so && !one.at("links/file").exists()).then_some(())
    })
    .await;
    one.is(DriveState::UpToDate).await;
    assert_eq!(fs::read_to_string(&odd).unwrap(), "odd");
    assert!(one.at("links/link").symlink_metadata().is_ok());
    one.stop().await;
}

/// The server takes 5 GiB: a sparse file of 10 GiB is neither read nor sent, and holds nobody up.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_large_is_told_of_and_holds_nobody_up() {
    let scene = Scene::new().await;
    let mut one = scene.mirror("vm-1").await;
    one.is(DriveState::UpToDate).await;
    let began = Instant::now();
    fs::File::create(one.at("huge.img")).unwrap().set_len(10 << 30).unwrap();
    one.write("small", "text");
    wait_until("the small one", || async { (at_server(&scene).await.len() == 1).then_some(()) })
        .await;
    let report = wait_until("it to be told", || async {
        one.report().filter(|report| report.unsyncable_count == 1)
    })
    .await;
    say(&format!("a file of 10 GiB: told of after {:?}", began.elapsed()));
    assert!(began.elapsed() < Duration::from_secs(20), "it was read");
    assert_eq!(report.unsyncable[0].reason, "larger than the server takes");
    // It is no obstacle once it is smaller.
    fs::OpenOptions::new().write(true).open(one.at("huge.img")).unwrap().set_len(70_000).unwrap();
    wait_until("it to go", || async { (at_server(&scene).await.len() == 2).then_some(()) }).await;
    one.is(DriveState::UpToDate).await;
    one.stop().await;
}

/// A large file is read after the small ones; a small one that comes meanwhile need not wait for all.
#[tokio::test(flavor = "multi_thread")]
async fn small_files_go_before_large_ones() {
    let scene = Scene::new().await;
    let mut one = scene.mirror("vm-1").await;
    one.is(DriveState::UpToDate).await;
    one.stop().await;
    for number in 0..3 {
        let file = fs::File::create(one.at(&format!("large-{number}"))).unwrap();
        file.set_len(70 << 20).unwrap();
    }
    one.write("small", "text");
    one.start(&scene).await;
    let mut seen = Vec::new();
    wait_until("all of them", || async { (at_server(&scene).await.len() == 4).then_some(()) })
        .await;
    for (path, entry) in at_server(&scene).await {
        seen.push((entry["updated_at"].as_str().unwrap().to_owned(), path));
    }
    seen.sort();
    assert_eq!(seen[0].1, "small", "{seen:?}");
    one.is(DriveState::UpToDate).await;
    one.stop().await;
}

/// It is read in pieces, and whatever else is to be done has its turn between two of them.
#[tokio::test(flavor = "multi_thread")]
async fn small_files_need_not_wait_until_a_very_large_one_is_read() {
    let scene = Scene::new().await;
    let mut one = scene.mirror("vm-1").await;
    one.is(DriveState::UpToDate).await;
    let part = one.state_dir.join("part");
    let file = fs::File::create(&part).unwrap();
    file.set_len(4 << 30).unwrap();
    // Zeros all along are looked for byte by byte.
    file.write_all_at(b"begins", 0).unwrap();
    fs::rename(&part, one.at("large")).unwrap();
    let unread = "a large file that has not been read yet";
    wait_until("it to be put off", || async {
        let report = one.report()?;
        report.unsyncable.iter().any(|it| it.reason == unread).then_some(())
    })
    .await;
    for number in 1..=3 {
        let (name, began) = (format!("small-{number}"), Instant::now());
        one.write(&name, "text");
        wait_until(&name, || async {
            at_server(&scene).await.iter().any(|(path, _)| *path == name).then_some(())
        })
        .await;
        say(&format!("{name}, while 4 GiB are read: there after {:?}", began.elapsed()));
    }
    assert_eq!(at_server(&scene).await.len(), 3, "the large one was there first");
    fs::remove_file(one.at("large")).unwrap();
    let report = one.is(DriveState::UpToDate).await;
    assert_eq!((report.entries, report.unsyncable_count), (3, 0));
    one.stop().await;
}
