//! The rules that decide whether a shell command may run here. Pure: facts in, verdict out.

use std::time::Duration;

use serde_json::Value;

use crate::backend::ControlState;
use crate::model::{GatewayId, TeamId};

/// Peers treat a gateway whose last heartbeat is older as offline, and so do we.
pub(crate) const HEARTBEAT_FRESH: Duration = Duration::from_secs(90);

/// Machine control is effective only if the gateway's row can be read, is fresh, both toggles are
/// on, and the capabilities in the row say so. The error is the reason, for the job's message.
pub(super) fn machine_control(
    row: Option<&ControlState>,
    host_toggle: bool,
) -> Result<(), &'static str> {
    let Some(row) = row else {
        return Err("this gateway's row could not be read");
    };
    if row.heartbeat_age.is_none_or(|age| age > HEARTBEAT_FRESH) {
        return Err("the gateway's heartbeat is older than 90 seconds");
    }
    if !row.full_control_enabled {
        return Err("full control of this gateway is turned off for the team");
    }
    if !host_toggle {
        return Err("full control is turned off on this host \
                    (an admin of it can run `panorama-gateway full-control enable`)");
    }
    let ready = row.capabilities.pointer("/services/machine_control/ready");
    if ready.and_then(Value::as_bool) != Some(true) {
        return Err("the gateway has not reported machine control as ready");
    }
    Ok(())
}

/// Whether a `team_resources` row lets this gateway run shell commands. The error is the reason.
pub(super) fn remote_shell_resource(
    resource: Option<&Value>,
    team: &TeamId,
    gateway: &GatewayId,
    vm_id: Option<&str>,
) -> Result<(), &'static str> {
    let Some(resource) = resource else {
        return Err("the resource does not exist");
    };
    let text = |pointer: &str| resource.pointer(pointer).and_then(Value::as_str);
    if text("/team_id") != Some(team.as_str()) {
        return Err("the resource belongs to another team");
    }
    if text("/resource_type") != Some("remote_shell") {
        return Err("the resource is not a remote shell");
    }
    if text("/max_access_level").is_none_or(|level| level == "viewer") {
        return Err("the resource may only be viewed");
    }
    let of_vm = resource.pointer("/metadata/vm_id").filter(|id| !id.is_null());
    let is_ours = match of_vm {
        Some(id) => vm_id.is_some() && id.as_str() == vm_id,
        None => text("/metadata/gateway_id") == Some(gateway.as_str()),
    };
    if !is_ours {
        return Err("the resource belongs to another host");
    }
    if resource.pointer("/metadata/full_control") != Some(&Value::Bool(true)) {
        return Err("the resource does not allow full control");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> ControlState {
        ControlState {
            full_control_enabled: true,
            status: "ready".into(),
            heartbeat_age: Some(Duration::from_secs(90)),
            capabilities: json!({"services": {"machine_control": {"ready": true}}}),
            vm_id: None,
        }
    }

    #[test]
    fn each_condition_of_machine_control_counts() {
        assert_eq!(machine_control(Some(&row()), true), Ok(()));
        let late = ControlState { heartbeat_age: Some(Duration::from_millis(90_001)), ..row() };
        let never = ControlState { heartbeat_age: None, ..row() };
        let team_off = ControlState { full_control_enabled: false, ..row() };
        let truthy = ControlState {
            capabilities: json!({"services": {"machine_control": {"ready": "true"}}}),
            ..row()
        };
        let refusals = [
            machine_control(None, true),
            machine_control(Some(&late), true),
            machine_control(Some(&never), true),
            machine_control(Some(&team_off), true),
            machine_control(Some(&row()), false),
            machine_control(Some(&truthy), true),
        ];
        assert!(refusals.iter().all(Result::is_err), "{refusals:?}");
    }

    fn resource() -> Value {
        json!({"team_id": "t", "resource_type": "remote_shell", "max_access_level": "editor",
               "metadata": {"gateway_id": "g", "full_control": true}})
    }

    fn check(resource: &Value, vm_id: Option<&str>) -> Result<(), &'static str> {
        remote_shell_resource(Some(resource), &TeamId::new("t"), &GatewayId::new("g"), vm_id)
    }

    #[test]
    fn each_condition_of_a_resource_counts() {
        assert_eq!(check(&resource(), None), Ok(()));
        let cases = [
            ("/team_id", json!("other")),
            ("/resource_type", json!("drive")),
            ("/max_access_level", json!("viewer")),
            ("/max_access_level", Value::Null),
            ("/metadata/gateway_id", json!("other")),
            ("/metadata/gateway_id", Value::Null),
            ("/metadata/full_control", json!("true")),
            ("/metadata/full_control", json!(false)),
            ("/metadata", Value::Null),
        ];
        for (pointer, value) in cases {
            let mut changed = resource();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert!(check(&changed, None).is_err(), "{pointer}: {changed}");
        }
        assert!(
            remote_shell_resource(None, &TeamId::new("t"), &GatewayId::new("g"), None).is_err()
        );
    }

    #[test]
    fn a_vm_id_in_the_resource_decides_alone() {
        let mut tied = resource();
        tied["metadata"]["vm_id"] = json!("vm-1");
        assert_eq!(check(&tied, Some("vm-1")), Ok(()));
        assert!(check(&tied, Some("vm-2")).is_err());
        assert!(check(&tied, None).is_err(), "the gateway id must not stand in for the VM's");
    }
}
