//! Operations one at a time.

use serde_json::json;

use super::*;

fn delete(path: &str, version: &str) -> Value {
    json!({"action": "delete", "path": path, "expected_version_id": version, "operation_id": id()})
}

fn rmdir(path: &str) -> Value {
    json!({"action": "delete", "path": path, "expect_empty": true, "operation_id": id()})
}

fn rename(from: &str, to: &str, version: &str) -> Value {
    json!({"action": "move", "from": from, "to": to, "expected_version_id": version,
           "operation_id": id()})
}

#[tokio::test]
async fn a_file_is_stored_replaced_and_removed_by_its_version() {
    let fixture = Fixture::new().await;
    let mut first = put("a.sh", b"one", None);
    first["metadata"] = json!({"mode": 0o755});
    first["mime_type"] = json!("text/x-sh");
    let first = fixture.done(first).await;
    assert_eq!(first["sequence"], 1);
    assert_eq!(first["entry"]["metadata"]["mode"], 0o755);
    assert_eq!(first["entry"]["mime_type"], "text/x-sh");
    assert_eq!(first["entry"]["content_sha256"], sha256(b"one"));
    let second = fixture.done(put("a.sh", b"two", Some(version(&first)))).await;
    assert_eq!(second["entry"]["id"], first["entry"]["id"]);
    assert_ne!(version(&second), version(&first));
    // Stale, absent and invented versions.
    for expected in [Some(version(&first)), None, Some("v")] {
        let (status, answer) = fixture.call(put("a.sh", b"three", expected)).await;
        assert_eq!(status, 409);
        assert_eq!(answer["error"]["code"], "version_conflict");
        assert_eq!(answer["error"]["current"], second["entry"]);
    }
    assert_eq!(fixture.refused(delete("a.sh", version(&first))).await, "version_conflict");
    assert_eq!(fixture.refused(rmdir("a.sh")).await, "version_conflict");
    fixture.done(delete("a.sh", version(&second))).await;
    let (_, answer) = fixture.call(delete("a.sh", version(&second))).await;
    assert_eq!(answer["error"]["code"], "version_conflict");
    assert!(answer["error"].get("current").is_none());
    let (_, answer) = fixture.call(put("a.sh", b"x", Some(version(&second)))).await;
    assert!(answer["error"].get("current").is_none(), "{answer}");
}

#[tokio::test]
async fn parents_must_be_directories_and_empty_ones_alone_go() {
    let fixture = Fixture::new().await;
    let file = fixture.done(put("f", b"", None)).await;
    for path in ["d/x", "f/x", "d/e/x"] {
        assert_eq!(fixture.refused(put(path, b"", None)).await, "parent_missing", "{path}");
        assert_eq!(fixture.refused(mkdir(path)).await, "parent_missing");
        assert_eq!(
            fixture.refused(rename("f", path, version(&file))).await,
            match path {
                "f/x" => "invalid_request",
                _ => "parent_missing",
            }
        );
    }
    let directory = fixture.done(mkdir("d")).await;
    assert_eq!(directory["entry"]["size_bytes"], Value::Null);
    let (_, again) = fixture.call(mkdir("d")).await;
    assert_eq!(again["error"]["current"], directory["entry"]);
    // A directory is no file's former version.
    let over = put("d", b"", Some(version(&directory)));
    assert_eq!(fixture.refused(over).await, "version_conflict");
    let child = fixture.done(put("d/x", b"", None)).await;
    // Names beside it that begin with it.
    fixture.done(put("d.txt", b"", None)).await;
    fixture.done(put("d0", b"", None)).await;
    assert_eq!(fixture.refused(rmdir("d")).await, "not_empty");
    assert_eq!(fixture.refused(delete("d", version(&directory))).await, "not_empty");
    fixture.done(delete("d/x", version(&child))).await;
    fixture.done(rmdir("d")).await;
    let neither = json!({"action": "delete", "path": "d", "operation_id": id()});
    assert_eq!(fixture.refused(neither).await, "invalid_request");
}

#[tokio::test]
async fn a_directory_moves_with_all_that_is_in_it() {
    let fixture = Fixture::new().await;
    let top = fixture.done(mkdir("a")).await;
    for path in ["a/b", "a/b/c", "a.b", "a-"] {
        fixture.done(mkdir(path)).await;
    }
    let file = fixture.done(put("a/b/c/ü", b"x", None)).await;
    fixture.done(put("a/b.txt", b"x", None)).await;
    let head = fixture.snapshot().await.0;
    assert_eq!(fixture.refused(rename("a", "a/b/d", version(&top))).await, "invalid_request");
    assert_eq!(fixture.refused(rename("a", "a", version(&top))).await, "invalid_request");
    assert_eq!(fixture.refused(rename("a", "z", "v")).await, "version_conflict");
    let (_, taken) = fixture.call(rename("a", "a-", version(&top))).await;
    assert_eq!(taken["error"]["current"]["path"], "a-");
    let moved = fixture.done(rename("a", "zz", version(&top))).await;
    assert_eq!(moved["entry"]["path"], "zz");
    assert_eq!(version(&moved), version(&top));
    assert_eq!(moved["sequence"], head + 5);
    let feed = fixture.done(json!({"action": "changes", "after_sequence": head})).await;
    let seen: Vec<(&str, &str, &str)> = feed["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            let text = |name: &str| change[name].as_str().unwrap();
            (text("change"), text("from_path"), text("path"))
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("move", "a", "zz"),
            ("move", "a/b", "zz/b"),
            ("move", "a/b.txt", "zz/b.txt"),
            ("move", "a/b/c", "zz/b/c"),
            ("move", "a/b/c/ü", "zz/b/c/ü"),
        ]
    );
    // The file is the one it was, and its version still what an edit expects.
    let edited = fixture.done(put("zz/b/c/ü", b"y", Some(version(&file)))).await;
    assert_eq!(edited["entry"]["id"], file["entry"]["id"]);
    let paths: Vec<Value> =
        fixture.snapshot().await.1.iter().map(|entry| entry["path"].clone()).collect();
    assert_eq!(paths, ["a-", "a.b", "zz", "zz/b", "zz/b.txt", "zz/b/c", "zz/b/c/ü"]);
}

#[tokio::test]
async fn no_path_grows_too_long_by_a_move() {
    let fixture = Fixture::new().await;
    let name = "n".repeat(255);
    let mut path = "d".to_owned();
    let top = fixture.done(mkdir(&path)).await;
    for _ in 0..15 {
        path = format!("{path}/{name}");
        fixture.done(mkdir(&path)).await;
    }
    fixture.done(mkdir(&format!("{path}/{}", "n".repeat(200)))).await;
    // 1 + 15 × 256 + 201 = 4,042 bytes.
    let longer = |by: usize| rename("d", &"m".repeat(1 + by), version(&top));
    assert_eq!(fixture.refused(longer(55)).await, "invalid_path");
    fixture.done(longer(54)).await;
}

#[tokio::test]
async fn an_operation_is_done_once_whatever_happened_since() {
    let fixture = Fixture::new().await;
    let first = put("a", b"one", None);
    let done = fixture.done(first.clone()).await;
    let second = put("a", b"two", Some(version(&done)));
    let later = fixture.done(second.clone()).await;
    let moved = rename("a", "b", version(&later));
    let moved_answer = fixture.done(moved.clone()).await;
    let removed = delete("b", version(&later));
    let removed_answer = fixture.done(removed.clone()).await;
    // Out of order, and long after.
    for (action, answer) in [
        (removed.clone(), removed_answer),
        (moved, moved_answer),
        (first.clone(), done),
        (second, later),
    ] {
        assert_eq!(fixture.done(action).await, answer);
    }
    assert_eq!(fixture.number("SELECT head FROM drives").await, 4);
    // The id belongs to that request.
    let mut mode = first.clone();
    mode["metadata"] = json!({"mode": 0o644});
    for mut other in
        [put("c", b"one", None), put("a", b"two", None), put("a", b"one", Some("v")), mode]
    {
        other["operation_id"] = first["operation_id"].clone();
        assert_eq!(fixture.refused(other.clone()).await, "operation_reused", "{other}");
    }
    let mut other = mkdir("a");
    other["operation_id"] = removed["operation_id"].clone();
    assert_eq!(fixture.refused(other).await, "operation_reused");
}

#[tokio::test]
async fn what_was_refused_may_be_tried_again_under_its_id() {
    let fixture = Fixture::new().await;
    let early = put("d/a", b"x", None);
    assert_eq!(fixture.refused(early.clone()).await, "parent_missing");
    fixture.done(mkdir("d")).await;
    fixture.done(early).await;
}

#[tokio::test]
async fn in_a_batch_each_sees_those_before_it_and_fails_alone() {
    let fixture = Fixture::new().await;
    let answer = fixture
        .done(json!({"action": "batch", "operations": [
            mkdir("d"),
            put("d/a", b"x", None),
            put("d/a", b"y", None),
            mkdir("e/f"),
            put("d/b", b"", None),
            prepare("d/c", b"later"),
            rmdir("d"),
        ]}))
        .await;
    let results = answer["results"].as_array().unwrap();
    let told: Vec<&str> = results
        .iter()
        .map(|result| match result["error"]["code"].as_str() {
            Some(code) => code,
            None if result["upload_id"].is_string() => "prepared",
            None => result["entry"]["path"].as_str().unwrap(),
        })
        .collect();
    assert_eq!(
        told,
        ["d", "d/a", "version_conflict", "parent_missing", "d/b", "prepared", "not_empty"]
    );
    assert_eq!(results[2]["error"]["current"], results[1]["entry"]);
    assert_eq!(results[4]["sequence"], 3);
    assert_eq!(fixture.snapshot().await.0, 3);
}

#[tokio::test]
async fn who_may_read_changes_nothing_and_other_drives_are_unknown() {
    let fixture = Fixture::new().await;
    let (read, hidden) =
        (fixture.new_drive("Read", "read").await, fixture.new_drive("Hidden", "none").await);
    let other = fixture.done(json!({"action": "hello", "protocol": 1})).await;
    let seen: Vec<_> = other["drives"]
        .as_array()
        .unwrap()
        .iter()
        .map(|drive| (drive["name"].as_str().unwrap(), drive["access"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [("Read", "read"), ("Shared", "write")]);
    for (drive, code) in
        [(read, "read_only"), (hidden, "drive_not_found"), (id(), "drive_not_found")]
    {
        for mut action in [
            mkdir("d"),
            put("a", b"x", None),
            prepare("a", b"x"),
            json!({"action": "batch", "operations": [mkdir("d")]}),
            json!({"action": "commit_upload", "upload_id": "u", "operation_id": "o"}),
        ] {
            action["drive_id"] = json!(drive);
            assert_eq!(fixture.refused(action).await, code);
        }
        let digest = json!({"action": "digest", "drive_id": drive});
        let (status, _) = fixture.call(digest).await;
        assert_eq!(status.is_success(), code == "read_only");
    }
}
