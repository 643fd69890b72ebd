//! Deletions that wait for a word.

use super::*;

// ---------------------------------------------------------------- holds

fn held(lines: &[String]) -> Plan {
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    world(&lines).plan(&Rules { release_deletions: false, ..rules(Access::Write) })
}

fn files(count: usize, states: &str) -> Vec<String> {
    (0..count).map(|number| format!("f{number:02} {states}")).collect()
}

#[test]
fn most_of_a_drive_is_not_deleted_unasked() {
    let mut lines = files(10, "1 - 1");
    lines.extend((0..9).map(|number| format!("kept{number} 2 2 2")));
    lines.push("new - 3 -".to_owned());
    let plan = held(&lines);
    assert_eq!(told(&plan), ["Fill new: fetch"]);
    let hold = plan.held.unwrap();
    assert_eq!(hold.why, HoldReason::MostOfTheDrive { deleted: 10, of: 19 });
    assert_eq!(hold.steps.len(), 10);
    // Half is not most, and nine are few.
    lines.push("kept9 2 2 2".to_owned());
    assert_eq!(held(&lines).held, None);
    let mut lines = files(9, "- 1 1");
    lines.push("kept 2 2 2".to_owned());
    assert_eq!(held(&lines).held, None);
}

#[test]
fn nothing_left_on_a_side_is_a_mistake_however_few_there_were() {
    let plan = held(&files(2, "- 1 1"));
    assert_eq!(plan.steps, []);
    assert_eq!(plan.held.unwrap().why, HoldReason::Everything { deleted: 2 });
    let mut lines = files(2, "- 1 1");
    lines.push("new 1 - -".to_owned());
    assert_eq!(held(&lines).held, None);
}

#[test]
fn what_needs_the_place_of_a_held_deletion_waits_too() {
    let mut lines = files(10, "1 - 1");
    lines.extend([
        "x 1 dir 1".to_owned(),
        "x/y - 5 -".to_owned(),
        "z dir 7 dir".to_owned(),
        "z/gone 1 - 1".to_owned(),
        "z/edited 2 - 1".to_owned(),
        "other - 4 -".to_owned(),
    ]);
    let plan = held(&lines);
    assert_eq!(told(&plan), ["Fill other: fetch"]);
    assert_eq!(plan.held.unwrap().steps.len(), 12);
}

#[test]
fn moved_files_do_not_count_as_deleted() {
    let mut world = World::default();
    for number in 0..20 {
        let (from, to) = (path(&format!("a{number}")), path(&format!("b{number}")));
        let kind = kind("1").unwrap();
        let remote = Remote { id: format!("e{number}"), version: "v1".to_owned(), kind };
        let entry = local(kind, number);
        world
            .base
            .insert(from.clone(), Base { remote: remote.clone(), stat: entry.stat().copied() });
        world.server.insert(from, remote);
        world.disk.insert(to, entry);
    }
    let plan = world.plan(&Rules { release_deletions: false, ..rules(Access::Write) });
    assert_eq!((plan.steps.len(), plan.held), (20, None));
    assert!(plan.steps.iter().all(|step| step.stage == Stage::Move));
}
