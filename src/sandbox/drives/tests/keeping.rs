//! What is kept for how long, and the way back.

use serde_json::json;

use super::*;

fn nothing_kept() -> DriveLimits {
    DriveLimits {
        keep_history: Duration::ZERO,
        keep_uploads: Duration::from_hours(1),
        ..DriveLimits::default()
    }
}

#[tokio::test]
async fn an_old_cursor_is_told_to_take_a_snapshot_and_the_tree_stays() {
    let fixture = Fixture::with(nothing_kept()).await;
    let kept = fixture.done(put("kept", b"kept", None)).await;
    let first = fixture.done(put("a", b"first", None)).await;
    let second = fixture.done(put("a", b"second", Some(version(&first)))).await;
    let gone = put("gone", b"gone", None);
    let gone_done = fixture.done(gone.clone()).await;
    fixture
        .done(json!({"action": "delete", "path": "gone", "operation_id": id(),
                     "expected_version_id": version(&gone_done)}))
        .await;
    let before = fixture.snapshot().await;
    let digest = fixture.done(json!({"action": "digest"})).await;
    assert!(fixture.sweep().await > 0);
    assert_eq!(fixture.sweep().await, 0);
    for after in [0, 4] {
        let action = json!({"action": "changes", "after_sequence": after});
        assert_eq!(fixture.refused(action).await, "cursor_expired", "{after}");
    }
    let now = fixture.done(json!({"action": "changes", "after_sequence": 5})).await;
    assert_eq!(now["changes"], json!([]));
    assert_eq!(fixture.snapshot().await, before);
    assert_eq!(fixture.done(json!({"action": "digest"})).await, digest);
    // Contents of what is there, and no other.
    fixture.collected().await;
    assert_eq!(fixture.number("SELECT count(*) FROM contents").await, 2);
    let wanted = |done: &Value| json!({"action": "download", "entry_id": done["entry"]["id"], "version_id": version(done)});
    assert_eq!(fixture.refused(wanted(&first)).await, "not_found");
    fixture.done(wanted(&second)).await;
    fixture.done(wanted(&kept)).await;
    // A snapshot that began before is told the same.
    let token = format!("{}:4:", now["epoch"].as_str().unwrap());
    let old = json!({"action": "snapshot", "page_token": token});
    assert_eq!(fixture.refused(old).await, "cursor_expired");
    // It goes on from there.
    let done = fixture.done(put("b", b"b", None)).await;
    assert_eq!(done["sequence"], 6);
    let feed = fixture.done(json!({"action": "changes", "after_sequence": 5})).await;
    assert_eq!(feed["changes"][0]["entry"], done["entry"]);
}

#[tokio::test]
async fn history_within_its_time_is_kept() {
    let fixture = Fixture::new().await;
    let first = fixture.done(put("a", b"first", None)).await;
    fixture.done(put("a", b"second", Some(version(&first)))).await;
    assert_eq!(fixture.sweep().await, 0);
    assert_eq!(fixture.changes(0, 10).await.len(), 2);
}

#[tokio::test]
async fn an_upload_that_is_never_committed_is_collected() {
    let limits = DriveLimits { keep_uploads: Duration::from_hours(1), ..DriveLimits::default() };
    let fixture = Fixture::with(limits).await;
    let action = prepare("a", &vec![7; 100_000]);
    let prepared = fixture.done(action.clone()).await;
    let url = prepared["url"].as_str().unwrap();
    assert_eq!(fixture.send(url, vec![7; 100_000]).await, 204);
    assert_eq!(fixture.sweep().await, 0);
    assert_eq!(fixture.files(), 1);
    let late = fixture.server.app.store.write(|write| {
        write.tx.execute("UPDATE drive_uploads SET expires_at = 1", [])?;
        Ok::<_, Failure>(())
    });
    late.await.map_err(Failure::told).unwrap();
    let commit = json!({"action": "commit_upload", "upload_id": prepared["upload_id"],
                        "operation_id": action["operation_id"]});
    assert_eq!(fixture.refused(commit).await, "upload_not_found");
    assert_eq!(fixture.send(url, vec![7; 100_000]).await, 404);
    assert_eq!(fixture.sweep().await, 1);
    fixture.collected().await;
    assert_eq!(fixture.files(), 0);
    // The same operation begins anew.
    let again = fixture.done(action).await;
    assert_ne!(again["upload_id"], prepared["upload_id"]);
    assert!(again.get("parts").is_none());
}

#[tokio::test]
async fn a_drive_goes_back_to_an_earlier_state_under_a_new_epoch() {
    let fixture = Fixture::new().await;
    let directory = fixture.done(mkdir("d")).await;
    let first = fixture.done(put("d/a", b"first", None)).await;
    let then = fixture.snapshot().await;
    let second = put("d/a", b"second", Some(version(&first)));
    fixture.done(second.clone()).await;
    fixture
        .done(json!({"action": "move", "from": "d", "to": "e", "operation_id": id(),
                     "expected_version_id": version(&directory)}))
        .await;
    let epoch = fixture.done(json!({"action": "digest"})).await["epoch"].clone();
    let path = format!("drives/{}/restore", fixture.drive);
    // Inside the move.
    let url = format!("{}/admin/v1/{path}", fixture.server.url());
    let token = secrecy::ExposeSecret::expose_secret(fixture.server.admin_token());
    for sequence in [4, 6] {
        let body = json!({"sequence": sequence});
        let refused = fixture.http.post(&url).bearer_auth(token).json(&body).send().await.unwrap();
        assert!(refused.status().is_client_error(), "{sequence}");
    }
    let restored = fixture.admin(&path, &json!({"sequence": then.0})).await;
    assert_eq!(restored["head_sequence"], then.0);
    assert_ne!(restored["epoch"], epoch);
    assert_eq!(fixture.snapshot().await, then);
    assert_eq!(fixture.changes(0, 10).await.len(), 2);
    fixture.collected().await;
    assert_eq!(fixture.number("SELECT count(*) FROM contents").await, 1);
    // What never was can be done again, and the old version is what is expected.
    let again = fixture.done(second).await;
    assert_eq!(again["sequence"], then.0 + 1);
    let bumped = fixture.admin(&path, &json!({})).await;
    assert_ne!(bumped["epoch"], restored["epoch"]);
    assert_eq!(bumped["head_sequence"], then.0 + 1);
}

#[tokio::test]
async fn all_of_it_outlives_a_restart() {
    let fixture = Fixture::new().await;
    let action = put("a", b"content", None);
    let done = fixture.done(action.clone()).await;
    let before = fixture.snapshot().await;
    let fixture = fixture.restarted().await;
    assert_eq!(fixture.snapshot().await, before);
    assert_eq!(fixture.done(action).await, done);
    let link = fixture
        .done(json!({"action": "download", "entry_id": done["entry"]["id"],
                     "version_id": version(&done)}))
        .await;
    let got = fixture.http.get(link["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(got.text().await.unwrap(), "content");
}
