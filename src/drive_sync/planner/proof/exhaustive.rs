//! All triples of small trees: two names at the top, each absent, a file of one of three contents, or
//! a folder that is empty or holds one file of one of three contents.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::world::{World, content, has_effect, ino_of, local, number, path, rules, stat};
use super::{Dice, Planted, asked, in_conflict_copy, origin};
use crate::drive_sync::model::{Base, Kind, Remote};
use crate::drive_sync::path::RelPath;
use crate::drive_sync::plan::Stage;
use crate::drive_sync::planner::{Access, Rules};

/// States of one name: absent, files 1 to 3, an empty folder, a folder with a file 1 to 3.
const STATES: usize = 8;
const NAMES: [&str; 3] = ["a", "b", "d"];

/// One name's states on the disk, at the server and in the base.
type Triple = [usize; 3];

/// Which files are the same file, moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// Each place has its own.
    Place,
    /// A content that is once in the base is the same file wherever it is once on the disk or at the
    /// server.
    Content,
}

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    triples: usize,
    /// How many triples needed so many rounds.
    rounds: [usize; 5],
    crashes: usize,
    states: usize,
    violations: usize,
    moves: usize,
    copies: usize,
    first: Option<String>,
}

/// A tree at rest, in short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Rest {
    /// The state of each name; 9 for what is none of the eight.
    states: [usize; 3],
    /// Contents in conflict copies of each name itself, and of the file in it, as bits.
    copies: [[u8; 2]; 3],
    /// Whether there is any conflict copy for the name.
    copied: [bool; 3],
    rounds: usize,
}

/// How a state ends: at rest, or with the promise that was broken on the way.
type End = Result<Rest, String>;

/// What becomes of a state.
#[derive(Debug, Clone)]
struct Fate {
    /// If left alone: a number of [`Proof::ends`].
    end: usize,
    /// If stopped once or more often, after any effects: the different ends.
    stopped: Rc<[usize]>,
    /// After how many effects it may be stopped for the first time.
    crashes: usize,
    moves: usize,
}

struct Proof {
    rules: Rules,
    identity: Identity,
    planted: Planted,
    paths: Vec<[RelPath; 2]>,
    /// Each state is looked at once.
    known: HashMap<Box<[u8]>, Fate>,
    ends: Vec<End>,
    numbers: HashMap<End, usize>,
    /// The same end, reached one round later.
    later: HashMap<usize, usize>,
    findings: Findings,
}

impl Proof {
    fn new(names: usize, identity: Identity, planted: Planted) -> Self {
        let paths = NAMES[..names].iter().map(|name| [path(name), path(&format!("{name}/c"))]);
        Self {
            rules: rules(Access::Write),
            identity,
            planted,
            paths: paths.collect(),
            known: HashMap::new(),
            ends: Vec::new(),
            numbers: HashMap::new(),
            later: HashMap::new(),
            findings: Findings::default(),
        }
    }

    /// All triples.
    fn all(mut self) -> Findings {
        let codes = STATES.pow(u32::try_from(self.paths.len() * 3).unwrap());
        for code in 0..codes {
            self.one(code);
        }
        self.findings.states = self.known.len();
        self.findings
    }

    /// The triple with this number.
    fn one(&mut self, mut code: usize) {
        let triples: Vec<Triple> = self
            .paths
            .iter()
            .map(|_| {
                std::array::from_fn(|_| {
                    let state = code % STATES;
                    code /= STATES;
                    state
                })
            })
            .collect();
        if self.identity == Identity::Content && !any_moved(&triples) {
            return;
        }
        self.findings.triples += 1;
        let fate = self.settle(self.world(&triples), 0);
        self.judge(&triples, fate.end, "left alone");
        for end in fate.stopped.iter() {
            self.judge(&triples, *end, "stopped");
        }
        self.findings.crashes += fate.crashes;
        self.findings.moves += fate.moves;
        if let Ok(rest) = &self.ends[fate.end] {
            self.findings.rounds[rest.rounds.min(4)] += 1;
            self.findings.copies += usize::from(rest.copied.contains(&true));
        }
    }

    fn world(&self, triples: &[Triple]) -> World {
        let mut world = World::default();
        for (paths, triple) in self.paths.iter().zip(triples) {
            for (side, state) in triple.iter().copied().enumerate() {
                for (path, kind) in paths.iter().zip(kinds(state)) {
                    let Some(kind) = kind else { continue };
                    let number = kind.content().map(number);
                    let moved = self.identity == Identity::Content
                        && number.is_some_and(|number| {
                            place(triples, number, 2).is_some()
                                && place(triples, number, side).is_some()
                        });
                    let (ino, id) = match number {
                        Some(number) if moved => (u64::from(number), format!("file {number}")),
                        _ => (ino_of(path), path.to_string()),
                    };
                    let remote = Remote { id, version: format!("v{}", number.unwrap_or(0)), kind };
                    match side {
                        0 => drop(world.disk.insert(path.clone(), local(kind, ino))),
                        1 => drop(world.server.insert(path.clone(), remote)),
                        _ => {
                            let stat = Some(stat(ino, kind.content()));
                            world.base.insert(path.clone(), Base { remote, stat });
                        }
                    }
                }
            }
        }
        world
    }

    /// Runs until nothing is to be done any more, and from every state in which it may be stopped.
    fn settle(&mut self, world: World, depth: usize) -> Fate {
        let key = key(&world);
        match self.known.get(&*key) {
            Some(known) if depth > 0 || self.planted == Planted::None => known.clone(),
            _ => self.explore(key, world, depth),
        }
    }

    /// As [`Self::settle`], and the world is only copied when it is new.
    fn stop(&mut self, world: &World, depth: usize) -> Fate {
        let key = key(world);
        match self.known.get(&*key) {
            Some(known) => known.clone(),
            None => self.explore(key, world.clone(), depth),
        }
    }

    fn explore(&mut self, key: Box<[u8]>, world: World, depth: usize) -> Fate {
        let fate = self.round(world, depth);
        self.known.insert(key, fate.clone());
        fate
    }

    fn round(&mut self, mut world: World, depth: usize) -> Fate {
        let mut plan = world.plan(&self.rules);
        self.planted.spoil(&mut plan, &world);
        if !plan.blocked.is_empty() || plan.held.is_some() || depth > 40 {
            return self.ends_with(Err(format!("blocked, held, or without end: {plan:?}")));
        }
        if plan.steps.is_empty() {
            let end = self.at_rest(&world);
            return self.ends_with(end);
        }
        // A mistake may make repeated stops go round in circles: one is enough to notice it.
        let stops = depth == 0 || self.planted == Planted::None;
        let (mut crashes, mut stopped) = (0, BTreeSet::new());
        for step in &plan.steps {
            let mut leading = (self.planted == Planted::BaseFirst).then(|| world.clone());
            if let Err(why) = world.effect(step) {
                return self.ends_with(Err(why));
            }
            let lagging = if stops && has_effect(step) && leading.is_none() {
                Some(self.stop(&world, depth + 1))
            } else {
                None
            };
            world.record(step);
            if let Some(leading) = &mut leading {
                leading.base.clone_from(&world.base);
            }
            if !stops || !has_effect(step) {
                continue;
            }
            let fate = lagging.or_else(|| Some(self.stop(leading.as_ref()?, depth + 1)));
            crashes += 1;
            stopped.extend(fate.iter().map(|fate| fate.end));
            stopped.extend(fate.iter().flat_map(|fate| fate.stopped.iter()));
        }
        let next = self.settle(world, depth + 1);
        stopped.extend(next.stopped.iter());
        let moves = plan.steps.iter().filter(|step| step.stage == Stage::Move).count();
        let end = match self.later.get(&next.end) {
            Some(end) => *end,
            None => self.a_round_later(next.end),
        };
        let crashes = crashes + next.crashes;
        Fate { end, stopped: stopped.into_iter().collect(), crashes, moves: moves + next.moves }
    }

    fn a_round_later(&mut self, end: usize) -> usize {
        let later = self.ends[end].clone().map(|rest| Rest { rounds: rest.rounds + 1, ..rest });
        let later = self.ends_with(later).end;
        self.later.insert(end, later);
        later
    }

    fn ends_with(&mut self, end: End) -> Fate {
        let number = *self.numbers.entry(end).or_insert_with_key(|end| {
            self.ends.push(end.clone());
            self.ends.len() - 1
        });
        Fate { end: number, stopped: Rc::new([]), crashes: 0, moves: 0 }
    }

    fn at_rest(&self, world: &World) -> End {
        let seen = world.seen_on_disk();
        if seen != world.seen_at_server() || seen != world.seen_in_base() {
            return Err(format!("at rest, but not equal: {world:?}"));
        }
        let mut rest = Rest::default();
        for (index, [top, child]) in self.paths.iter().enumerate() {
            rest.states[index] = match (seen.get(top), seen.get(child)) {
                (None, None) => 0,
                (Some(Some(number)), None) => *number as usize,
                (Some(None), None) => 4,
                (Some(None), Some(Some(number))) => *number as usize + 4,
                _ => 9,
            };
            for (path, number) in seen.iter().filter(|(path, _)| in_conflict_copy(path)) {
                let origin = origin(path);
                let bit = number.map_or(0, |number| 1 << number);
                rest.copied[index] |= origin == *top || origin == *child;
                rest.copies[index][0] |= if origin == *top { bit } else { 0 };
                rest.copies[index][1] |= if origin == *child { bit } else { 0 };
            }
        }
        Ok(rest)
    }

    /// Compares what became of a triple with what was promised.
    fn judge(&mut self, triples: &[Triple], end: usize, when: &str) {
        let end = &self.ends[end];
        let broken = match end {
            Err(why) => Some(why.clone()),
            Ok(rest) if rest.rounds > 2 => Some("more than two rounds".to_owned()),
            Ok(rest) => triples
                .iter()
                .enumerate()
                .find_map(|(index, triple)| broken(triple, rest, index))
                .map(str::to_owned),
        };
        if let Some(why) = broken {
            self.findings.violations += 1;
            let first = || format!("{triples:?}, {when}: {why}: {end:?}");
            self.findings.first.get_or_insert_with(first);
        }
    }
}

/// Which promise is broken for one name.
fn broken(&[disk, server, base]: &Triple, rest: &Rest, index: usize) -> Option<&'static str> {
    let (state, copies) = (rest.states[index], rest.copies[index]);
    let lost = |side: usize| {
        let (place, bit) = match side {
            1..=3 => (0, 1 << side),
            5..=7 => (1, 1 << (side - 4)),
            _ => return false,
        };
        side != base && state != side && copies[place] & bit == 0
    };
    if lost(disk) || lost(server) {
        return Some("new content is lost");
    }
    // Includes deletions that nobody contests.
    for (changed, other) in [(disk, server), (server, disk)] {
        if (other == base || other == changed) && (state != changed || rest.copied[index]) {
            return Some("a change of one side is not mirrored exactly");
        }
    }
    None
}

/// Where a side has a content, if it has it once: name, and whether in a folder.
fn place(triples: &[Triple], number: u32, side: usize) -> Option<(usize, bool)> {
    let number = usize::try_from(number).unwrap();
    let mut places = triples.iter().enumerate().filter_map(|(name, triple)| {
        let in_folder = triple[side] == number + 4;
        (in_folder || triple[side] == number).then_some((name, in_folder))
    });
    places.next().filter(|_| places.next().is_none())
}

/// Whether some file has gone to a new place on the disk or at the server.
fn any_moved(triples: &[Triple]) -> bool {
    let has = |side: usize, (name, in_folder): (usize, bool)| {
        let state = triples[name][side];
        if in_folder { state > 4 } else { state > 0 }
    };
    (1..=3).any(|number| {
        place(triples, number, 2).is_some_and(|from| {
            [0, 1].into_iter().any(|side| {
                place(triples, number, side).is_some_and(|to| !has(2, to) && !has(side, from))
            })
        })
    })
}

/// What a state has at the name, and in it.
fn kinds(state: usize) -> [Option<Kind>; 2] {
    let file = |number| Some(Kind::File(content(u32::try_from(number).unwrap())));
    match state {
        0 => [None, None],
        1..=3 => [file(state), None],
        4 => [Some(Kind::Directory), None],
        _ => [Some(Kind::Directory), file(state - 4)],
    }
}

/// All that a state is, in bytes.
fn key(world: &World) -> Box<[u8]> {
    let mut key = Vec::with_capacity(256);
    let mut add = |path: &RelPath, tree: u8, kind: Option<Kind>, id: &str, ino: u64| {
        let what = match kind {
            None => 9,
            Some(Kind::Directory) => 0,
            Some(Kind::File(content)) => content.sha256.0[3],
        };
        let [a, b, c, d, ..] = ino.to_le_bytes();
        key.extend_from_slice(path.key().as_bytes());
        key.extend_from_slice(&[1, tree, what, a, b, c, d]);
        key.extend_from_slice(id.as_bytes());
    };
    for (path, local) in &world.disk {
        add(path, 1, local.kind(), "", local.stat().map_or(0, |stat| stat.ino));
    }
    for (path, remote) in &world.server {
        add(path, 2, Some(remote.kind), &remote.id, 0);
    }
    for (path, base) in &world.base {
        let ino = base.stat.map_or(0, |stat| stat.ino);
        add(path, 3, Some(base.remote.kind), &base.remote.id, ino);
    }
    key.into()
}

#[expect(clippy::print_stdout, reason = "the figures")]
fn told(what: &str, findings: &Findings) {
    println!(
        "{what}: {} triples, rounds {:?}, {} with conflict copies, {} steps of moves, {} crashes, \
         {} states in all, {} violations",
        findings.triples,
        findings.rounds,
        findings.copies,
        findings.moves,
        findings.crashes,
        findings.states,
        findings.violations
    );
}

#[test]
fn every_triple_of_small_trees_keeps_every_promise() {
    let findings = Proof::new(2, Identity::Place, Planted::None).all();
    told("files that stay", &findings);
    assert_eq!((findings.triples, findings.violations), (262_144, 0), "{:?}", findings.first);
}

#[test]
fn every_triple_with_moved_files_keeps_every_promise() {
    let findings = Proof::new(2, Identity::Content, Planted::None).all();
    told("files that move", &findings);
    assert_eq!(findings.violations, 0, "{:?}", findings.first);
    assert!(findings.triples > 5_000 && findings.moves > 0);
}

/// Small enough to try mistakes on: one name.
fn with(planted: Planted) -> Findings {
    let findings = Proof::new(1, Identity::Place, planted).all();
    told(&format!("{planted:?}"), &findings);
    findings
}

fn notices(planted: Planted, promise: &str) {
    let findings = with(planted);
    let first = findings.first.unwrap();
    assert!(first.contains(promise), "{first}");
}

#[test]
fn the_proof_notices_a_base_that_leads() {
    assert_eq!(with(Planted::None).violations, 0);
    notices(Planted::BaseFirst, "stopped: ");
}

#[test]
fn the_proof_notices_a_missing_conflict_copy() {
    notices(Planted::NoCopy, "new content is lost");
}

#[test]
fn the_proof_notices_an_overwritten_version() {
    notices(Planted::Overwrite, "new content is lost");
}

#[test]
fn the_proof_notices_deletions_that_are_not_followed() {
    notices(Planted::NoDeletion, "not equal");
}

#[test]
fn the_proof_notices_edits_that_are_not_sent() {
    notices(Planted::NothingSent, "not equal");
}

#[test]
fn the_proof_notices_steps_in_the_wrong_order() {
    notices(Planted::Backwards, "cannot");
}

/// `PLANNER_PROOF_TRIPLES`: how many by chance (10,000), or 0 for all 134,217,728 of them, which
/// takes hours. `PLANNER_PROOF_SEED`: where to begin.
#[test]
#[ignore = "by chance or for hours: two names are proven whole at each run"]
fn three_names_keep_every_promise() {
    let (cases, seed) = (asked("PLANNER_PROOF_TRIPLES", 10_000), asked("PLANNER_PROOF_SEED", 1));
    for identity in [Identity::Place, Identity::Content] {
        let mut proof = Proof::new(3, identity, Planted::None);
        let all = STATES.pow(9);
        let mut dice = Dice::new(seed);
        let mut done = BTreeSet::new();
        for case in 0..if cases == 0 { all as u64 } else { cases } {
            let code = if cases == 0 { usize::try_from(case).unwrap() } else { dice.roll(all) };
            if cases == 0 || done.insert(code) {
                proof.one(code);
            }
            if proof.known.len() > 1_000_000 {
                proof.known.clear();
            }
        }
        let findings = proof.findings;
        told(&format!("three names, {identity:?}, seed {seed}"), &findings);
        assert_eq!(findings.violations, 0, "{:?}", findings.first);
    }
}
