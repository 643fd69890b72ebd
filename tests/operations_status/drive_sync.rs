//! What a scrape sees of a managed VM that keeps a drive in step.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use panorama_gateway::drive_sync::keeper::report::DriveState;

use crate::common::backend::{Fault, Middleman};
use crate::common::{ControlPlane, Machine, wait_until};
use crate::scene::{ANY_PORT, count, get, metrics_address};
use crate::vm::Vm;

const PREFIX: &str = "panorama_gateway_drive_sync_";
const LARGE: usize = 3 << 20;

/// A file that is there whole at once.
fn put(vm: &Vm, place: &str, bytes: &[u8]) {
    let (temp, there) = (vm.machine.home().join("part"), vm.folder().join(place));
    fs::create_dir_all(there.parent().unwrap()).unwrap();
    fs::write(&temp, bytes).unwrap();
    fs::rename(temp, there).unwrap();
}

/// Names with their labels, as the docs have them in their table.
fn documented() -> BTreeSet<(String, Vec<String>)> {
    let rows = include_str!("../../docs/METRICS.md").lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ").map(str::trim);
        let name = cells.next()?.strip_suffix('`')?.to_owned();
        let labels = cells.nth(1)?.split(", ").map(|label| label.trim_matches('`').to_owned());
        let mut labels: Vec<String> = labels.filter(|label| !label.is_empty()).collect();
        labels.sort();
        Some((name, labels))
    });
    rows.filter(|(name, _)| name.starts_with(PREFIX)).collect()
}

/// The same as a scrape has them.
fn served(text: &str) -> BTreeSet<(String, Vec<String>)> {
    let series = text.lines().filter(|line| line.starts_with(PREFIX)).map(|line| {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|it| it.split_once('='));
        let mut labels: Vec<String> = labels.map(|(name, _)| name.to_owned()).collect();
        labels.sort();
        (name.to_owned(), labels)
    });
    series.collect()
}

/// A machine's metrics, once its drive has so many entries and is like that.
async fn scrape(vm: &Vm, drive: &str, state: &str, entries: u64) -> String {
    let address = metrics_address(&vm.machine).await;
    let state = format!("{PREFIX}state{{drive=\"{drive}\",state=\"{state}\"}} 1\n");
    let entries = format!("{PREFIX}entries{{drive=\"{drive}\"}} {entries}\n");
    wait_until(&format!("{state}{entries}"), || async {
        let answer = get(&address, "/metrics").await;
        assert_eq!(answer.status, 200);
        let is_so = answer.body.contains(&state) && answer.body.contains(&entries);
        is_so.then_some(answer.body)
    })
    .await
}

/// What these series are, without what all names begin with.
fn are(text: &str, series: &[(&str, u64)]) {
    for (series, value) in series {
        assert_eq!(count(text, &format!("{PREFIX}{series}")), *value, "{series}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_is_counted_as_it_is_kept_in_step() {
    let control = ControlPlane::start().await;
    let drive = control.admin.create_drive("Team", "write").await.unwrap();
    let drive = drive["drive_id"].as_str().unwrap();
    let of = |name: &str, rest: &str| format!("{name}{{drive=\"{drive}\"{rest}}}");
    let mut other = Vm::new(Machine::new(), &control, "vm-2").await;
    other.start();
    other.is_up_to_date().await;
    put(&other, "plan.txt", b"theirs");
    put(&other, "large.bin", &vec![b'x'; LARGE]);
    for number in 0..12 {
        put(&other, &format!("many/{number:02}"), b"text");
    }
    wait_until("the server to have all", || async {
        let page = control.admin.drive_entries(drive, "", "", true).await.unwrap();
        (page.entries.len() == 15).then_some(())
    })
    .await;
    other.stop().await;

    // What is here and there under one name is a conflict; a link takes no part.
    let line = Middleman::before(&control.url()).await;
    let vm = Vm::new(Machine::new(), &control, "vm-1").await.with(ANY_PORT.0, ANY_PORT.1);
    let mut vm = vm.with("PANORAMA_SUPABASE_URL", &line.url);
    put(&vm, "plan.txt", b"my own");
    symlink("/etc/passwd", vm.folder().join("link")).unwrap();
    vm.start();
    let text = scrape(&vm, drive, "up_to_date", 17).await;
    assert_eq!(served(&text), documented());
    are(
        &text,
        &[
            ("operations_total{kind=\"fetch\",result=\"ok\"}", 14),
            ("operations_total{kind=\"make_folder\",result=\"ok\"}", 1),
            ("operations_total{kind=\"set_aside\",result=\"ok\"}", 1),
            ("operations_total{kind=\"send\",result=\"ok\"}", 1),
            ("operations_total{kind=\"move\",result=\"ok\"}", 0),
            ("operations_total{kind=\"delete\",result=\"ok\"}", 0),
            ("operations_total{kind=\"fetch\",result=\"refused\"}", 0),
            ("transferred_bytes_total{direction=\"fetch\"}", 6 + LARGE as u64 + 12 * 4),
            ("transferred_bytes_total{direction=\"send\"}", 6),
            ("conflict_copies_total", 1),
            ("rescued_writes_total", 0),
            ("retries_total{what=\"drive\"}", 0),
            ("retries_total{what=\"server\"}", 0),
            ("ticks_total{result=\"unavailable\"}", 0),
            ("trouble", 0),
            (&of("state", ",state=\"waiting\""), 0),
            (&of("unsyncable_entries", ""), 1),
            (&of("waiting_entries", ""), 0),
            (&of("held_deletions", ""), 0),
            (&of("lag_changes", ""), 0),
            (&of("pending_files", ",direction=\"fetch\""), 0),
            (&of("pending_bytes", ",direction=\"send\""), 0),
            (&of("watched", ""), 1),
        ],
    );
    for at_least_one in ["ticks_total{result=\"ok\"}", "full_looks_total"] {
        assert!(count(&text, &format!("{PREFIX}{at_least_one}")) >= 1, "{text}");
    }
    assert!(count(&text, &format!("{PREFIX}{}", of("full_look_age_seconds", ""))) < 60);

    // A move takes no transfer; deletions of most of the drive wait.
    fs::rename(vm.folder().join("large.bin"), vm.folder().join("moved.bin")).unwrap();
    put(&vm, "own.txt", b"hello");
    scrape(&vm, drive, "up_to_date", 18).await;
    fs::remove_dir_all(vm.folder().join("many")).unwrap();
    let text = scrape(&vm, drive, "held", 5).await;
    are(
        &text,
        &[
            ("operations_total{kind=\"move\",result=\"ok\"}", 1),
            ("operations_total{kind=\"send\",result=\"ok\"}", 2),
            ("operations_total{kind=\"delete\",result=\"ok\"}", 0),
            ("transferred_bytes_total{direction=\"send\"}", 11),
            (&of("held_deletions", ""), 13),
            (&of("state", ",state=\"up_to_date\""), 0),
        ],
    );
    // The metrics are of this moment; what commands read is written a little later.
    wait_until("the report to say so", || async {
        vm.report().filter(|report| report.state == DriveState::Held)
    })
    .await;
    let released = vm.machine.run_async(&["drive-sync", "release-deletions"]).await;
    assert_eq!(released.code, 0, "{released:?}");
    let text = scrape(&vm, drive, "up_to_date", 5).await;
    let deleted = "operations_total{kind=\"delete\",result=\"ok\"}";
    are(&text, &[(deleted, 13), (&of("held_deletions", ""), 0)]);
    assert!(!text.contains("Team") && !text.contains("plan"), "names are told: {text}");

    // A server that is busy: the look is tried again, and why is told as long as it is so.
    are(&text, &[("ticks_total{result=\"unavailable\"}", 0)]);
    line.fault("/vm-drive-sync", Fault::Answer(503, "text/plain", "too busy".into()));
    let text = scrape(&vm, drive, "waiting", 5).await;
    for at_least_one in ["ticks_total{result=\"unavailable\"}", "retries_total{what=\"drive\"}"] {
        assert!(count(&text, &format!("{PREFIX}{at_least_one}")) >= 1, "{text}");
    }
    let tries = |text: &str| count(text, &format!("{PREFIX}ticks_total{{result=\"unavailable\"}}"));
    let before = tries(&text);
    let look = || async { vm.machine.run_async(&["drive-sync", "status"]).await.stdout };
    wait_until("the status to say so", || async {
        look().await.contains("Team  waiting").then_some(())
    })
    .await;
    wait_until("more tries", || async {
        let status = look().await;
        let is_told = status.contains("Team  waiting") && status.contains("\n  tried again  ");
        assert!(is_told && status.contains("\n  reason       the server cannot be"), "{status}");
        let text = scrape(&vm, drive, "waiting", 5).await;
        (tries(&text) >= before + 3).then_some(())
    })
    .await;
    line.heal();
    are(&scrape(&vm, drive, "up_to_date", 5).await, &[("trouble", 0)]);
    vm.stop().await;
}
