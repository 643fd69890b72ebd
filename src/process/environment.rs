//! The environment of children: the user's, minus the gateway's own secrets.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::ExecUser;
use crate::config::Environment;

/// What belongs to the gateway (its backend's keys, its own settings) or to the service manager's
/// talk with it: a child that kept the latter could speak to systemd in the gateway's name.
const SCRUBBED: &[&str] = &[
    "BRAVE_SEARCH_API_KEY",
    "DATABASE_CA_CERT",
    "DATABASE_URL",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "NOTIFY_SOCKET",
    "OPENROUTER_API_KEY",
    "PANORAMA_EGRESS_PROXY_HOST",
    "PANORAMA_EGRESS_PROXY_TOKEN",
    "PANORAMA_ENV",
    "PANORAMA_ENV_FILE",
    "PANORAMA_ENV_PATH",
    "PANORAMA_SUPABASE_ANON_KEY",
    "PANORAMA_SUPABASE_URL",
    "PANORAMA_VM_BOOTSTRAP_TOKEN",
    "SUPABASE_ANON_KEY",
    "SUPABASE_PUBLISHABLE_KEY",
    "SUPABASE_SECRET_KEY",
    "SUPABASE_SERVICE_ROLE_KEY",
    "SUPABASE_URL",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

const SCRUBBED_PREFIXES: &[&str] = &["LISTEN_", "PANORAMA_DRIVE_SYNC_", "PANORAMA_GATEWAY_"];

const PROXIES: &[&str] = &["HTTPS_PROXY", "HTTP_PROXY", "http_proxy", "https_proxy"];

const TEMPORARY: &[&str] = &["TEMP", "TMP", "TMPDIR"];

/// Builds a child's environment from the gateway's: the scrub list taken out, proxies with
/// credentials taken out, `TMPDIR`, `TMP`, `TEMP` set.
pub fn child_environment(parent: &Environment, tmp: &Path) -> Vec<(OsString, OsString)> {
    let kept = parent.iter().filter(|(name, value)| is_kept(name, value));
    let temporary = TEMPORARY.iter().map(|name| (OsString::from(name), tmp.into()));
    kept.map(|(name, value)| (name.clone(), value.clone())).chain(temporary).collect()
}

/// The same in a managed VM: without proxies, and with the home of whom it runs as.
pub fn guest_environment(
    parent: &Environment,
    tmp: &Path,
    user: Option<&ExecUser>,
) -> Vec<(OsString, OsString)> {
    let mut variables = child_environment(parent, tmp);
    let own = user.map(ExecUser::variables).into_iter().flatten();
    let own: Vec<_> = own.map(|(name, value)| (OsString::from(name), value)).collect();
    variables.retain(|(name, _)| {
        !PROXIES.iter().any(|proxy| name == proxy) && !own.iter().any(|(set, _)| set == name)
    });
    variables.extend(own);
    variables
}

fn is_kept(name: &OsStr, value: &OsStr) -> bool {
    let among = |list: &[&str]| list.iter().any(|entry| name == *entry);
    let name_bytes = name.as_bytes();
    !(among(SCRUBBED)
        || among(TEMPORARY)
        || SCRUBBED_PREFIXES.iter().any(|prefix| name_bytes.starts_with(prefix.as_bytes()))
        || among(PROXIES) && may_carry_credentials(value))
}

/// Any `@` counts: a proxy's URL has no other use for one, and a password with a `/` or `#` in it
/// hides its `@` from a strict parser, not from the child.
fn may_carry_credentials(proxy: &OsStr) -> bool {
    proxy.as_bytes().contains(&b'@')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn child(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        child_environment(&Environment::from_pairs(pairs.iter().copied()), Path::new("/state/tmp"))
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn the_gateways_own_variables_do_not_reach_children() {
        for name in [
            "DATABASE_URL",
            "DATABASE_CA_CERT",
            "SUPABASE_URL",
            "SUPABASE_ANON_KEY",
            "SUPABASE_PUBLISHABLE_KEY",
            "SUPABASE_SERVICE_ROLE_KEY",
            "SUPABASE_SECRET_KEY",
            "PANORAMA_SUPABASE_URL",
            "PANORAMA_SUPABASE_ANON_KEY",
            "PANORAMA_EGRESS_PROXY_TOKEN",
            "PANORAMA_EGRESS_PROXY_HOST",
            "PANORAMA_ENV",
            "PANORAMA_ENV_FILE",
            "PANORAMA_ENV_PATH",
            "PANORAMA_VM_BOOTSTRAP_TOKEN",
            "OPENROUTER_API_KEY",
            "BRAVE_SEARCH_API_KEY",
            "PANORAMA_GATEWAY_CONCURRENCY",
            "PANORAMA_GATEWAY_",
            "PANORAMA_DRIVE_SYNC_ROOT",
            "NOTIFY_SOCKET",
            "WATCHDOG_PID",
            "WATCHDOG_USEC",
            "INVOCATION_ID",
            "JOURNAL_STREAM",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
        ] {
            assert!(!child(&[(name, "x")]).contains_key(name), "{name}");
        }
    }

    #[test]
    fn everything_else_reaches_them() {
        for name in [
            "PATH",
            "HOME",
            "ANTHROPIC_API_KEY",
            "OPENAI_API_KEY",
            "GEMINI_API_KEY",
            "CLAUDE_CLI",
            "PANORAMA_CLAUDE_CLI",
            "PANORAMA_GATEWAY",
            "SUPABASE_URL_2",
            "database_url",
            "NO_PROXY",
            "SYSTEMD_EXEC_PID",
            "LISTENER",
        ] {
            assert_eq!(child(&[(name, " x ")]).get(name).map(String::as_str), Some(" x "));
        }
    }

    #[test]
    fn proxies_stay_unless_they_carry_credentials() {
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            for plain in ["http://proxy:3128", "proxy:3128", "http://[::1]:8080/", ""] {
                assert_eq!(child(&[(name, plain)]).get(name).map(String::as_str), Some(plain));
            }
            for secret in
                ["http://u:p@proxy:3128", "u@proxy", "http:\\\\u:p@h", "http://u:p/w@h", "s://:p@h"]
            {
                assert!(!child(&[(name, secret)]).contains_key(name), "{name}={secret}");
            }
        }
        assert!(child(&[("ALL_PROXY", "socks5://u:p@h")]).contains_key("ALL_PROXY"));
    }

    #[test]
    fn in_a_vm_there_are_no_proxies_and_the_users_own_home() {
        let parent = [("HTTP_PROXY", "p:1"), ("https_proxy", "p:1"), ("HOME", "/root"), ("A", "1")];
        let user = ExecUser {
            name: "agent".into(),
            uid: 1,
            gid: 1,
            groups: vec![1],
            home: "/home/agent".into(),
        };
        let variables = |user| {
            let parent = Environment::from_pairs(parent);
            let mut found = guest_environment(&parent, Path::new("/tmp"), user);
            found.retain(|(name, _)| !TEMPORARY.iter().any(|tmp| name == tmp));
            found.sort();
            found
        };
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(OsString, OsString)> {
            pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
        };
        assert_eq!(variables(None), pairs(&[("A", "1"), ("HOME", "/root")]));
        let own = [("A", "1"), ("HOME", "/home/agent"), ("LOGNAME", "agent"), ("USER", "agent")];
        assert_eq!(variables(Some(&user)), pairs(&own));
    }

    #[test]
    fn temporary_files_go_to_the_given_folder() {
        let environment = child(&[("TMPDIR", "/elsewhere"), ("TMP", "/elsewhere")]);
        for name in ["TMPDIR", "TMP", "TEMP"] {
            assert_eq!(environment.get(name).map(String::as_str), Some("/state/tmp"));
        }
        assert_eq!(environment.len(), 3);
    }
}
