//! Trees by chance: nested, with moves, hard links, links and ignored files, steps that fail, and
//! machines that stop half way. Each case follows from its seed.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Seen, World, content, has_effect, local, number, rules};
use super::{Dice, Planted, asked, in_conflict_copy};
use crate::drive_sync::model::{Base, Kind, Local, Opaque, Remote};
use crate::drive_sync::path::RelPath;
use crate::drive_sync::planner::{Access, Most, Rules};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e.txt"];

/// One side's tree while it is changed: what stands at a path, and a number that it keeps when moved.
type Tree = BTreeMap<RelPath, (Kind, u64)>;

struct Case {
    dice: Dice,
    next: u32,
}

/// What was met over all cases.
#[derive(Debug, Default)]
struct Met {
    cases: u64,
    rounds: usize,
    parts: usize,
    longest: usize,
    moves: usize,
    copies: usize,
    stops: usize,
    failures: usize,
}

impl Case {
    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn file(&mut self) -> (Kind, u64) {
        let number = self.fresh();
        (Kind::File(content(number)), u64::from(number))
    }

    fn pick<'a>(&mut self, tree: &'a Tree) -> Option<(&'a RelPath, &'a (Kind, u64))> {
        (!tree.is_empty()).then(|| tree.iter().nth(self.dice.roll(tree.len()))).flatten()
    }

    /// A path where nothing stands, in a folder that is there.
    fn free(&mut self, tree: &Tree) -> Option<RelPath> {
        let folders: Vec<&RelPath> = tree
            .iter()
            .filter(|(path, (kind, _))| kind.is_directory() && path.depth() < 4)
            .map(|(path, _)| path)
            .collect();
        let name = NAMES[self.dice.roll(NAMES.len())];
        let path = match self.dice.roll(folders.len() + 1) {
            0 => RelPath::parse(name),
            folder => folders[folder - 1].join(name),
        };
        path.ok().filter(|path| !tree.contains_key(path))
    }

    /// One change, as a person or a program makes it.
    fn change(&mut self, tree: &mut Tree) {
        match self.dice.roll(12) {
            0..3 => {
                let Some(path) = self.free(tree) else { return };
                let entry = match self.dice.roll(3) {
                    0 => (Kind::Directory, u64::from(self.fresh())),
                    _ => self.file(),
                };
                tree.insert(path, entry);
            }
            3..5 => {
                let Some((path, &(kind, id))) = self.pick(tree) else { return };
                if kind.is_directory() {
                    return;
                }
                // In place, or saved under another name and renamed.
                let path = path.clone();
                let (kind, new) = self.file();
                let id = if self.dice.roll(2) == 0 { id } else { new };
                tree.insert(path, (kind, id));
            }
            5..7 => {
                let Some((path, _)) = self.pick(tree) else { return };
                let path = path.clone();
                tree.retain(|other, _| *other != path && !other.is_inside(&path));
            }
            7..10 => self.move_one(tree),
            10 => {
                // A file in the place of a folder, or the other way round.
                let Some((path, &(kind, _))) = self.pick(tree) else { return };
                let path = path.clone();
                tree.retain(|other, _| !other.is_inside(&path));
                let entry = match kind {
                    Kind::Directory => self.file(),
                    Kind::File(_) => (Kind::Directory, u64::from(self.fresh())),
                };
                tree.insert(path, entry);
            }
            _ => {
                // The same content a second time.
                let Some((_, &(kind, _))) = self.pick(tree) else { return };
                let Some(path) = self.free(tree) else { return };
                let id = u64::from(self.fresh());
                tree.insert(path, (kind, id));
            }
        }
    }

    fn move_one(&mut self, tree: &mut Tree) {
        let Some((from, _)) = self.pick(tree) else { return };
        let from = from.clone();
        let Some(to) = self.free(tree) else { return };
        if to.is_inside(&from) {
            return;
        }
        let moved: Vec<RelPath> =
            tree.keys().filter(|path| **path == from || path.is_inside(&from)).cloned().collect();
        for path in moved {
            let entry = tree.remove(&path).unwrap();
            tree.insert(path.rebased(&from, &to).unwrap(), entry);
        }
    }

    /// A hard link, or something that takes no part.
    fn add_to_disk(&mut self, disk: &mut Tree, world: &mut World) {
        match self.dice.roll(4) {
            0 => {
                let Some((_, &(kind, ino))) = self.pick(disk) else { return };
                let Some(path) = self.free(disk) else { return };
                if !kind.is_directory() {
                    disk.insert(path, (kind, ino));
                }
            }
            1 => {
                let Some(path) = self.free(disk) else { return };
                let why = [Opaque::Ignored, Opaque::Symlink][self.dice.roll(2)];
                // One name of its own, so that nobody else comes to the place.
                let Ok(path) = path.with_name(&format!("{why:?}")) else { return };
                world.disk.insert(path, Local::Opaque(why));
            }
            _ => {}
        }
    }

    /// Three trees that have gone apart. Says whether each side changed.
    fn world(&mut self) -> (World, [bool; 2]) {
        let mut tree = Tree::new();
        for _ in 0..4 + self.dice.roll(20) {
            self.change(&mut tree);
        }
        let mut world = World { counter: Some(1 << 32), ..World::default() };
        for (path, &(kind, id)) in &tree {
            let remote = remote(kind, id);
            let stat = local(kind, id).stat().copied();
            world.base.insert(path.clone(), Base { remote, stat });
        }
        let mut disk = tree.clone();
        let mut server = tree.clone();
        let changed = [self.dice.roll(6) > 0, self.dice.roll(6) > 0];
        let mut opaque = World::default();
        if changed[0] {
            for _ in 0..=self.dice.roll(8) {
                self.change(&mut disk);
            }
            self.add_to_disk(&mut disk, &mut opaque);
        }
        if changed[1] {
            for _ in 0..=self.dice.roll(8) {
                self.change(&mut server);
            }
        }
        let entries = disk.iter().map(|(path, &(kind, id))| (path.clone(), local(kind, id)));
        world.disk.extend(entries);
        world.disk.extend(opaque.disk);
        let entries = server.iter().map(|(path, &(kind, id))| (path.clone(), remote(kind, id)));
        world.server.extend(entries);
        (world, changed)
    }
}

fn remote(kind: Kind, id: u64) -> Remote {
    let version = kind.content().map_or(0, number);
    Remote { id: format!("e{id}"), version: format!("v{version}"), kind }
}

/// One case. `Err` says which promise was broken.
fn run(seed: u64, planted: Planted, met: &mut Met) -> Result<(), String> {
    let mut case = Case { dice: Dice::new(seed), next: 0 };
    let (start, changed) = case.world();
    let rules = rules(Access::Write);
    let most = match seed % 4 {
        0 => Most::ALL,
        some => Most { here: usize::try_from(some).unwrap(), there: 2 },
    };
    let mut world = start.clone();
    let (troubles, failures) = (case.dice.roll(3), met.failures);
    for _ in 0..troubles {
        trouble(&mut world, &mut case.dice, (&rules, most), planted, met);
    }
    met.cases += 1;
    let (mut rounds, mut parts) = (0, 0);
    loop {
        let (mut plan, mut is_part) = world.plan_some(&rules, most);
        if plan.steps.is_empty() && is_part {
            (plan, is_part) = (world.plan(&rules), false);
        }
        planted.spoil(&mut plan, &world);
        if plan.steps.is_empty() {
            met.longest = met.longest.max(rounds);
            break;
        }
        if rounds == 4 || parts == 100 {
            return Err(format!("no rest: {plan:?}"));
        }
        (rounds, parts) = if is_part { (rounds, parts + 1) } else { (rounds + 1, parts) };
        met.rounds += 1;
        met.parts += usize::from(is_part);
        met.moves += plan.steps.iter().filter(|step| is_move(step)).count();
        for step in &plan.steps {
            world.effect(step)?;
            world.record(step);
        }
    }
    met.copies += world.disk.keys().filter(|path| in_conflict_copy(path)).count();
    judge(&start, &world, changed, met.failures > failures)
}

fn is_move(step: &crate::drive_sync::plan::Step) -> bool {
    use crate::drive_sync::plan::Action;
    matches!(step.action, Action::MoveLocal { .. } | Action::MoveRemote { .. })
}

/// A round in which steps fail, and the machine may stop after one, before the base knows of it.
fn trouble(
    world: &mut World,
    dice: &mut Dice,
    (rules, most): (&Rules, Most),
    planted: Planted,
    met: &mut Met,
) {
    let (mut plan, _) = world.plan_some(rules, most);
    planted.spoil(&mut plan, world);
    let stop = dice.roll(plan.steps.len() + 3);
    for (index, step) in plan.steps.iter().enumerate() {
        let unlucky = dice.roll(8) == 0;
        let before = world.clone();
        if unlucky || world.effect(step).is_err() {
            met.failures += 1;
            continue;
        }
        if index == stop && has_effect(step) {
            if planted == Planted::BaseFirst {
                world.record(step);
                *world = World { base: world.base.clone(), ..before };
            }
            met.stops += 1;
            return;
        }
        met.moves += usize::from(is_move(step));
        world.record(step);
    }
}

/// Which promise is broken.
fn judge(start: &World, end: &World, changed: [bool; 2], failed: bool) -> Result<(), String> {
    let seen = end.seen_on_disk();
    let synced: Seen = seen.iter().filter(|(path, _)| !untracked(end, path)).map(own).collect();
    if synced != end.seen_at_server() || synced != end.seen_in_base() {
        return Err(format!("at rest, but not equal: {end:?}"));
    }
    let (disk, server, base) = (start.seen_on_disk(), start.seen_at_server(), start.seen_in_base());
    let left: BTreeSet<u32> = seen.values().copied().flatten().collect();
    for (path, written) in disk.iter().chain(&server) {
        if let Some(written) = written
            && base.get(path) != Some(&Some(*written))
            && !left.contains(written)
        {
            return Err(format!("{path}: content {written} is lost"));
        }
    }
    for (gone, other) in [(&disk, &server), (&server, &disk)] {
        let has: BTreeSet<u32> = gone.values().copied().flatten().collect();
        let place = |tree: &Seen, number: u32| -> Vec<RelPath> {
            let paths = tree.iter().filter(|(_, content)| **content == Some(number));
            paths.map(|(path, _)| path.clone()).collect()
        };
        for number in base.values().copied().flatten().filter(|number| !has.contains(number)) {
            let untouched = place(&base, number) == place(other, number);
            // A deletion that failed may leave its file in a folder that is then renamed.
            let copied = failed && place(&seen, number).iter().all(in_conflict_copy);
            if untouched && left.contains(&number) && !copied {
                return Err(format!("content {number} was deleted, and is there again"));
            }
        }
    }
    let opaque = start.disk.values().any(|local| matches!(local, Local::Opaque(_)));
    match changed {
        [_, false] if synced_start(start) != synced => Err("the disk is not mirrored".to_owned()),
        [false, true] if server != seen => Err("the server is not mirrored".to_owned()),
        _ if !opaque && disk == server && disk != seen => {
            Err("equal sides have changed".to_owned())
        }
        _ => Ok(()),
    }
}

fn own<'a>((path, content): (&'a RelPath, &'a Option<u32>)) -> (RelPath, Option<u32>) {
    (path.clone(), *content)
}

/// What the disk would have synced at the beginning.
fn synced_start(start: &World) -> Seen {
    start.seen_on_disk().iter().filter(|(path, _)| !untracked(start, path)).map(own).collect()
}

/// A folder that the server does not have, with nothing but ignored files in it.
fn untracked(world: &World, path: &RelPath) -> bool {
    let mut inside = world.disk.iter().filter(|(other, _)| other.is_inside(path)).peekable();
    world.server.get(path).is_none_or(|there| !there.kind.is_directory())
        && matches!(world.disk[path], Local::Directory { .. })
        && inside.peek().is_some()
        && inside.all(|(other, local)| match local {
            Local::Opaque(why) => *why == Opaque::Ignored,
            Local::File { .. } => false,
            Local::Directory { .. } => untracked(world, other),
        })
}

fn cases(from: u64, count: u64, planted: Planted) -> (Met, Option<String>) {
    let mut met = Met::default();
    for seed in from..from + count {
        if let Err(why) = run(seed, planted, &mut met) {
            let again = "PLANNER_PROOF_CASES=1 cargo test --lib random_trees -- --nocapture";
            return (met, Some(format!("PLANNER_PROOF_SEED={seed} {again}\n{why}")));
        }
    }
    (met, None)
}

/// `PLANNER_PROOF_CASES`: how many; `PLANNER_PROOF_SEED`: the first.
#[test]
#[expect(clippy::print_stdout, reason = "the figures")]
fn random_trees_keep_every_promise() {
    let (from, count) = (asked("PLANNER_PROOF_SEED", 1), asked("PLANNER_PROOF_CASES", 3_000));
    let (met, broken) = cases(from, count, Planted::None);
    println!("seeds from {from}: {met:?}");
    if let Some(broken) = broken {
        panic!("{broken}");
    }
}

#[test]
fn random_trees_notice_every_mistake() {
    for planted in [
        Planted::BaseFirst,
        Planted::NoCopy,
        Planted::Overwrite,
        Planted::NoDeletion,
        Planted::NothingSent,
        Planted::Backwards,
    ] {
        assert!(cases(1, 3_000, planted).1.is_some(), "{planted:?}");
    }
}
