//! Names of conflict copies.

use super::*;

// ---------------------------------------------------------------- names

fn aside(name: &str, kind: Kind, taken: &[&str]) -> String {
    let time = 1_795_353_960_123_456_789;
    let entry = match local(kind, 1) {
        Local::File { content, stat, racy } => {
            let stat = crate::drive_sync::model::Stat { mtime: time, ..stat };
            Local::File { content, stat, racy }
        }
        other @ (Local::Directory { .. } | Local::Opaque(_)) => other,
    };
    let taken: Vec<RelPath> = taken.iter().map(|taken| path(taken)).collect();
    let name = names::conflict_name(&path(name), &entry, "build vm/1", |name| taken.contains(name));
    name.unwrap().to_string()
}

#[test]
fn conflict_names_can_be_read_and_repeated() {
    let file = Kind::File(content(0xabcd));
    let first = "notes/plan (conflict build vm-1 20261122T132600Z 0000abcd).txt";
    let second = "notes/plan (conflict build vm-1 20261122T132600Z 0000abcd 2).txt";
    assert_eq!(aside("notes/plan.txt", file, &[]), first);
    assert_eq!(aside("notes/plan.txt", file, &[first]), second);
    assert_eq!(
        [".bashrc", "a.tar.gz", "Mr. Smith", "v1.", "README"].map(|name| aside(name, file, &[])),
        [
            ".bashrc (conflict build vm-1 20261122T132600Z 0000abcd)",
            "a.tar (conflict build vm-1 20261122T132600Z 0000abcd).gz",
            "Mr. Smith (conflict build vm-1 20261122T132600Z 0000abcd)",
            "v1. (conflict build vm-1 20261122T132600Z 0000abcd)",
            "README (conflict build vm-1 20261122T132600Z 0000abcd)"
        ]
    );
    assert_eq!(
        aside("photos.2026", Kind::Directory, &[]),
        "photos.2026 (conflict build vm-1 19700101T000000Z folder)"
    );
}

#[test]
fn long_conflict_names_are_cut_between_characters() {
    let file = Kind::File(content(1));
    let name = aside(&format!("{}.txt", "ü".repeat(125)), file, &[]);
    assert!((254..=255).contains(&name.len()) && name.starts_with("üü"), "{name}");
    assert!(name.ends_with(" (conflict build vm-1 20261122T132600Z 00000001).txt"), "{name}");
    // Nor is the whole path too long.
    let deep = format!("{}/{}", vec!["n".repeat(255); 15].join("/"), "m".repeat(250));
    assert!(RelPath::parse(&aside(&deep, file, &[])).is_ok());
}

#[test]
fn a_conflict_name_that_anybody_has_is_not_given_again() {
    let mut world = world(&["a 2 3 1"]);
    let first = "a (conflict vm1 19700101T000002Z 00000002)";
    let plan = world.plan(&rules(Access::Write));
    assert_eq!(told(&plan)[0], format!("SetAside a: set aside as {first}"));
    // All sides have it, so that it is no difference at all.
    let entry = Remote { id: "x".to_owned(), version: "v9".to_owned(), kind: kind("9").unwrap() };
    let there = local(entry.kind, 77);
    world.base.insert(path(first), Base { remote: entry.clone(), stat: there.stat().copied() });
    world.server.insert(path(first), entry);
    world.disk.insert(path(first), there);
    let plan = world.plan(&rules(Access::Write));
    assert_eq!(
        told(&plan)[0],
        "SetAside a: set aside as a (conflict vm1 19700101T000002Z 00000002 2)"
    );
}
