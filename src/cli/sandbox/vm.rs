//! `sandbox vm-token` and `sandbox secret …`.

use serde_json::{Value, json};

use super::args::{SecretNameArgs, SecretsArgs, VmTokenArgs};
use super::client;
use super::outcome::text;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::{printable, table};

/// `vm-token`. To print a token is what it is for.
pub(super) async fn token(context: &Context, args: &VmTokenArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    // A part of a second is none of the server's business; a token of no time at all is.
    let made = client.make_vm_token(args.vm.as_deref(), Some(args.expires_in.as_secs())).await?;
    if args.common.json {
        context.ui.out(&table::json(&json!(made)))?;
        return Ok(Exit::Done);
    }
    context.ui.out(&made.token)?;
    context.ui.err_raw(&format!(
        "It works once, until {}, for VM {}. In the VM:\n  \
         PANORAMA_VM_BOOTSTRAP_TOKEN={} PANORAMA_SUPABASE_URL={} PANORAMA_SUPABASE_ANON_KEY={} \
         panorama-gateway start --foreground --mode managed\n",
        made.expires_at, made.vm_id, made.token, made.url, made.anon_key
    ));
    Ok(Exit::Done)
}

/// `secret add`.
pub(super) async fn add_secret(context: &Context, args: &SecretNameArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let added = client.add_secret(&args.name).await?;
    tell(context, args, &added, "Jobs in managed VMs may ask for")
}

/// `secret rm`.
pub(super) async fn remove_secret(context: &Context, args: &SecretNameArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let removed = client.remove_secret(&args.name).await?;
    tell(context, args, &removed, "Removed")
}

fn tell(context: &Context, args: &SecretNameArgs, secret: &Value, done: &str) -> Outcome {
    if args.common.json {
        context.ui.out(&table::json(secret))?;
    } else {
        context.ui.out(&format!("{done} {}.", printable::line(text(secret, "name"))))?;
    }
    Ok(Exit::Done)
}

/// `secret ls`.
pub(super) async fn secrets(context: &Context, args: &SecretsArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let secrets = client.secrets().await?;
    if args.common.json {
        context.ui.out(&table::json(&Value::Array(secrets)))?;
    } else if secrets.is_empty() {
        context.ui.note("no secrets; `panorama-gateway sandbox secret add NAME` adds one");
    } else {
        for secret in &secrets {
            context.ui.out(&printable::line(text(secret, "name")))?;
        }
    }
    Ok(Exit::Done)
}
