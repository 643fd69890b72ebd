//! `sandbox code`.

use serde_json::json;

use super::args::CodeArgs;
use super::client;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::table;

/// Runs the command. To print a code is what it is for.
pub(super) async fn run(context: &Context, args: &CodeArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let made = client.make_pairing_code(context.options.device_name.as_deref()).await?;
    if args.common.json {
        let value = json!({"code": made.code, "url": made.url, "anon_key": made.anon_key,
                           "expires_at": made.expires_at});
        context.ui.out(&table::json(&value))?;
        return Ok(Exit::Done);
    }
    context.ui.out(&made.code)?;
    context.ui.err_raw(&format!(
        "It works once, until {}:\n  panorama-gateway pair {} --supabase-url {} --anon-key {}\n",
        made.expires_at, made.code, made.url, made.anon_key
    ));
    Ok(Exit::Done)
}
