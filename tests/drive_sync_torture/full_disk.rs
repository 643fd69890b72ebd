//! A drive's folder on a disk that really is small, while the server has more than fits.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use panorama_gateway::config::Environment;
use panorama_gateway::drive_sync::keeper::report::{DriveReport, DriveState};

use crate::common::disk::SmallDisk;
use crate::common::{Machine, PATIENCE, say, wait_until};
use crate::ledger::hash;
use crate::people::Desk;
use crate::team::{Team, tree};
use crate::vm::Vm;

const MIB: u64 = 1 << 20;
/// Under this much free space nothing is fetched, and under this nothing is done at all.
const FLOORS: (u64, u64) = (250 * MIB, 50 * MIB);
/// One that takes a while to come.
const LARGE: usize = 64 << 20;

/// The machine and its disk, or a note why there is none; no excuse where CI says that it must.
fn small_machine() -> Option<(Machine, SmallDisk)> {
    let machine = Machine::new();
    match SmallDisk::mount(&machine.home().join("drives"), 300 * 1024) {
        Ok(disk) => Some((machine, disk)),
        Err(why) => {
            say(&format!("SKIPPED: drives on a full disk: {why}"));
            assert_ne!(Environment::of_process().get("CI"), Some("true"), "skipped under CI");
            None
        }
    }
}

/// The gateway waits for space, and says so.
async fn waits(vm: &Vm, limit: u64, disk: &SmallDisk) -> DriveReport {
    let report = wait_until("the gateway to wait for space", || async {
        vm.report().filter(|report| {
            let free = report.reason.as_deref().and_then(free_bytes);
            report.state == DriveState::Waiting && free.is_some_and(|free| free < limit)
        })
    })
    .await;
    let status = vm.machine.run_async(&["drive-sync", "status"]).await;
    assert!(status.stdout.starts_with("Team  waiting"), "{status:?}");
    say(&format!("a disk of {}: {}", disk.usage(), report.reason.as_deref().unwrap()));
    report
}

/// The number in `only 123 MiB are free …`.
fn free_bytes(reason: &str) -> Option<u64> {
    let (number, rest) = reason.strip_prefix("only ")?.split_once(' ')?;
    let mib: u64 = number.parse().ok().filter(|_| rest.starts_with("MiB are free"))?;
    Some(mib * MIB)
}

/// What is seen in the folder is whole, and how much of it there is.
fn whole(vm: &Vm, contents: &BTreeMap<PathBuf, String>) -> usize {
    let there = tree(&vm.folder());
    for (path, what) in &there {
        if let Some(wanted) = contents.get(path) {
            assert_eq!(what, wanted, "half of {} is seen", path.display());
        }
    }
    contents.keys().filter(|path| there.contains_key(*path)).count()
}

/// Takes room away as soon as a download is under way; false: it was done before.
async fn fill_during_download(vm: &Vm, disk: &Arc<SmallDisk>, done: PathBuf) -> bool {
    let (stage, disk) = (vm.folder().join(".panorama-sync/stage"), Arc::clone(disk));
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    let filled = tokio::task::spawn_blocking(move || {
        while !stop.load(Ordering::Relaxed) {
            let is_large = |file: fs::DirEntry| file.metadata().is_ok_and(|it| it.len() > MIB);
            if fs::read_dir(&stage).unwrap().flatten().any(is_large) {
                disk.leave(FLOORS.1 + MIB);
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    });
    wait_until("the download to end", || async {
        (filled.is_finished() || done.exists()).then_some(())
    })
    .await;
    stopped.store(true, Ordering::Relaxed);
    filled.await.unwrap() && !done.exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_keeps_what_is_there_and_goes_on_when_there_is_room() {
    let Some((machine, disk)) = small_machine() else { return };
    let disk = Arc::new(disk);
    let mut team = Team::on(vec![machine, Machine::new()]).await;
    for vm in &mut team.vms {
        vm.start();
    }
    for vm in &team.vms {
        vm.is_up_to_date().await;
    }
    let here = Desk::new(&team.vms[0], &team);
    here.rewrite("mine.txt", 1).unwrap();
    team.at_rest(PATIENCE).await;

    // A little more room than is left alone: some of it comes.
    disk.leave(FLOORS.0 + 2 * MIB);
    let mut contents = BTreeMap::new();
    for number in 0..60 {
        let path = format!("f{number}");
        let bytes = team.ledger.content("server", &path, 2000);
        assert!(team.put(&path, &bytes, None).await);
        team.ledger.owes(&bytes);
        contents.insert(PathBuf::from(path), hash(&bytes));
    }
    waits(&team.vms[0], FLOORS.0 + MIB, &disk).await;
    let came = whole(&team.vms[0], &contents);
    assert!(came > 0 && came < contents.len(), "{came} came");
    say(&format!("{came} of {} files came before the room was at its end", contents.len()));
    // What is done here goes to the server all the same.
    here.rewrite("mine.txt", 1).unwrap();
    let mine = tree(&here.folder)[&PathBuf::from("mine.txt")].clone();
    wait_until("the server to have it", || async {
        (team.at_server().await.get(&PathBuf::from("mine.txt")) == Some(&mine)).then_some(())
    })
    .await;

    // Nearly full, and then full to the last byte by what somebody else appends.
    disk.leave(FLOORS.1 - 30 * MIB);
    waits(&team.vms[0], FLOORS.1, &disk).await;
    let full = disk.keep_full();
    say(&format!("somebody else fills it: {}", full.first));
    assert_eq!(full.first.raw_os_error(), Some(nix::errno::Errno::ENOSPC as i32));
    here.save_by_rename("mine.txt", 5000).unwrap_err();
    waits(&team.vms[0], MIB, &disk).await;
    let shown = whole(&team.vms[0], &contents);
    assert!(shown >= came);
    drop(full);
    disk.leave(FLOORS.0 + 100 * MIB);
    let end = team.at_rest(PATIENCE).await;
    assert_eq!(whole(&team.vms[0], &contents), contents.len());
    team.judge("room again", &end).await;

    // It is full all of a sudden, in the middle of a download.
    let mut number = 0;
    let large = loop {
        disk.leave(FLOORS.0 + 80 * MIB);
        let name = format!("large{number}");
        let bytes = vec![b'0' + number; LARGE];
        fs::write(team.vms[1].folder().join(&name), &bytes).unwrap();
        team.ledger.owes(&bytes);
        if fill_during_download(&team.vms[0], &disk, here.at(&name)).await {
            break here.at(&name);
        }
        number += 1;
        assert!(number < 5, "every download was faster than the disk was full");
        team.at_rest(PATIENCE).await;
    };
    // What does not fit is given up, so that it does not keep the room that is missing.
    let stage = here.at(".panorama-sync/stage");
    wait_until("the download to be given up", || async {
        fs::read_dir(&stage).unwrap().next().is_none().then_some(())
    })
    .await;
    assert!(!large.exists(), "it did fit");
    say("the disk was full in the middle of a download, which was given up");
    waits(&team.vms[0], FLOORS.0, &disk).await;
    disk.leave(FLOORS.0 + 300 * MIB);
    let end = team.at_rest(PATIENCE).await;
    team.judge("a full disk", &end).await;
    team.leave().await;
}

/// What a person sees each time.
async fn looks(vm: &Vm) -> String {
    vm.machine.run_async(&["drive-sync", "status"]).await.stdout
}

/// The state lies on the same disk: that nothing can be written is told all the same, and is told as
/// long as it is so.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_all_of_a_sudden_is_told_of_until_there_is_room() {
    let Some((machine, disk)) = small_machine() else { return };
    let mut team = Team::on(vec![machine, Machine::new()]).await;
    let state = team.vms[0].machine.home().join("drives/state").display().to_string();
    let first = team.vms.remove(0).with("PANORAMA_DRIVE_SYNC_STATE_DIR", state);
    team.vms.insert(0, first);
    for vm in &mut team.vms {
        vm.start();
    }
    team.vms[1].is_up_to_date().await;
    let says = async |wanted: &str| {
        wait_until(&format!("the status to say {wanted:?}"), || async {
            Some(looks(&team.vms[0]).await).filter(|text| text.contains(wanted))
        })
        .await
    };
    says("Team  up to date: ").await;
    let full = disk.keep_full();
    let text = says("  reason       only 0 MiB are free on the disk: nothing is done\n").await;
    assert!(text.starts_with("Team  waiting") && text.contains("\n  tried again  "), "{text}");
    // There is something to fetch now, and room, but not for that.
    let large = vec![b'x'; LARGE];
    fs::write(team.vms[1].folder().join("large"), &large).unwrap();
    team.ledger.owes(&large);
    wait_until("the server to have it", || async {
        team.at_server().await.contains_key(&PathBuf::from("large")).then_some(())
    })
    .await;
    drop(full);
    disk.leave(FLOORS.0 + 20 * MIB);
    let short = "MiB are free on the disk, too little for what is to be fetched\n";
    says(short).await;
    for _ in 0..40 {
        let text = looks(&team.vms[0]).await;
        assert!(
            text.starts_with("Team  first copy") || text.starts_with("Team  waiting"),
            "{text}"
        );
        assert!(text.contains(short) && text.contains("\n  tried again  "), "{text}");
    }
    disk.leave(FLOORS.0 + 100 * MIB);
    says("Team  up to date: 1 entry in ").await;
    let end = tree(&team.vms[0].folder());
    team.judge("a full disk with the state on it", &end).await;
    team.leave().await;
}
