//! What a join asks for: the bindings of `config.postgres_changes`, and their echo. Pure.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::event::Event;
use super::filter::{Filter, FilterError};
use crate::sandbox::store::ChangeKind;
use crate::sandbox::store::schema::{Schema, Table};

/// Bindings of a channel at most.
const MOST_BINDINGS: usize = 100;

/// Why a join is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum JoinError {
    /// `postgres_changes` is not what it must be.
    #[error("postgres_changes must be a list of objects")]
    Form,
    /// Too many.
    #[error("a channel takes {MOST_BINDINGS} bindings at most")]
    TooMany,
}

/// Why a binding cannot be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BindingError {
    /// A field is not a text.
    #[error("{0} must be a text")]
    Text(&'static str),
    /// Not one of the four.
    #[error("unknown event {0}: use INSERT, UPDATE, DELETE or *")]
    Event(String),
    /// Only `public` is there.
    #[error("the schema {0} does not exist")]
    Schema(String),
    /// No such table.
    #[error("the table {0} does not exist")]
    Table(String),
    /// Columns belong to a table.
    #[error("a filter needs a table")]
    FilterOfAll,
    /// The filter is refused.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// Some changes of one table or of all.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Binding {
    /// Names it in messages.
    pub(super) id: u32,
    kind: Option<ChangeKind>,
    table: Option<&'static str>,
    filter: Option<Filter>,
}

/// The entries of `config.postgres_changes` as they were sent.
pub(super) fn entries(payload: &Value) -> Result<Vec<&Map<String, Value>>, JoinError> {
    let asked = payload.get("config").and_then(|config| config.get("postgres_changes"));
    let list = match asked {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(asked) => asked.as_array().ok_or(JoinError::Form)?,
    };
    if list.len() > MOST_BINDINGS {
        return Err(JoinError::TooMany);
    }
    list.iter().map(|entry| entry.as_object().ok_or(JoinError::Form)).collect()
}

/// The entry as it was sent, and its id.
pub(super) fn echo(entry: &Map<String, Value>) -> Value {
    let mut fields = Map::new();
    fields.insert("id".to_owned(), id(entry).into());
    let sent = entry.iter().filter(|(name, _)| *name != "id");
    fields.extend(sent.map(|(name, value)| (name.clone(), value.clone())));
    Value::Object(fields)
}

/// The same for the same parameters in any order, and never 0, which clients take for none.
fn id(entry: &Map<String, Value>) -> u32 {
    let mut fields: Vec<_> = entry.iter().filter(|(name, _)| *name != "id").collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    let mut hash = Sha256::new();
    for (name, value) in fields {
        hash.update(Value::from(name.as_str()).to_string());
        hash.update(value.to_string());
    }
    let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
    u32::from_be_bytes([a, b, c, d]).max(1)
}

impl Binding {
    /// What an entry means.
    pub(super) fn parse(schema: &Schema, entry: &Map<String, Value>) -> Result<Self, BindingError> {
        let text = |name: &'static str| match entry.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(BindingError::Text(name)),
        };
        let kind = match text("event")?.unwrap_or("*") {
            "*" => None,
            "INSERT" => Some(ChangeKind::Insert),
            "UPDATE" => Some(ChangeKind::Update),
            "DELETE" => Some(ChangeKind::Delete),
            other => return Err(BindingError::Event(other.to_owned())),
        };
        match text("schema")?.unwrap_or("*") {
            "*" | "public" => {}
            other => return Err(BindingError::Schema(other.to_owned())),
        }
        let table: Option<&'static Table> = match text("table")?.unwrap_or("*") {
            "*" => None,
            name => Some(schema.table(name).ok_or_else(|| BindingError::Table(name.to_owned()))?),
        };
        let filter = match (text("filter")?, table) {
            (None | Some(""), _) => None,
            (Some(filter), Some(table)) => Some(Filter::parse(table, filter)?),
            (Some(_), None) => return Err(BindingError::FilterOfAll),
        };
        Ok(Self { id: id(entry), kind, table: table.map(|table| table.name), filter })
    }

    /// Whether it wants that change.
    pub(super) fn wants(&self, event: &Event) -> bool {
        self.kind.is_none_or(|kind| kind == event.kind())
            && self.table.is_none_or(|table| table == event.table().name)
            && self.filter.as_ref().is_none_or(|filter| filter.matches(event.row()))
    }
}
