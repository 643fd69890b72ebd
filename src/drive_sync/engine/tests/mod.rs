//! What a tick does, and what it does not, when disk, server or engine fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::drive_sync::model::Kind;
use crate::drive_sync::plan::Blocked;
use crate::drive_sync::ports::Root;

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
    base.map(|row| row.unwrap().0.to_string()).collect()
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
fn a_lost_answer_is_asked_for_again_and_not_sent_again() {
    let (outside, mut engine) = in_step();
    changes_on_both_sides(&outside);
    outside.world().sent.clear();
    let mut losses = 0;
    for _ in 0..40 {
        outside.world().lose_answers = 1;
        match engine.tick(&Look::everywhere()) {
            Ok(tick) if tick.at_rest => break,
            Ok(_) => {}
            Err(TickError::Unavailable { retry_in, .. }) => {
                assert!(retry_in >= Duration::from_millis(500));
                losses += 1;
            }
            Err(error) => panic!("{error}"),
        }
        // Edited again before the answer is known: no reason for a conflict.
        if losses == 1 {
            outside.world().write("edit", "edited again");
        }
    }
    assert!(losses >= 2);
    outside.world().lose_answers = 0;
    settle(&mut engine);
    assert_equal(&outside, &engine);
    let world = outside.world();
    assert_eq!(world.disk()["edit"].as_deref(), Some("edited again"));
    assert!(world.disk().keys().all(|at| !at.contains("conflict")), "{:?}", world.disk());
    assert_eq!(world.sent.iter().filter(|at| *at == "new/deep/file").count(), 1);
}

#[test]
fn a_file_that_is_edited_before_the_lost_answer_is_known_is_no_conflict() {
    let (outside, mut engine) = in_step();
    outside.world().write("edit", "first");
    outside.world().lose_answers = 1;
    let error = engine.tick(&Look::everywhere()).unwrap_err();
    assert!(matches!(error, TickError::Unavailable { .. }), "{error}");
    outside.world().write("edit", "second");
    let ticks = settle(&mut engine);
    assert_eq!(ticks[0].done.recalled, 1);
    assert!(ticks.iter().all(|tick| tick.conflicts.is_empty()), "{ticks:#?}");
    assert_equal(&outside, &engine);
    assert_eq!(outside.world().disk()["edit"].as_deref(), Some("second"));
}

#[test]
fn a_rival_version_makes_a_conflict_copy_and_nothing_is_lost() {
    let (outside, mut engine) = in_step();
    outside.world().write("edit", "mine");
    outside.world().rival = Some(("edit".to_owned(), "theirs".to_owned()));
    let ticks = settle(&mut engine);
    assert!(ticks[0].more, "planned again at once");
    assert_eq!(ticks.iter().map(|tick| tick.conflicts.len()).sum::<usize>(), 1);
    assert_equal(&outside, &engine);
    let disk = outside.world().disk();
    assert_eq!(disk["edit"].as_deref(), Some("theirs"));
    let copy = disk.iter().find(|(at, _)| at.contains("conflict vm")).unwrap();
    assert_eq!(copy.1.as_deref(), Some("mine"));
}

#[test]
fn a_forgotten_feed_is_made_up_for_by_a_list_and_an_unfinished_one_deletes_nothing() {
    let (outside, engine) = in_step();
    let settings = Settings { max_batches: 1, ..Settings::new("drive", "vm") };
    {
        let mut world = outside.world();
        world.drop_there("lost");
        world.put("more", Some("more"));
        world.forget_feed();
    }
    let mut engine = engine_with(&outside, engine.into_state(), settings.clone());
    let mut listing = 0;
    loop {
        let tick = engine.tick(&Look::everywhere()).unwrap();
        if !tick.resyncing {
            break;
        }
        assert!(tick.more && tick.done == Done::default());
        listing += 1;
        // A restart in the middle goes on with the list.
        engine = engine_with(&outside, engine.into_state(), settings.clone());
    }
    assert!(listing > 3, "{listing}");
    settle(&mut engine);
    assert_equal(&outside, &engine);
    let world = outside.world();
    assert_eq!(world.trash, ["lost"]);
    assert!(world.disk().contains_key("more"));
    let pages = world.calls.iter().filter(|call| **call == "snapshot").count();
    assert_eq!(pages, world.server().len().div_ceil(2));
}

/// What is known of the server is old by then, or not whole: a plan made of it would send what is
/// there already, and take for new what is only not listed yet.
#[test]
fn nothing_is_done_while_a_list_is_on_its_way() {
    let settings = Settings { max_batches: 1, ..Settings::new("drive", "vm") };
    let (known, engine) = in_step();
    changes_on_both_sides(&known);
    known.world().forget_feed();
    let first = Outside::new();
    for at in ["a", "b", "c", "d", "e", "f"] {
        first.world().put(at, Some("theirs"));
        first.world().write(at, "mine");
    }
    for (outside, state) in [(known, engine.into_state()), (first, State::in_memory().unwrap())] {
        let mut engine = engine_with(&outside, state, settings.clone());
        let before = {
            let world = outside.world();
            (world.disk(), world.server())
        };
        let mut listing = 0;
        while engine.tick(&Look::everywhere()).unwrap().resyncing {
            listing += 1;
            let world = outside.world();
            let changing = ["send", "apply", "fetch", "stage", "install", "rename", "delete"];
            let done: Vec<_> = changing.iter().filter(|call| world.calls.contains(call)).collect();
            assert!(done.is_empty(), "{done:?} in tick {listing}");
            assert_eq!((world.disk(), world.server()), before);
        }
        assert!(listing > 2, "{listing}");
        settle(&mut engine);
        assert_equal(&outside, &engine);
    }
}

#[test]
fn a_restored_server_gets_back_what_it_has_lost_and_nothing_is_deleted() {
    for epoch in ["one", "two"] {
        let (outside, mut engine) = in_step();
        let before = outside.world().disk();
        {
            let mut world = outside.world();
            world.never_had("edit");
            world.never_had("there/a");
            world.head = 1;
            world.epoch = epoch.to_owned();
            world.forget_feed();
            world.forgotten = 0;
        }
        settle(&mut engine);
        assert_equal(&outside, &engine);
        assert_eq!(outside.world().disk(), before);
        assert_eq!(outside.world().trash, Vec::<String>::new());
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
fn many_deletions_wait_for_a_word_and_the_word_is_for_them_only() {
    let outside = Outside::new();
    for at in 0..12 {
        outside.world().write(&format!("file {at}"), "x");
    }
    let mut engine = fresh(&outside);
    settle(&mut engine);
    for at in 0..12 {
        outside.world().drop_there(&format!("file {at}"));
    }
    outside.world().write("new", "goes on meanwhile");
    for _ in 0..3 {
        let tick = engine.tick(&Look::everywhere()).unwrap();
        assert!(tick.held.is_some() && !tick.at_rest);
    }
    assert_eq!(outside.world().disk().len(), 13);
    assert!(outside.world().server().contains_key("new"));
    engine.release_deletions().unwrap();
    settle(&mut engine);
    assert_equal(&outside, &engine);
    assert_eq!(outside.world().disk().len(), 1);
    assert!(!engine.state().deletions_released().unwrap());
}

#[test]
fn a_refused_file_waits_alone_and_is_tried_again_when_it_is_due_or_another() {
    let (outside, mut engine) = in_step();
    {
        let mut world = outside.world();
        world.write("edit", "too large");
        world.write("fine", "fine");
        world.refused.insert("edit".to_owned());
        world.sent.clear();
    }
    let tick = engine.tick(&Look::everywhere()).unwrap();
    assert_eq!(tick.failed.len(), 1);
    assert_eq!(tick.failed[0].0, path("edit"));
    assert_eq!((tick.waiting, tick.retry_in), (1, Some(Duration::from_secs(25))));
    assert!(!tick.more, "it has to wait");
    outside.world().refused.clear();
    let none = Look::at(BTreeSet::new());
    outside.world().now = Duration::from_secs(24);
    let tick = engine.tick(&none).unwrap();
    assert_eq!((tick.done.sent, tick.at_rest), (0, false));
    outside.world().now = Duration::from_secs(25);
    assert_eq!(engine.tick(&none).unwrap().done.sent, 1);
    settle(&mut engine);
    assert_equal(&outside, &engine);
}

#[test]
fn what_was_refused_is_tried_again_when_somebody_touches_it_or_its_folder_or_asks() {
    let touch_file: fn(&mut TestEngine) = |engine| look_at(engine, "folder/edit");
    let touch_folder: fn(&mut TestEngine) = |engine| look_at(engine, "folder");
    let ask: fn(&mut TestEngine) = |engine| {
        engine.request_resync().unwrap();
        engine.tick(&Look::everywhere()).unwrap();
    };
    for again in [touch_file, touch_folder, ask] {
        let (outside, mut engine) = in_step();
        {
            let mut world = outside.world();
            world.write("folder/edit", "refused");
            world.refused.insert("folder/edit".to_owned());
        }
        settle_but(&mut engine, 1);
        outside.world().refused.clear();
        look_at(&mut engine, "other");
        assert!(!outside.world().server().contains_key("folder/edit"), "it waits");
        again(&mut engine);
        settle(&mut engine);
        assert_equal(&outside, &engine);
        assert!(outside.world().server().contains_key("folder/edit"));
    }
}

#[test]
fn what_was_fetched_before_a_kill_is_no_edit_when_the_server_has_gone_on_meanwhile() {
    let (outside, mut engine) = in_step();
    // Known, and not fetched yet.
    outside.world().free = 100 << 20;
    outside.world().put("edit", Some("second"));
    engine.tick(&Look::at(BTreeSet::new())).unwrap();
    {
        let mut world = outside.world();
        world.free = 1 << 40;
        // It came to the disk, and the engine was killed before it could note that.
        world.write("edit", "second");
        world.put("edit", Some("third"));
    }
    let mut engine = self::engine(&outside, engine.into_state());
    let ticks = settle(&mut engine);
    assert_equal(&outside, &engine);
    assert_eq!(outside.world().disk()["edit"].as_deref(), Some("third"));
    assert!(ticks.iter().all(|tick| tick.conflicts.is_empty()));
}

fn look_at(engine: &mut TestEngine, place: &str) {
    engine.tick(&Look::at(BTreeSet::from([path(place)]))).unwrap();
}

/// Until so many entries wait, and nothing else is to be done.
fn settle_but(engine: &mut TestEngine, waiting: usize) {
    let tick = engine.tick(&Look::everywhere()).unwrap();
    assert_eq!((tick.waiting, tick.more), (waiting, false), "{tick:?}");
}

#[test]
fn a_first_copy_goes_in_parts_and_what_is_refused_does_not_stop_it() {
    let outside = Outside::new();
    for number in 0..5 {
        outside.world().write(&format!("here {number}"), "here");
        outside.world().put(&format!("there {number}"), Some("there"));
    }
    outside.world().refused = ["here 0", "here 1"].map(str::to_owned).into();
    let mut settings = Settings::new("drive", "vm");
    settings.window = 2;
    let mut engine = engine_with(&outside, State::in_memory().unwrap(), settings);
    let first = engine.tick(&Look::everywhere()).unwrap();
    assert_eq!((first.done.sent, first.done.fetched, first.more), (0, 2, true));
    assert_eq!((first.planned.uploads, first.planned.downloads), (5, 5), "all of it is told");
    let mut last = first;
    for _ in 0..20 {
        if !last.more {
            break;
        }
        last = engine.tick(&Look::at(BTreeSet::new())).unwrap();
    }
    assert_eq!((last.waiting, last.at_rest, last.more), (2, false, false));
    assert_eq!(outside.world().server().len(), 8);
    outside.world().refused.clear();
    outside.world().now = Duration::from_secs(25);
    settle(&mut engine);
    assert_equal(&outside, &engine);
}

/// What is missing may be what is unread: by another name, or grown.
#[test]
fn nothing_is_deleted_at_the_server_while_a_file_is_unread_and_a_word_for_it_waits() {
    let outside = Outside::new();
    outside.world().write("old", "moved");
    outside.world().write("gone", "gone");
    let mut settings = Settings::new("drive", "vm");
    settings.window = 2;
    let mut engine = engine_with(&outside, State::in_memory().unwrap(), settings);
    settle(&mut engine);
    {
        let mut world = outside.world();
        world.rename("old", "new");
        world.remove("gone");
        world.unread = ["new".to_owned()].into();
        for number in 0..5 {
            world.write(&format!("here {number}"), "here");
            world.put(&format!("there {number}"), Some("there"));
        }
    }
    engine.release_deletions().unwrap();
    let mut look = Look::everywhere();
    for _ in 0..10 {
        let tick = engine.tick(&look).unwrap();
        let other = tick.done.effects() - tick.done.fetched - tick.done.sent;
        assert_eq!((tick.at_rest, tick.more, other), (false, true, 0));
        look = Look::at(BTreeSet::new());
    }
    let server = outside.world().server();
    assert_eq!(server.len(), 12, "{server:?}");
    assert!(engine.state().deletions_released().unwrap());
    outside.world().unread.clear();
    let ticks = settle(&mut engine);
    let sum = |of: fn(&Done) -> usize| ticks.iter().map(|tick| of(&tick.done)).sum::<usize>();
    assert_eq!((sum(|done| done.moved_there), sum(Done::deletions)), (1, 1));
    assert_equal(&outside, &engine);
    assert!(!engine.state().deletions_released().unwrap());
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
fn little_space_stops_downloads_and_less_stops_everything() {
    let (outside, mut engine) = in_step();
    outside.world().put("large", Some("larger than the room that is left"));
    outside.world().put("small", Some("fits"));
    outside.world().write("edit", "mine");
    outside.world().free = (250 << 20) + 10;
    let tick = engine.tick(&Look::everywhere()).unwrap();
    assert_eq!((tick.done.fetched, tick.done.sent), (1, 1));
    assert_eq!(tick.short_of_space, Some((250 << 20) + 10));
    assert!(!tick.more && !tick.at_rest);
    outside.world().free = 50 << 20;
    outside.world().write("edit", "mine again");
    let tick = engine.tick(&Look::everywhere()).unwrap();
    assert_eq!((tick.done.fetched, tick.done.sent), (0, 1));
    outside.world().free -= 1;
    let error = engine.tick(&Look::everywhere()).unwrap_err();
    assert!(matches!(error, TickError::NoSpace { .. }));
    outside.world().free = u64::MAX;
    settle(&mut engine);
    assert_equal(&outside, &engine);
}

/// However often, what did not fit comes as soon as there is room, and not hours later.
#[test]
fn a_disk_that_is_full_all_of_a_sudden_is_waited_for_like_any_other() {
    let (outside, mut engine) = in_step();
    outside.world().put("new", Some("comes when there is room"));
    for _ in 0..10 {
        outside.world().filled = Some(100 << 20);
        let tick = engine.tick(&Look::everywhere()).unwrap();
        assert_eq!((tick.done.fetched, tick.short_of_space), (0, Some(100 << 20)));
        assert!(!tick.at_rest);
        outside.world().free = u64::MAX;
    }
    outside.world().filled = None;
    assert_eq!(engine.tick(&Look::everywhere()).unwrap().done.fetched, 1);
    settle(&mut engine);
    assert_equal(&outside, &engine);
}

/// A quota refuses where space is free: no use in asking all the time, nor ever less often.
#[test]
fn a_disk_that_is_full_though_space_is_free_is_left_alone_for_a_while() {
    let (outside, mut engine) = in_step();
    outside.world().put("new", Some("text"));
    for _ in 0..5 {
        outside.world().filled = Some(u64::MAX);
        let tick = engine.tick(&Look::everywhere()).unwrap();
        assert_eq!((tick.short_of_space, tick.waiting), (None, 1));
        assert_eq!(engine.tick(&Look::everywhere()).unwrap().done.fetched, 0);
        outside.world().now += Duration::from_secs(26);
    }
    assert_eq!(engine.tick(&Look::everywhere()).unwrap().done.fetched, 1);
}

#[test]
fn a_difference_that_the_feed_never_told_is_found_by_the_digest() {
    let (outside, mut engine) = in_step();
    outside.world().never_had("there/a");
    let digest = Look { digest: true, ..Look::at(BTreeSet::new()) };
    assert!(engine.tick(&Look::everywhere()).unwrap().at_rest);
    let tick = engine.tick(&digest).unwrap();
    assert_eq!((tick.digest, tick.more), (Some(false), true));
    settle(&mut engine);
    assert_equal(&outside, &engine);
    assert_eq!(engine.tick(&digest).unwrap().digest, Some(true));
    assert_eq!(outside.world().trash, ["there/a"]);
}

#[test]
fn a_move_that_the_feed_never_told_is_found_by_the_digest() {
    let (outside, mut engine) = in_step();
    outside.world().moved_in_silence("there/a", "elsewhere");
    let digest = Look { digest: true, ..Look::at(BTreeSet::new()) };
    assert!(engine.tick(&Look::everywhere()).unwrap().at_rest);
    let tick = engine.tick(&digest).unwrap();
    assert_eq!((tick.digest, tick.more), (Some(false), true));
    let sent = outside.world().sent.len();
    settle(&mut engine);
    assert_equal(&outside, &engine);
    assert!(outside.world().disk().contains_key("elsewhere"));
    assert_eq!(engine.tick(&digest).unwrap().digest, Some(true));
    assert_eq!(outside.world().sent.len(), sent, "nothing was sent for it");
    assert!(outside.world().trash.is_empty(), "and nothing deleted");
}

#[test]
fn a_folder_that_moves_over_many_pages_is_moved_and_not_fetched_anew() {
    let (outside, engine) = in_step();
    let settings = Settings { change_limit: 1, max_batches: 1, ..Settings::new("drive", "vm") };
    let mut engine = engine_with(&outside, engine.into_state(), settings);
    settle(&mut engine);
    outside.world().move_there("there", "elsewhere");
    let ticks = settle(&mut engine);
    assert_equal(&outside, &engine);
    let sum = |count: fn(&Done) -> usize| ticks.iter().map(|tick| count(&tick.done)).sum::<usize>();
    assert_eq!((sum(|done| done.moved_here), sum(|done| done.fetched)), (3, 0), "{ticks:#?}");
    assert_eq!(outside.world().trash, Vec::<String>::new());
}

#[test]
fn a_server_that_is_away_is_asked_ever_later_until_it_answers() {
    let (outside, mut engine) = in_step();
    outside.world().unreachable = 3;
    let mut waits = Vec::new();
    while let Err(TickError::Unavailable { retry_in, .. }) = engine.tick(&Look::everywhere()) {
        waits.push(retry_in);
    }
    assert_eq!(waits.len(), 3);
    assert!(waits[2] >= Duration::from_secs(2) && waits[0] <= Duration::from_secs(1), "{waits:?}");
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
