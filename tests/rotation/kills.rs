//! SIGKILL at every point of a refresh, again and again: the pairing survives.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use panorama_gateway::backend::SessionState;
use panorama_gateway::config::{FileLock, Paths};

use super::common::{ControlPlane, Machine, PATIENCE, wait_until};
use super::context::{comes_up, saved_refresh_token, session_on, strict_control};
use super::proxy::{Hold, Proxy};

const KILLS: usize = 200;
const MACHINES: usize = 4;

/// Where a kill is meant to fall.
#[derive(Debug, Clone, Copy)]
enum Aim {
    Held(Hold),
    /// The answer is there and cannot be saved yet: somebody else writes the config.
    WhileSavingWaits,
    /// At a random moment after the answer got through.
    AfterAnswer,
    /// The new pair is in the file, and cannot be used yet: the backend is out of reach.
    Saved,
}

/// Equally often.
const AIMS: [Aim; 6] = [
    Aim::Held(Hold::Request),
    Aim::Held(Hold::Answer),
    Aim::Held(Hold::HalfAnswer),
    Aim::WhileSavingWaits,
    Aim::AfterAnswer,
    Aim::Saved,
];

/// Where a kill fell, as told by the file and the proxy afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    BeforeTheServerActed,
    ActedAndNotAnswered,
    AnswerHalfSent,
    DeliveredAndNotSaved,
    SavedAndNotUsed,
    Used,
}

const WANTED: [Phase; 5] = [
    Phase::BeforeTheServerActed,
    Phase::ActedAndNotAnswered,
    Phase::AnswerHalfSent,
    Phase::DeliveredAndNotSaved,
    Phase::SavedAndNotUsed,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_anywhere_in_a_refresh_comes_up_without_pairing_again() {
    let seed = std::env::var("ROTATION_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed} (ROTATION_SEED repeats it)");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut aims: Vec<Aim> = AIMS.into_iter().cycle().take(KILLS).collect();
    random.shuffle(&mut aims);
    let control = strict_control().await;
    let began = std::time::Instant::now();
    let machines = aims.chunks(KILLS.div_ceil(MACHINES)).map(|aims| {
        let random = random.fork();
        kill_again_and_again(&control, aims, random)
    });
    let mut counts: BTreeMap<Phase, usize> = BTreeMap::new();
    for phase in join_all(machines).await.into_iter().flatten() {
        *counts.entry(phase).or_default() += 1;
    }
    println!("{} kills in {:?}:", counts.values().sum::<usize>(), began.elapsed());
    for (phase, count) in &counts {
        println!("  {phase:?}: {count}");
    }
    assert_eq!(counts.values().sum::<usize>(), KILLS);
    for phase in WANTED {
        assert!(counts.contains_key(&phase), "no kill fell on {phase:?}");
    }
    assert_eq!(control.gateways().await.len(), MACHINES, "a machine was paired again");
}

/// One machine's part: a kill and a start that must succeed for each of `aims`.
async fn kill_again_and_again(
    control: &ControlPlane,
    aims: &[Aim],
    mut random: fastrand::Rng,
) -> Vec<Phase> {
    let proxy = Proxy::before(&control.url()).await;
    let machine = Machine::new();
    machine.pair_with(&proxy.url, control.server.anon_key(), &control.code().await).await;
    let mut phases = Vec::new();
    for aim in aims {
        phases.push(kill_in_refresh(&machine, &proxy, *aim, &mut random).await);
        let before = proxy.refreshes();
        let mut gateway = machine.spawn(&[]);
        comes_up(&machine, &mut gateway).await;
        assert!(proxy.refreshes() > before, "the start refreshed nothing");
    }
    assert_eq!(proxy.pairings(), 1);
    let left: Vec<_> = std::fs::read_dir(machine.dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".gateway.json."))
        .collect();
    assert!(left.is_empty(), "half-written files with tokens were left: {left:?}");
    // The session lives: its tokens still rotate, and its access token opens the tables.
    let api = session_on(&machine);
    api.session().authenticate().await.unwrap();
    assert_eq!(api.session().state(), SessionState::Valid);
    assert!(api.control_state().await.unwrap().is_some());
    phases
}

/// Starts a gateway, kills it in its refresh, and tells where that was.
async fn kill_in_refresh(
    machine: &Machine,
    proxy: &Proxy,
    aim: Aim,
    random: &mut fastrand::Rng,
) -> Phase {
    let before = saved_refresh_token(machine);
    let hold = match aim {
        Aim::Held(hold) => hold,
        Aim::WhileSavingWaits | Aim::AfterAnswer => Hold::Later,
        Aim::Saved => Hold::Door,
    };
    let writer = matches!(aim, Aim::WhileSavingWaits)
        .then(|| FileLock::try_acquire(&Paths::in_dir(&machine.dir()).config_lock()).unwrap());
    let reached = proxy.arm(hold);
    let mut gateway = machine.spawn(&[]);
    tokio::time::timeout(PATIENCE, reached.notified()).await.expect("a refresh at the start");
    match aim {
        // The moment of the kill is the subject of the test.
        Aim::Held(_) | Aim::WhileSavingWaits | Aim::AfterAnswer => {
            tokio::time::sleep(Duration::from_micros(random.u64(0..3000))).await;
        }
        Aim::Saved => {
            wait_until("the new pair to be saved", || async {
                (saved_refresh_token(machine) != before).then_some(())
            })
            .await;
        }
    }
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();
    drop(writer);
    let used = proxy.release().await;
    let saved = saved_refresh_token(machine) != before;
    match (hold, saved, used) {
        (Hold::Request, false, _) => Phase::BeforeTheServerActed,
        (Hold::Answer, false, _) => Phase::ActedAndNotAnswered,
        (Hold::HalfAnswer, false, _) => Phase::AnswerHalfSent,
        (Hold::Later | Hold::Door, false, false) => Phase::DeliveredAndNotSaved,
        (Hold::Later | Hold::Door, true, false) => Phase::SavedAndNotUsed,
        (Hold::Later | Hold::Door, true, true) => Phase::Used,
        (Hold::Later | Hold::Door, false, true) => panic!("a token was used before it was saved"),
        (Hold::Request | Hold::Answer | Hold::HalfAnswer, true, _) => {
            panic!("a pair was saved that never came: {hold:?}")
        }
    }
}
