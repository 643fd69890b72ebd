//! A committed change as subscribers hear of it, serialised once for all of them.

use std::sync::{Arc, OnceLock};

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::sandbox::Caller;
use crate::sandbox::store::schema::{Rights, Table};
use crate::sandbox::store::{Change, ChangeKind};

/// A change that is larger on the wire loses its larger fields.
const MOST_BYTES: usize = 1024 * 1024;
/// Fields up to this size (as JSON) stay even then.
const SMALL_FIELD: usize = 64;

/// One change.
#[derive(Debug)]
pub(super) struct Event {
    change: Arc<Change>,
    table: &'static Table,
    /// When it was committed: UTC, milliseconds, `Z`.
    at: String,
    /// `data` of the message, made when the first subscriber wants it.
    data: OnceLock<Option<Box<RawValue>>>,
}

impl Event {
    /// `at` is the wire time of the commit.
    pub(super) fn new(change: Arc<Change>, table: &'static Table, at: String) -> Self {
        Self { change, table, at, data: OnceLock::new() }
    }

    /// Where it happened.
    pub(super) fn table(&self) -> &'static Table {
        self.table
    }

    /// What happened.
    pub(super) fn kind(&self) -> ChangeKind {
        self.change.kind
    }

    /// The row that filters and rights look at: as it is now, or as it was when deleted.
    pub(super) fn row(&self) -> &Value {
        &self.change.row
    }

    /// Whether the caller may read that row by the rule that REST applies. Other than Postgres, who
    /// no longer knows a deleted row, we ask this for deletions as well.
    pub(super) fn visible_to(&self, caller: &Caller) -> bool {
        may_read(&self.table.rights, caller, self.row())
    }

    /// `data` of a `postgres_changes` message.
    pub(super) fn data(&self) -> Option<&RawValue> {
        let made = self.data.get_or_init(|| {
            let whole = to_raw_value(&self.message(false)).ok()?;
            if whole.get().len() <= MOST_BYTES {
                return Some(whole);
            }
            to_raw_value(&self.message(true)).ok()
        });
        made.as_deref()
    }

    fn message(&self, cut: bool) -> Value {
        let columns: Vec<Value> = self
            .table
            .columns
            .iter()
            .map(|column| json!({"name": column.name, "type": column.kind.catalogue_name()}))
            .collect();
        let mut data = Map::new();
        data.insert("schema".to_owned(), "public".into());
        data.insert("table".to_owned(), self.table.name.into());
        data.insert("commit_timestamp".to_owned(), self.at.as_str().into());
        data.insert("type".to_owned(), name(self.change.kind).into());
        data.insert("columns".to_owned(), columns.into());
        if self.change.kind != ChangeKind::Delete {
            let row = if cut { small_fields(self.row()) } else { self.row().clone() };
            data.insert("record".to_owned(), row);
        }
        if let Some(old) = &self.change.old {
            data.insert("old_record".to_owned(), self.key_of(old));
        }
        let errors = if cut { json!(["Error 413: Payload Too Large"]) } else { Value::Null };
        data.insert("errors".to_owned(), errors);
        Value::Object(data)
    }

    /// The key alone: that is what Postgres knows of an old row whose table has access rules.
    fn key_of(&self, row: &Value) -> Value {
        let key = self.table.key.iter();
        let fields = key.filter_map(|name| Some(((*name).to_owned(), row.get(name)?.clone())));
        Value::Object(fields.collect())
    }
}

/// The name on the wire.
fn name(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Insert => "INSERT",
        ChangeKind::Update => "UPDATE",
        ChangeKind::Delete => "DELETE",
    }
}

fn may_read(rights: &Rights, caller: &Caller, row: &Value) -> bool {
    let Some(owned) = rights.select else { return false };
    *caller != Caller::Anonymous
        && owned.iter().all(|owned| {
            let found = row.get(owned.column).and_then(Value::as_str);
            found.is_some() && found == owned.claim.of(caller)
        })
}

fn small_fields(row: &Value) -> Value {
    let fields = row.as_object().into_iter().flatten();
    let small = fields.filter(|(_, value)| value.to_string().len() <= SMALL_FIELD);
    Value::Object(small.map(|(name, value)| (name.clone(), value.clone())).collect())
}
