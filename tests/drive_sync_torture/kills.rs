//! Three VMs and somebody at the server work on the same few files while gateways are killed.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{PATIENCE, say, setting, wait_until};
use crate::people::{Desk, HotWriter};
use crate::team::Team;

/// In CI.
const KILLS: u64 = 25;

/// What sets a run: seed and number of kills.
pub(crate) fn run(what: &str, usual: u64) -> (fastrand::Rng, u64, String) {
    let seed = setting("PANORAMA_DRIVE_TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = setting("PANORAMA_DRIVE_TORTURE_KILLS").unwrap_or(usual);
    let title = format!("{what}, PANORAMA_DRIVE_TORTURE_SEED={seed}, {kills} kills");
    say(&title);
    (fastrand::Rng::with_seed(seed), kills, title)
}

pub(crate) async fn pause(rng: &mut fastrand::Rng, millis: u64) {
    let pause = Duration::from_millis(rng.u64(..millis));
    tokio::time::sleep(pause).await;
}

impl Team {
    /// SIGKILL at a random moment: mostly when the gateway has been at work since its last start,
    /// else wherever it is, even in its first steps.
    pub(crate) async fn kill_one(&mut self, of: usize, rng: &mut fastrand::Rng) {
        let vm = &mut self.vms[rng.usize(..of)];
        if rng.u8(..10) < 7 {
            wait_until("the gateway to look", || async { vm.has_looked().then_some(()) }).await;
        }
        pause(rng, 300).await;
        vm.kill().await;
        vm.start();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_anybody_wrote_is_lost() {
    let (mut rng, kills, title) = run("drive sync torture", KILLS);
    let mut team = Team::of(3).await;
    let desks: Vec<Arc<Desk>> = team.vms.iter().map(|vm| Desk::new(vm, &team)).collect();
    // The third VM's gateway lives through all of it.
    let hot: Vec<_> = desks[..2].iter().map(|desk| HotWriter::start(desk, rng.u64(..))).collect();
    for _ in 0..kills {
        for _ in 0..rng.u32(1..6) {
            desks[rng.usize(..3)].act(&mut rng);
            if rng.u8(..) < 60 {
                team.act_at_server(&mut rng).await;
            }
            // Some acts fall into one look of the engine, some into several.
            pause(&mut rng, 60).await;
        }
        team.kill_one(2, &mut rng).await;
    }
    let saves: u64 = hot.into_iter().map(HotWriter::stop).sum();
    let end = team.at_rest(PATIENCE).await;
    team.judge(&format!("{title}, {saves} hot saves"), &end).await;
    team.leave().await;
}
