use serde_json::{Value, json};

use super::*;

fn round_trip(json: &Value) -> Request {
    let request: Request = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&request).unwrap(), *json);
    request
}

#[test]
fn requests_have_the_shape_that_is_written_down() {
    for request in [
        json!({"client_key": "k", "action": "hello", "protocol": 1}),
        json!({"client_key": "k", "action": "renew"}),
        json!({"client_key": "k", "action": "changes", "drive_id": "d", "after_sequence": 7,
               "limit": 50}),
        json!({"client_key": "k", "action": "snapshot", "drive_id": "d"}),
        json!({"client_key": "k", "action": "digest", "drive_id": "d"}),
        json!({"client_key": "k", "action": "prepare_upload", "drive_id": "d", "path": "a/b",
               "size_bytes": 3, "content_sha256": "00", "mime_type": "text/plain",
               "metadata": {"mode": 493}, "expected_version_id": null, "operation_id": "o"}),
        json!({"client_key": "k", "action": "commit_upload", "drive_id": "d", "upload_id": "u",
               "operation_id": "o"}),
        json!({"client_key": "k", "action": "put", "drive_id": "d", "path": "a", "size_bytes": 3,
               "content_sha256": "00", "expected_version_id": "v", "operation_id": "o",
               "content": "YWJj"}),
        json!({"client_key": "k", "action": "download", "drive_id": "d", "entry_id": "e",
               "version_id": "v"}),
        json!({"client_key": "k", "action": "downloads", "drive_id": "d",
               "entries": [{"entry_id": "e", "version_id": "v"}]}),
        json!({"client_key": "k", "action": "mkdir", "drive_id": "d", "path": "a",
               "operation_id": "o"}),
        json!({"client_key": "k", "action": "delete", "drive_id": "d", "path": "a",
               "expect_empty": true, "operation_id": "o"}),
        json!({"client_key": "k", "action": "move", "drive_id": "d", "from": "a", "to": "b",
               "expected_version_id": "v", "operation_id": "o"}),
    ] {
        round_trip(&request);
    }
}

#[test]
fn a_batch_holds_what_the_actions_alone_take() {
    let request = round_trip(&json!({
        "client_key": "k", "action": "batch", "drive_id": "d", "operations": [
            {"action": "mkdir", "path": "a", "operation_id": "1"},
            {"action": "put", "path": "a/b", "size_bytes": 3, "content_sha256": "00",
             "expected_version_id": null, "operation_id": "2", "content": "YWJj"},
            {"action": "commit_upload", "upload_id": "u", "operation_id": "3"},
            {"action": "delete", "path": "c", "expected_version_id": "v", "operation_id": "4"},
        ],
    }));
    let Action::Batch { operations, .. } = request.action else { panic!("not a batch") };
    let Operation::Put { content, .. } = &operations[1] else { panic!("not a put") };
    assert_eq!(content.0, b"abc");
}

#[test]
fn results_of_a_batch_are_told_apart_by_what_they_hold() {
    let entry = json!({
        "id": "e", "drive_id": "d", "path": "a", "entry_type": "directory",
        "current_version_id": "v", "content_sha256": null, "size_bytes": null, "mime_type": null,
        "metadata": {}, "updated_at": "2025-11-03T09:32:55.000Z",
    });
    let json = json!({"results": [
        {"error": {"code": "version_conflict", "message": "other", "current": entry}},
        {"entry": entry, "sequence": 4},
        {"upload_id": "u", "url": "http://x", "method": "PUT", "headers": {}, "present": false},
    ]});
    let done: BatchDone = serde_json::from_value(json.clone()).unwrap();
    assert!(matches!(
        done.results[..],
        [OperationResult::Refused(_), OperationResult::Done(_), OperationResult::Prepared(_)]
    ));
    assert_eq!(serde_json::to_value(&done).unwrap(), json);
}

#[test]
fn an_unknown_code_and_bad_base64_are_told() {
    let error: ErrorBody =
        serde_json::from_value(json!({"error": {"code": "new_one", "message": "m"}})).unwrap();
    assert_eq!(error.error.code, Code::Unknown);
    assert!(serde_json::from_value::<Inline>(json!("YWJ")).is_err());
}

#[test]
fn debug_shows_neither_tokens_nor_contents() {
    let renewed = Renewed { token: "secret".into(), expires_at: "t".into() };
    assert!(!format!("{renewed:?}").contains("secret"));
    assert_eq!(format!("{:?}", Inline(b"abc".to_vec())), "Inline(3 bytes)");
}
