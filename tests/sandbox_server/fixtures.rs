//! A table, functions and a bucket that are added to the sandbox's own through the library.

use axum::http::StatusCode;
use panorama_gateway::sandbox::store::schema::{
    Argument, Bucket, CallError, Claim, Column, Fallback, Function, Insert, Owned, Raised,
    Returned, Rights, Schema, Table, Type, Update,
};
use panorama_gateway::sandbox::{Caller, EdgeFunction, EdgeRequest};
use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::{Map, Value, json};

const MINE: &[Owned] = &[Owned { column: "owner", claim: Claim::UserId }];

static ITEMS: Table = Table {
    name: "conformance_items",
    columns: &[
        Column::new("id", Type::Uuid).or(Fallback::NewUuid),
        Column::new("name", Type::Text),
        Column::new("status", Type::Text),
        Column::new("n", Type::Int8).nullable(),
        Column::new("payload", Type::Jsonb).nullable(),
        Column::new("owner", Type::Uuid).or(Fallback::Claim(Claim::UserId)),
        Column::new("created_at", Type::Timestamptz).or(Fallback::Now),
    ],
    key: &["id"],
    unique: &[&["name"]],
    touched: None,
    rights: Rights {
        select: Some(MINE),
        insert: Some(Insert {
            columns: &["id", "name", "status", "n", "payload", "owner", "created_at"],
            owned: MINE,
        }),
        update: Some(Update {
            rows: MINE,
            columns: &["name", "status", "n", "payload", "created_at"],
            pinned: MINE,
            moves: None,
        }),
        delete: Some(MINE),
    },
};

const ITEMS_SQL: &str = "CREATE TABLE IF NOT EXISTS conformance_items (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL DEFAULT 'queued',
    n INTEGER,
    payload TEXT,
    owner TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;";

static ADD: Function = Function {
    name: "conformance_add",
    arguments: &[
        Argument { name: "a", kind: Type::Int4 },
        Argument { name: "b", kind: Type::Int4 },
    ],
    body: |_, _, arguments| match arguments {
        [Sql::Integer(a), Sql::Integer(b)] => Ok(Returned::Scalar(json!(a + b))),
        _ => Ok(Returned::Scalar(json!(null))),
    },
};

static LIST: Function = Function {
    name: "conformance_list",
    arguments: &[Argument { name: "p_status", kind: Type::Text }],
    body: list,
};

fn list(tx: &Connection, _: &Caller, arguments: &[Sql]) -> Result<Returned, CallError> {
    let mut sql = tx.prepare("SELECT rowid FROM conformance_items WHERE status = ?1")?;
    let rows = sql.query_map(rusqlite::params_from_iter(arguments), |row| row.get(0))?;
    Ok(Returned::Rows(&ITEMS, rows.collect::<Result<_, _>>()?))
}

static NOTHING: Function =
    Function { name: "conformance_void", arguments: &[], body: |_, _, _| Ok(Returned::Void) };

static FAIL: Function = Function {
    name: "conformance_fail",
    arguments: &[],
    body: |_, _, _| {
        Err(CallError::Raised(Raised {
            code: "P0001",
            message: "refused".to_owned(),
            details: Some("the detail".to_owned()),
            hint: Some("the hint".to_owned()),
        }))
    },
};

static BUCKET: Bucket = Bucket { name: "conformance", max_object_bytes: None };

/// For objects of up to 1,000 bytes.
static SMALL_BUCKET: Bucket = Bucket { name: "small", max_object_bytes: Some(1000) };

pub(crate) fn schema() -> Schema {
    [&ADD, &LIST, &NOTHING, &FAIL]
        .into_iter()
        .fold(Schema::built_in().with_table(&ITEMS, ITEMS_SQL), Schema::with_function)
        .with_bucket(&BUCKET)
        .with_bucket(&SMALL_BUCKET)
}

pub(crate) static ECHO: EdgeFunction = EdgeFunction { name: "conformance-echo", body: echo };

fn echo(request: &EdgeRequest) -> (StatusCode, Value) {
    let sub = match &request.caller {
        Caller::Anonymous | Caller::Drive { .. } => None,
        Caller::Gateway { user_id, .. } => Some(user_id),
    };
    let headers: Map<String, Value> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let answer = json!({
        "method": request.method.as_str(), "body": body, "sub": sub, "headers": headers,
    });
    (StatusCode::OK, answer)
}

pub(crate) static REFUSE: EdgeFunction = EdgeFunction {
    name: "conformance-fail",
    body: |_| (StatusCode::UNPROCESSABLE_ENTITY, json!({"error": "nope"})),
};
