//! One engine in the world: its ticks, its crashes, and how all come to rest.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::drive_sync::engine::{Engine, Look, Settings, Tick};
use crate::drive_sync::model::{EntryId, Kind, Sha256, VersionId};
use crate::drive_sync::planner::{Access, Row as _};
use crate::drive_sync::ports::Scope;
use crate::drive_sync::state::{State, StateError};

use super::actions::{Action, DiskAct};
use super::chance::Chance;
use super::checks::{Invariant, Paths};
use super::drive::SimDrive;
use super::fs::SimFs;
use super::world::{SimClock, SimRng, perform, with};

/// Rounds more for listings and held deletions, at most.
const MOST_ALLOWED: u64 = 8;

type SimEngine = Engine<SimFs, SimDrive, SimClock, SimRng>;

/// An engine and what it was set up with.
pub(super) struct Machine {
    engine: SimEngine,
    settings: Settings,
}

/// A row of the base.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: EntryId,
    pub(super) version: VersionId,
    pub(super) file: Option<(Sha256, bool)>,
}

/// What a tick said.
#[derive(Clone, Default)]
struct Said {
    tick: Option<Tick>,
    trouble: Option<String>,
}

impl std::fmt::Debug for Said {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(trouble) = &self.trouble {
            write!(formatter, "trouble: {trouble}")?;
        }
        let Some(tick) = &self.tick else { return Ok(()) };
        write!(formatter, "pulled {}, planned {}", tick.pulled, tick.planned.steps())?;
        for (name, is) in [
            ("at rest", tick.at_rest),
            ("more", tick.more),
            ("listing", tick.resyncing),
            ("read only", tick.read_only),
            ("held", tick.held.is_some()),
            ("digest differs", tick.digest == Some(false)),
        ] {
            write!(formatter, "{}", if is { format!(", {name}") } else { String::new() })?;
        }
        let Tick { failed, blocked, unclear, waiting, .. } = tick;
        write!(
            formatter,
            ", waiting {waiting}, failed {failed:?}, blocked {blocked:?}, unclear {unclear:?}"
        )
    }
}

impl Machine {
    pub(super) fn new(client: usize, chance: &mut Chance) -> Self {
        let mut settings = Settings::new("drive", &format!("vm{client}"));
        settings.change_limit = chance.pick(&[1, 2, 50]);
        settings.max_batches = chance.pick(&[2, 25]);
        settings.batch = chance.pick(&[1, 3, 500]);
        settings.uploads = chance.pick(&[1, 3, 100]);
        // Some have to copy in parts.
        settings.window = if settings.uploads == settings.batch { settings.batch } else { 500 };
        let state = State::in_memory().expect("a state in memory");
        Self::set_up(client, state, settings, chance.bits())
    }

    fn set_up(client: usize, state: State, settings: Settings, seed: u64) -> Self {
        let (fs, drive) = (SimFs { client }, SimDrive { client });
        let rng = SimRng(Chance::new(seed));
        let engine = Engine::new(state, fs, drive, SimClock, rng, settings.clone());
        Self { engine, settings }
    }

    /// Ticks in which so many changes are read, and those that it takes more when only some of what
    /// is new is planned at a time.
    fn ticks_for(&self, changes: u64) -> u64 {
        let read = u64::from(self.settings.change_limit) * u64::from(self.settings.max_batches);
        changes.div_ceil(read) + changes.saturating_sub(1) / self.settings.window as u64
    }

    fn base(&self) -> Vec<(String, Row)> {
        let mut trees = self.engine.state().trees().expect("the state is readable");
        let (_, base) = trees.both().expect("the state is readable");
        let rows = base.and_then(|row| Ok::<_, StateError>((row.path()?, row.remote()?)));
        rows.map(|row| {
            let (path, remote) = row.expect("the state is readable");
            let file = match remote.kind {
                Kind::File(content) => Some((content.sha256, content.executable)),
                Kind::Directory => None,
            };
            (path.to_string(), Row { id: remote.id, version: remote.version, file })
        })
        .collect()
    }
}

/// The engine of `client` works once, others in between.
pub(super) fn tick(client: usize, audit: bool, digest: bool) {
    let _ = work(client, audit, digest);
}

fn work(client: usize, audit: bool, digest: bool) -> Said {
    let (machine, dirty) = with(|sim| {
        sim.counts.ticks += 1;
        let one = &mut sim.clients[client];
        one.begin_tick();
        (one.machine.take(), std::mem::take(&mut one.dirty))
    });
    let Some(mut machine) = machine else { return Said::default() };
    let scope = if audit { Scope::All } else { Scope::Only(dirty) };
    let ticked = catch_unwind(AssertUnwindSafe(|| machine.engine.tick(&Look { scope, digest })));
    let mut said = Said::default();
    match ticked {
        Ok(Ok(tick)) => said.tick = Some(tick),
        Ok(Err(error)) => said.trouble = Some(error.to_string()),
        Err(_) => {
            let what = format!("client {client}: the engine panicked");
            with(|sim| sim.violate(Invariant::AtRestAllAgree, what));
        }
    }
    let base = machine.base();
    let bound = machine.engine.state().root().is_ok_and(|root| root.is_some());
    let dead = with(|sim| {
        sim.clients[client].bound = bound;
        sim.note(|| format!("  client {client} said {said:?}"));
        if sim.violations.is_empty() {
            sim.check_base(client, &base);
        }
        sim.clients[client].machine = Some(machine);
        sim.clients[client].dead
    });
    if dead {
        revive(client);
    }
    said
}

/// After a crash: a new engine on what the old one had committed.
pub(super) fn revive(client: usize) {
    let Some(machine) = with(|sim| sim.clients[client].machine.take()) else { return };
    let seed = with(|sim| sim.chance.bits());
    let Machine { engine, settings } = machine;
    let machine = Machine::set_up(client, engine.into_state(), settings, seed);
    with(|sim| {
        let one = &mut sim.clients[client];
        one.machine = Some(machine);
        one.dead = false;
        one.dirty.clear();
    });
}

fn cursor_of(client: usize) -> u64 {
    with(|sim| {
        let machine = sim.clients[client].machine.as_ref();
        machine.and_then(|m| m.engine.state().cursor().ok().flatten()).map_or(0, |c| c.sequence)
    })
}

/// Writers and accidents stop: all sides must become equal within so many rounds, and stay so.
pub(super) fn come_to_rest() {
    settle();
    with(|sim| sim.resting = false);
}

fn settle() {
    let clients = with(|sim| sim.clients.len());
    for client in 0..clients {
        with(|sim| {
            sim.resting = true;
            sim.clients[client].mend();
            if let Some(machine) = &mut sim.clients[client].machine {
                // As the server says when it is asked what may be done.
                machine.engine.set_access(Access::Write);
            }
            while !sim.server.delayed.is_empty() {
                sim.deliver();
            }
        });
        perform(&Action::Disk { client, act: DiskAct::SaveEnd, unseen: false }, None);
        if with(|sim| sim.chance.one_in(2)) {
            perform(&Action::Disk { client, act: DiskAct::Readable, unseen: false }, None);
        }
    }
    let behind = (0..clients).map(cursor_of).min().unwrap_or(0);
    // Whatever the server has told and a client has not read, and whatever a disk may have to send.
    let changes = with(|sim| {
        let local: usize = sim.clients.iter().map(|client| client.paths().len()).sum();
        sim.server.tree.sequence.saturating_sub(behind) + local as u64
    });
    let mut allowance = 0;
    for round in 1.. {
        let before = with(|sim| (sim.counts.effects, sim.server.tree.sequence));
        let mut quiet = true;
        let mut said = Vec::new();
        for client in 0..clients {
            with(|sim| sim.now += 2 * 24 * 3600 * 1_000_000_000);
            said.push(work(client, true, true));
            if !with(|sim| sim.violations.is_empty()) {
                return;
            }
            let Said { tick, trouble } = said.last().unwrap();
            quiet &= trouble.is_none();
            if let Some(tick) = tick {
                quiet &= !tick.more && !tick.resyncing && tick.held.is_none();
                // A listing of everything takes a tick of its own.
                allowance += u64::from(tick.resyncing || tick.digest == Some(false));
                if tick.held.is_some() {
                    allowance += 2;
                    with(|sim| {
                        let machine = sim.clients[client].machine.as_mut().unwrap();
                        machine.engine.release_deletions().expect("the state is writable");
                    });
                }
            }
        }
        let after = with(|sim| (sim.counts.effects, sim.server.tree.sequence));
        if quiet && before == after {
            with(|sim| sim.counts.rounds = sim.counts.rounds.max(round));
            at_rest(&said);
            return;
        }
        let slowest = with(|sim| {
            let all = sim.clients.iter().filter_map(|client| client.machine.as_ref());
            all.map(|machine| machine.ticks_for(changes)).max().unwrap_or(changes)
        });
        // The last round is the one that shows that nothing is left.
        let bound = 3 + slowest + allowance.min(MOST_ALLOWED) + 1;
        if round > bound {
            let what = format!("not at rest after {round} rounds: {said:?}");
            with(|sim| sim.violate(Invariant::AtRestAllAgree, what));
            return;
        }
    }
}

fn at_rest(said: &[Said]) {
    with(|sim| {
        sim.counts.rests += 1;
        let mut carried: BTreeSet<String> = BTreeSet::new();
        for (client, said) in said.iter().enumerate() {
            let Some(machine) = sim.clients[client].machine.as_ref() else { continue };
            let rows = machine.base();
            let base: Paths = rows.into_iter().map(|(path, row)| (path, row.file)).collect();
            let differing = sim.differences(client, &base);
            let opaque = sim.clients[client].opaque_now();
            let claims = said.tick.as_ref().is_some_and(|tick| tick.at_rest);
            if let Some(path) = differing.first() {
                let one = &sim.clients[client];
                let sides = (
                    one.disk_paths().remove(path),
                    sim.server_paths().remove(path),
                    base.get(path),
                );
                let what = format!(
                    "client {client} at rest differs at {differing:?} (at rest: {claims}): \
                     disk, server, base {sides:?}: {said:?}"
                );
                sim.violate(Invariant::AtRestAllAgree, what);
            } else if opaque.is_empty() && !claims {
                let what = format!("client {client} is at rest and does not say so: {said:?}");
                sim.violate(Invariant::AtRestAllAgree, what);
            }
            carried.extend(opaque.into_iter().map(|(path, _)| path));
        }
        // Where contents are not unique, who comes back to an earlier one looks like who stayed.
        if !sim.pool {
            sim.check_nothing_out_of_sight();
        }
        sim.check_deletions();
        for client in &mut sim.clients {
            client.was_read_only = false;
        }
        sim.ledger.rest(carried.iter());
    });
}
