//! The cells of the matrix one by one, and the rules around them.

use std::convert::Infallible;
use std::fmt::Write as _;

use fallible_streaming_iterator::convert;

use super::proof::world::{World, content, listed, local, path, rows, rules, stat};
use super::*;
use crate::drive_sync::model::{Base, Kind, Local, Opaque, Remote};
use crate::drive_sync::path::RelPath;
use crate::drive_sync::plan::{Action, Blocked, HoldReason, Stage, Step};

mod held;
mod names;

/// What stands somewhere, in short: `-`, `dir`, or a number for a file's content.
fn kind(text: &str) -> Option<Kind> {
    match text {
        "-" => None,
        "dir" => Some(Kind::Directory),
        number => Some(Kind::File(content(number.parse().unwrap()))),
    }
}

/// Builds the three trees from lines of `path disk server base`.
fn world(lines: &[&str]) -> World {
    let mut world = World::default();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let place = path(words[0]);
        let ino = world.ino(&place);
        if let Some(kind) = kind(words[1]) {
            world.disk.insert(place.clone(), local(kind, ino));
        }
        let remote = |text| {
            kind(text).map(|kind| Remote {
                id: format!("id of {}", words[0]),
                version: format!("v{text}"),
                kind,
            })
        };
        if let Some(remote) = remote(words[2]) {
            world.server.insert(place.clone(), remote);
        }
        if let Some(remote) = remote(words[3]) {
            let stat = Some(stat(ino, remote.kind.content()));
            world.base.insert(place, Base { remote, stat });
        }
    }
    world
}

/// A step in words.
fn words(step: &Step) -> String {
    let what = match &step.action {
        Action::Adopt { .. } => "adopt".to_owned(),
        Action::Forget => "forget".to_owned(),
        Action::SetAside { to, .. } => format!("set aside as {to}"),
        Action::MoveLocal { to, .. } => format!("move on the disk to {to}"),
        Action::MakeLocalDirectory { .. } => "make a folder on the disk".to_owned(),
        Action::Fetch { replaces, .. } => {
            format!("fetch{}", if replaces.is_some() { " over the old one" } else { "" })
        }
        Action::DeleteLocal { .. } => "delete on the disk".to_owned(),
        Action::RemoveLocalDirectory => "remove the folder of the disk".to_owned(),
        Action::MoveRemote { to, .. } => format!("move at the server to {to}"),
        Action::MakeRemoteDirectory { .. } => "make a folder at the server".to_owned(),
        Action::Send { expect, .. } => {
            format!("send, expect {}", expect.as_deref().unwrap_or("nothing"))
        }
        Action::DeleteRemote { version, .. } => format!("delete {version} at the server"),
        Action::RemoveRemoteDirectory { .. } => "remove the folder of the server".to_owned(),
    };
    format!("{:?} {}: {what}", step.stage, step.path)
}

fn told(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(words).collect()
}

/// The steps, with deletions released.
fn steps(lines: &[&str]) -> Vec<String> {
    told(&world(lines).plan(&rules(Access::Write)))
}

/// One table of the matrix in words. A folder holds a file: the first of a pair is what the disk's
/// folder holds, the second what the server's does.
fn table(base: &str, rows: &[&str], columns: &[&str], inside: [&str; 3]) -> String {
    let mut text = String::new();
    for disk in rows {
        for server in columns {
            let mut lines = vec![format!("p {disk} {server} {base}")];
            let child = |kind: &str, has| if kind == "dir" { has } else { "-" };
            if [*disk, *server, base].contains(&"dir") {
                let (disk, server) = (child(disk, inside[0]), child(server, inside[1]));
                lines.push(format!("p/c {disk} {server} {}", child(base, inside[2])));
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let steps = steps(&lines);
            let steps = if steps.is_empty() { "nothing".to_owned() } else { steps.join("\n    ") };
            writeln!(text, "disk {disk}, server {server}:\n    {steps}").unwrap();
        }
    }
    text
}

#[test]
fn what_no_side_has_seen_of_the_other() {
    insta::assert_snapshot!(table(
        "-",
        &["-", "1", "dir"],
        &["-", "1", "2", "dir"],
        ["5", "5", "-"]
    ));
}

#[test]
fn what_was_a_file() {
    let columns = ["1", "2", "-", "dir"];
    insta::assert_snapshot!(table("1", &["1", "2", "3", "-", "dir"], &columns, ["5", "5", "-"]));
}

#[test]
fn what_was_a_folder_and_nothing_in_it_has_changed() {
    let kinds = ["dir", "-", "1"];
    insta::assert_snapshot!(table("dir", &kinds, &["dir", "-", "1", "2"], ["5", "5", "5"]));
}

#[test]
fn what_was_a_folder_and_has_changed_inside() {
    let kinds = ["dir", "-", "1"];
    insta::assert_snapshot!(table("dir", &kinds, &["dir", "-", "1", "2"], ["6", "7", "5"]));
}

#[test]
fn where_all_agree_nothing_is_done_and_nothing_is_kept() {
    let world = world(&["a dir dir dir", "a/b 1 1 1", "c 2 2 2"]);
    let (remote, base) = (listed(&world.server), listed(&world.base));
    let Ok::<_, Infallible>(found) = diff(&world.disk, rows(&remote), rows(&base));
    assert_eq!((found.local_entries, found.remote_entries, found.base_entries), (3, 3, 3));
    assert!(found.triples.is_empty());
    assert_eq!(plan(&found, &rules(Access::Write)), Plan::default());
}

/// With two new entries of the disk and one of the server at most.
fn first(world: &World) -> Option<Divergence> {
    let (remote, base) = (listed(&world.server), listed(&world.base));
    let most = Most { here: 2, there: 1 };
    let Ok::<_, Infallible>(found) = diff_of_some(&world.disk, rows(&remote), rows(&base), most);
    found
}

#[test]
fn of_many_new_entries_the_first_are_planned_and_the_others_counted() {
    let lines =
        ["a dir - -", "a/b 1 - -", "a/c 2 - -", "b 3 4 4", "d - dir -", "d/e - 5 -", "d/f - 6 -"];
    let found = first(&world(&lines)).unwrap();
    let paths: Vec<String> = found.triples.keys().map(ToString::to_string).collect();
    assert_eq!(paths, ["a", "a/b", "b", "d"]);
    let left_out = LeftOut { here: 1, here_bytes: 1, there: 2, there_bytes: 2 };
    assert_eq!(found.left_out, left_out);
    assert_eq!((found.local_entries, found.remote_entries), (4, 4));
}

#[test]
fn where_a_plan_depends_on_all_that_is_new_nothing_is_left_out() {
    let new = ["a 1 - -", "b 2 - -", "c 3 - -"];
    for line in ["z - 1 1", "z 1 - 1", "z - dir dir", "z - - 1", "z 1 dir -", "z dir 1 1"] {
        let lines = [&new[..], &[line]].concat();
        assert_eq!(first(&world(&lines)), None, "{line}");
        let lines = [&new[..2], &[line]].concat();
        assert!(first(&world(&lines)).is_some_and(|found| found.left_out.is_nothing()), "{line}");
    }
}

#[test]
fn an_error_of_a_tree_ends_the_search() {
    let server = listed(&world(&["a - 1 -"]).server);
    let remote = convert(server.iter().map(Ok).chain([Err("gone")]));
    let base = convert([].iter().map(Ok::<&(RelPath, Base), &str>));
    assert_eq!(diff(&World::default().disk, remote, base), Err("gone"));
}

#[test]
fn a_touched_file_is_only_noted() {
    let mut world = world(&["a 1 1 1"]);
    world.disk.insert(path("a"), local(kind("1").unwrap(), 99));
    assert_eq!(told(&world.plan(&rules(Access::Write))), ["Settle a: adopt"]);
}

#[test]
fn what_the_server_has_not_told_of_whole_is_left_alone() {
    assert_eq!(steps(&["a dir - dir", "a/b 1 1 1", "c - 1 -"]), ["Fill c: fetch"]);
    assert_eq!(steps(&["x/y/z - 1 -", "x - dir -"]), ["Fill x: make a folder on the disk"]);
}

#[test]
fn the_permission_to_execute_alone_is_no_conflict() {
    let run = |on_disk: bool, at_server: bool| {
        let mut world = world(&["a 2 2 1"]);
        let with = |executable| {
            let Kind::File(content) = kind("2").unwrap() else { unreachable!() };
            Kind::File(crate::drive_sync::model::Content { executable, ..content })
        };
        world.disk.insert(path("a"), local(with(on_disk), 1));
        world.server.get_mut(&path("a")).unwrap().kind = with(at_server);
        told(&world.plan(&rules(Access::Write)))
    };
    assert_eq!(run(true, false), ["Fill a: send, expect v2"]);
    assert_eq!(run(false, true), ["Fill a: fetch over the old one"]);
}

// ---------------------------------------------------------------- what takes no part

fn with_opaque(lines: &[&str], place: &str, why: Opaque) -> Plan {
    let mut world = world(lines);
    world.disk.insert(path(place), Local::Opaque(why));
    world.plan(&rules(Access::Write))
}

#[test]
fn what_takes_no_part_is_left_alone_with_all_that_is_in_it() {
    let plan = with_opaque(&["d - dir dir", "d/a - 1 1", "e - - -"], "d", Opaque::Unreadable);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.blocked, [(path("d"), Blocked::Local(Opaque::Unreadable))]);
    let plan = with_opaque(&[], "x.swp", Opaque::Ignored);
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_deleted_folder_stays_for_a_link_and_goes_out_of_the_sync_for_ignored_files() {
    let folder = ["d dir - dir", "d/a 1 - 1"];
    let plan = with_opaque(&folder, "d/link", Opaque::Symlink);
    assert_eq!(
        told(&plan),
        ["Fill d: make a folder at the server", "Remove d/a: delete on the disk"]
    );
    let plan = with_opaque(&folder, "d/.a.swp", Opaque::Ignored);
    assert_eq!(told(&plan), ["Settle d: forget", "Remove d/a: delete on the disk"]);
    // From then on it is a folder that only this disk has.
    let plan = with_opaque(&["d dir - -"], "d/.a.swp", Opaque::Ignored);
    assert_eq!(plan.steps, []);
    // What cannot be looked into may be anything.
    let plan = with_opaque(&folder, "d/x", Opaque::Unreadable);
    assert_eq!(told(&plan), ["Remove d/a: delete on the disk"]);
}

// ---------------------------------------------------------------- moves

/// Gives the file at `to` the inode of the base of `from`.
fn moved_on_disk(lines: &[&str], ways: &[(&str, &str)]) -> Vec<String> {
    let mut world = world(lines);
    for (from, to) in ways {
        let ino = world.base[&path(from)].stat.unwrap().ino;
        let kind = world.disk[&path(to)].kind().unwrap();
        world.disk.insert(path(to), local(kind, ino));
    }
    told(&world.plan(&rules(Access::Write)))
}

/// Gives the server's file at `to` the id of the base of `from`.
fn moved_at_server(lines: &[&str], from: &str, to: &str) -> Vec<String> {
    let mut world = world(lines);
    let id = world.base[&path(from)].remote.id.clone();
    world.server.get_mut(&path(to)).unwrap().id = id;
    told(&world.plan(&rules(Access::Write)))
}

#[test]
fn a_move_on_the_disk_is_followed_at_the_server() {
    let lines = ["a - 1 1", "b 1 - -"];
    assert_eq!(moved_on_disk(&lines, &[("a", "b")]), ["Move a: move at the server to b"]);
    // Into a new folder, out of one that goes.
    let lines = ["new dir - -", "new/b 1 - -", "old - dir dir", "old/a - 1 1"];
    assert_eq!(
        moved_on_disk(&lines, &[("old/a", "new/b")]),
        [
            "Move new: make a folder at the server",
            "Move old/a: move at the server to new/b",
            "Remove old: remove the folder of the server"
        ]
    );
}

#[test]
fn a_move_at_the_server_is_followed_on_the_disk() {
    let lines = ["a 1 - 1", "b - 1 -"];
    assert_eq!(moved_at_server(&lines, "a", "b"), ["Move a: move on the disk to b"]);
    let lines = ["new - dir -", "new/b - 1 -", "old dir - dir", "old/a 1 - 1"];
    assert_eq!(
        moved_at_server(&lines, "old/a", "new/b"),
        [
            "Move new: make a folder on the disk",
            "Move old/a: move on the disk to new/b",
            "Remove old: remove the folder of the disk"
        ]
    );
}

#[test]
fn what_may_be_no_move_is_a_deletion_and_a_new_file() {
    let none = |steps: Vec<String>| assert!(!steps.concat().contains(": move "), "{steps:?}");
    // Changed on the way, changed on the other side, or something in the way there.
    none(moved_on_disk(&["a - 1 1", "b 2 - -"], &[("a", "b")]));
    none(moved_on_disk(&["a - 2 1", "b 1 - -"], &[("a", "b")]));
    none(moved_on_disk(&["a - 1 1", "b 1 2 -"], &[("a", "b")]));
    none(moved_on_disk(&["a - 1 1", "d dir 7 -", "d/b 1 - -"], &[("a", "d/b")]));
    none(moved_at_server(&["a 2 - 1", "b - 1 -"], "a", "b"));
    none(moved_at_server(&["a 1 - 1", "b - 2 -"], "a", "b"));
    none(moved_at_server(&["a 1 - 1", "b 3 1 -"], "a", "b"));
    none(moved_at_server(&["a 1 - 1", "d 7 dir -", "d/b - 1 -"], "a", "d/b"));
    // Another file with the same content, or two that could be it.
    none(moved_on_disk(&["a - 1 1", "b 1 - -"], &[]));
    none(moved_on_disk(&["a - 1 1", "b 1 - -", "c 1 - -"], &[("a", "b"), ("a", "c")]));
}

// ---------------------------------------------------------------- drives that may only be read

fn reading(lines: &[&str]) -> (Vec<String>, Vec<String>) {
    let plan = world(lines).plan(&rules(Access::Read));
    for (path, why) in &plan.blocked {
        assert_eq!(*why, Blocked::ReadOnly, "{path}");
    }
    (told(&plan), plan.blocked.iter().map(|(path, _)| path.to_string()).collect())
}

#[test]
fn nothing_is_sent_to_a_drive_that_may_only_be_read() {
    let kept = |lines: &[&str], paths: &[&str]| {
        let (steps, blocked) = reading(lines);
        assert_eq!((steps, blocked), (Vec::new(), paths.iter().map(ToString::to_string).collect()));
    };
    kept(&["a 2 1 1"], &["a"]);
    kept(&["a 2 - 1"], &["a"]);
    kept(&["a 2 - -"], &["a"]);
    kept(&["d dir - -", "d/a 1 - -"], &["d"]);
    kept(&["d dir 1 1", "d/a 1 - -"], &["d"]);
    kept(&["d 1 dir dir", "d/a - 1 1"], &["d"]);
    kept(&["d dir - dir", "d/a 2 - 1"], &["d/a"]);
}

#[test]
fn what_was_deleted_comes_back_and_edits_give_way_to_what_is_new() {
    let name = "(conflict vm1 19700101T000002Z 00000002)";
    assert_eq!(reading(&["a - 1 1"]).0, ["Fill a: fetch"]);
    assert_eq!(
        reading(&["d - dir dir", "d/a - 1 1"]).0,
        ["Fill d: make a folder on the disk", "Fill d/a: fetch"]
    );
    assert_eq!(
        reading(&["a 2 3 1"]).0,
        [format!("SetAside a: set aside as a {name}"), "Fill a: fetch".to_owned()]
    );
    assert_eq!(
        reading(&["d 2 dir dir", "d/a - 1 1", "d/b - 3 -"]).0,
        [
            format!("SetAside d: set aside as d {name}"),
            "Fill d: make a folder on the disk".to_owned(),
            "Fill d/a: fetch".to_owned(),
            "Fill d/b: fetch".to_owned()
        ]
    );
    assert_eq!(
        reading(&["a 1 - 1", "b 1 2 1"]).0,
        ["Fill b: fetch over the old one", "Remove a: delete on the disk"]
    );
}

// ---------------------------------------------------------------- order

#[test]
fn parents_are_made_first_and_removed_last() {
    assert_eq!(
        steps(&[
            "new - dir -",
            "new/in - dir -",
            "new/in/file - 1 -",
            "old dir - dir",
            "old/in dir - dir",
            "old/in/file 1 - 1",
            "turned 1 dir 1",
            "turned/file - 2 -",
            "was dir 1 dir",
            "was/file 1 - 1",
        ]),
        [
            "MakeRoom was/file: delete on the disk",
            "MakeRoom was: remove the folder of the disk",
            "MakeRoom turned: delete on the disk",
            "Fill new: make a folder on the disk",
            "Fill new/in: make a folder on the disk",
            "Fill new/in/file: fetch",
            "Fill turned: make a folder on the disk",
            "Fill turned/file: fetch",
            "Fill was: fetch",
            "Remove old/in/file: delete on the disk",
            "Remove old/in: remove the folder of the disk",
            "Remove old: remove the folder of the disk",
        ]
    );
}

#[test]
fn what_is_deleted_in_a_folder_goes_before_the_folder_is_renamed() {
    assert_eq!(
        steps(&["d dir 7 dir", "d/gone 1 - 1", "d/edited 2 - 1"]),
        [
            "SetAside d/gone: delete on the disk",
            "SetAside d: set aside as d (conflict vm1 19700101T000000Z folder)",
            "Fill d: fetch",
        ]
    );
}
