//! What the feed has forgotten, never told, or tells in many pages.

use super::*;

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
fn what_was_done_here_is_not_read_again_and_told_as_done_at_once() {
    let (outside, mut engine) = in_step();
    outside.world().step = 1;
    outside.world().write("new", "text");
    let tick = engine.tick(&Look::everywhere()).unwrap();
    assert_eq!((tick.done.sent, tick.settled, tick.at_rest), (1, true, false));
    let tick = engine.tick(&Look::at(BTreeSet::new())).unwrap();
    assert_eq!((tick.pulled, tick.settled, tick.at_rest), (0, true, true));
    // Somebody else in between.
    outside.world().write("new", "more");
    outside.world().put("theirs", Some("text"));
    let ticks = settle(&mut engine);
    assert!(ticks.iter().any(|tick| tick.pulled > 0));
    assert_equal(&outside, &engine);
}

#[test]
fn what_waits_is_not_told_as_done() {
    let (outside, mut engine) = in_step();
    {
        let mut world = outside.world();
        world.write("fine", "fine");
        world.write("edit", "refused");
        world.refused.insert("edit".to_owned());
    }
    let tick = engine.tick(&Look::everywhere()).unwrap();
    assert_eq!((tick.done.sent, tick.settled), (1, false));
}
