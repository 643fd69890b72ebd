//! Two who write at the same time.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_of_one_path_exactly_one_wins_each_round() {
    const ROUNDS: u64 = 1000;
    let fixture = Fixture::new().await;
    let other = fixture.vm("vm-2").await;
    let mut current: Option<String> = None;
    let mut after = 0;
    for round in 0..ROUNDS {
        let one = put("hot", format!("one {round}").as_bytes(), current.as_deref());
        let two = put("hot", format!("two {round}").as_bytes(), current.as_deref());
        let (one, two) = tokio::join!(fixture.call(one), fixture.call_as(&other, two));
        let ((won, lost), (status, conflict)) = match (one.0.as_u16(), two.0.as_u16()) {
            (200, 409) => ((one.1, two.1), (409, "version_conflict")),
            (409, 200) => ((two.1, one.1), (409, "version_conflict")),
            both => panic!("round {round}: {both:?} {} {}", one.1, two.1),
        };
        assert_eq!((status, lost["error"]["code"].as_str()), (409, Some(conflict)));
        assert_eq!(lost["error"]["current"], won["entry"], "the loser is shown who won");
        let sequence = won["sequence"].as_u64().unwrap();
        assert_eq!(sequence, after + 1);
        after = sequence;
        current = Some(version(&won).to_owned());
    }
    let feed = fixture.changes(0, 1000).await;
    assert_eq!(feed.len() as u64, ROUNDS);
    let (head, entries) = fixture.snapshot().await;
    assert_eq!((head, entries.len()), (ROUNDS, 1));
    assert_eq!(feed.last().unwrap()["entry"], entries[0]);
    assert_eq!(fixture.number("SELECT count(*) FROM drive_versions").await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_operation_sent_twice_at_once_is_done_once() {
    let fixture = Fixture::new().await;
    for round in 0..100 {
        let action = put(&format!("f{round}"), b"x", None);
        let (one, two) = tokio::join!(fixture.call(action.clone()), fixture.call(action));
        assert_eq!(one.0, 200);
        assert_eq!(one, two);
    }
    assert_eq!(fixture.number("SELECT head FROM drives").await, 100);
}

/// Whoever follows the feed while others write misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_misses_nothing() {
    const EACH: u64 = 200;
    let fixture = Fixture::new().await;
    let write = async |name: &str| {
        for n in 0..EACH {
            fixture.done(put(&format!("{name}{n}"), name.as_bytes(), None)).await;
        }
    };
    let follow = async {
        let (mut after, mut seen) = (0, 0);
        while seen < 2 * EACH {
            let action = json!({"action": "changes", "after_sequence": after});
            let page = fixture.done(action).await;
            for change in page["changes"].as_array().unwrap() {
                let sequence = change["sequence"].as_u64().unwrap();
                assert_eq!(sequence, after + 1, "none is told of before an earlier one");
                after = sequence;
                seen += 1;
            }
        }
    };
    tokio::join!(write("a"), write("b"), follow);
}
