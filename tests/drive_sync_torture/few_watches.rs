//! Machines on which there are no watches to be had: changes are found by looking, until there are
//! some again.
//!
//! The limits are those of a user namespace of the gateway's own: nothing of the machine is changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use panorama_gateway::config::Environment;

use crate::common::{BINARY, Machine, PATIENCE, say, wait_until};
use crate::people::Desk;
use crate::team::{Team, tree};
use crate::vm::Vm;

/// Folders that the second machine makes: more than it can watch.
const FOLDERS: usize = 30;

/// A program that is the gateway where at most so many of `what` are to be had.
fn limited(dir: &Path, what: &str, limit: u32) -> std::path::PathBuf {
    let program = dir.join("gateway");
    let script = format!(
        "#!/bin/sh\nexec unshare --user --map-root-user sh -c \
         'echo {limit} >/proc/sys/user/max_inotify_{what} && exec {BINARY} \"$@\"' sh \"$@\"\n"
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Why this machine cannot limit a namespace.
fn refused(program: &Path) -> Option<String> {
    let ran = Command::new(program).arg("--version").output().unwrap();
    (!ran.status.success()).then(|| String::from_utf8_lossy(&ran.stderr).trim().to_owned())
}

/// Lets the gateway's namespace have as many as the machine has.
fn raise(vm: &Vm, what: &str) {
    let write = format!("echo 100000 >/proc/sys/user/max_inotify_{what}");
    let target = vm.pid().to_string();
    let nsenter = ["--user", "--preserve-credentials", "--target", &target, "sh", "-c", &write];
    let ran = Command::new("nsenter").args(nsenter).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

/// Its watch is back, without a new start.
async fn watches_again(vm: &Vm) {
    wait_until("the watch to be back", || async {
        vm.report().filter(|report| report.watched && report.watch_problem.is_none())
    })
    .await;
    let status = vm.machine.run_async(&["drive-sync", "status", "--verbose"]).await;
    assert!(status.stdout.contains("watch        the system tells of changes"), "{status:?}");
}

async fn says_that_it_looks(vm: &Vm) {
    let line = wait_until("it to say that it has no watch", || async {
        let status = vm.machine.run_async(&["drive-sync", "status"]).await;
        status.stdout.lines().find(|line| line.trim().starts_with("watch ")).map(str::to_owned)
    })
    .await;
    say(&format!("{}: {}", vm.name, line.trim()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_watches_changes_are_found_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    let programs = [("instances", 0), ("watches", 12)].map(|(what, limit)| {
        let dir = dir.path().join(what);
        fs::create_dir(&dir).unwrap();
        limited(&dir, what, limit)
    });
    if let Some(why) = programs.iter().find_map(|program| refused(program)) {
        say(&format!("SKIPPED: drives without watches: {why}"));
        assert_ne!(Environment::of_process().get("CI"), Some("true"), "skipped under CI");
        return;
    }
    let machines = programs.map(|program| Machine::new().installed_at(program)).into();
    let mut team = Team::on(machines).await;
    let often = |vm: Vm| vm.with("PANORAMA_DRIVE_SYNC_LOCAL_AUDIT_INTERVAL_MS", "500");
    team.vms = team.vms.into_iter().map(often).collect();
    for vm in &mut team.vms {
        vm.start();
    }
    for vm in &team.vms {
        vm.is_up_to_date().await;
    }
    let [one, other] = [0, 1].map(|at| Desk::new(&team.vms[at], &team));
    says_that_it_looks(&team.vms[0]).await;
    assert!(team.vms[1].report().unwrap().watched, "there are some watches at first");

    one.rewrite("found.txt", 1).unwrap();
    wait_until("the other to have it", || async {
        (tree(&other.folder) == tree(&one.folder)).then_some(())
    })
    .await;
    for number in 0..FOLDERS {
        fs::create_dir(other.at(&format!("folder{number}"))).unwrap();
    }
    says_that_it_looks(&team.vms[1]).await;
    team.at_rest(PATIENCE).await;
    for number in 0..FOLDERS {
        other.rewrite(&format!("folder{number}/a.txt"), 1).unwrap();
        one.rewrite(&format!("folder{number}/b.txt"), 1).unwrap();
    }
    wait_until("both to have all", || async {
        let (here, there) = (tree(&one.folder), tree(&other.folder));
        (here.len() == 3 * FOLDERS + 1 && here == there).then_some(())
    })
    .await;
    // A watch that ran out is completed when there are some again.
    raise(&team.vms[1], "watches");
    watches_again(&team.vms[1]).await;
    // The new gateway has as few as before; what is there now cannot be watched from the start.
    team.vms[1].kill().await;
    team.vms[1].start();
    one.save_by_rename("folder7/a.txt", 1).unwrap();
    other.save_by_rename("folder8/b.txt", 1).unwrap();
    wait_until("its new gateway", || async { team.vms[1].has_looked().then_some(()) }).await;
    let end = team.at_rest(PATIENCE).await;
    says_that_it_looks(&team.vms[1]).await;
    // And one that could not begin is begun.
    for (vm, what) in team.vms.iter().zip(["instances", "watches"]) {
        raise(vm, what);
        watches_again(vm).await;
    }
    let end_again = team.at_rest(PATIENCE).await;
    assert_eq!(end, end_again);
    team.judge("without watches", &end).await;
    team.leave().await;
}
