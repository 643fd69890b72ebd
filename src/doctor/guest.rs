//! The managed VM that the gateway runs in: as whom commands run, and what holds them.

use super::Check;
use crate::guest::{Guest, GuestState};
use crate::process::ExecUserError;

const ID: &str = "managed_vm";

/// By what the settings say, and what the running gateway says if there is one. Blocks.
pub fn check(guest: &Guest, live: Option<&GuestState>) -> Check {
    judge(&guest.state(), guest.find_user().map(drop), live)
}

fn judge(state: &GuestState, user: Result<(), ExecUserError>, live: Option<&GuestState>) -> Check {
    if let Err(error) = user {
        let hint = "make that user, or name another one by PANORAMA_VM_AGENT_USER";
        return Check::fail(ID, error.to_string(), hint);
    }
    let state = live.unwrap_or(state);
    let user = state.exec_user.as_deref().unwrap_or("the gateway's own user");
    let detail = format!("VM {}, commands run as {user}", state.vm_id);
    let trouble = live.and_then(|live| live.trouble.as_deref());
    match (live, trouble) {
        (Some(live), Some(why)) if live.containment == "cgroup" => Check::warn(
            ID,
            format!("{detail}; limits of commands are {why}"),
            "give the service these cgroup controllers (systemd: `Delegate=yes`)",
        ),
        (Some(_), Some(why)) => Check::warn(
            ID,
            format!("{detail}, without cgroups: {why}"),
            "commands are held by their supervisor alone; systemd gives cgroups by `Delegate=yes`",
        ),
        (Some(_), None) => Check::ok(ID, format!("{detail}, each shell command in a cgroup")),
        (None, _) => Check::ok(ID, detail),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Status;

    fn state(containment: &str, trouble: Option<&str>) -> GuestState {
        GuestState {
            vm_id: "vm-1".into(),
            generation: json!(1),
            exec_user: Some("agent".into()),
            containment: containment.into(),
            trouble: trouble.map(str::to_owned),
        }
    }

    #[test]
    fn a_missing_user_stops_commands_and_missing_cgroups_do_not() {
        let here = state("shim", None);
        let seen = |user, live: Option<GuestState>| {
            let check = judge(&here, user, live.as_ref());
            (check.status, check.detail)
        };
        let missing = Err(ExecUserError::Missing("agent".into()));
        assert_eq!(seen(missing, None).0, Status::Fail);
        assert_eq!(seen(Ok(()), None), (Status::Ok, "VM vm-1, commands run as agent".into()));
        let (status, detail) = seen(Ok(()), Some(state("cgroup", None)));
        assert!(status == Status::Ok && detail.ends_with("in a cgroup"), "{detail}");
        let (status, detail) = seen(Ok(()), Some(state("shim", Some("none here"))));
        assert!(status == Status::Warn && detail.contains("without cgroups: none here"));
        let (status, detail) = seen(Ok(()), Some(state("cgroup", Some("not enforced"))));
        assert!(status == Status::Warn && detail.contains("limits"), "{detail}");
    }
}
