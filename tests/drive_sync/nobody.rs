//! A gateway that is not root's, in a drive where some things belong to root.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use panorama_gateway::config::Environment;
use panorama_gateway::drive_sync::keeper::report::{DriveReport, DriveState, Unsyncable};

use crate::common::{ControlPlane, Machine, say, wait_until};
use crate::scene::files_below;
use crate::vm::Vm;

const NOBODY: u32 = 65_534;
const UNREADABLE: &str = "it cannot be read";

/// Only root can give files to others.
fn possible() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        say("SKIPPED: a gateway that is not root's: only root may give files to others");
        assert_ne!(Environment::of_process().get("CI"), Some("true"), "skipped under CI");
    }
    is_root
}

/// From now on it is root's, with this mode.
fn take(place: &Path, mode: u32) {
    chown(place, Some(0), Some(0)).unwrap();
    fs::set_permissions(place, Permissions::from_mode(mode)).unwrap();
}

/// Everything is the gateway's again, and may be read and written by it.
fn give_back(place: &Path) {
    chown(place, Some(NOBODY), Some(NOBODY)).unwrap();
    let mode = if place.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(place, Permissions::from_mode(mode)).unwrap();
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            give_back(&entry.unwrap().path());
        }
    }
}

/// What is at the server: paths and sizes.
async fn at_server(control: &ControlPlane, drive: &str) -> BTreeMap<String, u64> {
    let page = control.admin.drive_entries(drive, "", "", true).await.unwrap();
    let size = |entry: panorama_gateway::drive_sync::wire::Entry| {
        (entry.path, entry.size_bytes.unwrap_or_default())
    };
    page.entries.into_iter().map(size).collect()
}

fn paths(entries: &[Unsyncable], reason: &str) -> Vec<String> {
    let mut paths: Vec<_> = entries
        .iter()
        .filter(|entry| entry.reason.contains(reason))
        .map(|entry| entry.path.clone())
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

async fn tells(vm: &Vm, unreadable: &[&str], refused: &[&str]) -> DriveReport {
    wait_until(&format!("it to tell {unreadable:?} and {refused:?}"), || async {
        vm.news().filter(|report| {
            paths(&report.unsyncable, UNREADABLE) == unreadable
                && paths(&report.failed, "Permission denied") == refused
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_may_not_read_or_write_is_told_and_heals_with_the_rights() {
    if !possible() {
        return;
    }
    let control = ControlPlane::start().await;
    let drive = control.admin.create_drive("Team", "write").await.unwrap();
    let drive = drive["drive_id"].as_str().unwrap();
    let mut one = Vm::new(Machine::new(), &control, "vm-1").await;
    let mut other = Vm::new(Machine::new().used_by(NOBODY), &control, "vm-2").await;
    one.start();
    other.start();
    one.is_up_to_date().await;
    other.is_up_to_date().await;
    let (here, there) = (one.folder(), other.folder());
    for folder in ["closed", "listed", "fixed"] {
        fs::create_dir(here.join(folder)).unwrap();
    }
    let files =
        ["open", "secret", "guarded", "closed/in", "listed/in", "fixed/a", "fixed/b", "fixed/c"];
    for file in files {
        fs::write(here.join(file), "old").unwrap();
    }
    wait_until("all to come", || async {
        files.iter().all(|file| there.join(file).exists()).then_some(())
    })
    .await;
    other.is_up_to_date().await;
    let before = at_server(&control, drive).await;

    // What may not be read, or not be listed, is not known: it is not gone.
    take(&there.join("secret"), 0o600);
    take(&there.join("guarded"), 0o644);
    take(&there.join("closed"), 0o700);
    take(&there.join("listed"), 0o711);
    take(&there.join("fixed"), 0o755);
    fs::create_dir(there.join("private")).unwrap();
    fs::write(there.join("private/in"), "root's").unwrap();
    take(&there.join("private"), 0o700);
    fs::write(there.join("new"), "root's own").unwrap();
    take(&there.join("new"), 0o600);
    let unreadable = ["closed", "listed", "new", "private", "secret"];
    let report = tells(&other, &unreadable, &[]).await;
    assert_eq!(report.done.deletions, 0);
    assert_eq!(at_server(&control, drive).await, before);

    // The same for a gateway that starts while it is so; it hears of changes all the same.
    other.kill().await;
    other.start();
    tells(&other, &unreadable, &[]).await;
    let report = other.is_up_to_date().await;
    assert!(report.watched, "a closed folder is in the way of the watch: {report:?}");
    assert_eq!(at_server(&control, drive).await, before);

    // Others go on. What may be written here is; what may not is told.
    for file in ["open", "secret", "guarded", "closed/in", "listed/in", "fixed/a", "new"] {
        fs::write(here.join(file), "from elsewhere").unwrap();
    }
    fs::write(here.join("fixed/more"), "from elsewhere").unwrap();
    fs::remove_file(here.join("fixed/b")).unwrap();
    // The file is the gateway's, though its folder is not.
    fs::write(there.join("fixed/c"), "from here").unwrap();
    let report = tells(&other, &unreadable, &["fixed/a", "fixed/b", "fixed/more"]).await;
    assert_eq!(report.state, DriveState::Waiting);
    let status = other.machine.run_async(&["drive-sync", "status"]).await;
    for line in ["secret: it cannot be read", "fixed/a: Permission denied (os error 13)"] {
        assert!(status.stdout.contains(line), "{line}: {}", status.stdout);
    }
    say(&status.stdout);
    let is = |file: &str, text: &str| {
        let file = there.join(file);
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "{}", file.display());
    };
    wait_until("the rest to come", || async {
        let came = |file| fs::read(there.join(file)).is_ok_and(|bytes| bytes == b"from elsewhere");
        (came("open") && came("guarded")).then_some(())
    })
    .await;
    for file in ["secret", "closed/in", "listed/in", "fixed/a", "fixed/b"] {
        is(file, "old");
    }
    is("new", "root's own");
    let wanted: BTreeMap<String, u64> = before
        .iter()
        .filter(|(path, _)| *path != "fixed/b")
        .map(|(path, size)| match &**path {
            "closed" | "listed" | "fixed" => (path.clone(), *size),
            "fixed/c" => (path.clone(), 9),
            _ => (path.clone(), 14),
        })
        .chain(["new", "fixed/more"].map(|path| (path.to_owned(), 14)))
        .collect();
    wait_until("the server to have all that may be read", || async {
        (at_server(&control, drive).await == wanted).then_some(())
    })
    .await;

    // With the rights it goes on by itself, and not only after the wait that grows up to a day.
    for place in ["secret", "guarded", "closed", "listed", "fixed", "private", "new"] {
        give_back(&there.join(place));
    }
    let began = Instant::now();
    tells(&other, &[], &[]).await;
    let report = wait_until("both to be the same", || async {
        let reports = [one.news()?, other.news()?];
        let [_, report] = &reports;
        let rest = reports.iter().all(|report| report.state == DriveState::UpToDate);
        (rest && files_below(&here) == files_below(&there)).then(|| report.clone())
    })
    .await;
    say(&format!("with the rights all is the same after {:?}", began.elapsed()));
    assert!(began.elapsed() < Duration::from_secs(20), "it waited for its time to try again");
    for file in ["open", "secret", "guarded", "closed/in", "listed/in", "fixed/a", "new"] {
        is(file, "from elsewhere");
    }
    is("private/in", "root's");
    is("fixed/c", "from here");
    assert!(!there.join("fixed/b").exists());
    let [copy] = &report.conflicts[..] else { panic!("{report:#?}") };
    is(copy, "root's own");
    // And what was closed is watched from now on: the look at everything is minutes away.
    fs::write(there.join("private/later"), "").unwrap();
    fs::write(there.join("closed/later"), "").unwrap();
    wait_until("these to go", || async {
        let there = at_server(&control, drive).await;
        (there.contains_key("private/later") && there.contains_key("closed/later")).then_some(())
    })
    .await;
    one.stop().await;
    other.stop().await;
}
