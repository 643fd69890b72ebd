//! Answers that are lost, and what others wrote meanwhile.

use super::*;

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
fn what_was_to_follow_is_neither_sent_nor_asked_for_after_a_lost_answer() {
    let outside = Outside::new();
    for at in ["a", "b", "c", "d", "e"] {
        outside.world().write(at, at);
    }
    outside.world().lose_answers = 1;
    let settings = Settings { uploads: 2, ..Settings::new("drive", "vm") };
    let mut engine = engine_with(&outside, State::in_memory().unwrap(), settings);
    let error = engine.tick(&Look::everywhere()).unwrap_err();
    assert!(matches!(error, TickError::Unavailable { .. }), "{error}");
    assert_eq!(outside.world().sent, ["a", "b"]);
    let intents = engine.state().intents().unwrap();
    let left: Vec<String> = intents.iter().map(|intent| intent.path.to_string()).collect();
    assert_eq!(left, ["a"], "the one whose answer is not known");
    assert_eq!(agreed(&engine), BTreeSet::from(["b".to_owned()]));
    settle(&mut engine);
    assert_equal(&outside, &engine);
    assert_eq!(outside.world().sent, ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_broken_off_upload_is_gone_on_with_although_another_failed_before_its_turn() {
    let outside = Outside::new();
    let large = "z".repeat(1 << 20);
    outside.world().write("a", "a");
    outside.world().write("z", &large);
    outside.world().lose_answers = 1;
    let settings = Settings { uploads: 1, ..Settings::new("drive", "vm") };
    let mut engine = engine_with(&outside, State::in_memory().unwrap(), settings);
    let before = BrokenOff {
        operation_id: "before".to_owned(),
        content: world::content(&large),
        expect: None,
    };
    let at = world::path("z");
    engine.broken_off.insert(at.clone(), before);
    let error = engine.tick(&Look::everywhere()).unwrap_err();
    assert!(matches!(error, TickError::Unavailable { .. }), "{error}");
    assert_eq!(engine.broken_off[&at].operation_id, "before");
    settle(&mut engine);
    assert_equal(&outside, &engine);
}
