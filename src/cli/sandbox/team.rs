//! `sandbox gateways`, `full-control`, and what jobs need of a team.

use serde_json::{Map, Value, json};

use super::args::{FullControlArgs, GatewaysArgs, TeamToggle};
use super::client;
use super::outcome::text;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::{printable, table};
use crate::sandbox::AdminClient;
use crate::sandbox::client::NewResource;

/// `gateways`.
pub(super) async fn gateways(context: &Context, args: &GatewaysArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let gateways = client.gateways().await?;
    if args.common.json {
        context.ui.out(&table::json(&Value::Array(gateways)))?;
    } else if gateways.is_empty() {
        context.ui.note("no gateways; `panorama-gateway sandbox code` makes a pairing code");
    } else {
        let rows = gateways.iter().map(row).collect();
        let headings = ["ID", "DEVICE", "STATUS", "MACHINE CONTROL", "LAST SEEN"];
        context.ui.out(&table::text(headings, rows))?;
    }
    Ok(Exit::Done)
}

fn row(gateway: &Value) -> [String; 5] {
    let field = |name| printable::line(text(gateway, name));
    let toggle = if gateway["full_control_enabled"] == true { "on" } else { "off" };
    let seen =
        if gateway["last_seen_at"].is_null() { "never".to_owned() } else { field("last_seen_at") };
    [field("id"), field("device_name"), field("status"), toggle.to_owned(), seen]
}

/// `full-control`.
pub(super) async fn full_control(context: &Context, args: &FullControlArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let enabled = args.action == TeamToggle::On;
    let gateway = client.set_full_control(args.gateway.as_deref(), enabled).await?;
    if args.common.json {
        context.ui.out(&table::json(&gateway))?;
        return Ok(Exit::Done);
    }
    let state = if enabled { "on" } else { "off" };
    context.ui.out(&format!(
        "The team's toggle of machine control is {state} for {}.",
        text(&gateway, "id")
    ))?;
    if enabled {
        context
            .ui
            .note("the host has a toggle of its own: `panorama-gateway full-control enable` there");
    }
    Ok(Exit::Done)
}

/// The gateway that was named, else the online one that was seen last.
pub(super) async fn choose_gateway(
    client: &AdminClient,
    named: Option<&str>,
) -> Result<String, Failure> {
    if let Some(id) = named {
        return Ok(id.to_owned());
    }
    let gateways = client.gateways().await?;
    let rank =
        |gateway: &&Value| (gateway["online"] == true, text(gateway, "last_seen_at").to_owned());
    gateways.iter().max_by_key(rank).map(|gateway| text(gateway, "id").to_owned()).ok_or_else(
        || {
            Failure::new("no gateway is paired with this sandbox")
                .hint("`panorama-gateway sandbox code` makes a code and prints how to use it")
        },
    )
}

/// The gateway's remote-shell resource; made when there is none. True when it was made.
pub(super) async fn remote_shell(
    client: &AdminClient,
    gateway: &str,
) -> Result<(String, bool), Failure> {
    let gateways = client.gateways().await?;
    let vm_id = gateways.iter().find(|row| row["id"] == gateway).map(|row| text(row, "vm_id"));
    let vm_id = vm_id.filter(|id| !id.is_empty());
    let resources = client.resources().await?;
    let found = resources.into_iter().find(|resource| allows(resource, gateway, vm_id));
    if let Some(resource) = found {
        return Ok((text(&resource, "id").to_owned(), false));
    }
    let mut metadata = Map::new();
    metadata.insert("gateway_id".to_owned(), json!(gateway));
    if let Some(id) = vm_id {
        metadata.insert("vm_id".to_owned(), json!(id));
    }
    metadata.insert("full_control".to_owned(), json!(true));
    let made = client
        .make_resource(&NewResource {
            gateway_id: gateway.to_owned(),
            resource_type: "remote_shell".to_owned(),
            max_access_level: "editor".to_owned(),
            metadata,
        })
        .await?;
    Ok((text(&made, "id").to_owned(), true))
}

/// A resource that names a VM is that VM's, whatever gateway it names.
fn allows(resource: &Value, gateway: &str, vm_id: Option<&str>) -> bool {
    let named = &resource["metadata"]["vm_id"];
    let is_ours = if named.is_null() {
        resource["metadata"]["gateway_id"] == gateway
    } else {
        named.as_str() == vm_id
    };
    is_ours
        && resource["resource_type"] == "remote_shell"
        && resource["max_access_level"] != "viewer"
        && resource["metadata"]["full_control"] == true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_resource_that_allows_it_is_used_again() {
        let good = json!({"resource_type": "remote_shell", "max_access_level": "editor",
                          "metadata": {"gateway_id": "g", "full_control": true}});
        assert!(allows(&good, "g", None) && allows(&good, "g", Some("v")));
        assert!(!allows(&good, "other", None));
        let mut of_vm = good.clone();
        of_vm["metadata"]["vm_id"] = json!("v");
        assert!(allows(&of_vm, "another", Some("v")));
        assert!(!allows(&of_vm, "g", None) && !allows(&of_vm, "g", Some("w")));
        for (path, bad) in [
            ("/resource_type", json!("web")),
            ("/max_access_level", json!("viewer")),
            ("/metadata/full_control", json!("true")),
        ] {
            let mut resource = good.clone();
            *resource.pointer_mut(path).unwrap() = bad;
            assert!(!allows(&resource, "g", None), "{path}");
        }
    }
}
