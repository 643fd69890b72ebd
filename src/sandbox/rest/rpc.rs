//! `rpc/name`: functions of the schema.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::Value;

use super::body;
use super::error::RestError;
use super::query::Query;
use super::read::{self, Page, Window};
use crate::sandbox::Caller;
use crate::sandbox::store::schema::{Function, Returned, Schema};
use crate::sandbox::store::value;

/// A call whose arguments fit.
#[derive(Debug)]
pub(super) struct Call {
    function: &'static Function,
    arguments: Vec<Sql>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    Void,
    Scalar(Value),
    Rows(Page),
}

impl Call {
    /// Finds the function by name and names of arguments.
    pub(super) fn find(
        schema: &Arc<Schema>,
        name: &str,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Self, RestError> {
        let mut given = body::arguments(body)?;
        let mut names: Vec<&str> = given.keys().map(String::as_str).collect();
        names.sort_unstable();
        let shown = names.join(", ");
        let function = schema.function(name).filter(|function| {
            function.arguments.len() == names.len()
                && function.arguments.iter().all(|argument| names.contains(&argument.name))
        });
        let function = function.ok_or_else(|| {
            RestError::new(
                "PGRST202",
                format!("Could not find the function public.{name}({shown}) in the schema cache"),
            )
            .details("no function of that name takes exactly these arguments")
        })?;
        if !caller.is_gateway() {
            let message = format!("permission denied for function {}", function.name);
            return Err(RestError::new("42501", message));
        }
        let mut arguments = Vec::new();
        for argument in function.arguments {
            let given = given.remove(argument.name).unwrap_or_default();
            arguments.push(value::from_json(argument.kind, &given)?);
        }
        Ok(Self { function, arguments })
    }

    /// Runs it in a write transaction.
    pub(super) fn run(
        &self,
        tx: &Connection,
        caller: &Caller,
        query: &Query,
        window: Window,
        count: bool,
    ) -> Result<Answer, RestError> {
        let returned = (self.function.body)(tx, caller, &self.arguments)?;
        if let Returned::Rows(table, rowids) = returned {
            let among = vec![read::among(&rowids)];
            let selection = read::selection(table, query, caller, among)?;
            return Ok(Answer::Rows(read::page(tx, &selection, window, count)?));
        }
        if !query.shapes_nothing() {
            return Err(RestError::new("PGRST100", "this function returns no rows to select from"));
        }
        Ok(match returned {
            Returned::Scalar(value) => Answer::Scalar(value),
            Returned::Void | Returned::Rows(..) => Answer::Void,
        })
    }
}
