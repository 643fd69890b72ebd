//! A machine whose `systemctl`, `loginctl` and `launchctl` write down how they were called.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::common::Machine;

const SYSTEMCTL: &str = r#"#!/bin/sh
printf '%s\n' "systemctl $*" >>"$HOME/calls"
if [ -e "$HOME/refuse" ]; then echo 'Failed to connect to bus' >&2; exit 1; fi
case "$*" in
*--property=Version*) echo Version=252.1 ;;
*MainPID*) cat "$HOME/state" 2>/dev/null; exit 0 ;;
esac
"#;
const LOGINCTL: &str = r#"#!/bin/sh
printf '%s\n' "loginctl $*" >>"$HOME/calls"
case "$*" in show-user*) echo Linger=no ;; esac
"#;
const LAUNCHCTL: &str = r#"#!/bin/sh
printf '%s\n' "launchctl $*" >>"$HOME/calls"
case "$1" in
print) [ -e "$HOME/loaded" ] || exit 113; cat "$HOME/loaded" ;;
bootstrap) printf '\tstate = running\n\tpid = 4242\n' >"$HOME/loaded" ;;
bootout) rm "$HOME/loaded" ;;
esac
"#;

/// See the module.
pub(crate) struct Tools {
    pub(crate) machine: Machine,
}

impl Tools {
    pub(crate) fn new() -> Self {
        let machine = Machine::new();
        let bin = machine.home().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for (name, script) in
            [("systemctl", SYSTEMCTL), ("loginctl", LOGINCTL), ("launchctl", LAUNCHCTL)]
        {
            let path = bin.join(name);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:/usr/bin:/bin", bin.display());
        Self { machine: machine.with("PATH", path) }
    }

    /// As far as `service install` minds.
    pub(crate) fn paired() -> Self {
        let tools = Self::new();
        std::fs::create_dir_all(tools.machine.dir()).unwrap();
        let config = r#"{"supabaseUrl": "https://x.invalid", "supabaseAnonKey": "key",
            "accessToken": "a", "refreshToken": "r", "gatewayId": "g", "teamId": "t"}"#;
        std::fs::write(tools.machine.config_file(), config).unwrap();
        tools
    }

    pub(crate) fn unit(&self) -> PathBuf {
        self.machine.home().join(".config/systemd/user/panorama-gateway.service")
    }

    pub(crate) fn plist(&self) -> PathBuf {
        self.machine.home().join("Library/LaunchAgents/ai.panorama.gateway.plist")
    }

    /// What `systemctl show` says of the unit from now on.
    pub(crate) fn says(&self, state: &str) {
        std::fs::write(self.machine.home().join("state"), state).unwrap();
    }

    /// How the tools were called since the last look, but for questions.
    pub(crate) fn orders(&self) -> Vec<String> {
        let calls = self.calls();
        let is_question = |call: &String| call.contains(" show") || call.contains(" print");
        calls.into_iter().filter(|call| !is_question(call)).collect()
    }

    /// How the tools were called since the last look.
    pub(crate) fn calls(&self) -> Vec<String> {
        let file = self.machine.home().join("calls");
        let calls = std::fs::read_to_string(&file).unwrap_or_default();
        let _there_were_none = std::fs::remove_file(&file);
        calls.lines().map(str::to_owned).collect()
    }
}
