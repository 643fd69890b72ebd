//! A gateway to which the system gives few descriptors, and many files in many folders.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use panorama_gateway::drive_sync::keeper::report::DriveState;

use crate::common::{BINARY, ControlPlane, Machine, say, wait_until};
use crate::scene::files_below;
use crate::vm::Vm;

/// Of which a gateway needs some forty for itself.
const DESCRIPTORS: usize = 128;
const FOLDERS: usize = 400;
const FILES: usize = 3 * FOLDERS;

fn with_few() -> Machine {
    let machine = Machine::new();
    let program = machine.home().join("with-few");
    let script = format!("#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec {BINARY} \"$@\"\n");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    machine.installed_at(program)
}

/// What jobs need must not be used up by drive sync.
#[tokio::test(flavor = "multi_thread")]
async fn many_files_are_sent_and_fetched_with_few_descriptors() {
    let control = ControlPlane::start().await;
    control.admin.create_drive("Team", "write").await.unwrap();
    let mut one = Vm::new(with_few(), &control, "vm-1").await;
    let mut other = Vm::new(with_few(), &control, "vm-2").await;
    for number in 0..FILES {
        let folder = one.folder().join(format!("folder {}", number % FOLDERS));
        fs::create_dir_all(&folder).unwrap();
        // Some are too large to go along with others.
        let size = if number < 150 { 70_000 } else { 10 };
        fs::write(folder.join(format!("{number}")), number.to_string().repeat(size)).unwrap();
    }
    one.start();
    other.start();
    let files = wait_until("both to have all", || async {
        let rest = [&one, &other]
            .iter()
            .all(|vm| vm.report().is_some_and(|report| report.state == DriveState::UpToDate));
        let there = files_below(&other.folder());
        (rest && there.len() == FILES).then_some(there)
    })
    .await;
    assert!(files == files_below(&one.folder()));
    for vm in [&one, &other] {
        let open = fs::read_dir(format!("/proc/{}/fd", vm.pid())).unwrap().count();
        say(&format!("{open} descriptors of {DESCRIPTORS} at rest"));
        assert_eq!(vm.report().unwrap().failed, []);
    }
    one.stop().await;
    other.stop().await;
}
