//! What has to wait: for a person, for time, for space, for what is not read yet.

use super::*;

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
