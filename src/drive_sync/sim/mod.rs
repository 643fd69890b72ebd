//! A simulator of drive sync: the engine itself over a disk, a server and a clock in memory, with
//! crashes and other writers at every step, from a seed.
//!
//! A run is a list of actions made from the seed, and everything that follows from them. What must
//! hold is in [`checks`]; that the checks can fail is shown with faults planted on purpose.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::wildcard_enum_match_arm,
    reason = "small numbers, and what a test does not ask for"
)]

mod actions;
mod chance;
mod checks;
mod client;
mod deeds;
mod disk;
mod drive;
mod files;
mod fs;
mod ledger;
mod machine;
mod server;
mod shrink;
mod tests;
mod world;

use sha2::Digest as _;

use crate::drive_sync::model::Sha256;

use actions::{Action, Entry, Flavour};
use chance::Chance;
use checks::Violation;
use client::Client;
use world::{Counts, Sim};

fn hash(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// A run: what it is like, and what happens in it.
#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    flavour: Flavour,
    entries: Vec<Entry>,
}

/// How a run went.
#[derive(Debug, Clone)]
struct Outcome {
    violations: Vec<Violation>,
    counts: Counts,
    trace: Vec<String>,
}

impl Case {
    fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let flavour = actions::flavour(&mut chance);
        let mut entries = Vec::new();
        for _ in 0..2 + chance.below(3) {
            let count = chance.pick(&[6, 15, 40, 90]);
            entries.extend(actions::invent(&mut chance, flavour, count));
            entries.push(Entry { wait: 0, action: Action::Rest });
        }
        Self { seed, flavour, entries }
    }

    fn run(&self, traced: bool) -> Outcome {
        let mut chance = Chance::new(self.seed ^ 0x5eed);
        world::set(Some(Sim::new(self.flavour, chance.bits(), traced)));
        for client in 0..self.flavour.clients {
            let machine = machine::Machine::new(client, &mut chance);
            world::with(|sim| sim.clients[client].machine = Some(machine));
        }
        world::with(|sim| sim.schedule.extend(self.entries.iter().cloned()));
        while let Some(entry) =
            world::with(|sim| sim.schedule.pop_front().filter(|_| sim.violations.is_empty()))
        {
            match entry.action {
                Action::Rest => machine::come_to_rest(),
                action => world::perform(&action, None),
            }
        }
        if world::with(|sim| sim.violations.is_empty()) {
            machine::come_to_rest();
        }
        let sim = world::set(None).expect("the world was up");
        Outcome {
            violations: sim.violations,
            counts: sim.counts,
            trace: sim.trace.unwrap_or_default(),
        }
    }
}

impl Sim {
    fn new(flavour: Flavour, seed: u64, traced: bool) -> Self {
        let mut sim = Self {
            now: 1_790_000_000_000_000_000,
            clients: (0..flavour.clients).map(Client::new).collect(),
            server: server::Server::default(),
            ledger: ledger::Ledger::default(),
            schedule: std::collections::VecDeque::new(),
            resting: false,
            pool: flavour.pool,
            chance: Chance::new(seed),
            violations: Vec::new(),
            counts: Counts::default(),
            trace: traced.then(Vec::new),
        };
        // Becomes content of the drive when somebody renames a lock file.
        sim.ledger.whole.insert(actions::LOCK.to_vec());
        sim.check_step("the beginning");
        sim
    }
}
