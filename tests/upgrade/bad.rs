//! Upgrades that fail: the old process goes on, the team is told, and they are not tried again.

use super::scene::Scene;
use super::versions::{self, numbered};
use crate::common::wait_until;

/// Installs a file that must be refused without being started; why it was.
async fn refused(file: &std::path::Path) -> String {
    let mut scene = Scene::start().await;
    scene.install(file);
    let failed = scene.upgrade_failed().await;
    assert_eq!(scene.who_runs().await, scene.first_pid());
    assert!(scene.first_is_running());
    scene.processes_are(1).await;
    assert_eq!(scene.log().matches("is no gateway that could take over").count(), 1);
    failed["reason"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_binary() {
    let why = refused(&versions::truncated()).await;
    assert!(why.contains("signal") || why.contains("exec") || why.contains("started"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_for_another_machine() {
    let why = refused(&versions::foreign()).await;
    assert!(why.contains("another architecture"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script() {
    let why = refused(&versions::script()).await;
    assert!(why.contains("script"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_and_what_does_not_answer_properly() {
    let why = refused(&versions::impostor("9.9.9", "names-another")).await;
    assert!(why.contains("does not call itself"), "{why}");
    let why = refused(&versions::impostor("9.9.9", "hangs-when-asked")).await;
    assert!(why.contains("did not end within 10 seconds"), "{why}");
    let why = refused(&versions::impostor("9.9.9", "floods-when-asked")).await;
    assert!(why.contains("did not end within 10 seconds"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_and_nothing_at_all() {
    let mut scene = Scene::start().await;
    std::fs::remove_file(&scene.program).unwrap();
    assert_eq!(scene.who_runs().await, scene.first_pid());
    std::fs::create_dir(&scene.program).unwrap();
    let failed = scene.upgrade_failed().await;
    assert!(failed["reason"].as_str().unwrap().contains("directory"), "{failed}");
    assert_eq!(scene.who_runs().await, scene.first_pid());
    assert!(scene.first_is_running());
    // It is put right after all.
    std::fs::remove_dir(&scene.program).unwrap();
    scene.install(&versions::other(&numbered(8)));
    scene.version_is_up(&numbered(8)).await;
}

/// Installs a replacement that is started but comes to nothing; why, and the scene.
async fn fails(behaviour: &str) -> (String, Scene) {
    let mut scene = Scene::start().await;
    scene.install(&versions::impostor("9.9.9", behaviour));
    let failed = scene.upgrade_failed().await;
    assert_eq!(failed["version"], "9.9.9");
    assert!(scene.first_is_running());
    assert_eq!(scene.who_runs().await, scene.first_pid(), "the old process works");
    scene.processes_are(1).await;
    let pid = std::fs::read_to_string(scene.machine.dir().join("gateway.pid")).unwrap();
    assert_eq!(pid.trim(), scene.first_pid().to_string());
    let event = wait_until("the event", || async {
        scene.events("restart_failed").await.into_iter().next()
    })
    .await;
    assert_eq!((&event["level"], &event["details"]["version"]), (&"warn".into(), &"9.9.9".into()));
    assert!(!scene.log().contains("offline"), "{}", scene.log());
    let shown = scene.machine.run_async(&["status"]).await;
    assert!(shown.stdout.contains("version 9.9.9 did not take over"), "{shown:?}");
    (failed["reason"].as_str().unwrap().to_owned(), scene)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_crashes_and_is_not_tried_again_while_a_better_one_is() {
    let (why, scene) = fails("crashes").await;
    assert_eq!(why, "it was ended by signal 6");
    // The same version in other bytes.
    scene.install(&versions::impostor("9.9.9", "gives-up"));
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(scene.log().matches("an upgrade was installed").count(), 1, "{}", scene.log());
    assert_eq!(scene.events("restart_failed").await.len(), 1);
    scene.install(&versions::other(&numbered(9)));
    scene.version_is_up(&numbered(9)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_gives_up_says_why() {
    assert_eq!(fails("gives-up").await.0, "the disk is made of cheese");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_speaks_another_language() {
    assert!(fails("babbles").await.0.contains("something else"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_never_ready() {
    assert_eq!(fails("is-silent").await.0, "it was not ready to take over within 60 seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_ready_but_never_up() {
    let (why, scene) = fails("is-never-up").await;
    assert_eq!(why, "it was not up within 60 seconds");
    // And the next one is welcome.
    scene.install(&versions::other(&numbered(9)));
    scene.version_is_up(&numbered(9)).await;
}
