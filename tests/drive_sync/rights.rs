//! Who may do what with the drive: tokens that end, drives that are taken away and given back.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use panorama_gateway::drive_sync::keeper::SessionToken;
use panorama_gateway::drive_sync::keeper::report::{DriveState, Report};

use crate::common::wait_until;
use crate::line::{Line, Rule};
use crate::scene::{Scene, at_server};

/// Tokens end while two large files are on their slow way; the session opens the drives anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_in_mid_transfer_is_replaced_and_nothing_is_doubled() {
    let scene = Scene::with(|options| options.drives.token_lifetime = Duration::from_secs(2)).await;
    let line = Line::to(&scene.control.url()).await;
    let mut one = scene.mirror_at_rest("vm-1");
    one.url.clone_from(&line.url);
    let asked = Arc::new(AtomicUsize::new(0));
    let (session, counted) = (scene.session(), Arc::clone(&asked));
    one.session = Some(SessionToken(Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        session.clone().into()
    })));
    one.start(&scene).await;
    one.is(DriveState::UpToDate).await;
    line.rule(Rule::Slow(1 << 20));
    let (large, other) = ("l".repeat(4 << 20), "o".repeat(3 << 20));
    one.write("large", &large);
    one.write("other", &other);
    one.write("small", "text");
    wait_until("all to be there", || async { (at_server(&scene).await.len() == 3).then_some(()) })
        .await;
    line.rule(Rule::Free);
    assert!(asked.load(Ordering::Relaxed) > 0, "no token ended meanwhile");
    let report = one.is(DriveState::UpToDate).await;
    assert_eq!((report.done.uploads, report.conflicts.len()), (3, 0));
    assert_eq!(line.heads("PUT ").len(), 2, "nothing was sent twice");
    // And on without anything to do.
    let before = asked.load(Ordering::Relaxed);
    scene.put("later", b"theirs").await;
    one.has(&[("large", &large), ("later", "theirs"), ("other", &other), ("small", "text")]).await;
    assert!(asked.load(Ordering::Relaxed) >= before);
    one.stop().await;
}

/// Without a session there is no other token: that is said, and files stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_has_ended_for_good_is_told_of() {
    let scene = Scene::with(|options| options.drives.token_lifetime = Duration::from_secs(2)).await;
    let mut one = scene.mirror_at_rest("vm-1");
    let line = Line::to(&scene.control.url()).await;
    one.url.clone_from(&line.url);
    one.start(&scene).await;
    one.write("a", "text");
    wait_until("it to be there", || async { (at_server(&scene).await.len() == 1).then_some(()) })
        .await;
    one.stop().await;
    // It slept for longer than its token lasts.
    let mut late = one;
    late.start_late(&scene, Duration::from_secs(3)).await;
    late.write("b", "written meanwhile");
    let problem = wait_until("the problem to be told", || async {
        Report::read(&late.state_dir).unwrap()?.problem.filter(|text| text.contains("token"))
    })
    .await;
    assert!(problem.contains("the drives' token is not accepted"), "{problem}");
    assert_eq!(at_server(&scene).await.len(), 1);
    late.stop().await;
    late.start(&scene).await;
    wait_until("it to go on", || async { (at_server(&scene).await.len() == 2).then_some(()) })
        .await;
    late.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_wait_while_a_drive_may_only_be_read() {
    let scene = Scene::new().await;
    let mut one = scene.mirror("vm-1").await;
    one.write("a", "first");
    one.write("gone", "kept");
    wait_until("both to be there", || async { (at_server(&scene).await.len() == 2).then_some(()) })
        .await;
    one.is(DriveState::UpToDate).await;
    scene.allow("read").await;
    one.write("a", "edited");
    one.write("new", "added");
    fs::remove_file(one.at("gone")).unwrap();
    let report = wait_until("it to be told", || async {
        one.report().filter(|report| !report.writable && report.unsyncable_count == 2)
    })
    .await;
    let told: Vec<_> =
        report.unsyncable.iter().map(|entry| (&*entry.path, &*entry.reason)).collect();
    let reason = "the drive may only be read";
    assert_eq!(told, [("a", reason), ("new", reason)]);
    scene.put("theirs", b"goes on").await;
    one.has(&[("a", "edited"), ("gone", "kept"), ("new", "added"), ("theirs", "goes on")]).await;
    assert_eq!(at_server(&scene).await.len(), 3);
    scene.allow("write").await;
    wait_until("the edits to go up", || async {
        let entries = at_server(&scene).await;
        (entries.len() == 4 && entries[0].1["size_bytes"] == 6).then_some(())
    })
    .await;
    let report = wait_until("nothing to be told any more", || async {
        one.report().filter(|report| report.writable && report.unsyncable_count == 0)
    })
    .await;
    assert!(report.conflicts.is_empty());
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_is_taken_away_keeps_its_files_and_is_told_of_until_it_comes_back() {
    let scene = Scene::new().await;
    let mut one = scene.mirror("vm-1").await;
    one.write("a", "first");
    wait_until("it to be there", || async { (at_server(&scene).await.len() == 1).then_some(()) })
        .await;
    one.is(DriveState::UpToDate).await;
    scene.allow("none").await;
    one.write("a", "edited");
    one.write("b", "added");
    let taken = || async {
        let report = one.report()?;
        let reason = report.reason.as_deref().unwrap_or_default();
        (report.state == DriveState::Stopped && reason.contains("may not use it any more"))
            .then_some(())
    };
    wait_until("it to be told", taken).await;
    assert_eq!(one.files().len(), 2);
    // After a restart as well, though the server does not name the drive any more.
    one.stop().await;
    one.start(&scene).await;
    wait_until("it to be told again", || async {
        let report = one.report()?;
        report.reason.is_some_and(|reason| reason.contains("may not use it")).then_some(())
    })
    .await;
    scene.allow("write").await;
    wait_until("the edits to go up", || async {
        let entries = at_server(&scene).await;
        (entries.len() == 2 && entries[0].1["size_bytes"] == 6).then_some(())
    })
    .await;
    let report = one.is(DriveState::UpToDate).await;
    assert!(report.conflicts.is_empty());
    one.has(&[("a", "edited"), ("b", "added")]).await;
    one.stop().await;
}
