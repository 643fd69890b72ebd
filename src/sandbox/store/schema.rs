//! What a table is: its columns with their Postgres types, its keys, and who may do what with it.
//!
//! Tables are data. Every name here is `&'static str`, and the SQL of REST is put together from
//! such names only, so no text of a request can become part of a statement.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde_json::Value;

use super::super::Caller;

/// The Postgres type that a column shows. How it is stored is in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Lower-case with hyphens \[text\].
    Uuid,
    /// Without U+0000 \[text\].
    Text,
    /// 32 bits \[integer\].
    Int4,
    /// 64 bits \[integer\].
    Int8,
    /// \[0 or 1\].
    Bool,
    /// An instant \[microseconds since 1970 UTC\].
    Timestamptz,
    /// \[JSON text\].
    Jsonb,
}

impl Type {
    /// The name in Postgres' error messages.
    pub fn sql_name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Text => "text",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Bool => "boolean",
            Self::Timestamptz => "timestamp with time zone",
            Self::Jsonb => "jsonb",
        }
    }

    /// The catalogue's name, by which realtime clients cast.
    pub fn catalogue_name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Text => "text",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Bool => "bool",
            Self::Timestamptz => "timestamptz",
            Self::Jsonb => "jsonb",
        }
    }
}

/// A fact about the caller, proven by its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Its gateway row.
    GatewayId,
    /// Its team.
    TeamId,
    /// The token's `sub`.
    UserId,
}

impl Claim {
    /// Its value; an anonymous caller has none.
    pub fn of(self, caller: &Caller) -> Option<&str> {
        match caller {
            Caller::Anonymous => None,
            Caller::Gateway { user_id, gateway_id, team_id, .. } => Some(match self {
                Self::GatewayId => gateway_id.as_str(),
                Self::TeamId => team_id.as_str(),
                Self::UserId => user_id,
            }),
        }
    }
}

/// What an INSERT stores in a column that it does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The `DEFAULT` of the table's SQL, or NULL.
    Sql,
    /// A new random UUID.
    NewUuid,
    /// The server's time.
    Now,
    /// A fact about the caller.
    Claim(Claim),
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Its default.
    pub fallback: Fallback,
}

impl Column {
    /// A column that is never NULL and has no default but SQL's.
    pub const fn new(name: &'static str, kind: Type) -> Self {
        Self { name, kind, nullable: false, fallback: Fallback::Sql }
    }

    /// The same, but it may be NULL.
    #[must_use]
    pub const fn nullable(self) -> Self {
        Self { nullable: true, ..self }
    }

    /// The same with another default.
    #[must_use]
    pub const fn or(self, fallback: Fallback) -> Self {
        Self { fallback, ..self }
    }
}

/// The column equals the caller's claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// The column.
    pub column: &'static str,
    /// What it must equal.
    pub claim: Claim,
}

/// What a paired gateway may do with a table; an anonymous caller may do nothing with any.
#[derive(Debug, Clone, Copy)]
pub struct Rights {
    /// The rows that it may read. `None`: no right to read at all.
    pub select: Option<&'static [Owned]>,
    /// `None`: no right to insert.
    pub insert: Option<Insert>,
    /// `None`: no right to update.
    pub update: Option<Update>,
    /// The rows that it may delete. `None`: no right to.
    pub delete: Option<&'static [Owned]>,
}

/// The right to insert.
#[derive(Debug, Clone, Copy)]
pub struct Insert {
    /// Columns that a request may name.
    pub columns: &'static [&'static str],
    /// Columns that must hold the caller's claim.
    pub owned: &'static [Owned],
}

/// The right to update.
#[derive(Debug, Clone, Copy)]
pub struct Update {
    /// The rows; those that may not be read are hidden as well.
    pub rows: &'static [Owned],
    /// Columns that a request may name.
    pub columns: &'static [&'static str],
    /// Columns that it may name as well, if the value is the caller's claim.
    pub pinned: &'static [Owned],
    /// Along which steps a state goes.
    pub moves: Option<Moves>,
}

/// The steps that a state column may take.
///
/// A row whose state has no step is hidden from updates, and a step that is not listed is refused.
/// An update that names only columns of `always` is free of both.
#[derive(Debug, Clone, Copy)]
pub struct Moves {
    /// The state column.
    pub column: &'static str,
    /// From, to. A row that keeps its state needs a step from it to itself.
    pub steps: &'static [(&'static str, &'static str)],
    /// Columns that may change in any state.
    pub always: &'static [&'static str],
}

/// One table as REST shows it.
#[derive(Debug)]
pub struct Table {
    /// Its name, here and in SQLite. The table must have a `rowid`.
    pub name: &'static str,
    /// Its columns in order.
    pub columns: &'static [Column],
    /// The primary key.
    pub key: &'static [&'static str],
    /// Other unique sets of columns.
    pub unique: &'static [&'static [&'static str]],
    /// Set to the server's time by every update.
    pub touched: Option<&'static str>,
    /// Who may do what.
    pub rights: Rights,
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// An argument of a function.
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    /// Its name in the body.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
}

/// What a function returned.
#[derive(Debug)]
pub enum Returned {
    /// Nothing.
    Void,
    /// A bare JSON value.
    Scalar(Value),
    /// Rows of a table, by `rowid`: filters, order and select list of the request apply to them.
    Rows(&'static Table, Vec<i64>),
}

/// An error that a function raises, as Postgres' `RAISE EXCEPTION` would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    /// `P0001`, or another SQLSTATE or PostgREST code.
    pub code: &'static str,
    /// What went wrong.
    pub message: String,
    /// More about it.
    pub details: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The function said no.
    #[error("the function raised {}: {}", .0.code, .0.message)]
    Raised(Raised),
    /// SQLite did.
    #[error("could not use the sandbox's database")]
    Sqlite(#[from] rusqlite::Error),
}

/// What runs when a function is called: inside a write transaction, with the arguments in the
/// order of their definition.
pub type Body = fn(&Connection, &Caller, &[rusqlite::types::Value]) -> Result<Returned, CallError>;

/// A function below `rpc/`. Only a paired gateway may call it.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// All of them must be given.
    pub arguments: &'static [Argument],
    /// What it does.
    pub body: Body,
}

/// A bucket of storage. It is private: an object belongs to the team of whoever stored it, any
/// gateway of that team reads and changes it, and others need a signed URL.
#[derive(Debug)]
pub struct Bucket {
    /// Its name: one path segment, none of the words of storage's URLs (`sign`, `upload`,
    /// `authenticated`, `public`, `info`, `list`, `list-v2`, `move`, `copy`).
    pub name: &'static str,
    /// The largest object that it takes, bytes, where that is less than the server's own bound.
    pub max_object_bytes: Option<u64>,
}

/// All tables, functions and buckets that a store shows.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    tables: BTreeMap<&'static str, &'static Table>,
    functions: BTreeMap<&'static str, &'static Function>,
    buckets: BTreeMap<&'static str, &'static Bucket>,
    /// SQL that makes the tables that were added; run at every start.
    pub(super) added_sql: Vec<&'static str>,
}

impl Schema {
    /// The sandbox's own.
    pub fn built_in() -> Self {
        let tables = super::tables::BUILT_IN.iter().map(|table| (table.name, *table)).collect();
        Self { tables, ..Self::default() }
    }

    /// Adds a table and the SQL that makes it when it is absent (`CREATE TABLE IF NOT EXISTS ..`).
    #[must_use]
    pub fn with_table(mut self, table: &'static Table, sql: &'static str) -> Self {
        self.tables.insert(table.name, table);
        self.added_sql.push(sql);
        self
    }

    /// Adds a function.
    #[must_use]
    pub fn with_function(mut self, function: &'static Function) -> Self {
        self.functions.insert(function.name, function);
        self
    }

    /// Adds a bucket.
    #[must_use]
    pub fn with_bucket(mut self, bucket: &'static Bucket) -> Self {
        self.buckets.insert(bucket.name, bucket);
        self
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&'static Table> {
        self.tables.get(name).copied()
    }

    /// The function of that name.
    pub fn function(&self, name: &str) -> Option<&'static Function> {
        self.functions.get(name).copied()
    }

    /// The bucket of that name.
    pub fn bucket(&self, name: &str) -> Option<&'static Bucket> {
        self.buckets.get(name).copied()
    }

    /// All tables by name.
    pub fn tables(&self) -> impl Iterator<Item = &'static Table> {
        self.tables.values().copied()
    }
}
