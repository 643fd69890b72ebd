//! The feed, snapshots and digests tell of one tree.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::*;

/// Entries by id, as somebody knows them who follows the feed.
type Tree = BTreeMap<String, Value>;

/// What a mirror does with a change; it checks what the feed promises.
fn apply(tree: &mut Tree, change: &Value) {
    let id = change["entry_id"].as_str().unwrap().to_owned();
    if change["change"] == "delete" {
        let gone = tree.remove(&id).unwrap_or_else(|| panic!("unknown: {change}"));
        assert_eq!(gone["path"], change["path"]);
        assert!(change.get("entry").is_none());
        return;
    }
    let entry = &change["entry"];
    assert_eq!((&entry["path"], &entry["id"]), (&change["path"], &change["entry_id"]));
    if change["change"] == "move" {
        let former = &tree[&id];
        assert_eq!(former["path"], change["from_path"]);
        assert_eq!(former["current_version_id"], entry["current_version_id"]);
    }
    if let Some((parent, _)) = entry["path"].as_str().unwrap().rsplit_once('/') {
        let parent = tree.values().find(|known| known["path"] == parent);
        assert_eq!(
            parent.map(|parent| &parent["entry_type"]),
            Some(&json!("directory")),
            "{change}"
        );
    }
    tree.insert(id, entry.clone());
}

impl Fixture {
    /// All changes after a sequence, in pages of `limit`.
    pub(super) async fn changes(&self, mut after: u64, limit: u32) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let action = json!({"action": "changes", "after_sequence": after, "limit": limit});
            let page = self.done(action).await;
            for change in page["changes"].as_array().unwrap() {
                let sequence = change["sequence"].as_u64().unwrap();
                assert!(sequence > after, "sequences grow");
                after = sequence;
                all.push(change.clone());
            }
            if page["has_more"] == false {
                assert_eq!(page["head_sequence"], after);
                return all;
            }
        }
    }
}

fn by_path(tree: &Tree) -> Vec<Value> {
    let mut entries: Vec<Value> = tree.values().cloned().collect();
    entries.sort_by(|one, other| one["path"].as_str().cmp(&other["path"].as_str()));
    entries
}

#[derive(Debug, Clone)]
enum Step {
    Put(String, u8),
    Mkdir(String),
    Remove(String),
    Move(String, String),
}

fn paths() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "a.b", "A", "ü"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (paths(), any::<u8>()).prop_map(|(path, byte)| Step::Put(path, byte)),
        4 => paths().prop_map(Step::Mkdir),
        2 => paths().prop_map(Step::Remove),
        3 => (paths(), paths()).prop_map(|(from, to)| Step::Move(from, to)),
    ];
    prop::collection::vec(step, 1..40)
}

/// Makes a request of a step from what is there; many are refused.
fn request(step: &Step, now: &[Value]) -> Value {
    let version = |path: &str| {
        let entry = now.iter().find(|entry| entry["path"] == path);
        entry.and_then(|entry| entry["current_version_id"].as_str().map(str::to_owned))
    };
    match step {
        Step::Put(path, byte) => put(path, &[*byte], version(path).as_deref()),
        Step::Mkdir(path) => mkdir(path),
        Step::Remove(path) => json!({
            "action": "delete", "path": path, "operation_id": id(),
            "expected_version_id": version(path).unwrap_or_else(|| "none".to_owned()),
        }),
        Step::Move(from, to) => json!({
            "action": "move", "from": from, "to": to, "operation_id": id(),
            "expected_version_id": version(from).unwrap_or_else(|| "none".to_owned()),
        }),
    }
}

/// A replay from the beginning, and one from every snapshot on the way, give the tree that is there.
async fn replays_agree(fixture: &Fixture, steps: &[Step]) {
    let mut known: Vec<(u64, Vec<Value>)> = vec![fixture.snapshot().await];
    for step in steps {
        let now = &known.last().unwrap().1;
        let (status, answer) = fixture.call(request(step, now)).await;
        assert!(status == 200 || answer["error"].is_object(), "{answer}");
        let (sequence, entries) = fixture.snapshot().await;
        assert_eq!(status == 200, sequence > known.last().unwrap().0, "{step:?} {answer}");
        known.push((sequence, entries));
    }
    let (_, last) = known.last().unwrap().clone();
    for (sequence, entries) in &known {
        let mut tree: Tree = entries
            .iter()
            .map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry.clone()))
            .collect();
        for change in fixture.changes(*sequence, 3).await {
            apply(&mut tree, &change);
        }
        assert_eq!(by_path(&tree), last, "from {sequence}");
    }
    let digest = fixture.done(json!({"action": "digest"})).await;
    let line = |entry: &Value, path: bool| {
        let text = |name: &str| entry[name].as_str().unwrap();
        let path = if path { format!(":{}", text("path")) } else { String::new() };
        format!("{}:{}{path}\n", text("id"), text("current_version_id"))
    };
    for (name, path) in [("sha256", false), ("paths_sha256", true)] {
        let mut lines: Vec<String> = last.iter().map(|entry| line(entry, path)).collect();
        assert_eq!(digest[name], hash_lines(&mut lines));
    }
    assert_eq!(digest["count"], last.len());
}

#[test]
fn the_feed_gives_the_tree_from_anywhere() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::new());
    let fixture = std::cell::RefCell::new(fixture);
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let tested = TestRunner::new(config).run(&steps(), |steps| {
        let mut fixture = fixture.borrow_mut();
        runtime.block_on(async {
            fixture.drive = fixture.new_drive(&id(), "write").await;
            replays_agree(&fixture, &steps).await;
        });
        Ok(())
    });
    tested.unwrap();
    runtime.block_on(fixture.into_inner().server.shutdown());
}

#[tokio::test]
async fn pages_of_a_snapshot_show_one_moment() {
    let fixture = Fixture::new().await;
    for directory in 0..5 {
        let files = (0..400).map(|n| put(&format!("d{directory}/{n}"), b"x", None));
        let operations: Vec<Value> =
            std::iter::once(mkdir(&format!("d{directory}"))).chain(files).collect();
        fixture.done(json!({"action": "batch", "operations": operations})).await;
    }
    let first = fixture.done(json!({"action": "snapshot"})).await;
    assert_eq!(
        (first["entries"].as_array().unwrap().len(), &first["as_of_sequence"]),
        (1000, &json!(2005))
    );
    // What comes before, on and after the place where the next page begins.
    let fourth = &fixture.snapshot().await.1;
    let entry = |path: &str| fourth.iter().find(|entry| entry["path"] == path).unwrap().clone();
    let version = |path: &str| entry(path)["current_version_id"].as_str().unwrap().to_owned();
    for action in [
        json!({"action": "move", "from": "d4", "to": "a", "expected_version_id": version("d4"),
               "operation_id": id()}),
        json!({"action": "delete", "path": "d3/7", "expected_version_id": version("d3/7"),
               "operation_id": id()}),
        put("d3/8", b"other", Some(&version("d3/8"))),
        put("z", b"new", None),
    ] {
        fixture.done(action).await;
    }
    let mut all = first["entries"].as_array().unwrap().clone();
    let mut next = first["next_page"].clone();
    while next.is_string() {
        let page = fixture.done(json!({"action": "snapshot", "page_token": next})).await;
        assert_eq!(page["as_of_sequence"], first["as_of_sequence"]);
        all.extend(page["entries"].as_array().unwrap().iter().cloned());
        next = page["next_page"].clone();
    }
    assert_eq!(&all, fourth);
    for token in ["", "x", "a:b:c", "a:1:c"] {
        let (status, _) = fixture.call(json!({"action": "snapshot", "page_token": token})).await;
        assert!(!status.is_success());
    }
}

#[tokio::test]
async fn the_feed_says_who_did_what_under_which_id() {
    let fixture = Fixture::new().await;
    let mut action = mkdir("d");
    action["client_key"] = json!("me");
    fixture.done(action.clone()).await;
    let feed = fixture.done(json!({"action": "changes", "after_sequence": 0})).await;
    assert_eq!(feed["changes"][0]["client_key"], "me");
    assert_eq!(feed["changes"][0]["source_operation_id"], action["operation_id"]);
    // A cursor from before a restored backup.
    let ahead = fixture.done(json!({"action": "changes", "after_sequence": 99})).await;
    assert_eq!((&ahead["head_sequence"], &ahead["has_more"]), (&json!(1), &json!(false)));
    assert_eq!(ahead["changes"], json!([]));
}
