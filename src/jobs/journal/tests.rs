use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;
use crate::backend::Completion;
use crate::model::{GatewayId, JobStatus};

fn record(id: &str) -> Record {
    Record::intent(JobId::new(id), GatewayId::new("g"), "shell_exec".into(), "s".into())
}

fn open(dir: &Path) -> Journal {
    Journal::open(&dir.join("jobs")).unwrap()
}

#[tokio::test]
async fn what_was_kept_is_found_by_the_next_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    assert_eq!(journal.found().await, []);
    let mut first = record("a");
    journal.intend(&first).await.unwrap();
    journal.intend(&record("b")).await.unwrap();
    journal.intend(&record("c")).await.unwrap();
    first.completion = Some(Completion {
        status: JobStatus::Failed,
        result: json!({"message": "m"}),
        error: Some("m".into()),
        completed_at: "t".into(),
    });
    journal.save(&first).await.unwrap();
    journal.remove(&JobId::new("b")).await;
    assert_eq!(journal.usage().0, 2);
    let again = open(dir.path());
    assert_eq!(again.found().await, [first, record("c")]);
    assert_eq!(again.usage(), journal.usage());
    let mode =
        |path: &str| dir.path().join(path).symlink_metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("jobs"), mode("jobs/a.json")), (0o700, 0o600));
}

#[tokio::test]
async fn past_the_bounds_nothing_is_claimed_until_something_went() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    // The bound counts what is on disk or about to be.
    for n in 0..MAX_RECORDS {
        journal.sizes().insert(JobId::new(n.to_string()), 1);
    }
    let trouble = journal.trouble();
    let error = journal.intend(&record("late")).await.unwrap_err();
    assert!(matches!(error, JournalError::Full { records: MAX_RECORDS, .. }), "{error}");
    assert!(trouble.borrow().as_deref().is_some_and(|why| why.contains("full")));
    assert!(!dir.path().join("jobs/late.json").exists());
    journal.remove(&JobId::new("7")).await;
    assert_eq!(*trouble.borrow(), None);
    journal.intend(&record("late")).await.unwrap();
    journal.remove(&JobId::new("late")).await;
    journal.sizes().insert(JobId::new("huge"), MAX_BYTES);
    assert!(journal.intend(&record("late")).await.is_err());
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_trouble_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.intend(&record("kept")).await.unwrap();
    let before = journal.usage();
    // A directory in the way of a record fails its rename, for root too.
    std::fs::create_dir(dir.path().join("jobs/new.json")).unwrap();
    assert!(journal.intend(&record("new")).await.is_err());
    assert!(journal.trouble().borrow().is_some());
    assert_eq!(journal.usage(), before);
    journal.try_again().await;
    assert_eq!(*journal.trouble().borrow(), None, "other records can be written");
    journal.intend(&record("fine")).await.unwrap();
}

#[tokio::test]
async fn what_is_no_record_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = dir.path().join("jobs");
    drop(open(dir.path()));
    std::os::unix::fs::symlink("/etc/hostname", jobs.join("link.json")).unwrap();
    std::fs::write(jobs.join(".x.json.0123456789.tmp"), "half").unwrap();
    for (name, text) in [
        ("damaged.json", "{\"version\":1,"),
        ("newer.json", "{\"version\":2,\"id\":\"x\"}"),
        ("other.txt", "?"),
    ] {
        std::fs::write(jobs.join(name), text).unwrap();
    }
    let journal = open(dir.path());
    assert_eq!((journal.found().await, journal.usage().0), (vec![], 0));
    assert!(jobs.join("damaged.json").exists() && jobs.join("newer.json").exists());
    assert!(!jobs.join(".x.json.0123456789.tmp").exists(), "a write that was killed half-way");
}

#[tokio::test]
async fn a_rejected_result_is_kept_for_a_week() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let path = journal.set_aside(&record("r")).await.unwrap();
    assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(open(dir.path()).found().await, []);
    assert!(path.exists(), "it is young");
    let week_ago = SystemTime::now() - KEEP_REJECTED;
    std::fs::File::open(&path).unwrap().set_modified(week_ago).unwrap();
    drop(open(dir.path()));
    assert!(!path.exists());
}

#[test]
fn no_id_leads_out_of_the_journal() {
    assert_eq!(file_name(&JobId::new("01a2-b_c.d")), "01a2-b_c.d.json");
    for id in ["", ".", "..", "../x", "a/b", ".hidden", "ü", "a\0b", &"x".repeat(200)] {
        let name = file_name(&JobId::new(id));
        assert!(name.ends_with(".sha256.json") && name.len() == 76, "{id:?}: {name}");
    }
}
