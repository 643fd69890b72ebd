//! The rows of the matrix that are about realtime: who is told of whose changes.
//!
//! Every caller has a socket. Each has one channel more, with the owner's token: when a last change
//! is told there, all earlier ones were told or never will be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::tables::sample;
use super::world::{Who, World};
use crate::sandbox::app::now_micros;
use crate::sandbox::store::StoreError;
use crate::sandbox::store::schema::{Schema, Table, Type};

/// The rows of each table.
pub(super) const OPERATIONS: [&str; 3] =
    ["changes of the owner's row", "changes of the sibling's row", "changes of the stranger's row"];
/// Whose rows these are.
const WHOSE: [Who; 3] = [Who::Owner, Who::Sibling, Who::Stranger];
/// A channel that is joined shortly before the caller's token expires.
pub(super) const EXPIRES: &str = "GET /realtime/v1/websocket, a channel whose token expires";
/// A channel of the owner's that is given the caller's token.
pub(super) const RENEWED: &str = "GET /realtime/v1/websocket, the owner's channel given the token";

const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds that such a token lasts.
const SOON: i64 = 3;
/// How long the end of its channel is waited for then.
const GRACE: Duration = Duration::from_secs(3);
const JOBS: &str = "gateway_jobs";
/// The last change: a row of this table.
const LAST: &str = "team_resources";
const KINDS: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

/// A word for each caller, by row.
type Heard = BTreeMap<String, Vec<String>>;

/// Whether a row is one of these.
pub(super) fn is_about(row: &str) -> bool {
    row == EXPIRES || row == RENEWED || OPERATIONS.iter().any(|operation| row.ends_with(operation))
}

/// What comes of a row, or of all the rows that are about tables.
pub(super) async fn hear(world: &World, row: &str) -> Heard {
    match row {
        EXPIRES => [(EXPIRES.to_owned(), expiring(world).await)].into(),
        RENEWED => [(RENEWED.to_owned(), renewed(world).await)].into(),
        _ => of_tables(world).await,
    }
}

fn id(area: usize, number: usize) -> String {
    format!("00000000-0000-4000-8000-{area:04x}{number:08x}")
}

fn last_id() -> String {
    id(9, 9)
}

async fn of_tables(world: &World) -> Heard {
    let schema = world.server.app.store.schema().clone();
    let mut sockets = Vec::new();
    for (who, _) in Who::ALL {
        let mut socket = Socket::open(world, who).await;
        if let Ok(socket) = &mut socket {
            for table in schema.tables() {
                socket.join(table.name, &world.token(who)).await;
            }
        }
        sockets.push(socket);
    }
    let target = |table: &Table, at: usize| match table.name {
        "team_gateways" => WHOSE[at].gateway().to_owned(),
        _ => id(1, at),
    };
    make_room(world, &schema);
    for table in schema.tables() {
        for at in 0..WHOSE.len() {
            change(world, table, at, &target(table, at)).await;
        }
    }
    let mut heard = Heard::new();
    end(world, &mut sockets).await;
    for socket in &sockets {
        for table in schema.tables() {
            for (at, operation) in OPERATIONS.iter().enumerate() {
                let seen = match socket {
                    Ok(socket) => socket.word(table.name, &target(table, at)),
                    Err(refusal) => refusal.clone(),
                };
                heard.entry(format!("{}: {operation}", table.name)).or_default().push(seen);
            }
        }
    }
    heard
}

async fn expiring(world: &World) -> Vec<String> {
    let mut sockets = Vec::new();
    for (who, _) in Who::ALL {
        sockets.push(Socket::open(world, who).await);
    }
    let now = now_micros() / 1_000_000;
    for ((who, _), socket) in Who::ALL.into_iter().zip(&mut sockets) {
        if let Ok(socket) = socket {
            let token = match who {
                Who::Owner | Who::Sibling | Who::Stranger | Who::Moved => {
                    let lifetime = world.server.app.access.lifetime();
                    world.server.app.access.mint(&world.identity(who), now + SOON - lifetime)
                }
                Who::NoKey
                | Who::KeyOnly
                | Who::Expired
                | Who::Forged
                | Who::Drive
                | Who::Admin => world.token(who),
            };
            socket.join(JOBS, &token).await;
        }
    }
    let deadline = Duration::from_micros(
        ((now + SOON) * 1_000_000 - now_micros()).try_into().unwrap_or_default(),
    );
    // All wait for the same moment.
    let ends = sockets.iter_mut().flatten().map(|socket| async {
        if socket.refusal(JOBS).is_none() {
            // Who is not ended goes on, and may be told of the change.
            let _ = timeout(deadline + GRACE, socket.read_until(|got| got[3] == "phx_close")).await;
        }
    });
    futures_util::future::join_all(ends).await;
    told_of_jobs(world, sockets).await
}

async fn renewed(world: &World) -> Vec<String> {
    let mut sockets = Vec::new();
    for (who, _) in Who::ALL {
        let mut socket = Socket::open(world, who).await;
        if let Ok(socket) = &mut socket {
            socket.join(JOBS, &world.token(Who::Owner)).await;
            let token = json!({"access_token": world.token(who)});
            socket.send(&topic(JOBS), "access_token", &token).await;
            let beat = socket.send("phoenix", "heartbeat", &json!({})).await;
            socket.read_until(|got| got[1] == beat.as_str()).await;
        }
        sockets.push(socket);
    }
    told_of_jobs(world, sockets).await
}

/// Changes a job of the owner's; what each socket makes of it.
async fn told_of_jobs(world: &World, mut sockets: Vec<Result<Socket, String>>) -> Vec<String> {
    let schema = world.server.app.store.schema().clone();
    change(world, schema.table(JOBS).unwrap(), 0, &id(1, 0)).await;
    end(world, &mut sockets).await;
    let words = sockets.into_iter().map(|socket| match socket {
        Ok(socket) => socket.word(JOBS, &id(1, 0)),
        Err(refusal) => refusal,
    });
    words.collect()
}

/// Empties the tables, but for gateways and teams, and gives each gateway a subagent with a run.
fn make_room(world: &World, schema: &Schema) {
    let others = schema.tables().filter(|table| table.name != "team_gateways");
    let empty = others.map(|table| format!("DELETE FROM main.\"{}\";", table.name));
    world.execute(
        &empty.chain(["DELETE FROM main.job_secret_placeholders;".into()]).collect::<String>(),
    );
    for at in 0..WHOSE.len() {
        let subagents = schema.table("subagents").unwrap();
        world.execute(&insert(world, subagents, at, &id(2, at)));
        let runs = schema.table("subagent_runs").unwrap();
        // There is one run of each number.
        let sql = insert(world, runs, at, &id(3, at));
        world.execute(&format!("{sql} UPDATE main.subagent_runs SET run_sequence = 0;"));
    }
}

/// All kinds of changes of one row, made as the server makes them.
async fn change(world: &World, table: &Table, at: usize, id: &str) {
    let name = table.name;
    let insert = insert(world, table, at, id);
    let update = format!("UPDATE main.\"{name}\" SET id = id WHERE id = '{id}';");
    let delete = format!("DELETE FROM main.\"{name}\" WHERE id = '{id}';");
    if name == "team_gateways" {
        // It is there, and others hang on it.
        write(world, format!("PRAGMA defer_foreign_keys = ON; {update} {delete} {insert}")).await;
    } else {
        write(world, format!("{insert} {update} {delete}")).await;
    }
}

async fn write(world: &World, sql: String) {
    let written = world.server.app.store.write(move |write| {
        write.tx.execute_batch(&sql)?;
        Ok::<_, StoreError>(())
    });
    written.await.unwrap();
}

/// The last change, and everything that is told up to it.
async fn end(world: &World, sockets: &mut [Result<Socket, String>]) {
    let table = world.server.app.store.schema().table(LAST).unwrap();
    write(world, insert(world, table, 0, &last_id())).await;
    for socket in sockets.iter_mut().flatten() {
        socket.read_until(|got| got[2] == "realtime:last" && got[3] == "postgres_changes").await;
    }
}

/// SQL for a row of one of [`WHOSE`].
fn insert(world: &World, table: &Table, at: usize, row_id: &str) -> String {
    let values = table.columns.iter().map(|column| {
        let value = match column.name {
            "id" => json!(row_id),
            "subagent_id" => json!(id(2, at)),
            "run_id" => json!(id(3, at)),
            _ => sample(world, table, column, WHOSE[at]),
        };
        match (column.kind, value) {
            (Type::Timestamptz, _) => "0".to_owned(),
            (Type::Jsonb, value) => format!("'{value}'"),
            (_, Value::String(text)) => format!("'{text}'"),
            (_, value) => value.to_string(),
        }
    });
    let values: Vec<String> = values.collect();
    let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    format!(
        "INSERT INTO main.\"{}\" ({}) VALUES ({});",
        table.name,
        names.join(", "),
        values.join(", ")
    )
}

fn topic(table: &str) -> String {
    format!("realtime:{table}")
}

/// A caller's socket, and all that came over it: `[join_ref, ref, topic, event, payload]`.
struct Socket {
    stream: WebSocketStream<TcpStream>,
    sent: usize,
    got: Vec<Value>,
}

impl Socket {
    /// With the caller's key; the status of a refusal.
    async fn open(world: &World, who: Who) -> Result<Self, String> {
        let key = if who == Who::NoKey {
            String::new()
        } else {
            format!("&apikey={}", world.server.anon_key())
        };
        let address = world.server.local_addr();
        let url = format!("ws://{address}/realtime/v1/websocket?vsn=2.0.0{key}");
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = match tokio_tungstenite::client_async(url, stream).await {
            Ok((stream, _)) => stream,
            Err(Error::Http(answer)) => return Err(answer.status().as_str().to_owned()),
            Err(error) => panic!("{error}"),
        };
        let mut socket = Self { stream, sent: 0, got: Vec::new() };
        let owner = world.token(Who::Owner);
        let filter = json!(format!("id=eq.{}", last_id()));
        socket.subscribe("realtime:last", LAST, filter, &owner).await;
        Ok(socket)
    }

    async fn join(&mut self, table: &str, token: &str) {
        self.subscribe(&topic(table), table, Value::Null, token).await;
    }

    /// Returns when the channel is live or refused.
    async fn subscribe(&mut self, topic: &str, table: &str, filter: Value, token: &str) {
        let binding = json!({"event": "*", "schema": "public", "table": table, "filter": filter});
        let config = json!({"postgres_changes": [binding]});
        let payload = json!({"config": config, "access_token": token});
        self.send(topic, "phx_join", &payload).await;
        self.read_until(|got| {
            got[2] == topic && (got[3] == "system" || got[4]["status"] == "error")
        })
        .await;
    }

    /// Sends a frame; its `ref`.
    async fn send(&mut self, topic: &str, event: &str, payload: &Value) -> String {
        self.sent += 1;
        let reference = self.sent.to_string();
        let join_ref = (event == "phx_join").then_some(&reference);
        let text = json!([join_ref, reference, topic, event, payload]).to_string();
        self.stream.send(Message::text(text)).await.unwrap();
        reference
    }

    async fn read_until(&mut self, is_it: impl Fn(&Value) -> bool) {
        loop {
            let message = timeout(PATIENCE, self.stream.next()).await.unwrap().unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let got: Value = serde_json::from_str(&text).unwrap();
            self.got.push(got);
            if self.got.last().is_some_and(&is_it) {
                return;
            }
        }
    }

    /// All that came for a table's channel.
    fn on(&self, table: &str) -> impl Iterator<Item = &Value> {
        let topic = topic(table);
        self.got.iter().filter(move |got| got[2] == topic.as_str())
    }

    /// Why the join was refused.
    fn refusal(&self, table: &str) -> Option<&str> {
        let reply = self.on(table).find(|got| got[4]["status"] == "error")?;
        let reason = reply[4]["response"]["reason"].as_str()?;
        reason.split(':').next()
    }

    /// What came of the changes of one row.
    fn word(&self, table: &str, id: &str) -> String {
        if let Some(code) = self.refusal(table) {
            return format!("refused: {code}");
        }
        if self.on(table).any(|got| got[3] == "phx_close") {
            let told = self.on(table).any(|got| got[3] == "postgres_changes");
            return if told { "told and ended" } else { "ended" }.to_owned();
        }
        let is_told = |kind: &str| {
            self.on(table).filter(|got| got[3] == "postgres_changes").any(|got| {
                let data = &got[4]["data"];
                let row = if kind == "DELETE" { &data["old_record"] } else { &data["record"] };
                data["type"] == kind && row["id"] == id
            })
        };
        let words = KINDS.map(|kind| if is_told(kind) { "told" } else { "silent" });
        BTreeSet::from(words).into_iter().collect::<Vec<_>>().join(" or ")
    }
}
