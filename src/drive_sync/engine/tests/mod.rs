//! What a tick does, and what it does not, when disk, server or engine fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::drive_sync::model::Kind;
use crate::drive_sync::plan::Blocked;
use crate::drive_sync::planner::Row as _;
use crate::drive_sync::ports::Root;

mod answers;
mod feed;
mod waiting;
mod world;

use world::{Outside, path};

type TestEngine = Engine<Outside, Outside, Outside, Outside>;

fn engine(outside: &Outside, state: State) -> TestEngine {
    let settings = Settings::new("drive", "vm");
    engine_with(outside, state, settings)
}

fn engine_with(outside: &Outside, state: State, settings: Settings) -> TestEngine {
    let all = || outside.clone();
    Engine::new(state, all(), all(), all(), all(), settings)
}

fn fresh(outside: &Outside) -> TestEngine {
    engine(outside, State::in_memory().unwrap())
}

/// Ticks until nothing is left; panics when that takes long.
fn settle(engine: &mut TestEngine) -> Vec<Tick> {
    let mut ticks = Vec::new();
    for _ in 0..20 {
        let tick = engine.tick(&Look::everywhere()).unwrap();
        let rests = tick.at_rest;
        ticks.push(tick);
        if rests {
            return ticks;
        }
    }
    panic!("no rest: {ticks:#?}");
}

fn agreed(engine: &TestEngine) -> BTreeSet<String> {
    let mut trees = engine.state().trees().unwrap();
    let (_, base) = trees.both().unwrap();
    base.and_then(|row| row.path()).map(|path| path.unwrap().to_string()).collect()
}

/// Disk, server and base are the same, and nothing waits for an answer.
fn assert_equal(outside: &Outside, engine: &TestEngine) {
    let world = outside.world();
    assert_eq!(world.disk(), world.server());
    let paths: BTreeSet<String> = world.disk().into_keys().collect();
    assert_eq!(agreed(engine), paths);
    assert_eq!(engine.state().intents().unwrap(), []);
}

fn tree(entries: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
    entries.iter().map(|(at, bytes)| ((*at).to_owned(), bytes.map(str::to_owned))).collect()
}

/// A drive with something of both sides, in step.
fn in_step() -> (Outside, TestEngine) {
    let outside = Outside::new();
    {
        let mut world = outside.world();
        for at in ["here/a", "here/b", "here/c", "edit", "drop", "lost", "moved"] {
            world.write(at, at);
        }
        for at in ["there/a", "there/b", "there/c"] {
            world.put(at, Some(at));
        }
    }
    let mut engine = fresh(&outside);
    settle(&mut engine);
    assert_equal(&outside, &engine);
    outside.world().calls.clear();
    (outside, engine)
}

/// One of everything that two sides can do without getting into each other's way.
fn changes_on_both_sides(outside: &Outside) {
    let mut world = outside.world();
    world.write("edit", "edited here");
    world.write("new/deep/file", "new here");
    world.remove("drop");
    world.remove("here/c");
    world.rename("moved", "here/moved");
    world.put("there/a", Some("edited there"));
    world.put("more/deep/file", Some("new there"));
    world.drop_there("lost");
    world.move_there("there/b", "there/z");
}

fn after_changes() -> BTreeMap<String, Option<String>> {
    tree(&[
        ("edit", Some("edited here")),
        ("here", None),
        ("here/a", Some("here/a")),
        ("here/b", Some("here/b")),
        ("here/moved", Some("moved")),
        ("more", None),
        ("more/deep", None),
        ("more/deep/file", Some("new there")),
        ("new", None),
        ("new/deep", None),
        ("new/deep/file", Some("new here")),
        ("there", None),
        ("there/a", Some("edited there")),
        ("there/c", Some("there/c")),
        ("there/z", Some("there/b")),
    ])
}

#[test]
fn both_sides_get_what_the_other_has_and_then_only_the_feed_is_asked() {
    let (outside, mut engine) = in_step();
    let tick = engine.tick(&Look::at(BTreeSet::new())).unwrap();
    assert!(tick.at_rest && !tick.more);
    assert_eq!(outside.world().calls, ["free", "root", "changes"]);
}

#[test]
fn each_change_is_carried_to_the_other_side_as_what_it_is() {
    let (outside, mut engine) = in_step();
    changes_on_both_sides(&outside);
    outside.world().sent.clear();
    let first = settle(&mut engine).remove(0);
    assert_equal(&outside, &engine);
    assert_eq!(outside.world().disk(), after_changes());
    let done = first.done;
    assert_eq!((done.sent, done.fetched, done.moved_there, done.moved_here), (2, 2, 1, 1));
    assert_eq!((done.deleted_here, done.deleted_there), (1, 2));
    assert_eq!(outside.world().trash, ["lost"]);
    assert_eq!(first.conflicts, []);
}

#[test]
fn the_engine_may_be_stopped_at_every_call_and_goes_on_from_there() {
    let (outside, mut engine) = in_step();
    changes_on_both_sides(&outside);
    settle(&mut engine);
    let calls = outside.world().calls.len();
    assert!(calls > 30, "{calls}");
    for at in 1..=calls {
        let (outside, mut engine) = in_step();
        changes_on_both_sides(&outside);
        outside.world().sent.clear();
        outside.world().stop_at = Some(at);
        while let Ok(tick) = engine.tick(&Look::everywhere()) {
            assert!(!tick.at_rest, "stopped at {at}");
        }
        let stopped = engine.tick(&Look::everywhere());
        assert!(matches!(stopped, Err(TickError::Stopped)), "{stopped:?}");
        outside.world().stop_at = None;
        let mut engine = self::engine(&outside, engine.into_state());
        settle(&mut engine);
        assert_equal(&outside, &engine);
        let mut world = outside.world();
        assert_eq!(world.disk(), after_changes(), "stopped at {at}");
        world.sent.sort();
        assert_eq!(world.sent, ["edit", "new/deep/file"], "sent once, stopped at {at}");
    }
}

#[test]
fn nothing_is_done_while_the_root_is_not_the_one_that_it_was() {
    let (outside, mut engine) = in_step();
    let root = outside.world().marker.clone().unwrap();
    let others = [
        None,
        Some(Root { ino: 9, ..root.clone() }),
        Some(Root { dev: 9, ..root.clone() }),
        Some(Root { marker: "other".to_owned(), ..root.clone() }),
        Some(Root { drive_id: "other".to_owned(), ..root.clone() }),
    ];
    let before = outside.world().server();
    for other in others {
        let mut world = outside.world();
        world.marker = other;
        for at in ["here", "edit", "drop", "lost", "moved", "there"] {
            world.remove(at);
        }
        world.calls.clear();
        drop(world);
        let error = engine.tick(&Look::everywhere()).unwrap_err();
        assert!(matches!(error, TickError::RootLost(_)), "{error}");
        assert_eq!(outside.world().calls, ["free", "root"]);
    }
    assert_eq!(outside.world().server(), before);
    // A person says that the emptied folder is the right one: it is filled again.
    outside.world().marker = Some(Root { ino: 10, ..root });
    engine.accept_root().unwrap();
    settle(&mut engine);
    assert_eq!(outside.world().server(), before);
    assert_equal(&outside, &engine);
}

#[test]
fn a_disk_that_has_another_number_after_a_restart_is_the_same_disk() {
    let (outside, engine) = in_step();
    let root = outside.world().marker.clone().unwrap();
    let start = |state, start: &str| {
        let settings = Settings { start: start.to_owned(), ..Settings::new("drive", "vm") };
        engine_with(&outside, state, settings)
    };
    let mut engine = start(engine.into_state(), "first");
    engine.tick(&Look::everywhere()).unwrap();
    // In the same start it is another mount.
    outside.world().marker = Some(Root { dev: 9, ..root.clone() });
    let lost = |engine: &mut TestEngine| {
        let error = engine.tick(&Look::everywhere()).unwrap_err();
        assert!(matches!(error, TickError::RootLost(_)), "{error}");
    };
    lost(&mut engine);
    let mut engine = start(engine.into_state(), "first");
    lost(&mut engine);
    // After another start it is still one if anything else is another.
    for other in [
        None,
        Some(Root { dev: 9, ino: 9, ..root.clone() }),
        Some(Root { dev: 9, marker: "other".to_owned(), ..root.clone() }),
        Some(Root { dev: 9, drive_id: "other".to_owned(), ..root.clone() }),
    ] {
        outside.world().marker = other;
        engine = start(engine.into_state(), "second");
        lost(&mut engine);
    }
    outside.world().marker = Some(Root { dev: 9, ..root.clone() });
    let mut engine = start(engine.into_state(), "second");
    let tick = engine.tick(&Look::everywhere()).unwrap();
    assert!(tick.at_rest && tick.done.effects() == 0, "{tick:?}");
    // And from then on no other one.
    outside.world().marker = Some(root);
    lost(&mut engine);
}

#[test]
fn a_drive_that_turns_out_to_be_read_only_is_still_fetched() {
    let (outside, mut engine) = in_step();
    {
        let mut world = outside.world();
        world.read_only = true;
        world.write("edit", "mine");
        world.put("more", Some("more"));
    }
    assert!(engine.tick(&Look::everywhere()).unwrap().read_only);
    let tick = engine.tick(&Look::everywhere()).unwrap();
    assert!(tick.blocked.contains(&(path("edit"), Blocked::ReadOnly)), "{tick:?}");
    assert_eq!(tick.failed, []);
    assert!(outside.world().disk().contains_key("more"));
    outside.world().read_only = false;
    engine.set_access(Access::Write);
    settle(&mut engine);
    assert_equal(&outside, &engine);
}

#[test]
fn without_access_everything_stays_as_it_is() {
    let (outside, mut engine) = in_step();
    outside.world().no_access = true;
    outside.world().write("edit", "mine");
    let before = outside.world().disk();
    let error = engine.tick(&Look::everywhere()).unwrap_err();
    assert!(matches!(error, TickError::AccessLost));
    assert_eq!(outside.world().disk(), before);
    outside.world().no_access = false;
    // What the failed tick was to look at is not forgotten.
    assert_eq!(engine.tick(&Look::at(BTreeSet::new())).unwrap().done.sent, 1);
}

#[test]
fn what_is_not_on_the_disk_for_good_is_not_agreed_on() {
    let (outside, mut engine) = in_step();
    {
        let mut world = outside.world();
        world.volatile = true;
        world.write("edit", "the same");
        world.put("edit", Some("the same"));
        world.write("new", "new");
        world.rename("moved", "renamed");
    }
    engine.tick(&Look::everywhere()).unwrap();
    let before = engine.state().remembered().unwrap();
    assert!(agreed(&engine).contains("moved") && !agreed(&engine).contains("new"));
    assert_eq!(before[&path("edit")].kind(), Some(Kind::File(world::content("edit"))));
    outside.world().volatile = false;
    settle(&mut engine);
    assert_equal(&outside, &engine);
}

#[test]
fn a_lost_state_is_a_first_sync_that_keeps_both_sides() {
    let (outside, _) = in_step();
    outside.world().write("edit", "mine");
    outside.world().remove("drop");
    let mut engine = fresh(&outside);
    let ticks = settle(&mut engine);
    assert_equal(&outside, &engine);
    let disk = outside.world().disk();
    assert!(disk.contains_key("drop"), "what one side has is not taken for deleted");
    assert!(disk.values().any(|bytes| bytes.as_deref() == Some("mine")));
    assert_eq!(ticks.iter().map(|tick| tick.conflicts.len()).sum::<usize>(), 1);
}
