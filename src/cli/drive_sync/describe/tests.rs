use super::*;
use crate::drive_sync::keeper::report::Totals;

const NOW: &str = "2026-11-22T10:00:00Z";

fn team() -> DriveReport {
    DriveReport {
        name: "Team".into(),
        path: "/panorama/drives/team".into(),
        writable: true,
        watched: true,
        state: DriveState::UpToDate,
        cursor: 5120,
        head: 5120,
        entries: 5012,
        audited_at: Some("2026-11-22T09:57:00Z".into()),
        synced_at: Some("2026-11-22T09:58:00Z".into()),
        free_bytes: Some(13 << 30),
        ..DriveReport::default()
    }
}

fn text(drives: Vec<DriveReport>) -> String {
    report(&Report { drives, ..Report::default() }, false, NOW.parse().unwrap())
}

#[test]
fn drives_that_are_well_take_a_line_each() {
    let one = DriveReport {
        name: "Notes".into(),
        path: "/panorama/drives/notes".into(),
        entries: 1,
        ..team()
    };
    insta::assert_snapshot!(text(vec![team(), one]));
    let done = Totals { downloads: 5000, download_bytes: 411 << 20, moves: 3, ..Totals::default() };
    let all = Report { drives: vec![DriveReport { done, ..team() }], ..Report::default() };
    insta::assert_snapshot!(report(&all, true, NOW.parse().unwrap()));
}

#[test]
fn a_first_copy_tells_how_far_it_is() {
    let copy = FirstCopy {
        files_done: 12_345,
        files: 100_000,
        bytes_done: 51 << 20,
        bytes: 411 << 20,
        seconds_left: Some(187),
    };
    let moving = |path: &str, send, moved: u64| {
        let size = 700 << 20;
        Moving { path: path.into(), send, moved: moved << 20, size }
    };
    let first = DriveReport {
        state: DriveState::Syncing,
        first_copy: Some(copy),
        transfers: vec![moving("talks/keynote.mp4", false, 120), moving("talks/own.mp4", true, 0)],
        pending: Counts { downloads: 87_655, download_bytes: 360 << 20, ..Counts::default() },
        synced_at: None,
        ..team()
    };
    let early = FirstCopy { seconds_left: None, files_done: 0, bytes_done: 0, ..copy };
    let starting = |doing| DriveReport {
        state: DriveState::Starting,
        first_copy: Some(FirstCopy::default()),
        doing,
        listed: 12_000,
        synced_at: None,
        ..team()
    };
    insta::assert_snapshot!(text(vec![
        starting(Doing::Asking),
        starting(Doing::Listing),
        starting(Doing::Looking),
        DriveReport { first_copy: Some(early), transfers: Vec::new(), ..first.clone() },
        first,
    ]));
}

#[test]
fn work_and_waiting_are_told_with_what_is_left() {
    let pending = Counts {
        downloads: 1200,
        download_bytes: 5_000_000,
        uploads: 1,
        upload_bytes: 12,
        deletions: 3,
        others: 1,
    };
    let busy = DriveReport { state: DriveState::Syncing, pending, head: 5150, ..team() };
    let waiting = DriveReport {
        state: DriveState::Waiting,
        reason: Some("the server cannot be reached: connection refused".into()),
        retry_at: Some("2026-11-22T10:00:25Z".into()),
        pending,
        ..team()
    };
    let refused = Unsyncable { path: "a.txt".into(), reason: "too_large: 6 GiB".into() };
    let single = DriveReport {
        state: DriveState::Waiting,
        waiting: 1,
        failed: vec![refused],
        retry_at: Some("2026-11-22T10:02:05Z".into()),
        ..team()
    };
    insta::assert_snapshot!(text(vec![busy, waiting, single]));
}

#[test]
fn what_needs_a_person_is_told_with_what_to_do() {
    let held = DriveReport {
        state: DriveState::Held,
        held: Some("15 of 20 entries would be deleted".into()),
        held_deletions: 15,
        conflicts: vec!["plan (conflict vm 20261122T100000Z abcdef01).md".into()],
        ..team()
    };
    let link = Unsyncable { path: "a\u{1b}[2Jlink".into(), reason: "a symbolic link".into() };
    let many = (0..100).map(|at| Unsyncable { path: format!("p{at}"), ..link.clone() });
    let unsyncable = DriveReport {
        writable: false,
        watched: false,
        watch_problem: Some("no space left on device".into()),
        unsyncable: std::iter::once(link.clone()).chain(many).take(100).collect(),
        unsyncable_count: 1234,
        ..team()
    };
    let stopped = DriveReport {
        state: DriveState::Stopped,
        reason: Some("the drive's folder is not the one that it was: it has no marker".into()),
        retry_at: Some("2026-11-22T10:00:12Z".into()),
        ..team()
    };
    let report_of = Report {
        problem: Some("the server cannot be reached: connection refused".into()),
        retry_at: Some("2026-11-22T10:00:04Z".into()),
        drives: vec![held, unsyncable, stopped],
        ..Report::default()
    };
    insta::assert_snapshot!(report(&report_of, false, NOW.parse().unwrap()));
    insta::assert_snapshot!(report(&Report::default(), false, NOW.parse().unwrap()), @"no drives");
}

#[test]
fn numbers_are_short_and_estimates_not_too_exact() {
    for (bytes, text) in [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (5_000_000, "4.7 MiB"),
        (411 << 20, "411 MiB"),
        (u64::MAX, "16,777,215 TiB"),
    ] {
        assert_eq!(size(bytes), text);
    }
    assert_eq!([999, 1000, 1_234_567].map(number), ["999", "1,000", "1,234,567"]);
    for (seconds, text) in [
        (0, "10 s"),
        (11, "20 s"),
        (54, "1 min"),
        (187, "3 min"),
        (1500, "25 min"),
        (3600, "1 h"),
        (5600, "1 h 30 min"),
    ] {
        assert_eq!(about(seconds), text, "{seconds}");
    }
}
