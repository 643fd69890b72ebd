//! What the backend tells on joined channels, and elsewhere.

use super::*;

#[tokio::test(start_paused = true)]
async fn queued_jobs_of_this_gateway_are_told_and_no_others() {
    let (mut bench, ..) = Bench::ready();
    for (row, wanted) in [
        (row("a", "g", "queued"), vec![r#"queued "a""#]),
        (row("b", "other", "queued"), vec![]),
        (row("c", "g", "running"), vec![]),
    ] {
        bench.hear(None, None, INSERTS, "postgres_changes", change("INSERT", &row, &json!(null)));
        assert_eq!(bench.said(), wanted, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_told_in_full_is_asked_for_at_most_once_a_second() {
    let whole = row("j", "g", "queued");
    let too_large = json!(["Error 413: Payload Too Large"]);
    let garbled = json!({"id": "j", "gateway_id": "g", "payload": 1});
    for payload in [
        change("INSERT", &whole, &too_large),
        change("INSERT", &json!(null), &json!(["Error 401: Unauthorized"])),
        change("INSERT", &garbled, &json!(null)),
        change("INSERT", &json!({"id": "j"}), &too_large),
        json!({}),
        json!("x"),
    ] {
        let (mut bench, ..) = Bench::ready();
        for _ in 0..3 {
            bench.hear(None, None, INSERTS, "postgres_changes", payload.clone());
        }
        assert_eq!(bench.said(), ["Unclear"], "{payload}");
        bench.now += UNCLEAR_EVERY;
        bench.hear(None, None, INSERTS, "postgres_changes", payload.clone());
        assert_eq!(bench.said(), ["Unclear"], "{payload}");
    }
    let (mut bench, ..) = Bench::ready();
    let foreign = change("INSERT", &row("j", "other", "queued"), &too_large);
    bench.hear(None, None, INSERTS, "postgres_changes", foreign);
    assert_eq!(bench.said(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn jobs_that_do_not_run_any_more_are_told_large_ones_too() {
    let (mut bench, ..) = Bench::ready();
    for (status, errors, told) in [
        ("running", json!(null), false),
        ("cancelled", json!(null), true),
        ("cancelled", json!(["Error 413: Payload Too Large"]), true),
        ("queued", json!([]), true),
        ("odd", json!(null), false),
    ] {
        let small = json!({"id": "j", "status": status});
        bench.hear(None, None, UPDATES, "postgres_changes", change("UPDATE", &small, &errors));
        let said = bench.said();
        assert_eq!(said == ["not running j"], told, "{status}: {said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_heard_on_channels_that_are_not_joined() {
    let mut bench = Bench::new();
    bench.link.connected(bench.now);
    bench.said();
    for topic in [INSERTS, UPDATES, "realtime:other", "", "x"] {
        bench.hear(
            None,
            None,
            topic,
            "postgres_changes",
            change("INSERT", &row("j", "g", "queued"), &json!(null)),
        );
        bench.subscribed(topic, "1");
        bench.close(topic, "1");
    }
    assert_eq!(bench.said(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn odd_frames_do_no_harm() {
    let (mut bench, inserts, _) = Bench::ready();
    for event in ["phx_reply", "system", "postgres_changes", "phx_weird", "presence_state", ""] {
        for payload in
            [json!(null), json!([]), json!("x"), json!(1), json!({"data": 1}), json!({"status": 1})]
        {
            for reference in [None, Some("5"), Some(inserts.as_str())] {
                bench.hear(Some(&inserts), reference, INSERTS, event, payload.clone());
                bench.hear(None, reference, UPDATES, event, payload.clone());
            }
        }
    }
    for text in ["", "{}", "[]", "null", "[1,2,3,4,5]", "\u{0}"] {
        bench.link.received(bench.now, text);
    }
    let said = bench.said();
    assert!(!said.contains(&"drop".to_owned()), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_leaves_what_it_had_joined() {
    let (mut bench, ..) = Bench::ready();
    bench.link.leave();
    let wanted = [format!("phx_leave {INSERTS}"), format!("phx_leave {UPDATES}")];
    assert_eq!(bench.said(), wanted);
}

#[tokio::test(start_paused = true)]
async fn outputs_do_not_show_tokens() {
    let mut bench = Bench::new();
    bench.link.connected(bench.now);
    bench.link.token(bench.now, &"hunter2".into());
    let shown = format!("{:?}", bench.link) + &format!("{:?}", bench.outputs());
    assert!(!shown.contains("hunter2"), "{shown}");
}
