//! Who hears of which change, and in which order.

use futures_util::future::join_all;
use panorama_gateway::sandbox::client::NewJob;
use reqwest::Method;
use serde_json::{Value, json};

use super::socket::Socket;
use crate::context::{Context, Paired};
use crate::fixtures;
use crate::strangers::stranger;

fn all_of(table: &str) -> Value {
    json!([{"event": "*", "schema": "public", "table": table}])
}

async fn with_items() -> Context {
    Context::with(|options| options.schema = fixtures::schema()).await
}

async fn add_item(context: &Context, access: &str, item: Value) {
    let request = context.signed(Method::POST, "/rest/v1/conformance_items", access);
    assert_eq!(request.json(&item).send().await.unwrap().status(), 201, "{item}");
}

async fn submit(context: &Context, paired: &Paired) -> Value {
    let job = NewJob {
        gateway_id: Some(paired.gateway_id.clone()),
        job_type: "diagnostic".to_owned(),
        ..NewJob::default()
    };
    context.admin().submit_job(&job).await.unwrap()
}

#[tokio::test]
async fn a_new_job_is_told_as_rest_shows_it() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let mut socket = Socket::open(&context).await;
    let bindings = json!([{"event": "INSERT", "schema": "public", "table": "gateway_jobs",
                           "filter": format!("team_id=eq.{}", ours.team_id)}]);
    socket.subscribe("realtime:jobs", &ours.access, bindings).await;
    let job = submit(&context, &ours).await;
    let told = socket.next().await;
    assert_eq!(told.event(), "postgres_changes");
    let data = &told.payload()["data"];
    let path = format!("/rest/v1/gateway_jobs?id=eq.{}", job["id"].as_str().unwrap());
    let shown = context.signed(Method::GET, &path, &ours.access).send().await.unwrap();
    assert_eq!(data["record"], shown.json::<Value>().await.unwrap()[0]);
    let head = json!([data["schema"], data["table"], data["type"], data["errors"]]);
    assert_eq!(head, json!(["public", "gateway_jobs", "INSERT", null]));
    let at = data["commit_timestamp"].as_str().unwrap();
    assert_eq!((at.len(), at.ends_with('Z')), (24, true), "{at}");
    context.server.shutdown().await;
}

#[tokio::test]
async fn updates_and_deletions_carry_what_postgres_would() {
    let context = with_items().await;
    let ours = context.pair().await;
    let mut socket = Socket::open(&context).await;
    socket.subscribe("realtime:items", &ours.access, all_of("conformance_items")).await;
    add_item(&context, &ours.access, json!({"name": "a", "n": 5, "payload": {"x": [1]}})).await;
    let id = socket.next().await.record("id").clone();
    let path = "/rest/v1/conformance_items?name=eq.a";
    let update = context.signed(Method::PATCH, path, &ours.access);
    let update = update.json(&json!({"status": "done"}));
    assert!(update.send().await.unwrap().status().is_success());
    let told = socket.next().await;
    assert_eq!((told.record("status"), told.record("n")), (&json!("done"), &json!(5)));
    assert_eq!(told.payload()["data"]["old_record"], json!({"id": id}));
    let delete = context.signed(Method::DELETE, path, &ours.access);
    assert!(delete.send().await.unwrap().status().is_success());
    let told = socket.next().await;
    let data = &told.payload()["data"];
    assert_eq!((&data["type"], &data["old_record"]), (&json!("DELETE"), &json!({"id": id})));
    assert!(data.get("record").is_none());
}

#[tokio::test]
async fn nobody_hears_of_rows_that_are_not_theirs() {
    let context = with_items().await;
    let ours = context.pair().await;
    let mate = context.pair().await;
    let other = stranger(&context).await;
    let mut mine = Socket::open(&context).await;
    let mut others = Vec::new();
    for access in [&mate.access, &other.access, context.server.anon_key(), "sb_publishable_x", ""] {
        let mut socket = Socket::open(&context).await;
        let bindings = json!([
            {"event": "*", "schema": "public", "table": "conformance_items"},
            {"event": "*", "schema": "*"},
            {"event": "DELETE", "schema": "public", "table": "conformance_items",
             "filter": "name=eq.a"},
        ]);
        socket.subscribe("realtime:items", access, bindings).await;
        others.push(socket);
    }
    mine.subscribe("realtime:items", &ours.access, all_of("conformance_items")).await;
    add_item(&context, &ours.access, json!({"name": "a"})).await;
    let path = "/rest/v1/conformance_items?name=eq.a";
    let delete = context.signed(Method::DELETE, path, &ours.access);
    assert!(delete.send().await.unwrap().status().is_success());
    assert_eq!(mine.next().await.record("name"), "a");
    assert_eq!(mine.next().await.payload()["data"]["type"], "DELETE");
    for socket in &mut others {
        socket.is_silent().await;
    }
    // The job of another team, and one of the own team.
    submit(&context, &ours).await;
    assert_eq!(others[0].next().await.record("gateway_id"), &json!(ours.gateway_id));
    for socket in &mut others[1..] {
        socket.is_silent().await;
    }
}

#[tokio::test]
async fn two_channels_of_a_socket_have_their_own_rights_and_filters() {
    let context = with_items().await;
    let (ours, mate) = (context.pair().await, context.pair().await);
    let mut socket = Socket::open(&context).await;
    let filtered = json!([{"event": "INSERT", "schema": "public", "table": "conformance_items",
                           "filter": "status=in.(x,y)"}]);
    socket.subscribe("realtime:ours", &ours.access, filtered).await;
    socket.subscribe("realtime:mate", &mate.access, all_of("conformance_items")).await;
    for (paired, name, status) in
        [(&ours, "a", "x"), (&ours, "b", "z"), (&mate, "c", "y"), (&ours, "d", "y")]
    {
        add_item(&context, &paired.access, json!({"name": name, "status": status})).await;
    }
    for (topic, name) in [("realtime:ours", "a"), ("realtime:mate", "c"), ("realtime:ours", "d")] {
        let told = socket.next().await;
        assert_eq!((&told.0[2], told.record("name")), (&json!(topic), &json!(name)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_come_in_commit_order_under_concurrent_writers() {
    let context = with_items().await;
    let ours = context.pair().await;
    let mut socket = Socket::open(&context).await;
    socket.subscribe("realtime:items", &ours.access, all_of("conformance_items")).await;
    let writer = async |writer: usize| {
        for number in 0..25 {
            let item = json!({"name": format!("{writer}-{number}")});
            add_item(&context, &ours.access, item).await;
        }
    };
    join_all((0..8).map(writer)).await;
    let mut told = Vec::new();
    for _ in 0..200 {
        told.push(socket.next().await.record("name").as_str().unwrap().to_owned());
    }
    let database = context.database();
    let mut sql = database.prepare("SELECT name FROM conformance_items ORDER BY rowid").unwrap();
    let stored: Result<Vec<String>, _> = sql.query_map([], |row| row.get(0)).unwrap().collect();
    assert_eq!(told, stored.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_after_the_confirmation_is_never_missed() {
    let context = with_items().await;
    let ours = context.pair().await;
    let noise = async {
        for number in 0..150 {
            add_item(&context, &ours.access, json!({"name": format!("noise{number}")})).await;
        }
    };
    let subscribers = async {
        for number in 0..40 {
            let mut socket = Socket::open(&context).await;
            let name = format!("after{number}");
            let bindings = json!([{"event": "INSERT", "table": "conformance_items",
                                   "filter": format!("name=eq.{name}")}]);
            socket.subscribe("realtime:items", &ours.access, bindings).await;
            add_item(&context, &ours.access, json!({"name": name})).await;
            assert_eq!(socket.next().await.record("name"), &json!(name));
        }
    };
    futures_util::future::join(noise, subscribers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sockets_hear_everything_in_order() {
    let context = with_items().await;
    let ours = context.pair().await;
    let open = async |_| {
        let mut socket = Socket::open(&context).await;
        socket.subscribe("realtime:items", &ours.access, all_of("conformance_items")).await;
        socket
    };
    let sockets = join_all((0..200).map(open)).await;
    let write = async {
        for number in 0..100 {
            add_item(&context, &ours.access, json!({"name": format!("{number}"), "n": number}))
                .await;
        }
    };
    let hear = async |mut socket: Socket| {
        for number in 0..100 {
            assert_eq!(socket.next().await.record("n"), &json!(number));
        }
        socket.is_silent().await;
    };
    futures_util::future::join(write, join_all(sockets.into_iter().map(hear))).await;
}
