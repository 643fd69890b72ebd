//! Scripted frames and time; no I/O.

mod telling;

use super::super::channel::REFUSED_PAUSE;
use super::*;

const INSERTS: &str = "realtime:gateway_jobs_g";
const UPDATES: &str = "realtime:gateway_jobs_g_updates";
const JOIN_LIMIT: Duration = Duration::from_secs(15);

struct Bench {
    link: Link,
    now: Instant,
}

impl Bench {
    /// Not connected yet.
    fn new() -> Self {
        let now = Instant::now();
        let rng = fastrand::Rng::with_seed(7);
        let link = Link::new(now, GatewayId::new("g"), TeamId::new("t"), rng);
        Self { link, now }
    }

    /// Both channels joined with this token; their references.
    fn joined(token: &str) -> (Self, String, String) {
        let mut bench = Self::new();
        bench.link.connected(bench.now);
        bench.said();
        let (inserts, updates) = bench.join_both(token);
        (bench, inserts, updates)
    }

    /// Both channels ready.
    fn ready() -> (Self, String, String) {
        let (mut bench, inserts, updates) = Self::joined("token");
        for (topic, join) in [(INSERTS, &inserts), (UPDATES, &updates)] {
            bench.accept(topic, join);
            bench.subscribed(topic, join);
        }
        bench.said();
        (bench, inserts, updates)
    }

    fn join_both(&mut self, token: &str) -> (String, String) {
        self.link.token(self.now, &token.into());
        let frames = self.frames();
        let joins: Vec<_> = frames.iter().filter(|frame| frame.event == "phx_join").collect();
        assert_eq!(joins.len(), 2, "{frames:?}");
        let reference = |topic: &str| {
            let join = joins.iter().find(|frame| frame.topic == topic).unwrap();
            assert_eq!(join.payload["access_token"], token);
            assert_eq!(join.join_ref, join.reference);
            join.reference.clone().unwrap()
        };
        (reference(INSERTS), reference(UPDATES))
    }

    /// The one join that is sent for a new token.
    fn rejoin(&mut self, token: &str) -> (String, String) {
        self.link.token(self.now, &token.into());
        let mut frames = self.frames();
        frames.retain(|frame| frame.event == "phx_join");
        let [frame] = frames.as_slice() else { panic!("{frames:?}") };
        assert_eq!(frame.payload["access_token"], token);
        (frame.topic.clone(), frame.reference.clone().unwrap())
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.link.tick(self.now);
    }

    /// Passes time to the next deadline.
    fn pass_to_deadline(&mut self) -> Duration {
        let due = self.link.deadline().unwrap();
        let passed = due.saturating_duration_since(self.now);
        self.pass(passed);
        passed
    }

    fn hear(
        &mut self,
        join: Option<&str>,
        reference: Option<&str>,
        topic: &str,
        event: &str,
        payload: impl Into<Value>,
    ) {
        let text = json!([join, reference, topic, event, payload.into()]).to_string();
        self.link.received(self.now, &text);
    }

    fn accept(&mut self, topic: &str, join: &str) {
        let echo = [self.link.binding(self.link.topic_of(topic).unwrap())];
        let response = json!({"status": "ok", "response": {"postgres_changes": echo}});
        self.hear(Some(join), Some(join), topic, "phx_reply", response);
    }

    fn refuse(&mut self, topic: &str, join: &str, reason: &str) {
        let response = json!({"status": "error", "response": {"reason": reason}});
        self.hear(Some(join), Some(join), topic, "phx_reply", response);
    }

    fn system(&mut self, topic: &str, join: &str, extension: &str, status: &str, message: &str) {
        let payload = json!({"extension": extension, "status": status, "message": message});
        self.hear(Some(join), None, topic, "system", payload);
    }

    fn subscribed(&mut self, topic: &str, join: &str) {
        self.system(topic, join, "postgres_changes", "ok", "Subscribed to PostgreSQL");
    }

    fn close(&mut self, topic: &str, join: &str) {
        self.hear(Some(join), Some(join), topic, "phx_close", json!({}));
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.link.next_output()).collect()
    }

    /// What is sent; nothing else must be to do but telling.
    fn frames(&mut self) -> Vec<Frame> {
        let outputs = self.outputs().into_iter();
        outputs
            .filter_map(|output| match output {
                Output::Send(text) => {
                    Some(Frame::decode(Version::V2, text.expose_secret()).unwrap())
                }
                Output::Tell(_) => None,
                other @ (Output::Token(_) | Output::Drop(_)) => panic!("{other:?}"),
            })
            .collect()
    }

    /// One word an output.
    fn said(&mut self) -> Vec<String> {
        self.outputs().iter().map(word).collect()
    }
}

fn word(output: &Output) -> String {
    match output {
        Output::Send(text) => {
            let frame = Frame::<Value>::decode(Version::V2, text.expose_secret()).unwrap();
            format!("{} {}", frame.event, frame.topic)
        }
        Output::Token(refused) => {
            let refused = refused.as_ref().map(|token| token.expose_secret().to_owned());
            format!("token not {refused:?}")
        }
        Output::Drop(_) => "drop".to_owned(),
        Output::Tell(event) => match event {
            Event::State(state, _) => format!("{state:?}"),
            Event::Subscribed(topic) => format!("subscribed {topic:?}"),
            Event::Queued { row, .. } => format!("queued {}", row["id"]),
            Event::NotRunning(id) => format!("not running {id}"),
            Event::Unavailable(why) => format!("unavailable {why}"),
            Event::Connected | Event::Unclear | Event::SessionFailed(_) => format!("{event:?}"),
        },
    }
}

type Trouble = dyn Fn(&mut Bench, &str);

fn row(id: &str, gateway: &str, status: &str) -> Value {
    json!({"id": id, "team_id": "t", "gateway_id": gateway, "job_type": "diagnostic",
           "status": status, "created_at": "2025-11-03T09:32:55.1+00:00", "payload": {}})
}

fn change(kind: &str, row: &Value, errors: &Value) -> Value {
    json!({"ids": [1], "data": {"schema": "public", "table": "gateway_jobs", "type": kind,
           "commit_timestamp": "2025-11-03T09:32:55.123Z", "columns": [], "record": row,
           "errors": errors}})
}

#[tokio::test(start_paused = true)]
async fn a_connection_asks_for_a_token_and_joins_both_channels() {
    let mut bench = Bench::new();
    assert_eq!(bench.link.wants_socket_at(), Some(bench.now));
    bench.link.connected(bench.now);
    assert_eq!(bench.said(), ["Connected", "token not None", "Joining"]);
    bench.link.token(bench.now, &"token".into());
    let frames = bench.frames();
    let config = |topic: &str| {
        let join = frames.iter().find(|frame| frame.topic == topic).unwrap();
        join.payload["config"]["postgres_changes"].clone()
    };
    let table = json!({"schema": "public", "table": "gateway_jobs"});
    for (topic, event, filter) in
        [(INSERTS, "INSERT", "team_id=eq.t"), (UPDATES, "UPDATE", "gateway_id=eq.g")]
    {
        let config = config(topic);
        assert_eq!((&config[0]["event"], &config[0]["filter"]), (&json!(event), &json!(filter)));
        assert_eq!(config[0]["schema"], table["schema"]);
        assert_eq!(
            (config[0]["table"].clone(), config[1].clone()),
            (table["table"].clone(), json!(null))
        );
    }
    let payload = &frames[0].payload["config"];
    assert_eq!(payload["broadcast"], json!({"ack": false, "self": false}));
    assert_eq!(payload["presence"], json!({"key": "", "enabled": false}));
    assert_eq!(payload["private"], false);
}

#[tokio::test(start_paused = true)]
async fn an_ok_reply_is_not_readiness_the_backends_word_is() {
    let (mut bench, inserts, _) = Bench::joined("token");
    bench.accept(INSERTS, &inserts);
    assert_eq!(bench.said(), Vec::<String>::new());
    assert!(!bench.link.is_ready());
    bench.subscribed(INSERTS, &inserts);
    assert_eq!(bench.said(), ["subscribed Inserts", "Ready"]);
    // After a pushed token it comes once more.
    bench.subscribed(INSERTS, &inserts);
    assert_eq!(bench.said(), ["subscribed Inserts"]);
}

#[tokio::test(start_paused = true)]
async fn no_readiness_within_15_s_is_a_new_join() {
    let (mut bench, inserts, _) = Bench::joined("token");
    bench.accept(INSERTS, &inserts);
    bench.pass(Duration::from_millis(14_999));
    assert_eq!(bench.said(), Vec::<String>::new());
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.said(), ["token not None"]);
    let (again, _) = bench.join_both("token");
    // What belongs to the first join comes too late.
    bench.subscribed(INSERTS, &inserts);
    bench.close(INSERTS, &inserts);
    assert_eq!(bench.said(), Vec::<String>::new());
    bench.subscribed(INSERTS, &again);
    assert_eq!(bench.said(), ["subscribed Inserts", "Ready"]);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_out_every_25_s_and_one_without_answer_drops_the_connection() {
    let (mut bench, ..) = Bench::ready();
    for _ in 0..3 {
        assert_eq!(bench.pass_to_deadline(), HEARTBEAT_EVERY);
        let frames = bench.frames();
        assert_eq!((frames[0].topic.as_str(), frames[0].event.as_str()), ("phoenix", "heartbeat"));
        let answer = json!({"status": "ok", "response": {}});
        bench.hear(None, Some("999"), "phoenix", "phx_reply", answer.clone());
        bench.hear(None, frames[0].reference.as_deref(), "phoenix", "phx_reply", answer);
    }
    bench.pass(HEARTBEAT_EVERY);
    assert_eq!(bench.said(), ["heartbeat phoenix"]);
    bench.hear(None, Some("999"), "phoenix", "phx_reply", json!({"status": "ok"}));
    bench.pass(HEARTBEAT_EVERY);
    assert_eq!(bench.said(), ["drop"]);
    bench.link.disconnected(bench.now, Some("mute".into()));
    assert_eq!(bench.said(), ["Disconnected"]);
    assert_eq!(bench.link.wants_socket_at(), Some(bench.now));
}

#[tokio::test(start_paused = true)]
async fn an_unasked_close_and_a_crash_are_new_joins_with_a_fresh_token() {
    for event in ["phx_close", "phx_error"] {
        for reference in [true, false] {
            let (mut bench, inserts, _) = Bench::ready();
            let reference = reference.then_some(inserts.as_str());
            bench.hear(Some(&inserts), reference, INSERTS, event, json!({}));
            assert_eq!(bench.said(), ["token not None", "Joining"], "{event}");
            let (topic, again) = bench.rejoin("fresh");
            assert_eq!(topic, INSERTS);
            assert_ne!(again, inserts);
            bench.subscribed(INSERTS, &again);
            assert!(bench.link.is_ready());
        }
    }
    // With another reference it is not about the join.
    let (mut bench, inserts, _) = Bench::ready();
    bench.hear(Some(&inserts), Some("4711"), INSERTS, "phx_close", json!({}));
    assert!(bench.link.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expired_is_refreshed_before_the_next_join() {
    let (mut bench, inserts, _) = Bench::ready();
    bench.system(INSERTS, &inserts, "system", "error", "Token has expired 0 seconds ago");
    assert_eq!(bench.said(), Vec::<String>::new());
    bench.close(INSERTS, &inserts);
    assert_eq!(bench.said(), [r#"token not Some("token")"#, "Joining"]);

    let (mut bench, inserts, _) = Bench::joined("old");
    bench.refuse(INSERTS, &inserts, "InvalidJWTToken: Token has expired 3 seconds ago");
    assert_eq!(bench.said(), [r#"token not Some("old")"#]);
    bench.link.no_token(bench.now);
    assert_eq!(bench.pass_to_deadline(), TOKEN_PAUSE);
    assert_eq!(bench.said(), ["token not None"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_token_is_pushed_on_both_channels_once() {
    let (mut bench, ..) = Bench::ready();
    for _ in 0..2 {
        bench.link.token(bench.now, &"token".into());
        assert_eq!(bench.said(), Vec::<String>::new());
    }
    bench.link.token(bench.now, &"new".into());
    let frames = bench.frames();
    let pushed: Vec<_> =
        frames.iter().map(|frame| (frame.topic.as_str(), frame.event.as_str())).collect();
    assert_eq!(pushed, [(INSERTS, "access_token"), (UPDATES, "access_token")]);
    assert!(frames.iter().all(|frame| frame.payload["access_token"] == "new"));
    assert!(frames.iter().all(|frame| frame.join_ref.is_some()));
    bench.link.token(bench.now, &"new".into());
    assert_eq!(bench.said(), Vec::<String>::new());
    assert!(bench.link.is_ready());
}

#[tokio::test(start_paused = true)]
async fn limits_and_restarts_are_given_time() {
    for reason in [
        "ChannelRateLimitReached: too many channels",
        "ConnectionRateLimitReached: x",
        "ClientJoinRateLimitReached: x",
        "InitializingProjectConnection: x",
        "UnableToConnectToProject: x",
        "DatabaseLackOfConnections: x",
        "RealtimeRestarting: x",
        "SomethingNew",
    ] {
        let (mut bench, mut inserts, updates) = Bench::joined("token");
        bench.subscribed(UPDATES, &updates);
        bench.said();
        let mut last = Duration::ZERO;
        for attempt in 0..10 {
            bench.refuse(INSERTS, &inserts, reason);
            assert_eq!(bench.said(), Vec::<String>::new(), "{reason}");
            last = bench.link.inserts.deadline().unwrap() - bench.now;
            let within = Duration::from_secs(5)..=Duration::from_mins(1);
            assert!(within.contains(&last), "{reason} {attempt}: {last:?}");
            // Only the channel's time passes here: heartbeats are another test's.
            bench.now += last;
            bench.link.settle(bench.now);
            assert_eq!(bench.said(), ["token not None"]);
            inserts = bench.rejoin("token").1;
        }
        assert!(last >= Duration::from_secs(15), "it grows: {last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_outlives_the_connection() {
    let (mut bench, inserts, _) = Bench::joined("token");
    bench.refuse(INSERTS, &inserts, "ClientJoinRateLimitReached: x");
    let due = bench.link.inserts.deadline();
    bench.link.disconnected(bench.now, None);
    assert_eq!(bench.link.inserts.deadline(), due);
    bench.link.hurry(bench.now);
    assert_eq!(bench.link.inserts.deadline(), Some(bench.now), "but not a wake");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_asked_again_every_10_min_and_told_once() {
    for reason in [
        "Unauthorized: You do not have permissions",
        "MalformedJWT: The token provided is not a valid JWT",
        "JwtSignatureError: x",
        "TenantNotFound: x",
        "RealtimeDisabledForTenant: x",
        "Unauthorized",
    ] {
        let (mut bench, mut inserts, updates) = Bench::joined("token");
        bench.subscribed(UPDATES, &updates);
        bench.said();
        bench.refuse(INSERTS, &inserts, reason);
        let told = [format!("unavailable {reason}"), "Unavailable".to_owned()];
        assert_eq!(bench.said(), told, "{reason}");
        for _ in 0..3 {
            let due = bench.link.inserts.deadline().unwrap();
            assert_eq!(due - bench.now, REFUSED_PAUSE);
            bench.now = due;
            bench.link.settle(bench.now);
            assert_eq!(bench.said(), ["token not None", "Joining"]);
            inserts = bench.rejoin("token").1;
            bench.refuse(INSERTS, &inserts, reason);
            assert_eq!(bench.said(), ["Unavailable"]);
        }
        bench.now += REFUSED_PAUSE;
        bench.link.settle(bench.now);
        bench.said();
        inserts = bench.rejoin("token").1;
        bench.subscribed(INSERTS, &inserts);
        assert_eq!(bench.said(), ["subscribed Inserts", "Ready"]);
        bench.close(INSERTS, &inserts);
        bench.now = bench.link.inserts.deadline().unwrap();
        bench.link.settle(bench.now);
        bench.said();
        inserts = bench.rejoin("token").1;
        bench.refuse(INSERTS, &inserts, reason);
        assert_eq!(bench.said(), told, "told again after it had worked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_without_a_channel_is_dropped_until_a_channel_may_be_joined() {
    let (mut bench, inserts, updates) = Bench::joined("token");
    bench.refuse(INSERTS, &inserts, "Unauthorized: x");
    bench.refuse(UPDATES, &updates, "Unauthorized: x");
    let said = bench.said();
    assert_eq!(said, ["unavailable Unauthorized: x", "Unavailable", "drop"]);
    bench.link.disconnected(bench.now, None);
    assert_eq!(bench.said(), Vec::<String>::new());
    assert_eq!(bench.link.wants_socket_at(), Some(bench.now + REFUSED_PAUSE));
    bench.now += REFUSED_PAUSE;
    bench.link.connected(bench.now);
    assert_eq!(bench.said(), ["Connected", "token not None", "Joining"]);

    let mut bench = Bench::new();
    bench.link.refused(bench.now, "401".into());
    assert_eq!(bench.said(), ["unavailable 401", "Unavailable"]);
    assert_eq!(bench.link.wants_socket_at(), Some(bench.now + REFUSED_PAUSE));
    bench.link.refused(bench.now, "401".into());
    assert_eq!(bench.said(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn trouble_with_the_updates_never_touches_the_inserts() {
    let troubles: [&Trouble; 6] = [
        &|bench, join| bench.refuse(UPDATES, join, "Unauthorized: x"),
        &|bench, join| bench.refuse(UPDATES, join, "ChannelRateLimitReached: x"),
        &|bench, join| bench.close(UPDATES, join),
        &|bench, join| bench.system(UPDATES, join, "postgres_changes", "error", "no"),
        &|bench, join| bench.hear(Some(join), Some(join), UPDATES, "phx_error", json!({})),
        &|bench, join| {
            let echo = json!({"status": "ok", "response": {"postgres_changes": [{"table": "x"}]}});
            bench.hear(Some(join), Some(join), UPDATES, "phx_reply", echo);
        },
    ];
    for (index, trouble) in troubles.iter().enumerate() {
        let (mut bench, inserts, updates) = Bench::ready();
        trouble(&mut bench, &updates);
        assert!(bench.link.is_ready(), "{index}");
        let said = bench.said();
        assert!(!said.iter().any(|word| word.contains("navailable") || word == "drop"), "{said:?}");
        bench.hear(
            None,
            None,
            INSERTS,
            "postgres_changes",
            change("INSERT", &row("j", "g", "queued"), &json!(null)),
        );
        assert_eq!(bench.link.inserts.reference(), Some(inserts.as_str()));
        assert_eq!(bench.said(), [r#"queued "j""#]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_was_not_asked_for_is_a_failed_join() {
    let asked = json!({"event": "INSERT", "schema": "public", "table": "gateway_jobs", "filter": "team_id=eq.t"});
    let with = |field: &str, value: Value| {
        let mut echo = asked.clone();
        echo[field] = value;
        echo
    };
    for (echo, taken) in [
        (json!([with("id", json!(5))]), true),
        (json!([with("id", json!(0))]), true),
        (json!([{"id": 5}]), true),
        (json!(null), true),
        (json!([with("filter", json!("team_id=eq.other"))]), false),
        (json!([with("event", json!("*"))]), false),
        (json!([]), false),
        (json!([asked, asked]), false),
    ] {
        let (mut bench, inserts, _) = Bench::joined("token");
        let reply = json!({"status": "ok", "response": {"postgres_changes": echo}});
        bench.hear(Some(&inserts), Some(&inserts), INSERTS, "phx_reply", reply);
        assert_eq!(bench.link.inserts.is_answered(), taken, "{echo}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_stops_telling_has_15_s_to_begin_again() {
    let (mut bench, inserts, _) = Bench::ready();
    bench.system(INSERTS, &inserts, "postgres_changes", "error", "Unable to subscribe");
    assert_eq!(bench.said(), ["Joining"]);
    bench.subscribed(INSERTS, &inserts);
    assert_eq!(bench.said(), ["subscribed Inserts", "Ready"]);
    bench.system(INSERTS, &inserts, "postgres_changes", "error", "Unable to subscribe");
    bench.pass(JOIN_LIMIT);
    assert_eq!(bench.said(), ["Joining", "token not None"]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_the_backend_forgot_is_joined_again() {
    let (mut bench, inserts, _) = Bench::ready();
    let reply = json!({"status": "error", "response": {"reason": "unmatched topic"}});
    bench.hear(Some(&inserts), Some("77"), INSERTS, "phx_reply", reply);
    assert_eq!(bench.said(), ["token not None", "Joining"]);
}
