//! The simulated world: several engines with a disk each, one server, and others who write in
//! between. At every call of an engine the next entries of the schedule may happen.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::drive_sync::model::{Content, EntryId, VersionId};
use crate::drive_sync::path::RelPath;
use crate::drive_sync::planted::{Bug, planted};
use crate::drive_sync::ports::{Clock, Rng};

use super::actions::{Action, Entry, Line};
use super::chance::Chance;
use super::checks::{Invariant, Violation};
use super::disk::{Disk, Ino, Link, Sort};
use super::ledger::{Actor, Ledger, Left};
use super::server::{Server, content};
use super::{hash, machine};

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

/// A file that has been displaced.
#[derive(Debug, Clone)]
pub(super) struct Limbo {
    pub(super) path: RelPath,
    pub(super) aside: Link,
    pub(super) ino: Ino,
    pub(super) expected: [Content; 2],
}

pub(super) struct Client {
    pub(super) disk: Disk,
    pub(super) machine: Option<machine::Machine>,
    /// The engine knows which root is its own.
    pub(super) bound: bool,
    /// Crashed inside a tick: every call is answered with [`Stop`].
    pub(super) dead: bool,
    /// What the watcher would tell.
    pub(super) dirty: BTreeSet<RelPath>,
    /// What people have changed in the action at hand.
    pub(super) changed: Vec<String>,
    pub(super) outage: u32,
    pub(super) retry_after: bool,
    pub(super) faults: Vec<Fault>,
    pub(super) read_only: bool,
    /// Since the last rest.
    pub(super) was_read_only: bool,
    pub(super) access_lost: bool,
    /// Versions that this client was told of.
    pub(super) told: BTreeSet<(EntryId, VersionId)>,
    /// Paths of effects in the tick at hand.
    effects: Vec<String>,
    pub(super) effect_count: u64,
    calls: u64,
    /// An editor that saves by rename: its new file, its target, what it had read.
    pub(super) saving: Option<(String, String, Vec<u8>)>,
    /// Where files in the trash came from.
    pub(super) displaced: BTreeMap<Ino, String>,
    /// Displaced and not looked at yet: where from, where it is, what it may be.
    pub(super) limbo: Vec<Limbo>,
    /// What takes no part and only people may remove.
    pub(super) opaque: BTreeMap<Ino, String>,
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

impl Client {
    pub(super) fn new(index: usize) -> Self {
        Self {
            disk: Disk::new(index as u64 + 40),
            machine: None,
            dead: false,
            bound: false,
            dirty: BTreeSet::new(),
            changed: Vec::new(),
            outage: 0,
            retry_after: false,
            faults: Vec::new(),
            read_only: false,
            was_read_only: false,
            access_lost: false,
            told: BTreeSet::new(),
            effects: Vec::new(),
            effect_count: 0,
            calls: 0,
            saving: None,
            displaced: BTreeMap::new(),
            limbo: Vec::new(),
            opaque: BTreeMap::new(),
        }
    }

    /// An engine has begun to change something there.
    pub(super) fn begun(&mut self, path: &RelPath) {
        self.effects.push(path.to_string());
    }

    pub(super) fn begin_tick(&mut self) {
        self.effects.clear();
        self.calls = 0;
    }

    fn line(&mut self, line: &Line) {
        match *line {
            Line::Outage { calls, retry_after } => {
                self.outage = calls;
                self.retry_after = retry_after;
            }
            Line::Fault(fault) => self.faults.push(fault),
            Line::ReadOnly { on } => {
                self.read_only = on;
                self.was_read_only |= on;
            }
            Line::AccessLost { on } => self.access_lost = on,
        }
    }

    /// The line is good again, and the disk has room.
    pub(super) fn mend(&mut self) {
        self.outage = 0;
        self.faults.clear();
        self.read_only = false;
        self.access_lost = false;
        self.disk.full = false;
        self.disk.lose_root(false);
    }

    /// What stands at a path.
    pub(super) fn left(&self, path: &str) -> Left {
        match self.disk.find(path) {
            // Nobody can look into a folder that is not readable.
            None if self.paths().contains_key(path) => Left::Other,
            None => Left::Gone,
            Some(ino) => self.left_of(ino),
        }
    }

    pub(super) fn left_of(&self, ino: Ino) -> Left {
        let inode = &self.disk.inodes[&ino];
        match inode.sort {
            Sort::File if inode.suspicious => Left::Other,
            Sort::File => Left::File(hash(&inode.bytes), inode.executable),
            Sort::Directory => Left::Directory,
            Sort::Symlink | Sort::Special => Left::Other,
        }
    }

    /// All that stands on the drive's own folder.
    pub(super) fn paths(&self) -> BTreeMap<String, Left> {
        let all = self.disk.walk(self.disk.home()).into_iter();
        all.map(|(path, ino)| (path, self.left_of(ino))).collect()
    }

    fn note_displaced(&mut self, paths: &[String]) {
        let Some(path) = paths.first() else { return };
        for (_, ino) in self.disk.inside(super::disk::TRASH) {
            self.displaced.entry(ino).or_insert_with(|| path.clone());
        }
    }

    /// Whatever takes no part now was put there by people.
    pub(super) fn know_opaque(&mut self) {
        // An empty folder holds nothing unknown, whoever may look into it.
        let empty = |ino: Ino| {
            self.disk.inodes[&ino].sort == Sort::Directory && self.disk.inside(ino).is_empty()
        };
        let all = self.opaque_now().into_iter().filter(|(_, ino)| !empty(*ino));
        self.opaque = all.map(|(path, ino)| (ino, path)).collect();
    }

    /// What takes no part: the entry itself, and what is hidden below it.
    pub(super) fn opaque_now(&self) -> Vec<(String, Ino)> {
        let mut found: Vec<(String, Ino)> = Vec::new();
        let mut hidden: Option<String> = None;
        for (path, ino) in self.disk.walk(self.disk.home()) {
            let inode = &self.disk.inodes[&ino];
            let below = hidden.as_ref().is_some_and(|hidden| path.starts_with(hidden));
            let ignored = path.rsplit('/').next().is_some_and(super::fs::is_ignored);
            let special = matches!(inode.sort, Sort::Symlink | Sort::Special);
            if below || ignored || special || inode.unreadable || inode.suspicious {
                if !below {
                    hidden = Some(format!("{path}/"));
                }
                found.push((path, ino));
            }
        }
        found
    }
}
