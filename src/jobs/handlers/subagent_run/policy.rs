//! Whether a subagent may run here now, and with full control. Pure: facts in, verdict out.

use serde_json::Value;

use crate::backend::ControlState;
use crate::jobs::machine_control::HEARTBEAT_FRESH;

/// Whether agents may run here, by this gateway's row as the team sees it. The error is the reason.
pub(super) fn may_run(row: Option<&ControlState>) -> Result<(), &'static str> {
    let Some(row) = row else {
        return Err("this gateway's row could not be read");
    };
    if row.heartbeat_age.is_none_or(|age| age > HEARTBEAT_FRESH) {
        return Err("the gateway's heartbeat is older than 90 seconds");
    }
    let ready = row.capabilities.pointer("/services/model_execution/ready");
    if ready.and_then(Value::as_bool) != Some(true) {
        return Err("the gateway has not reported that an agent can run \
                    (`panorama-gateway doctor` says why)");
    }
    Ok(())
}

/// What a run asks for and gets of full control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FullControl {
    pub(super) requested: bool,
    /// Why it was asked for and is not given.
    pub(super) denied: Option<String>,
}

impl FullControl {
    /// Team toggle, host toggle and provider must all allow what is asked for.
    pub(super) fn judge(
        requested: bool,
        team_toggle: bool,
        host_toggle: Result<bool, String>,
        provider: Result<(), String>,
    ) -> Self {
        let denied = if !requested {
            None
        } else if !team_toggle {
            Some("full control of this gateway is turned off for the team".to_owned())
        } else {
            match (host_toggle, provider) {
                (Ok(true), Ok(())) => None,
                (Ok(true), Err(reason)) | (Err(reason), _) => Some(reason),
                (Ok(false), _) => Some(
                    "full control is turned off on this host \
                     (an admin of it can run `panorama-gateway full-control enable`)"
                        .to_owned(),
                ),
            }
        };
        Self { requested, denied }
    }

    /// The agent may do whatever its user may.
    pub(super) fn effective(&self) -> bool {
        self.requested && self.denied.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn row() -> ControlState {
        ControlState {
            full_control_enabled: false,
            status: "ready".into(),
            heartbeat_age: Some(Duration::from_secs(90)),
            capabilities: json!({"services": {"model_execution": {"ready": true}}}),
            vm_id: None,
        }
    }

    #[test]
    fn each_condition_of_a_run_counts() {
        assert_eq!(may_run(Some(&row())), Ok(()));
        let late = ControlState { heartbeat_age: Some(Duration::from_millis(90_001)), ..row() };
        let never = ControlState { heartbeat_age: None, ..row() };
        let capabilities = json!({"services": {"model_execution": {"ready": false}}});
        let unready = ControlState { capabilities, ..row() };
        let nothing = ControlState { capabilities: Value::Null, ..row() };
        for refused in [None, Some(&late), Some(&never), Some(&unready), Some(&nothing)] {
            assert!(may_run(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn full_control_needs_all_three_and_is_denied_only_to_who_asks() {
        let no = || Err("no such flag".to_owned());
        let all = FullControl::judge(true, true, Ok(true), Ok(()));
        assert!(all.effective() && all.denied.is_none());
        for (denied, word) in [
            (FullControl::judge(true, false, Ok(true), Ok(())), "team"),
            (FullControl::judge(true, true, Ok(false), Ok(())), "host"),
            (FullControl::judge(true, true, Err("damaged".into()), Ok(())), "damaged"),
            (FullControl::judge(true, true, Ok(true), no()), "no such flag"),
        ] {
            assert!(!denied.effective(), "{denied:?}");
            assert!(denied.denied.as_deref().unwrap().contains(word), "{denied:?}");
        }
        for unasked in [
            FullControl::judge(false, true, Ok(true), Ok(())),
            FullControl::judge(false, false, Ok(false), no()),
        ] {
            assert_eq!(unasked, FullControl { requested: false, denied: None });
            assert!(!unasked.effective());
        }
    }
}
