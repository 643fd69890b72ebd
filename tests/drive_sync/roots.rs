//! Folders that vanish, are replaced, hidden by a mount, or come back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use panorama_gateway::drive_sync::keeper::report::DriveState;
use panorama_gateway::drive_sync::keeper::request::{self, Request};

use crate::common::{say, wait_until};
use crate::scene::{Mirror, Scene, at_server};

/// A mirror with some files, up to date.
async fn with_files(scene: &Scene) -> Mirror {
    let one = scene.mirror("vm-1").await;
    for number in 0..12 {
        one.write(&format!("f{number}"), "text");
    }
    wait_until("all to be there", || async { (at_server(scene).await.len() == 12).then_some(()) })
        .await;
    one.is(DriveState::UpToDate).await;
    one
}

/// Goes with the test, however that ends.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        run(&["umount", "-l"], &self.0);
    }
}

fn run(args: &[&str], at: &Path) -> bool {
    Command::new(args[0]).args(&args[1..]).arg(at).output().is_ok_and(|out| out.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_mount_over_the_folder_stops_it_and_deletes_nothing() {
    let scene = Scene::new().await;
    let mut one = with_files(&scene).await;
    if !run(&["mount", "-t", "tmpfs", "none"], &one.at("")) {
        say("an empty mount: skipped: it needs root");
        one.stop().await;
        return;
    }
    let mounted = Mounted(one.at(""));
    let report = one.is(DriveState::Stopped).await;
    assert!(report.reason.unwrap().contains("is another folder"), "it is told why");
    assert_eq!(one.files().len(), 0, "the mount is empty");
    // Also for a gateway that starts while it is there.
    one.stop().await;
    one.start(&scene).await;
    let report = one.is(DriveState::Stopped).await;
    let stopped = report.reason.unwrap();
    assert!(stopped.contains("its marker is gone"), "{stopped}");
    assert_eq!(fs::read_dir(one.at("")).unwrap().count(), 0, "nothing is put into it");
    assert_eq!(at_server(&scene).await.len(), 12);
    one.stop().await;
    drop(mounted);
    one.start(&scene).await;
    one.is(DriveState::UpToDate).await;
    one.write("f1", "goes on");
    wait_until("it to go on", || async {
        at_server(&scene).await.iter().any(|(_, entry)| entry["size_bytes"] == 7).then_some(())
    })
    .await;
    assert_eq!((at_server(&scene).await.len(), one.files().len()), (12, 12));
    one.stop().await;
}

/// As a restored backup or a new disk is: all files, another folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_folder_waits_for_a_word_and_then_both_sides_are_kept() {
    let scene = Scene::new().await;
    let mut one = with_files(&scene).await;
    one.stop().await;
    let folder = one.at("");
    let folder = folder.parent().unwrap().join("team");
    let away = folder.with_file_name("away");
    fs::rename(&folder, &away).unwrap();
    assert!(run(&["cp", "-a", away.to_str().unwrap()], &folder));
    // It is older than what was agreed: one file is missing, one is as it was before.
    fs::remove_file(one.at("f1")).unwrap();
    one.write("f2", "older");
    one.start(&scene).await;
    let report = one.is(DriveState::Stopped).await;
    assert!(report.reason.unwrap().contains("as a copy or another mount would be"));
    request::ask(&one.state_dir, &scene.drive_id, Request::AcceptRoot).unwrap();
    one.is(DriveState::UpToDate).await;
    let files = one.files();
    assert_eq!((files.len(), &*files["f1"], &*files["f2"]), (13, "text", "text"));
    assert_eq!(files.values().filter(|text| *text == "older").count(), 1, "{files:?}");
    assert_eq!(at_server(&scene).await.len(), 13);
    one.stop().await;
}

/// A folder that is lost for good is filled again, from an empty one.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_folder_that_a_person_accepts_is_filled_again() {
    let scene = Scene::new().await;
    let mut one = with_files(&scene).await;
    let folder = one.at("").parent().unwrap().join("team");
    // At once: what is removed bit by bit is deleted by somebody.
    fs::rename(&folder, folder.with_file_name("away")).unwrap();
    let report = one.is(DriveState::Stopped).await;
    assert!(report.reason.unwrap().contains("is not there"));
    // There is nothing that could be accepted, and nothing is made.
    request::ask(&one.state_dir, &scene.drive_id, Request::AcceptRoot).unwrap();
    wait_until("the word to be heard", || async {
        (!request::is_waiting(&one.state_dir, &scene.drive_id, Request::AcceptRoot)).then_some(())
    })
    .await;
    assert!(!folder.exists());
    fs::create_dir(&folder).unwrap();
    request::ask(&one.state_dir, &scene.drive_id, Request::AcceptRoot).unwrap();
    one.is(DriveState::UpToDate).await;
    assert_eq!((at_server(&scene).await.len(), one.files().len()), (12, 12));
    one.stop().await;
}

/// What a loss of power has emptied stays held over any number of restarts of the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_emptied_is_held_back_until_somebody_writes_to_it() {
    let scene = Scene::new().await;
    let mut one = with_files(&scene).await;
    one.stop().await;
    one.write("f1", "");
    one.write("f2", "");
    // The machine crashed while drive sync ran, and has another boot id now.
    fs::write(one.state_dir.join("running"), "another boot").unwrap();
    for _ in 0..3 {
        one.start(&scene).await;
        let report = wait_until("it to be held", || async {
            let held = |report: &_| {
                let report: &panorama_gateway::drive_sync::keeper::report::DriveReport = report;
                let crashed = report.unsyncable.iter().filter(|it| it.reason.contains("crash"));
                crashed.count() == 2 && report.audited_at.is_some()
            };
            one.report().filter(held)
        })
        .await;
        assert_eq!(report.done.uploads, 0);
        one.stop().await;
        assert!(at_server(&scene).await.iter().all(|(_, entry)| entry["size_bytes"] == 4));
    }
    one.start(&scene).await;
    one.write("f1", "written");
    fs::write(one.at("f2"), "").unwrap();
    wait_until("both to go up", || async {
        let mut sizes: Vec<_> = at_server(&scene)
            .await
            .iter()
            .map(|(_, entry)| entry["size_bytes"].as_u64().unwrap())
            .filter(|size| *size != 4)
            .collect();
        sizes.sort_unstable();
        (sizes == [0, 7]).then_some(())
    })
    .await;
    one.is(DriveState::UpToDate).await;
    one.stop().await;
}
