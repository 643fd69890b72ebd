//! Failures as PostgREST tells them: `{code, message, details, hint}` and a status that follows
//! from the code.

use std::borrow::Cow;

use http::StatusCode;
use rusqlite::ffi;
use serde_json::{Value, json};

use super::super::store::{StoreError, schema::CallError, value::BadValue};

/// What a refused request is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct RestError {
    /// A SQLSTATE of Postgres or a code of PostgREST.
    pub code: &'static str,
    /// What went wrong.
    pub message: Cow<'static, str>,
    /// More about it.
    pub details: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl RestError {
    /// An error without details and hint.
    pub fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), details: None, hint: None }
    }

    /// The same with details.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The query string does not parse.
    pub(super) fn syntax(what: &str, text: &str) -> Self {
        let mut shown: String = text.chars().take(200).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self::new("PGRST100", format!("failed to parse {what} ({shown})"))
    }

    /// A bound of this server is crossed.
    pub(super) fn too_complex(what: &str, most: usize) -> Self {
        Self::new("54001", format!("statement too complex: more than {most} {what}"))
            .hint("split the request")
    }

    /// The caller has no such right on the table at all, or not on a column.
    pub(super) fn denied(table: &str) -> Self {
        Self::new("42501", format!("permission denied for table {table}"))
    }

    /// The row would not be the caller's, or its state would take a step that it may not.
    pub(super) fn violates_policy(table: &str) -> Self {
        let message = format!("new row violates row-level security policy for table \"{table}\"");
        Self::new("42501", message)
    }

    /// The HTTP status.
    pub fn status(&self, anonymous: bool) -> StatusCode {
        match self.code {
            "42501" if anonymous => StatusCode::UNAUTHORIZED,
            "42501" => StatusCode::FORBIDDEN,
            "PGRST301" | "PGRST302" | "PGRST303" => StatusCode::UNAUTHORIZED,
            "23505" | "23503" => StatusCode::CONFLICT,
            "42P01" | "42883" | "PGRST125" | "PGRST202" | "PGRST205" => StatusCode::NOT_FOUND,
            // A statement that took too long, or lost against another.
            "57014" | "40001" | "40P01" => StatusCode::INTERNAL_SERVER_ERROR,
            "PGRST101" | "PGRST117" => StatusCode::METHOD_NOT_ALLOWED,
            "PGRST103" => StatusCode::RANGE_NOT_SATISFIABLE,
            "PGRST106" | "PGRST107" | "PGRST116" => StatusCode::NOT_ACCEPTABLE,
            code if code.starts_with("PT") => code
                .get(2..)
                .and_then(|digits| StatusCode::from_bytes(digits.as_bytes()).ok())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code if code.starts_with("54") => StatusCode::PAYLOAD_TOO_LARGE,
            code if code.starts_with("53") || code.starts_with("PGRST00") => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            code if code.starts_with("XX") => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The body.
    pub(super) fn body(&self) -> Value {
        json!({
            "code": self.code, "message": self.message, "details": self.details, "hint": self.hint
        })
    }
}

impl From<BadValue> for RestError {
    fn from(error: BadValue) -> Self {
        let refused = Self::new(error.code(), error.to_string());
        if error == BadValue::Nul {
            return refused.details("\\u0000 cannot be converted to text.");
        }
        refused
    }
}

impl From<CallError> for RestError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Raised(raised) => Self {
                code: raised.code,
                message: raised.message.into(),
                details: raised.details,
                hint: raised.hint,
            },
            CallError::Sqlite(error) => error.into(),
        }
    }
}

impl From<StoreError> for RestError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Sqlite(error) => error.into(),
            // It was not this one that took too long.
            StoreError::Commit(error)
                if error.sqlite_error_code() == Some(ffi::ErrorCode::OperationInterrupted) =>
            {
                Self::new("53300", "the database is busy")
            }
            StoreError::Commit(error) => of_sqlite(&error),
            StoreError::Closed => Self::new("PGRST001", "the sandbox is shutting down"),
            StoreError::Panicked(_)
            | StoreError::File { .. }
            | StoreError::Damaged { .. }
            | StoreError::Open { .. }
            | StoreError::Newer { .. } => {
                tracing::error!(%error, "request failed");
                Self::new("XX000", error.to_string())
            }
        }
    }
}

impl From<rusqlite::Error> for RestError {
    fn from(error: rusqlite::Error) -> Self {
        of_sqlite(&error)
    }
}

fn of_sqlite(error: &rusqlite::Error) -> RestError {
    if let rusqlite::Error::SqliteFailure(failure, message) = error {
        let message = message.as_deref().unwrap_or_default();
        // SQLite says `UNIQUE constraint failed: table.column, table.column`.
        let what = message.split_once(": ").map_or("", |(_, what)| what);
        match failure.extended_code {
            ffi::SQLITE_CONSTRAINT_UNIQUE
            | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            | ffi::SQLITE_CONSTRAINT_ROWID => return duplicate(what),
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY => {
                return RestError::new("23503", "the change violates a foreign key constraint");
            }
            ffi::SQLITE_CONSTRAINT_NOTNULL => {
                let (table, column) = what.split_once('.').unwrap_or((what, ""));
                return RestError::new(
                    "23502",
                    format!(
                        "null value in column \"{column}\" of relation \"{table}\" violates \
                         not-null constraint"
                    ),
                );
            }
            ffi::SQLITE_CONSTRAINT_CHECK => {
                return RestError::new(
                    "23514",
                    format!("new row violates check constraint \"{what}\""),
                );
            }
            _ => {}
        }
        let known = [
            (ffi::ErrorCode::DatabaseBusy, "53300", "the database is busy"),
            (ffi::ErrorCode::DatabaseLocked, "53300", "the database is busy"),
            (
                ffi::ErrorCode::OperationInterrupted,
                "57014",
                "canceling statement due to statement timeout",
            ),
            (ffi::ErrorCode::DiskFull, "53100", "the disk is full"),
            (ffi::ErrorCode::TooBig, "54000", "the value is too large"),
        ];
        if let Some((_, code, message)) = known.into_iter().find(|(code, ..)| *code == failure.code)
        {
            return RestError::new(code, message);
        }
    }
    tracing::error!(%error, "the sandbox's database failed");
    RestError::new("XX000", "the sandbox's database failed; its log says more")
}

fn duplicate(columns: &str) -> RestError {
    let names: Vec<&str> = columns
        .split(", ")
        .map(|name| name.split_once('.').map_or(name, |(_, name)| name))
        .collect();
    let table = columns.split_once('.').map_or("", |(table, _)| table);
    let constraint = format!("{table}_{}_key", names.join("_"));
    RestError::new(
        "23505",
        format!("duplicate key value violates unique constraint \"{constraint}\""),
    )
    .details(format!("Key ({}) already exists.", names.join(", ")))
}
