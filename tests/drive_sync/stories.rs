//! What people see.

use std::fs;

use panorama_gateway::drive_sync::keeper::report::DriveState;
use panorama_gateway::drive_sync::keeper::request::{self, Request};

use serde_json::json;

use crate::common::wait_until;
use crate::scene::{Scene, admin, at_server};

#[tokio::test(flavor = "multi_thread")]
async fn what_one_machine_does_the_other_has() {
    let scene = Scene::new().await;
    let (mut one, mut other) = (scene.mirror("vm-1").await, scene.mirror("vm-2").await);
    one.is(DriveState::UpToDate).await;
    one.write("notes/a.txt", "first");
    let large = "x".repeat(300_000);
    one.write("large.bin", &large);
    other.has(&[("large.bin", &large), ("notes/a.txt", "first")]).await;
    other.write("notes/a.txt", "second");
    fs::rename(other.at("large.bin"), other.at("notes/moved.bin")).unwrap();
    one.has(&[("notes/a.txt", "second"), ("notes/moved.bin", &large)]).await;
    fs::remove_dir_all(one.at("notes")).unwrap();
    one.write("last", "");
    other.has(&[("last", "")]).await;
    other.is(DriveState::UpToDate).await;
    let entries: Vec<_> = at_server(&scene).await.into_iter().map(|(path, _)| path).collect();
    assert_eq!(entries, ["last"]);
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_edited_both_are_kept() {
    let scene = Scene::new().await;
    let (mut one, mut other) = (scene.mirror("vm-1").await, scene.mirror("vm-2").await);
    one.write("plan.md", "draft");
    other.has(&[("plan.md", "draft")]).await;
    other.is(DriveState::UpToDate).await;
    other.stop().await;
    other.write("plan.md", "other's");
    one.write("plan.md", "one's own");
    wait_until("the server to have it", || async {
        let entries = at_server(&scene).await;
        (entries.len() == 1 && entries[0].1["size_bytes"] == 9).then_some(())
    })
    .await;
    other.start(&scene).await;
    let files = wait_until("both to have both", || async {
        let files = one.files();
        (files.len() == 2 && files == other.files()).then_some(files)
    })
    .await;
    assert_eq!(files["plan.md"], "one's own");
    let copy = files.keys().find(|name| name.as_str() != "plan.md").unwrap();
    assert!(copy.starts_with("plan (conflict vm-2 "), "{copy}");
    assert_eq!(files[copy], "other's");
    let report = other.is(DriveState::UpToDate).await;
    assert_eq!(report.conflicts, std::slice::from_ref(copy));
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deletions_wait_for_a_person() {
    let scene = Scene::new().await;
    let mut one = scene.mirror("vm-1").await;
    for number in 0..20 {
        one.write(&format!("f{number}"), "text");
    }
    wait_until("all to be there", || async { (at_server(&scene).await.len() == 20).then_some(()) })
        .await;
    one.is(DriveState::UpToDate).await;
    for number in 0..15 {
        fs::remove_file(one.at(&format!("f{number}"))).unwrap();
    }
    one.write("new", "goes on");
    let report = one.is(DriveState::Held).await;
    // The new file may have been sent by then.
    let held = report.held.unwrap();
    assert!(held.starts_with("15 of 2") && held.ends_with(" entries would be deleted"), "{held}");
    wait_until("the new file", || async { (at_server(&scene).await.len() == 21).then_some(()) })
        .await;
    request::ask(&one.state_dir, &scene.drive_id, Request::ReleaseDeletions).unwrap();
    wait_until("them to go", || async { (at_server(&scene).await.len() == 6).then_some(()) }).await;
    one.is(DriveState::UpToDate).await;
    one.stop().await;
}

/// The folder was a disk that is not there any more: nothing was deleted by anybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_vanished_deletes_nothing() {
    let scene = Scene::new().await;
    let mut one = scene.mirror("vm-1").await;
    for number in 0..5 {
        one.write(&format!("f{number}"), "text");
    }
    wait_until("all to be there", || async { (at_server(&scene).await.len() == 5).then_some(()) })
        .await;
    one.is(DriveState::UpToDate).await;
    let folder = one.at("");
    let away = folder.parent().unwrap().join("away");
    fs::rename(&folder, &away).unwrap();
    fs::create_dir(&folder).unwrap();
    let report = one.is(DriveState::Stopped).await;
    assert!(report.reason.unwrap().contains("the drive's folder is not the one"));
    assert_eq!(at_server(&scene).await.len(), 5);
    one.stop().await;
    fs::remove_dir(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    one.start(&scene).await;
    one.is(DriveState::UpToDate).await;
    assert_eq!((at_server(&scene).await.len(), one.files().len()), (5, 5));
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_from_a_backup_deletes_nothing() {
    let scene = Scene::new().await;
    let mut one = scene.mirror("vm-1").await;
    one.write("old", "1");
    wait_until("it to be there", || async { (at_server(&scene).await.len() == 1).then_some(()) })
        .await;
    let before = one.is(DriveState::UpToDate).await.cursor;
    one.write("new", "2");
    wait_until("it to be there", || async { (at_server(&scene).await.len() == 2).then_some(()) })
        .await;
    one.is(DriveState::UpToDate).await;
    let restore = format!("drives/{}/restore", scene.drive_id);
    admin(&scene.control, &restore, Some(json!({"sequence": before}))).await;
    wait_until("it to be there again", || async {
        (at_server(&scene).await.len() == 2).then_some(())
    })
    .await;
    one.has(&[("new", "2"), ("old", "1")]).await;
    one.stop().await;
}
