//! Memory while one large file is hashed, sent and fetched by the real binary.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use panorama_gateway::drive_sync::keeper::report::DriveState;

use crate::common::{ControlPlane, Machine, say};
use crate::vm::Vm;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 300 * MIB;
/// By how much the most that a gateway ever had may grow: buffers, and not the file.
const MAY_GROW: u64 = 40 * MIB;
/// It is a debug build, and the machine may have other things to do.
const LONG: Duration = Duration::from_mins(5);

/// The most memory that a process ever had, in bytes.
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A file that no compression makes shorter.
fn fill(path: &Path) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut file = fs::File::create(path).unwrap();
    let mut piece = vec![0; usize::try_from(MIB).unwrap()];
    for _ in 0..SIZE / MIB {
        rng.fill(&mut piece);
        file.write_all(&piece).unwrap();
    }
}

fn is_there(vm: &Vm) -> bool {
    let large = fs::metadata(vm.folder().join("large")).is_ok_and(|facts| facts.len() == SIZE);
    large && vm.news().is_some_and(|report| report.state == DriveState::UpToDate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_takes_no_memory_on_its_way() {
    let control = ControlPlane::start().await;
    control.admin.create_drive("Team", "write").await.unwrap();
    let mut vms = [
        Vm::new(Machine::new(), &control, "vm-1").await,
        Vm::new(Machine::new(), &control, "vm-2").await,
    ];
    vms.iter_mut().for_each(Vm::start);
    for vm in &vms {
        vm.is_up_to_date().await;
    }
    let peaks = || [0, 1].map(|at: usize| peak(vms[at].pid()));
    let (before, began) = (peaks(), Instant::now());
    fill(&vms[0].folder().join("large"));
    while !vms.iter().all(is_there) {
        assert!(began.elapsed() < LONG, "it did not arrive: {:#?}", vms[1].news());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = peaks();
    let grown = [0, 1].map(|at| after[at] - before[at]);
    say(&format!(
        "a file of {} MiB: peak of the sender's memory {} MiB ({} more than before), of the \
         receiver's {} MiB ({} more), after {:.1} s (debug build)",
        SIZE / MIB,
        after[0] / MIB,
        grown[0] / MIB,
        after[1] / MIB,
        grown[1] / MIB,
        began.elapsed().as_secs_f64()
    ));
    assert!(grown.iter().all(|grown| *grown < MAY_GROW), "{grown:?}");
    for vm in &mut vms {
        vm.stop().await;
    }
}
