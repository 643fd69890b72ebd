//! The simulated world: several engines with a disk each, one server, and others who write in
//! between. At every call of an engine the next entries of the schedule may happen.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use crate::drive_sync::path::RelPath;
use crate::drive_sync::planted::{Bug, planted};
use crate::drive_sync::ports::{Clock, Rng};

use super::actions::{Action, Entry};
use super::chance::Chance;
use super::checks::{Invariant, Violation};
use super::client::{Client, Limbo};
use super::disk::Sort;
use super::ledger::{Actor, Ledger, Left};
use super::machine;
use super::server::{Server, content};

/// A tick that makes more calls than this does not end.
const LONGEST_TICK: u64 = 100_000;

/// What may go wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not arrive.
    LostBefore,
    /// It is done, and the answer does not arrive.
    LostAfter,
    /// It is done some time later.
    Late,
    /// Wrong bytes arrive.
    Corrupt,
    /// The line is cut in the middle of a download.
    Broken,
}

/// The engine is to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop;

/// Which side an effect was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Disk,
    Server,
}

/// How much happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Calls of the engines to disk and server.
    pub(super) calls: u64,
    /// Changes that engines made on disk and server.
    pub(super) effects: u64,
    /// Actions of others.
    pub(super) actions: u64,
    pub(super) crashes: u64,
    pub(super) ticks: u64,
    pub(super) conflicts: u64,
    pub(super) rests: u64,
    /// The most rounds that it took to come to rest.
    pub(super) rounds: u64,
}

impl Counts {
    /// Effects of engines and actions of others: what the bounds are given in.
    pub(super) fn operations(&self) -> u64 {
        self.effects + self.actions
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.effects += other.effects;
        self.actions += other.actions;
        self.crashes += other.crashes;
        self.ticks += other.ticks;
        self.conflicts += other.conflicts;
        self.rests += other.rests;
        self.rounds = self.rounds.max(other.rounds);
    }
}

pub(super) struct Sim {
    /// Nanoseconds since 1970.
    pub(super) now: i64,
    pub(super) clients: Vec<Client>,
    pub(super) server: Server,
    pub(super) ledger: Ledger,
    pub(super) schedule: VecDeque<Entry>,
    /// Writers and accidents have stopped.
    pub(super) resting: bool,
    /// Contents come from a small pool.
    pub(super) pool: bool,
    pub(super) chance: Chance,
    pub(super) violations: Vec<Violation>,
    pub(super) counts: Counts,
    /// What happened, for people, when they want to see it.
    pub(super) trace: Option<Vec<String>>,
}

thread_local! {
    static SIM: RefCell<Option<Sim>> = const { RefCell::new(None) };
}

/// Puts a world up, or takes it away.
pub(super) fn set(sim: Option<Sim>) -> Option<Sim> {
    SIM.with(|cell| std::mem::replace(&mut *cell.borrow_mut(), sim))
}

pub(super) fn with<T>(act: impl FnOnce(&mut Sim) -> T) -> T {
    SIM.with(|cell| act(cell.borrow_mut().as_mut().expect("a world is up")))
}

/// Time as the engines see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimClock;

impl Clock for SimClock {
    fn wall(&self) -> i64 {
        with(|sim| sim.now)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(with(|sim| sim.now).unsigned_abs())
    }
}

/// An engine's chance.
#[derive(Debug, Clone)]
pub(super) struct SimRng(pub(super) Chance);

impl Rng for SimRng {
    fn bits(&mut self) -> u64 {
        self.0.bits()
    }
}

// ---------------------------------------------------------------- interference

/// At a call of an engine: time passes, and others act when it is their turn.
pub(super) fn pause(client: usize, what: &'static str) -> Result<(), Stop> {
    loop {
        let next = with(|sim| {
            sim.check_running(client)?;
            sim.counts.calls += 1;
            sim.clients[client].calls += 1;
            if sim.clients[client].calls > LONGEST_TICK {
                sim.violate(
                    Invariant::AtRestAllAgree,
                    format!("client {client}: a tick does not end"),
                );
                return Err(Stop);
            }
            sim.now += 1 + sim.chance.below(3_000_000) as i64;
            if sim.resting {
                return Ok(None);
            }
            match sim.schedule.front_mut() {
                Some(Entry { action: Action::Rest, .. }) | None => Ok(None),
                Some(entry) if entry.wait > 0 => {
                    entry.wait -= 1;
                    Ok(None)
                }
                Some(_) => Ok(sim.schedule.pop_front()),
            }
        })?;
        let Some(entry) = next else { return Ok(()) };
        with(|sim| sim.note(|| format!("    (inside client {client}: {what})")));
        perform(&entry.action, Some(client));
        with(|sim| sim.check_running(client))?;
    }
}

/// Something was changed by an engine, for good.
pub(super) fn effect(client: usize, side: Where, what: &str, paths: &[String]) {
    with(|sim| {
        sim.counts.effects += 1;
        sim.note(|| format!("  client {client}: {what} {paths:?}"));
        let one = &mut sim.clients[client];
        one.effects.extend(paths.iter().cloned());
        one.effect_count += 1;
        if side == Where::Disk {
            one.dirty.extend(paths.iter().filter_map(|path| RelPath::parse(path).ok()));
            if what != "rename" {
                // What a rename moved keeps its place in the opaque list by its inode.
                one.note_displaced(paths);
            }
        }
        sim.check_step(&format!("client {client}: {what} {paths:?}"));
    });
}

/// A loser of a conflict took another name.
pub(super) fn conflict_copy(client: usize, from: &str, to: &str) {
    with(|sim| {
        sim.counts.conflicts += 1;
        sim.check_conflict(client, from, to);
    });
}

/// An engine removed what it was never told of.
pub(super) fn unknown_removed(client: usize, what: &str) {
    with(|sim| {
        let what = format!("client {client} deleted at the server, untold: {what}");
        sim.violate(Invariant::UnknownIsNeverRemoved, what);
    });
}

/// One entry of the schedule happens; `inside` the tick of a client or between ticks.
pub(super) fn perform(action: &Action, inside: Option<usize>) {
    with(|sim| {
        sim.counts.actions +=
            u64::from(!matches!(action, Action::Tick { .. } | Action::Pass(_) | Action::Rest));
        sim.note(|| format!("{action:?}"));
    });
    match action {
        Action::Tick { client, audit } => {
            let free = with(|sim| {
                sim.clients
                    .get(*client)
                    .is_some_and(|client| client.machine.is_some() && !client.dead)
            });
            if free {
                machine::tick(*client, *audit, *audit);
            }
        }
        Action::Kill { client } => crash(inside.unwrap_or(*client), None),
        Action::Power { client, seed } => crash(inside.unwrap_or(*client), Some(*seed)),
        Action::Disk { client, act, unseen } => with(|sim| {
            sim.at_disk(*client, act);
            let one = &mut sim.clients[*client];
            let changed = std::mem::take(&mut one.changed);
            if !unseen {
                one.dirty.extend(changed.iter().filter_map(|path| RelPath::parse(path).ok()));
            }
            sim.check_step(&format!("{action:?}"));
        }),
        Action::Server(act) => with(|sim| {
            sim.at_server(act);
            sim.check_step(&format!("{action:?}"));
        }),
        Action::Line { client, line } => with(|sim| sim.clients[*client].line(line)),
        Action::Rest => {}
        Action::Pass(milliseconds) => with(|sim| sim.now += i64::from(*milliseconds) * 1_000_000),
    }
}

fn crash(client: usize, power: Option<u64>) {
    let idle = with(|sim| {
        sim.counts.crashes += 1;
        let one = &mut sim.clients[client];
        let paths = std::mem::take(&mut one.effects);
        for path in paths {
            sim.ledger.leave(&path, Actor::Crash(client), Left::Other);
        }
        if let Some(seed) = power {
            sim.lose_power(client, seed);
        }
        let one = &mut sim.clients[client];
        one.dead = true;
        let limbo = std::mem::take(&mut one.limbo);
        for displaced in limbo {
            sim.verify(client, &displaced);
        }
        sim.check_step("a crash");
        sim.clients[client].machine.is_some()
    });
    // One that is at work is set up again when its tick has ended.
    if idle {
        machine::revive(client);
    }
}

impl Sim {
    fn check_running(&self, client: usize) -> Result<(), Stop> {
        if self.violations.is_empty() && !self.clients[client].dead { Ok(()) } else { Err(Stop) }
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    pub(super) fn violate(&mut self, invariant: Invariant, what: String) {
        self.note(|| format!("VIOLATION of {invariant:?}: {what}"));
        self.violations.push(Violation { invariant, what });
    }

    fn lose_power(&mut self, client: usize, seed: u64) {
        let sure = self.clients[client].disk.surely_kept();
        let one = &mut self.clients[client];
        let before = one.paths();
        one.disk.lose_power(&mut Chance::new(seed));
        one.saving = None;
        one.know_opaque();
        let after = one.paths();
        for (path, left) in &before {
            if after.get(path) != Some(left) {
                self.ledger.leave(path, Actor::Power(client), Left::Other);
            }
        }
        for path in after.keys().filter(|path| !before.contains_key(*path)) {
            self.ledger.leave(path, Actor::Power(client), Left::Other);
        }
        // What was only in memory then is gone, and that is nobody's fault here.
        let kept = self.everywhere();
        self.ledger.live.retain(|bytes| kept.contains(bytes) || sure.contains(bytes));
    }

    /// What was displaced goes back beside its old place when it is not what was expected. Returns
    /// where.
    pub(super) fn verify(&mut self, client: usize, displaced: &Limbo) -> Option<RelPath> {
        let now = self.now;
        let Limbo { path, aside, ino, expected } = displaced;
        let disk = &self.clients[client].disk;
        // A loss of power may have undone that it was displaced.
        if disk.at(aside.0, &aside.1) != Some(*ino) {
            return None;
        }
        let inode = &disk.inodes[ino];
        let bytes = inode.bytes.clone();
        let is_plain = inode.sort == Sort::File && !inode.unreadable && !inode.suspicious;
        let found = content(&bytes, inode.executable);
        if is_plain && expected.contains(&found) || planted(Bug::InstallUnverified) {
            self.check_trashed(client, &path.to_string(), &bytes);
            return None;
        }
        let name = format!("{} (conflict sim {}", path.name(), &found.sha256.hex()[..8]);
        let to = (0..100).find_map(|count| {
            let to = path.with_name(&format!("{name} {count})")).ok()?;
            let place = self.clients[client].disk.place(&to.to_string())?;
            self.clients[client].disk.at(place.0, &place.1).is_none().then_some((to, place))
        });
        let Some((to, place)) = to else {
            // The folder went meanwhile, by somebody who did not see this: it stays in the trash.
            self.ledger.late.insert(bytes);
            return None;
        };
        self.clients[client].disk.rename(aside, &place, now);
        self.clients[client].disk.sync_links(place.0);
        self.counts.conflicts += 1;
        self.check_conflict(client, &path.to_string(), &to.to_string());
        Some(to)
    }

    /// A delayed upload arrives at last.
    pub(super) fn deliver(&mut self) {
        if self.server.delayed.is_empty() {
            return;
        }
        let upload = self.server.delayed.remove(0);
        let _ = self.server.take_upload(&upload);
        let paths = std::mem::take(&mut self.server.touched);
        self.note(|| format!("  late upload of client {}: {paths:?}", upload.client));
    }
}
