//! `config show`.

use serde_json::{Value, json};

use super::args::ConfigShowArgs;
use super::context::Context;
use super::failure::{Exit, Outcome};
use super::table;
use crate::config::Purpose;

/// Runs the command.
pub(crate) fn run(context: &Context, args: &ConfigShowArgs) -> Outcome {
    let settings = context.settings(Purpose::Look)?;
    let rows = settings.table(&context.saved(&settings)?);
    if args.json {
        let rows: Vec<Value> = rows
            .into_iter()
            .map(|(name, value, source)| json!({"name": name, "value": value, "source": source}))
            .collect();
        context.ui.out(&table::json(&Value::Array(rows)))?;
    } else {
        let rows = rows.into_iter().map(|(name, value, source)| [name, value, source]).collect();
        context.ui.out(&table::text(["SETTING", "VALUE", "SOURCE"], rows))?;
    }
    Ok(Exit::Done)
}
