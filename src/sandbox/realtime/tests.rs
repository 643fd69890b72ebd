//! Frames in, frames out: the channels of a socket without the socket.

#![expect(clippy::needless_pass_by_value, reason = "what is given is written where it is given")]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::channels::Channels;
use super::event::Event;
use super::token::{Grant, TokenError};
use crate::model::{GatewayId, TeamId};
use crate::phoenix::{Frame, Version};
use crate::sandbox::Caller;
use crate::sandbox::rules::Rules;
use crate::sandbox::store::schema::Schema;
use crate::sandbox::store::{Change, ChangeKind};

const TOPIC: &str = "realtime:a";
const NOW: i64 = 1_000;

/// `good` and `other` are tokens of two teams until 2,000; everything else is bad.
fn read(token: &str) -> Result<Grant, TokenError> {
    let team = match token {
        "good" => "t",
        "other" => "t2",
        "late" => return Err(TokenError::Expired(120)),
        _ => return Err(TokenError::Malformed),
    };
    let caller = Caller::Gateway {
        user_id: "u".into(),
        session_id: "s".into(),
        gateway_id: GatewayId::new("g"),
        team_id: TeamId::new(team),
    };
    Ok(Grant { caller, expires_at: Some(2 * NOW) })
}

/// A socket's channels; frames are `[join_ref, ref, topic, event, payload]`.
struct Core(Channels);

impl Core {
    fn new() -> Self {
        Self(Channels::new(Arc::new(Schema::built_in()), Rules::default()))
    }

    fn send(&mut self, frame: Value) -> Vec<Value> {
        let text = frame.to_string();
        let frame = Frame::decode(Version::V2, &text).unwrap();
        shown(self.0.receive(frame, text.len(), &read))
    }

    /// Joins with the reference 1.
    fn join(&mut self, token: &str, bindings: Value) -> Vec<Value> {
        let payload = json!({"config": {"postgres_changes": bindings}, "access_token": token});
        self.send(json!(["1", "1", TOPIC, "phx_join", payload]))
    }

    fn told(&self, event: &Event) -> Vec<Value> {
        let texts = self.0.deliver(event, Version::V2);
        texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }
}

fn shown(frames: Vec<Frame>) -> Vec<Value> {
    let text = |frame: &Frame| frame.encode(Version::V2).unwrap();
    frames.iter().map(|frame| serde_json::from_str(&text(frame)).unwrap()).collect()
}

fn reply(reference: &str, status: &str, response: Value) -> Value {
    let payload = json!({"status": status, "response": response});
    json!(["1", reference, TOPIC, "phx_reply", payload])
}

fn system(extension: &str, status: &str, message: &str) -> Value {
    let payload =
        json!({"extension": extension, "status": status, "message": message, "channel": "a"});
    json!(["1", null, TOPIC, "system", payload])
}

fn close() -> Value {
    json!(["1", "1", TOPIC, "phx_close", {}])
}

fn subscribed() -> Value {
    system("postgres_changes", "ok", "Subscribed to PostgreSQL")
}

fn jobs() -> Value {
    json!([{"event": "*", "schema": "public", "table": "gateway_jobs"}])
}

fn event(table: &'static str, kind: ChangeKind, row: Value) -> Event {
    let old = (kind != ChangeKind::Insert).then(|| row.clone());
    let table = Schema::built_in().table(table).unwrap();
    let change = Change { table: table.name, kind, row, old };
    Event::new(Arc::new(change), table, "2026-11-21T22:00:00.000Z".to_owned())
}

fn job(kind: ChangeKind) -> Event {
    event("gateway_jobs", kind, json!({"id": "j", "team_id": "t", "status": "queued"}))
}

#[test]
fn a_join_is_echoed_and_then_confirmed() {
    let asked = json!([
        {"table": "gateway_jobs", "schema": "public", "event": "INSERT", "extra": [1]},
        {"event": "*", "schema": "*"},
        {"event": "INSERT", "schema": "public", "table": "gateway_jobs", "extra": [1]},
    ]);
    let out = Core::new().join("good", asked.clone());
    assert_eq!(out.len(), 2);
    let mut echoed = out[0][4]["response"]["postgres_changes"].clone();
    let ids: Vec<Value> = echoed
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .map(|entry| entry.as_object_mut().unwrap().shift_remove("id").unwrap())
        .collect();
    assert_eq!(echoed.to_string(), asked.to_string(), "same order, nothing added");
    assert!(ids.iter().all(|id| id.as_u64().is_some_and(|id| id > 0)), "{ids:?}");
    assert_eq!(ids[0], ids[2], "the order of parameters means nothing");
    assert_ne!(ids[0], ids[1]);
    assert_eq!(out[1], subscribed());
}

#[test]
fn a_join_that_asks_for_no_changes_is_not_confirmed() {
    let mut core = Core::new();
    let out = core.join("good", json!([]));
    assert_eq!(out, [reply("1", "ok", json!({"postgres_changes": []}))]);
    let payload = json!({"config": {"broadcast": {"ack": true}, "presence": {"key": "x"},
                         "private": true}});
    let out = core.send(json!(["2", "2", "realtime:b", "phx_join", payload]));
    assert_eq!(out[0][4]["response"], json!({"postgres_changes": []}));
    for event in ["broadcast", "presence", "whatever"] {
        assert!(core.send(json!(["2", "3", "realtime:b", event, {}])).is_empty(), "{event}");
    }
}

#[test]
fn a_bad_binding_is_told_and_the_channel_stays() {
    for (binding, why) in [
        (json!({"table": "gateway_jobs", "filter": "nope=eq.1"}), "invalid column for filter nope"),
        (json!({"table": "gateway_jobs", "filter": 1}), "filter must be a text"),
        (json!({"table": "pairing_codes"}), "the table pairing_codes does not exist"),
        (json!({"schema": "auth", "table": "users"}), "the schema auth does not exist"),
        (json!({"event": "TRUNCATE"}), "unknown event TRUNCATE"),
        (json!({"filter": "id=eq.1"}), "a filter needs a table"),
    ] {
        let mut core = Core::new();
        let out = core.join("good", json!([jobs()[0], binding]));
        assert_eq!(out[0][4]["status"], "ok");
        let message = out[1][4]["message"].as_str().unwrap();
        assert!(message.ends_with(why) || message.contains(why), "{message}");
        let status = json!(["postgres_changes", "error"]);
        assert_eq!(json!([out[1][4]["extension"], out[1][4]["status"]]), status);
        assert!(core.told(&job(ChangeKind::Insert)).is_empty(), "nothing of it is live");
        let leave = core.send(json!(["1", "2", TOPIC, "phx_leave", {}]));
        assert_eq!(leave, [reply("2", "ok", json!({})), close()]);
    }
}

#[test]
fn refused_joins_say_why() {
    for (topic, payload, reason) in [
        (
            TOPIC,
            json!({"access_token": "late"}),
            "InvalidJWTToken: Token has expired 120 seconds ago",
        ),
        (
            TOPIC,
            json!({"access_token": "x"}),
            "MalformedJWT: The token provided is not a valid JWT",
        ),
        (
            TOPIC,
            json!({"config": {"postgres_changes": {}}}),
            "InvalidJoinPayload: postgres_changes must be a list of objects",
        ),
        (
            TOPIC,
            json!({"config": {"postgres_changes": [1]}}),
            "InvalidJoinPayload: postgres_changes must be a list of objects",
        ),
        (
            TOPIC,
            json!({"config": {"postgres_changes": vec![json!({}); 101]}}),
            "InvalidJoinPayload: a channel takes 100 bindings at most",
        ),
        ("realtime:", json!({}), "TopicNameRequired: You must provide a topic name"),
        ("phoenix", json!({}), "unmatched topic"),
        ("room:1", json!({}), "unmatched topic"),
    ] {
        let mut core = Core::new();
        let out = core.send(json!(["1", "1", topic, "phx_join", payload]));
        let expected = json!({"status": "error", "response": {"reason": reason}});
        assert_eq!(out, [json!(["1", "1", topic, "phx_reply", expected])]);
        let out = core.send(json!(["1", "2", topic, "access_token", {"access_token": "good"}]));
        assert_eq!(out[0][4]["response"]["reason"], "unmatched topic");
    }
}

#[test]
fn heartbeats_and_frames_for_nobody() {
    let mut core = Core::new();
    let out = core.send(json!([null, "9", "phoenix", "heartbeat", {}]));
    let ok = json!({"status": "ok", "response": {}});
    assert_eq!(out, [json!([null, "9", "phoenix", "phx_reply", ok])]);
    let out = core.send(json!(["5", "6", TOPIC, "phx_leave", {}]));
    assert_eq!(out, [json!(["5", "6", TOPIC, "phx_reply", ok])], "closed meanwhile");
    core.join("good", jobs());
    for event in ["phx_leave", "access_token"] {
        let out = core.send(json!(["0", "2", TOPIC, event, {"access_token": "x"}]));
        assert!(out.is_empty(), "{event} of another join: {out:?}");
    }
    assert_eq!(core.told(&job(ChangeKind::Insert)).len(), 1);
    let out = core.send(json!([null, "3", TOPIC, "phx_leave", {}]));
    assert_eq!(out, [reply("3", "ok", json!({})), close()], "version 1 sends no join_ref");
}

#[test]
fn a_second_join_closes_the_first() {
    let mut core = Core::new();
    core.join("good", jobs());
    let payload = json!({"config": {"postgres_changes": jobs()}, "access_token": "good"});
    let out = core.send(json!(["2", "2", TOPIC, "phx_join", payload]));
    assert_eq!(out[0], close());
    assert_eq!(out[1][0], "2");
    assert_eq!(out[2][0], "2");
    assert_eq!(core.told(&job(ChangeKind::Insert)).len(), 1);
}

#[test]
fn a_new_token_is_confirmed_and_a_bad_one_closes_the_channel() {
    let mut core = Core::new();
    core.join("good", jobs());
    let push = |token: &str| json!(["1", "2", TOPIC, "access_token", {"access_token": token}]);
    assert_eq!(core.send(push("good")), [subscribed()]);
    assert!(core.send(push("sb_publishable_x")).is_empty());
    assert_eq!(core.send(push("other")), [subscribed()]);
    assert!(core.told(&job(ChangeKind::Insert)).is_empty(), "the new token's rights count");
    let message = "Token has expired 120 seconds ago";
    assert_eq!(core.send(push("late")), [system("system", "error", message), close()]);
    assert_eq!(core.0.next_expiry(), None);
}

#[test]
fn a_channel_ends_with_its_token() {
    let mut core = Core::new();
    core.join("good", jobs());
    core.send(json!(["2", "2", "realtime:anonymous", "phx_join", {}]));
    assert_eq!(core.0.next_expiry(), Some(2 * NOW));
    assert!(core.0.expire(2 * NOW - 1).is_empty());
    let out = shown(core.0.expire(2 * NOW));
    assert_eq!(out, [system("system", "error", "Token has expired 0 seconds ago"), close()]);
    assert_eq!(core.0.next_expiry(), None);
    let out = core.send(json!(["2", "3", "realtime:anonymous", "phx_leave", {}]));
    assert_eq!(out.len(), 2, "the key does not expire");
}

#[test]
fn a_change_is_told_once_with_all_ids() {
    let mut core = Core::new();
    let out = core.join(
        "good",
        json!([
            {"event": "INSERT", "schema": "public", "table": "gateway_jobs"},
            {"event": "*", "schema": "public", "table": "gateway_jobs", "filter": "status=eq.queued"},
            {"event": "UPDATE", "schema": "public", "table": "gateway_jobs"},
            {"event": "*", "schema": "*"},
            {"event": "*", "schema": "*"},
        ]),
    );
    let id = |entry: usize| out[0][4]["response"]["postgres_changes"][entry]["id"].clone();
    let told = core.told(&job(ChangeKind::Insert));
    assert_eq!(told.len(), 1);
    let mut ids = vec![id(0), id(1), id(3)];
    ids.sort_by_key(Value::as_u64);
    assert_eq!(told[0][4]["ids"], json!(ids));
    let head = json!([told[0][0], told[0][1], told[0][2], told[0][3]]);
    assert_eq!(head, json!([null, null, TOPIC, "postgres_changes"]));
}

#[test]
fn the_shape_of_each_kind_of_change() {
    let mut core = Core::new();
    core.join("good", jobs());
    let data = |kind| core.told(&job(kind))[0][4]["data"].clone();
    let row = json!({"id": "j", "team_id": "t", "status": "queued"});
    let insert = data(ChangeKind::Insert);
    let columns = insert["columns"].as_array().unwrap();
    assert_eq!(columns[0], json!({"name": "id", "type": "uuid"}));
    assert!(columns.contains(&json!({"name": "created_at", "type": "timestamptz"})));
    let rest = |data: &Value| {
        let mut data = data.clone();
        data.as_object_mut().unwrap().shift_remove("columns");
        data
    };
    let expected = |kind: &str| {
        json!({"schema": "public", "table": "gateway_jobs", "type": kind, "errors": null,
               "commit_timestamp": "2026-11-21T22:00:00.000Z"})
    };
    let mut wanted = expected("INSERT");
    wanted["record"] = row.clone();
    assert_eq!(rest(&insert), wanted);
    let mut wanted = expected("UPDATE");
    wanted["record"] = row;
    wanted["old_record"] = json!({"id": "j"});
    assert_eq!(rest(&data(ChangeKind::Update)), wanted);
    let mut wanted = expected("DELETE");
    wanted["old_record"] = json!({"id": "j"});
    assert_eq!(rest(&data(ChangeKind::Delete)), wanted);
}

#[test]
fn only_readers_of_a_row_hear_of_it() {
    let everything = json!([{"event": "*", "schema": "*"}]);
    let row = json!({"id": "g", "team_id": "t", "gateway_id": "g"});
    let mate = json!({"id": "g9", "team_id": "t", "gateway_id": "g9"});
    let bare = json!({"id": "g"});
    for kind in [ChangeKind::Insert, ChangeKind::Update, ChangeKind::Delete] {
        for (token, table, row, hears) in [
            ("good", "gateway_jobs", &row, true),
            ("good", "gateway_jobs", &mate, true),
            ("good", "gateway_jobs", &bare, false),
            ("other", "gateway_jobs", &row, false),
            ("sb_x", "gateway_jobs", &row, false),
            ("", "gateway_jobs", &row, false),
            ("good", "team_gateways", &row, true),
            ("good", "team_gateways", &mate, false),
            ("good", "gateway_events", &row, false),
            ("other", "team_resources", &row, false),
        ] {
            let mut core = Core::new();
            assert_eq!(core.join(token, everything.clone()).len(), 2);
            let told = core.told(&event(table, kind, row.clone()));
            assert_eq!(told.len(), usize::from(hears), "{token} {table} {row} {kind:?}");
        }
    }
}

#[test]
fn a_change_of_more_than_one_mib_loses_its_large_fields() {
    let mut core = Core::new();
    core.join("good", jobs());
    let row = json!({"id": "j", "team_id": "t", "error": "x".repeat(1024 * 1024)});
    let told = core.told(&event("gateway_jobs", ChangeKind::Insert, row));
    let data = &told[0][4]["data"];
    assert_eq!(data["record"], json!({"id": "j", "team_id": "t"}));
    assert_eq!(data["errors"], json!(["Error 413: Payload Too Large"]));
}

#[test]
fn what_a_socket_makes_us_keep_is_bounded() {
    let join = |core: &mut Core, number: usize, padding: usize| {
        let topic = format!("realtime:{number}{}", "x".repeat(padding));
        core.send(json!(["1", "1", topic, "phx_join", {}]))[0][4]["response"]["reason"].clone()
    };
    let limit = json!("ChannelRateLimitReached: Too many channels");
    let mut core = Core::new();
    for number in 0..100 {
        assert_eq!(join(&mut core, number, 0), Value::Null);
    }
    assert_eq!(join(&mut core, 100, 0), limit);
    core.send(json!(["1", "2", "realtime:7", "phx_leave", {}]));
    assert_eq!(join(&mut core, 100, 0), Value::Null, "a place is free again");
    let mut core = Core::new();
    for number in 0..3 {
        assert_eq!(join(&mut core, number, 300_000), Value::Null);
    }
    assert_eq!(join(&mut core, 3, 300_000), limit);
}

/// Frames that mean something, in any order, and some that mean nothing.
fn any_frame() -> impl Strategy<Value = Value> {
    let reference = prop::option::of(prop::sample::select(vec!["1", "2", "3"]));
    let topic = prop::sample::select(vec![TOPIC, "realtime:b", "realtime:", "phoenix", "x"]);
    let event = prop::sample::select(vec![
        "phx_join",
        "phx_leave",
        "access_token",
        "heartbeat",
        "broadcast",
    ]);
    let token = prop::sample::select(vec!["good", "other", "late", "bad", "sb_x", ""]);
    let filter = prop::sample::select(vec!["id=eq.j", "status=in.(queued)", "nope=eq.1", "", "="]);
    let table = prop::sample::select(vec!["gateway_jobs", "team_gateways", "*", "nope"]);
    (reference.clone(), reference, topic, event, token, filter, table).prop_map(
        |(join_ref, reference, topic, event, token, filter, table)| {
            let binding = json!({"event": "*", "table": table, "filter": filter});
            let config = json!({"postgres_changes": [binding, {"table": table}]});
            json!([join_ref, reference, topic, event, {"access_token": token, "config": config}])
        },
    )
}

proptest! {
    #[test]
    fn every_answer_fits_its_frame(frames in prop::collection::vec(any_frame(), 1..30)) {
        let mut core = Core::new();
        for frame in frames {
            let out = core.send(frame.clone());
            for answer in &out {
                prop_assert_eq!(&answer[2], &frame[2]);
                match answer[3].as_str() {
                    Some("phx_reply") => prop_assert_eq!(&answer[1], &frame[1]),
                    // Clients ignore a close with another reference.
                    Some("phx_close") => prop_assert_eq!(&answer[1], &answer[0]),
                    Some("system") => prop_assert!(answer[1].is_null()),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            let replies = out.iter().filter(|answer| answer[3] == "phx_reply").count();
            prop_assert!(replies <= 1 && out.len() <= 3, "{:?}", out);
            prop_assert!(core.told(&job(ChangeKind::Update)).len() <= 2);
        }
        core.0.expire(i64::MAX);
        prop_assert!(core.told(&job(ChangeKind::Update)).is_empty(), "only a token has rights");
    }
}
