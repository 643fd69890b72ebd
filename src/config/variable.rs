//! The names of all variables that the gateway reads. Settings code can look up nothing else, so
//! the table is complete, and a test holds `.env.example` against it.

/// The name of a variable of this table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variable(&'static str);

impl Variable {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        self.0
    }
}

macro_rules! variables {
    ($($constant:ident = $name:literal;)*) => {
        $(pub(crate) const $constant: Variable = Variable($name);)*

        /// Every variable that can be looked up.
        #[cfg(test)]
        pub(super) const ALL: &[Variable] = &[$($constant),*];
    };
}

variables! {
    ENV_FILE = "PANORAMA_ENV_FILE";
    ENV_PATH = "PANORAMA_ENV_PATH";
    ENV = "PANORAMA_ENV";

    PANORAMA_SUPABASE_URL = "PANORAMA_SUPABASE_URL";
    SUPABASE_URL = "SUPABASE_URL";
    PANORAMA_SUPABASE_ANON_KEY = "PANORAMA_SUPABASE_ANON_KEY";
    SUPABASE_ANON_KEY = "SUPABASE_ANON_KEY";
    SUPABASE_PUBLISHABLE_KEY = "SUPABASE_PUBLISHABLE_KEY";
    ALLOW_INSECURE_BACKEND = "PANORAMA_ALLOW_INSECURE_BACKEND";

    CONFIG_DIR = "PANORAMA_GATEWAY_CONFIG_DIR";
    CONFIG_PATH = "PANORAMA_GATEWAY_CONFIG_PATH";
    LOG_PATH = "PANORAMA_GATEWAY_LOG_PATH";
    PID_PATH = "PANORAMA_GATEWAY_PID_PATH";

    DEVICE_NAME = "PANORAMA_GATEWAY_DEVICE_NAME";
    CONCURRENCY = "PANORAMA_GATEWAY_CONCURRENCY";
    AGENT_CONCURRENCY = "PANORAMA_GATEWAY_AGENT_CONCURRENCY";
    AUTO_RESTART = "PANORAMA_GATEWAY_AUTO_RESTART";
    RESTART_CHECK = "PANORAMA_GATEWAY_RESTART_CHECK_MS";
    RESTART_MAX_WAIT = "PANORAMA_GATEWAY_RESTART_MAX_WAIT_MS";
    DRAIN_TIMEOUT = "PANORAMA_GATEWAY_DRAIN_TIMEOUT_MS";
    LOG_FILTER = "PANORAMA_GATEWAY_LOG";
    METRICS_LISTEN = "PANORAMA_GATEWAY_METRICS_LISTEN";
    LIVE_EVENTS = "PANORAMA_GATEWAY_LIVE_EVENTS";

    VM_BOOTSTRAP_TOKEN = "PANORAMA_VM_BOOTSTRAP_TOKEN";
    VM_BOOTSTRAP_FORCE = "PANORAMA_VM_BOOTSTRAP_FORCE";
    VM_DEVICE_NAME = "PANORAMA_VM_DEVICE_NAME";
    VM_IMAGE_REFERENCE = "PANORAMA_VM_IMAGE_REFERENCE";
    VM_AGENT_USER = "PANORAMA_VM_AGENT_USER";
    VM_WORK_DIR = "PANORAMA_VM_WORK_DIR";
    VM_JOB_MEMORY_MAX = "PANORAMA_VM_JOB_MEMORY_MAX";
    VM_JOB_PIDS_MAX = "PANORAMA_VM_JOB_PIDS_MAX";
    VM_JOB_CPU_MAX = "PANORAMA_VM_JOB_CPU_MAX";

    DRIVE_SYNC_ENABLED = "PANORAMA_DRIVE_SYNC_ENABLED";
    DRIVE_SYNC_ROOT = "PANORAMA_DRIVE_SYNC_ROOT";
    DRIVE_SYNC_STATE_DIR = "PANORAMA_DRIVE_SYNC_STATE_DIR";
    DRIVE_SYNC_CLIENT_KEY = "PANORAMA_DRIVE_SYNC_CLIENT_KEY";
    DRIVE_SYNC_CHANGE_LIMIT = "PANORAMA_DRIVE_SYNC_CHANGE_LIMIT";
    DRIVE_SYNC_MAX_BATCHES = "PANORAMA_DRIVE_SYNC_MAX_BATCHES_PER_TICK";
    DRIVE_SYNC_DEBOUNCE = "PANORAMA_DRIVE_SYNC_DEBOUNCE_MS";
    DRIVE_SYNC_POLL_INTERVAL = "PANORAMA_DRIVE_SYNC_POLL_INTERVAL_MS";
    DRIVE_SYNC_AUDIT_INTERVAL = "PANORAMA_DRIVE_SYNC_LOCAL_AUDIT_INTERVAL_MS";
    DRIVE_SYNC_NETWORK_TIMEOUT = "PANORAMA_DRIVE_SYNC_NETWORK_TIMEOUT_MS";

    PANORAMA_CLAUDE_CLI = "PANORAMA_CLAUDE_CLI";
    CLAUDE_CLI = "CLAUDE_CLI";
    PANORAMA_CODEX_CLI = "PANORAMA_CODEX_CLI";
    CODEX_CLI = "CODEX_CLI";
    PANORAMA_GEMINI_CLI = "PANORAMA_GEMINI_CLI";
    GEMINI_CLI = "GEMINI_CLI";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const EXAMPLE: &str = include_str!("../../.env.example");
    /// Read when the program is built, not when it runs.
    const AT_BUILD_TIME: [&str; 2] =
        ["PANORAMA_DEFAULT_SUPABASE_URL", "PANORAMA_DEFAULT_SUPABASE_ANON_KEY"];

    /// Lines of the form `#NAME=value`, with the line before each.
    fn assignments() -> Vec<(&'static str, &'static str)> {
        let lines: Vec<_> = EXAMPLE.lines().collect();
        lines
            .windows(2)
            .filter_map(|pair| {
                let (name, _) = pair[1].strip_prefix('#')?.split_once('=')?;
                let is_name = name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
                is_name.then_some((name, pair[0]))
            })
            .collect()
    }

    #[test]
    fn the_example_names_exactly_the_variables_that_are_read() {
        let read: BTreeSet<_> = ALL.iter().map(|v| v.name()).chain(AT_BUILD_TIME).collect();
        let shown: BTreeSet<_> = assignments().iter().map(|(name, _)| *name).collect();
        assert_eq!(shown, read);
        assert_eq!(shown.len(), assignments().len(), "a variable stands there twice");
    }

    #[test]
    fn each_has_a_line_that_says_what_it_does() {
        for (name, before) in assignments() {
            assert!(before.starts_with("# ") && before.len() > 20, "{name}: {before:?}");
        }
    }

    #[test]
    fn copied_as_it_is_the_example_sets_nothing() {
        assert_eq!(dotenvy::from_read_iter(EXAMPLE.as_bytes()).count(), 0);
    }
}
