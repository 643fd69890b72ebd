//! Contents whose way is cut, stops or is slow.

use std::fs;
use std::time::Duration;

use panorama_gateway::drive_sync::keeper::report::DriveState;

use crate::common::wait_until;
use crate::line::{Line, Rule, Way};
use crate::scene::{Mirror, Scene, at_server};

const MIB: usize = 1 << 20;

/// Bytes that no compression makes shorter, other ones for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A whole file at once, as a careful program saves it.
fn save(mirror: &Mirror, place: &str, bytes: &[u8]) {
    let temp = mirror.at("").parent().unwrap().with_file_name("saving");
    fs::write(&temp, bytes).unwrap();
    fs::rename(temp, mirror.at(place)).unwrap();
}

async fn has(mirror: &Mirror, place: &str, bytes: &[u8]) {
    wait_until(&format!("{place} to be here"), || async {
        fs::read(mirror.at(place)).is_ok_and(|there| there == bytes).then_some(())
    })
    .await;
}

async fn server_has(scene: &Scene, place: &str, size: usize) {
    wait_until(&format!("{place} to be there"), || async {
        let entries = at_server(scene).await;
        entries
            .iter()
            .any(|(path, entry)| path == place && entry["size_bytes"] == size)
            .then_some(())
    })
    .await;
}

/// A mirror that is up to date, behind a line.
async fn behind_a_line(scene: &Scene, patience: Duration) -> (Line, Mirror) {
    let line = Line::to(&scene.control.url()).await;
    let mut mirror = scene.mirror_at_rest("vm-1");
    mirror.url.clone_from(&line.url);
    mirror.network_timeout = patience;
    mirror.start(scene).await;
    mirror.is(DriveState::UpToDate).await;
    (line, mirror)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_goes_on_where_it_stopped() {
    let scene = Scene::new().await;
    let (line, mut one) = behind_a_line(&scene, Duration::from_mins(1)).await;
    let bytes = noise(1, 12 * MIB);
    let before = line.moved().1;
    line.rule(Rule::CutAfter(Way::Down, 8 * MIB as u64));
    scene.put("large.bin", &bytes).await;
    line.was_cut().await;
    has(&one, "large.bin", &bytes).await;
    let moved = line.moved().1 - before;
    assert!(moved < 13 * MIB as u64, "{moved} bytes came for 12 MiB");
    let gets = line.heads("GET /drives/v1/contents/");
    assert_eq!(gets.len(), 2, "{gets:?}");
    assert!(!gets[0].contains("range:"), "{gets:?}");
    let from = gets[1].split("range: bytes=").nth(1).unwrap().split('-').next().unwrap();
    assert!(from.parse::<usize>().unwrap() > 7 * MIB, "{from}");
    assert!(gets[1].contains("if-match: "), "{gets:?}");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_between_the_halves_of_its_download_is_never_mixed() {
    let scene = Scene::new().await;
    let (line, mut one) = behind_a_line(&scene, Duration::from_mins(1)).await;
    let (old, new) = (noise(1, 6 * MIB), noise(2, 6 * MIB));
    line.rule(Rule::FreezeAfter(Way::Down, 3 * MIB as u64));
    scene.put("large.bin", &old).await;
    wait_until("half of it", || async { (line.moved().1 > 3 * MIB as u64).then_some(()) }).await;
    scene.put("large.bin", &new).await;
    // The part of the old one is there; the way is free and broken.
    line.rule(Rule::CutAfter(Way::Down, 0));
    let seen = wait_until("the new one", || async {
        let seen = fs::read(one.at("large.bin")).ok()?;
        assert!(seen == old || seen == new, "a mixed file of {} bytes", seen.len());
        (seen == new).then_some(seen)
    })
    .await;
    assert_eq!(seen.len(), new.len());
    one.is(DriveState::UpToDate).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_goes_on_with_the_parts_that_are_missing() {
    let scene = Scene::new().await;
    let (line, mut one) = behind_a_line(&scene, Duration::from_mins(1)).await;
    let bytes = noise(3, 40 * MIB);
    let before = line.moved().0;
    // In the fourth of five parts of 8 MiB.
    line.rule(Rule::CutAfter(Way::Up, 28 * MIB as u64));
    save(&one, "large.bin", &bytes);
    line.was_cut().await;
    server_has(&scene, "large.bin", bytes.len()).await;
    let moved = line.moved().0 - before;
    assert!(moved < 53 * MIB as u64, "{moved} bytes went for 40 MiB");
    let parts: Vec<String> = line
        .heads("PUT /drives/v1/uploads/")
        .iter()
        .map(|head| head.split(['/', '?']).nth(5).unwrap().to_owned())
        .collect();
    assert_eq!(parts, ["1", "2", "3", "4", "4", "5"]);
    one.is(DriveState::UpToDate).await;
    one.stop().await;
}

/// The same when the gateway was killed or restarted in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_a_restart() {
    let scene = Scene::new().await;
    let (line, mut one) = behind_a_line(&scene, Duration::from_mins(1)).await;
    let bytes = noise(4, 24 * MIB);
    line.rule(Rule::FreezeAfter(Way::Up, 12 * MIB as u64));
    save(&one, "large.bin", &bytes);
    wait_until("half of it", || async { (line.moved().0 > 12 * MIB as u64).then_some(()) }).await;
    one.stop().await;
    line.rule(Rule::Free);
    one.start(&scene).await;
    server_has(&scene, "large.bin", bytes.len()).await;
    let first_parts =
        line.heads("PUT /drives/v1/uploads/").iter().filter(|head| head.contains("/1?")).count();
    assert_eq!(first_parts, 1, "the first part was there already");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_stands_still_is_given_up_and_tried_again() {
    for way in [Way::Down, Way::Up] {
        let scene = Scene::new().await;
        let (line, mut one) = behind_a_line(&scene, Duration::from_millis(500)).await;
        let bytes = noise(5, 6 * MIB);
        line.rule(Rule::FreezeAfter(way, 2 * MIB as u64));
        if way == Way::Down {
            scene.put("large.bin", &bytes).await;
        } else {
            save(&one, "large.bin", &bytes);
        }
        let report = one.is(DriveState::Waiting).await;
        let reason = report.reason.unwrap_or_default();
        assert!(reason.contains("nothing came for"), "{way:?}: {reason}");
        line.rule(Rule::Free);
        has(&one, "large.bin", &bytes).await;
        server_has(&scene, "large.bin", bytes.len()).await;
        one.is(DriveState::UpToDate).await;
        one.stop().await;
    }
}

/// Much longer than the patience as a whole, and never still.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_slow_but_moves_is_not_given_up() {
    let scene = Scene::new().await;
    let (line, mut one) = behind_a_line(&scene, Duration::from_millis(1500)).await;
    line.rule(Rule::Slow(MIB as u64));
    for number in 0..40 {
        // All of these go in one request.
        save(&one, &format!("small-{number}"), &noise(number, 60_000));
    }
    wait_until("the small ones", || async { (at_server(&scene).await.len() == 40).then_some(()) })
        .await;
    let (up, down) = (noise(60, 6 * MIB), noise(70, 4 * MIB));
    save(&one, "up.bin", &up);
    server_has(&scene, "up.bin", up.len()).await;
    scene.put("down.bin", &down).await;
    has(&one, "down.bin", &down).await;
    one.stop().await;
}
