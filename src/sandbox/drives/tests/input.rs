//! What is no good request.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn paths_that_lead_elsewhere_are_refused() {
    let fixture = Fixture::new().await;
    let long = "n".repeat(256);
    let wide = "ü".repeat(128);
    let deep = format!("{}/n", vec!["n".repeat(255); 16].join("/"));
    for path in
        ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b", &long, &wide, &deep]
    {
        for mut action in [
            mkdir(path),
            put(path, b"x", None),
            prepare(path, b"x"),
            json!({"action": "delete", "path": path, "expect_empty": true, "operation_id": id()}),
            json!({"action": "move", "from": path, "to": "b", "expected_version_id": "v",
                   "operation_id": id()}),
            json!({"action": "move", "from": "b", "to": path, "expected_version_id": "v",
                   "operation_id": id()}),
        ] {
            assert_eq!(fixture.refused(action.clone()).await, "invalid_path", "{action}");
            action.as_object_mut().unwrap().remove("drive_id");
            let batch = json!({"action": "batch", "operations": [action]});
            let answer = fixture.done(batch).await;
            assert_eq!(answer["results"][0]["error"]["code"], "invalid_path");
        }
    }
    assert_eq!(fixture.number("SELECT count(*) FROM drive_changes").await, 0);
}

#[tokio::test]
async fn names_are_bytes_and_never_folded() {
    let fixture = Fixture::new().await;
    // Letter case, and one name in two Unicode forms.
    for path in ["readme", "README", "\u{e9}", "e\u{301}", "a b", "a\\b", "...", "\u{1}", "%2e%2e"]
    {
        let done = fixture.done(put(path, path.as_bytes(), None)).await;
        assert_eq!(done["entry"]["path"], path);
    }
    assert_eq!(fixture.snapshot().await.1.len(), 9);
}

#[tokio::test]
async fn bodies_that_are_none_are_refused_whole() {
    let fixture = Fixture::new().await;
    let drive = &fixture.drive;
    for body in [
        String::new(),
        "[]".into(),
        "{".into(),
        "null".into(),
        r#"{"client_key": "k"}"#.into(),
        r#"{"client_key": "k", "action": "format"}"#.into(),
        r#"{"action": "renew"}"#.into(),
        r#"{"client_key": "", "action": "renew"}"#.into(),
        format!(r#"{{"client_key": "{}", "action": "renew"}}"#, "k".repeat(201)),
        r#"{"client_key": "a\u0000", "action": "renew"}"#.into(),
        // Half of a surrogate pair is no text.
        format!(
            r#"{{"client_key": "k", "action": "mkdir", "drive_id": "{drive}", "path": "\ud800",
                "operation_id": "o"}}"#
        ),
        format!(
            r#"{{"client_key": "k", "action": "changes", "drive_id": "{drive}",
                "after_sequence": -1}}"#
        ),
    ] {
        let response = fixture.post(&fixture.token, body.clone()).await;
        assert_eq!(response.status(), 400, "{body}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["code"], "invalid_request", "{body}");
    }
    // A byte that is no UTF-8.
    let url = format!("{}/functions/v1/vm-drive-sync", fixture.server.url());
    let mut body = br#"{"client_key": "k", "action": "mkdir", "drive_id": "d", "path": ""#.to_vec();
    body.extend([0xff, b'"', b'}']);
    let response = fixture.http.post(url).bearer_auth(&fixture.token).body(body).send().await;
    assert_eq!(response.unwrap().status(), 400);
}

#[tokio::test]
async fn wrong_hashes_and_sizes_are_refused() {
    let fixture = Fixture::new().await;
    let mut wrong = put("a", b"content", None);
    wrong["content_sha256"] = json!(sha256(b"other"));
    assert_eq!(fixture.refused(wrong).await, "content_mismatch");
    let mut wrong = put("a", b"content", None);
    wrong["size_bytes"] = json!(6);
    assert_eq!(fixture.refused(wrong).await, "content_mismatch");
    for hash in ["", "xyz", &"A".repeat(64), &"a".repeat(65)] {
        let mut wrong = put("a", b"content", None);
        wrong["content_sha256"] = json!(hash);
        assert_eq!(fixture.refused(wrong).await, "invalid_request");
    }
    let mut wrong = put("a", b"content", None);
    wrong["content"] = json!("not base64!");
    assert_eq!(fixture.refused(wrong).await, "invalid_request");
    assert_eq!(fixture.refused(put("a", &vec![0; 64 * 1024 + 1], None)).await, "too_large");
    let mut wrong = put("a", b"content", None);
    wrong["metadata"] = json!({"mode": 0o1000});
    assert_eq!(fixture.refused(wrong).await, "invalid_request");
    let mut wrong = prepare("a", b"content");
    wrong["size_bytes"] = json!(u64::MAX);
    assert_eq!(fixture.refused(wrong).await, "too_large");
    assert_eq!(fixture.number("SELECT count(*) FROM contents").await, 0);
}

#[tokio::test]
async fn too_many_at_a_time_are_refused_whole() {
    let fixture = Fixture::new().await;
    let many = |count: u32| {
        let operations: Vec<Value> = (0..count).map(|n| mkdir(&format!("d{n}"))).collect();
        json!({"action": "batch", "operations": operations})
    };
    assert_eq!(fixture.refused(many(501)).await, "too_large");
    assert_eq!(fixture.done(many(500)).await["results"].as_array().unwrap().len(), 500);
    let content = vec![7_u8; 64 * 1024];
    let large = |count: u32| {
        let operations: Vec<Value> =
            (0..count).map(|n| put(&format!("f{n}"), &content, None)).collect();
        json!({"action": "batch", "operations": operations})
    };
    assert_eq!(fixture.refused(large(129)).await, "too_large");
    fixture.done(large(128)).await;
    let entries = vec![json!({"entry_id": "e", "version_id": "v"}); 501];
    let action = json!({"action": "downloads", "entries": entries});
    assert_eq!(fixture.refused(action).await, "too_large");
}

#[tokio::test]
async fn only_a_drive_token_in_force_opens_anything() {
    let fixture = Fixture::new().await;
    let hello = || json!({"action": "hello", "protocol": 1});
    for token in ["", "x", fixture.server.anon_key(), &format!("{}x", fixture.token)] {
        let (status, answer) = fixture.call_as(token, hello()).await;
        assert_eq!(
            (status.as_u16(), answer["error"]["code"].as_str()),
            (401, Some("unauthorized"))
        );
    }
    let old = fixture.server.drive_token(
        GatewayId::new("g"),
        fixture.server.app.team_id.clone(),
        None,
        Duration::ZERO,
    );
    let (status, answer) = fixture.call_as(&old, hello()).await;
    assert_eq!((status.as_u16(), answer["error"]["code"].as_str()), (401, Some("token_expired")));
    let other = json!({"action": "hello", "protocol": 2});
    assert_eq!(fixture.refused(other).await, "unsupported_protocol");
    let hello = fixture.done(hello()).await;
    assert_eq!(hello["drives"][0]["slug"], "shared");
    assert_eq!(hello["limits"]["batch"], 500);
    let renewed = fixture.done(json!({"action": "renew"})).await;
    let (status, _) =
        fixture.call_as(renewed["token"].as_str().unwrap(), json!({"action": "digest"})).await;
    assert_eq!(status, 200);
    assert!(renewed["expires_at"].as_str().unwrap() >= hello["token_expires_at"].as_str().unwrap());
}
