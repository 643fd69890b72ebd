//! Very many small files, and gateways that are killed while they are on their way.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::{say, setting};
use crate::team::Team;

const FILES: u64 = 100_000;
/// In a folder.
const TOGETHER: u64 = 100;
const LONG: Duration = Duration::from_hours(1);

impl Team {
    async fn entries(&self) -> u64 {
        let drives = self.control.admin.drives().await.unwrap();
        drives[0]["entries"].as_u64().unwrap()
    }

    async fn has_so_many(&self, entries: u64) {
        let deadline = Instant::now() + LONG;
        while self.entries().await < entries {
            assert!(Instant::now() < deadline, "waited in vain for {entries} entries");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: cargo test --test drive_sync_torture -- --ignored many_files"]
async fn many_files_reach_the_other_machine_over_kills() {
    let files = setting("PANORAMA_DRIVE_TORTURE_FILES").unwrap_or(FILES);
    let mut team = Team::of(2).await;
    let began = Instant::now();
    let folder = team.vms[0].folder();
    for number in 0..files {
        let place = format!("d{}/f{number}", number / TOGETHER);
        if number % TOGETHER == 0 {
            fs::create_dir(folder.join(format!("d{}", number / TOGETHER))).unwrap();
        }
        let bytes = team.ledger.content("vm-1", &place, 1);
        fs::write(folder.join(place), &bytes).unwrap();
        team.ledger.owes(&bytes);
    }
    say(&format!("many files: {files} written after {:.1} s", began.elapsed().as_secs_f64()));
    for (vm, part) in [(0, files / 3), (1, files * 2 / 3)] {
        team.has_so_many(part).await;
        let (name, at) = (&team.vms[vm].name, began.elapsed().as_secs_f64());
        say(&format!("many files: {name} is killed after {at:.1} s"));
        team.vms[vm].kill().await;
        team.vms[vm].start();
    }
    let end = team.at_rest(LONG).await;
    let took = began.elapsed().as_secs_f64();
    assert_eq!(end.len() as u64, files + files.div_ceil(TOGETHER));
    team.judge(&format!("many files: the same everywhere after {took:.1} s"), &end).await;
    team.leave().await;
}
