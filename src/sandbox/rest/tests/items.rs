//! Tables and functions that a test adds to the sandbox's own: as data, like any.

use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::json;

use crate::sandbox::Caller;
use crate::sandbox::store::schema::{
    Argument, CallError, Claim, Column, Fallback, Function, Insert, Owned, Raised, Returned,
    Rights, Schema, Table, Type, Update,
};

const MINE: &[Owned] = &[Owned { column: "owner", claim: Claim::UserId }];

/// Everybody does what he likes with his own rows.
pub(super) static ITEMS: Table = Table {
    name: "items",
    columns: &[
        Column::new("id", Type::Uuid).or(Fallback::NewUuid),
        Column::new("name", Type::Text),
        Column::new("status", Type::Text),
        Column::new("n", Type::Int8).nullable(),
        Column::new("flag", Type::Bool).nullable(),
        Column::new("payload", Type::Jsonb).nullable(),
        Column::new("parent", Type::Uuid).nullable(),
        Column::new("owner", Type::Uuid).or(Fallback::Claim(Claim::UserId)),
        Column::new("created_at", Type::Timestamptz).or(Fallback::Now),
    ],
    key: &["id"],
    unique: &[&["name"]],
    touched: None,
    rights: Rights {
        select: Some(MINE),
        insert: Some(Insert {
            columns: &[
                "id",
                "name",
                "status",
                "n",
                "flag",
                "payload",
                "parent",
                "owner",
                "created_at",
            ],
            owned: MINE,
        }),
        update: Some(Update {
            rows: MINE,
            columns: &["name", "status", "n", "flag", "payload", "parent", "created_at"],
            pinned: MINE,
            moves: None,
        }),
        delete: Some(MINE),
    },
};

const SQL: &str = "CREATE TABLE IF NOT EXISTS items (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE CONSTRAINT items_name_check CHECK (name <> 'bad'),
    status TEXT NOT NULL DEFAULT 'queued',
    n INTEGER,
    flag INTEGER,
    payload TEXT,
    parent TEXT REFERENCES items (id),
    owner TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;";

static ADD: Function = Function {
    name: "add",
    arguments: &[
        Argument { name: "a", kind: Type::Int4 },
        Argument { name: "b", kind: Type::Int4 },
    ],
    body: |_, _, arguments| match arguments {
        [Sql::Integer(a), Sql::Integer(b)] => Ok(Returned::Scalar(json!(a + b))),
        _ => Ok(Returned::Void),
    },
};

static LIST: Function = Function {
    name: "list",
    arguments: &[Argument { name: "p_status", kind: Type::Text }],
    body: list,
};

fn list(tx: &Connection, _: &Caller, arguments: &[Sql]) -> Result<Returned, CallError> {
    let mut sql = tx.prepare("SELECT rowid FROM items WHERE status = ?1")?;
    let rows = sql.query_map(rusqlite::params_from_iter(arguments), |row| row.get(0))?;
    Ok(Returned::Rows(&ITEMS, rows.collect::<Result<_, _>>()?))
}

static NOTHING: Function = Function {
    name: "nothing",
    arguments: &[],
    body: |tx, _, _| {
        tx.execute("UPDATE items SET status = 'touched'", [])?;
        Ok(Returned::Void)
    },
};

static FAIL: Function = Function {
    name: "fail",
    arguments: &[],
    body: |tx, _, _| {
        tx.execute("DELETE FROM items", [])?;
        Err(CallError::Raised(Raised {
            code: "P0001",
            message: "refused".to_owned(),
            details: Some("the detail".to_owned()),
            hint: Some("the hint".to_owned()),
        }))
    },
};

pub(super) fn added_to(schema: Schema) -> Schema {
    [&ADD, &LIST, &NOTHING, &FAIL]
        .into_iter()
        .fold(schema.with_table(&ITEMS, SQL), Schema::with_function)
}
