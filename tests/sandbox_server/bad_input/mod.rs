//! Bad input of every kind: a clear 4xx, nothing written, and nobody else waits for it.

mod realtime;
mod storage;

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::context::{Context, Paired};

/// Texts that would be SQL, or a place in JSON, if they got where they do not belong.
const INJECTIONS: [&str; 9] = [
    "') OR 1=1; DROP TABLE gateway_jobs; --",
    "\" OR \"1\"=\"1",
    "x' UNION SELECT admin_token FROM secrets --",
    "$.a'||(SELECT 1)||'",
    "$[#-1]",
    "a\"]},{\"b\":[\"",
    "'; ATTACH '/tmp/x' AS x; --",
    "\\\"); SELECT load_extension('x'); --",
    "%' ESCAPE '\\",
];

/// Where a filter may hold text; `{}` stands for it. All of them are wrong one way or another.
const POSITIONS: [&str; 12] = [
    "gateway_jobs?id=eq.{}",
    "gateway_jobs?id=in.({})",
    "gateway_jobs?{}=eq.1",
    "gateway_jobs?created_at=gt.{}",
    "gateway_jobs?attempt=lt.{}",
    "gateway_jobs?status={}",
    "gateway_jobs?or=({})",
    "gateway_jobs?select={}&select=id",
    "gateway_jobs?order={}",
    "gateway_jobs?limit={}",
    "gateway_jobs?payload->{}=eq.1",
    "{}?id=eq.1",
];

/// Where text is taken, as text: it must match nothing and do nothing.
const TAKEN: [&str; 6] = [
    "gateway_jobs?status=eq.{}",
    "gateway_jobs?status=not.like.{}&status=eq.{}",
    "gateway_jobs?payload->>\"{}\"=eq.1",
    "gateway_jobs?payload->\"{}\"->0->>\"{}\"=in.(\"{}\")",
    "gateway_jobs?or=(status.eq.\"{}\",payload->>\"{}\".ilike.\"{}\")",
    "gateway_jobs?status=eq.{}&order=payload->>\"{}\"&select=x:payload->\"{}\"",
];

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn filled(place: &str, text: &str) -> String {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("/rest/v1/{}", place.replace("\"{}\"", &format!("%22{}%22", encoded(&quoted))))
        .replace("{}", &encoded(text))
}

fn bad(context: &Context, ours: &Paired, used_code: &str) -> Vec<RequestBuilder> {
    let rest = |method: Method, target: &str| {
        context.signed(method, &format!("/rest/v1/{target}"), &ours.access)
    };
    let call =
        |name: &str| context.signed(Method::POST, &format!("/functions/v1/{name}"), &ours.access);
    let mut all: Vec<RequestBuilder> = POSITIONS
        .iter()
        .flat_map(|place| INJECTIONS.iter().map(|text| filled(place, text)))
        .map(|path| context.signed(Method::GET, &path, &ours.access))
        .collect();
    for target in [
        "gateway_jobs?id=eq",
        "gateway_jobs?id=eq.",
        "gateway_jobs?or=(",
        "gateway_jobs?or=()",
        "gateway_jobs?status=in.(a",
        "gateway_jobs?status=frob.1",
        "gateway_jobs?limit=-1",
        "gateway_jobs?offset=x",
        "gateway_jobs?select=id,",
        "gateway_jobs?order=id.sideways",
        "gateway_jobs?payload=eq.1",
        "gateway_jobs?status->a=eq.1",
        "gateway_jobs?status=is.maybe",
        "gateway_jobs?id=eq.%ff",
        "gateway_jobs?id=eq.1&and=(not.not.(id.eq.1)",
        "no_such_table",
        "rpc/no_such_function",
    ] {
        all.push(rest(Method::GET, target));
    }
    let event = |body: &str| rest(Method::POST, "gateway_events").body(body.to_owned());
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    for body in ["", "{", "null", "7", "\"x\"", "[1]", "{\"level\":", "{\"x\":1}", &deep] {
        all.push(event(body).header("content-type", "application/json"));
    }
    all.push(event("{}").header("content-type", "text/plain"));
    all.push(rest(Method::PATCH, "gateway_jobs").json(&json!({"status": "running"})));
    all.push(rest(Method::PATCH, "gateway_jobs?id=eq.x").json(&json!({"status": "running"})));
    for body in ["", "{}", "[]", "null", &deep, "{\"status\":\"ready\",\"status\":\"ready\"}"] {
        all.push(call("gateway-heartbeat").body(body.to_owned()));
        all.push(call("finalize-gateway-subagent-run").body(body.to_owned()));
        all.push(call("set-gateway-full-control").body(body.to_owned()));
        all.push(call("exchange-gateway-pairing-code").body(body.to_owned()));
    }
    let replayed = json!({"code": used_code, "device_name": "thief"});
    all.push(call("exchange-gateway-pairing-code").json(&replayed));
    let poll = "/rest/v1/gateway_jobs";
    for token in ["", "x", "a.b.c", "....", &"y".repeat(10_000), &format!("{}x", ours.access)] {
        all.push(context.signed(Method::GET, poll, token));
    }
    all.push(context.request(Method::GET, poll).header("authorization", "Basic eDp5"));
    all.push(context.signed(Method::GET, poll, &ours.access).header("host", "evil.example"));
    all.push(context.signed(Method::GET, poll, &ours.access).header("host", "localhost.evil.nip"));
    let admin = || context.admin_request(Method::POST, "pairing-codes").json(&json!({}));
    all.push(admin().header("origin", "http://evil.example"));
    all.push(admin().header("origin", "null"));
    all.push(admin().header("sec-fetch-site", "cross-site"));
    let long = "x".repeat(60_000);
    all.push(rest(Method::GET, &format!("gateway_jobs?id=eq.{long}")));
    // A reader may have twice the bound in hand before it looks.
    all.push(rest(Method::GET, "gateway_jobs").header("x-long", &long.repeat(3)));
    all.push(event(&format!("{{\"message\":\"{}\"}}", long.repeat(1200))));
    all
}

/// Everything that the database holds, but for what is timed.
fn contents(context: &Context) -> Vec<String> {
    let database = context.database();
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
    let names: Vec<String> = database
        .prepare(tables)
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let mut all = Vec::new();
    for name in names {
        let mut statement = database.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells: Vec<String> =
                (0..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap())).collect();
            all.push(format!("{name}: {}", cells.join("|")));
        }
    }
    all
}

/// A normal request is answered, and soon.
async fn answers_quickly(context: &Context, ours: &Paired) {
    let started = Instant::now();
    let poll = "/rest/v1/gateway_jobs?select=id&status=eq.queued";
    let answer = context.signed(Method::GET, poll, &ours.access).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

async fn with_a_job() -> (Context, Paired, String) {
    let context = Context::new().await;
    let code = context.admin().make_pairing_code(None).await.unwrap().code;
    let body: Value = context.exchange(&code).await.json().await.unwrap();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let ours = Paired {
        gateway_id: text("gateway_id"),
        team_id: text("team_id"),
        access: text("access_token"),
        refresh: text("refresh_token"),
    };
    let new = panorama_gateway::sandbox::client::NewJob {
        job_type: "diagnostic".into(),
        ..Default::default()
    };
    context.admin().submit_job(&new).await.unwrap();
    (context, ours, code)
}

#[tokio::test]
async fn bad_input_is_a_clear_refusal_and_writes_nothing() {
    let (context, ours, code) = with_a_job().await;
    let before = contents(&context);
    for request in bad(&context, &ours, &code) {
        let request = request.build().unwrap();
        let what = format!("{} {:.200}", request.method(), request.url().as_str());
        let answer = context.http.execute(request).await.unwrap();
        let status = answer.status();
        let said = answer.text().await.unwrap();
        assert!(status.is_client_error(), "{what}: {status} {said}");
        // What is refused before HTTP is understood has no body.
        assert!(
            said.contains("message") || said.contains("error") || status == 431,
            "{what}: {said}"
        );
    }
    for (place, text) in TAKEN.iter().flat_map(|place| INJECTIONS.map(|text| (place, text))) {
        for method in [Method::GET, Method::PATCH, Method::DELETE] {
            let path = filled(place, text);
            let mut request = context.signed(method.clone(), &path, &ours.access);
            if method == Method::PATCH {
                request = request.json(&json!({"debug": {"x": 1}}));
            }
            let answer = request.send().await.unwrap();
            let status = answer.status();
            let said = answer.text().await.unwrap();
            let nothing = matches!(status.as_u16(), 200 | 204) && matches!(&*said, "" | "[]");
            assert!(nothing || status.is_client_error(), "{method} {path}: {status} {said}");
        }
    }
    assert_eq!(contents(&context), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_silent_connections_and_bad_requests() {
    const SILENT: usize = 1000;
    const NORMAL: usize = 500;
    let (context, ours, code) = with_a_job().await;
    let poll = || {
        context.signed(
            Method::GET,
            "/rest/v1/gateway_jobs?select=id&status=eq.queued",
            &ours.access,
        )
    };
    let quiet = p99(NORMAL, poll).await;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(context.server.local_addr()).await.unwrap());
    }
    let flow: Vec<reqwest::Request> = bad(&context, &ours, &code)
        .into_iter()
        .filter_map(|request| request.build().ok())
        .collect();
    let client = context.http.clone();
    let mut flood = tokio::task::JoinSet::new();
    flood.spawn(async move {
        let mut sent = 0_usize;
        loop {
            for request in &flow {
                if let Some(request) = request.try_clone() {
                    let answer = client.execute(request).await.unwrap();
                    let what = format!("{} {}", answer.status(), answer.url());
                    assert!(answer.status().is_client_error(), "{what}: {:?}", answer.text().await);
                    sent += 1;
                    SENT.store(sent, std::sync::atomic::Ordering::Relaxed);
                }
            }
        }
    });
    let flooded = p99(NORMAL, poll).await;
    // It ends by a failed assertion only.
    let is_up = flood.try_join_next().is_none();
    flood.shutdown().await;
    let sent = SENT.load(std::sync::atomic::Ordering::Relaxed);
    #[expect(clippy::print_stdout, reason = "the figure")]
    let () = println!(
        "p99 of {NORMAL} polls: {quiet:?} quiet, {flooded:?} with {SILENT} silent connections and \
         {sent} bad requests"
    );
    assert!(is_up && sent > 0, "the bad requests did not flow");
    assert!(flooded < Duration::from_secs(1), "{flooded:?}");
    // Those that are still open are just silent: they were told nothing.
    let mut byte = [0];
    let last = silent.last_mut().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1), last.read(&mut byte)).await.is_err());
}

static SENT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

async fn p99(requests: usize, make: impl Fn() -> RequestBuilder) -> Duration {
    let mut times = Vec::new();
    for _ in 0..requests {
        let started = Instant::now();
        let answer = make().send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[requests * 99 / 100 - 1]
}
