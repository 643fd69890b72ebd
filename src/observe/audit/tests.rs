//! The audit log under floods, refusals and restarts.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn fields(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_line_has_its_time_and_none_of_our_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let redactor = Redactor::default();
    redactor.add_secret("correct-horse-battery");
    let audit = Audit::new(&path, redactor);
    assert!(!path.exists(), "nothing is made before the first line");
    let command = "echo correct-horse-battery password=theirs";
    audit.record("job_started", fields(json!({"command": command}))).await;
    let line = &lines(&path)[0];
    assert_eq!(line["event"], "job_started");
    assert_eq!(line["command"], "echo [REDACTED] password=theirs");
    assert!(line["timestamp"].as_str().and_then(time::parse).is_some());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!((audit.lost_lines(), audit.trouble()), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let audit = Audit::new(&path, Redactor::default());
    let mut writers = crate::task::Group::new(tokio_util::sync::CancellationToken::new());
    for writer in 0..20 {
        let audit = audit.clone();
        writers.spawn(format!("writer {writer}"), move |_| async move {
            for number in 0..100 {
                audit.record("flood", fields(json!({"writer": writer, "number": number}))).await;
            }
        });
    }
    while writers.next().await.is_some() {}
    let lines = lines(&path);
    assert_eq!(lines.len(), 2_000);
    for writer in 0..20 {
        let own = lines.iter().filter(|line| line["writer"] == writer);
        let numbers: Vec<_> = own.map(|line| line["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "of writer {writer}, in order");
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_counted_and_told_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    std::fs::create_dir(&path).unwrap();
    let audit = Audit::new(&path, Redactor::default());
    audit.record("lost", Map::new()).await;
    audit.record("lost", Map::new()).await;
    assert_eq!(audit.lost_lines(), 2);
    assert_eq!(audit.trouble(), Some("the file could not be used"));
    std::fs::remove_dir(&path).unwrap();
    audit.record("kept", Map::new()).await;
    let lines = lines(&path);
    assert_eq!((&lines[0]["event"], &lines[0]["lines"]), (&json!("lines_lost"), &json!(2)));
    assert_eq!(lines[1]["event"], "kept");
    assert_eq!(audit.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_answer_costs_one_thread_and_some_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let audit = Audit::new(&path, Redactor::default());
    // Stands for a writer that is stuck.
    let turn = Arc::clone(&audit.shared.turn).acquire_owned().await.unwrap();
    let began = Instant::now();
    audit.record("lost", Map::new()).await;
    assert_eq!(began.elapsed(), PATIENCE);
    assert_eq!((audit.lost_lines(), audit.trouble()), (1, Some("the disk did not answer")));
    drop(turn);
    audit.record("kept", Map::new()).await;
    let lines = lines(&path);
    assert_eq!(lines[0]["reason"], "the disk did not answer");
    assert_eq!(lines[1]["event"], "kept");
}

#[test]
fn a_command_beside_a_gateway_does_not_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    std::fs::write(&path, format!("{}\n", "x".repeat(11 << 20))).unwrap();
    let audit = Audit::of_command(&path, Redactor::default());
    audit.record_now("paired", Map::new()).unwrap();
    assert!(!dir.path().join("audit.jsonl.1").exists());
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("\"event\":\"paired\"}\n"));
}

#[tokio::test]
async fn the_version_of_the_last_start_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let audit = Audit::new(&path, Redactor::default());
    assert_eq!(audit.last_version(), None);
    for version in ["0.1.0", "0.2.0"] {
        audit.record("gateway_started", fields(json!({"version": version}))).await;
    }
    audit.record("gateway_stopped", fields(json!({"version": "9"}))).await;
    assert_eq!(audit.last_version().as_deref(), Some("0.2.0"));
}
