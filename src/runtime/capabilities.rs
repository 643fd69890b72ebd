//! What a heartbeat says that this host can do.

use super::status::ProviderState;
use crate::model::{
    Capabilities, Host, HostMetadata, Hosts, Provider, Providers, Runtime, Service, Services,
};
use crate::providers::{ProviderId, Standing, Standings};

/// Why a provider without a verdict is not on offer.
const NOT_CHECKED: &str = "it has not been checked yet";

/// The capabilities of this host with this toggle.
pub(super) fn build(
    device_name: &str,
    host_toggle: bool,
    image_reference: Option<&str>,
    providers: Providers,
) -> Capabilities {
    let all = [&providers.claude_code, &providers.codex, &providers.gemini];
    let any_provider = all.iter().any(|provider| provider.available);
    let ready =
        |ready: bool, reason: &str| Service { ready, reason: (!ready).then(|| reason.to_owned()) };
    Capabilities {
        schema_version: "v1".to_owned(),
        providers,
        hosts: Hosts {
            gateway: Host {
                kind: "gateway".to_owned(),
                available: true,
                label: device_name.to_owned(),
                metadata: HostMetadata { install_full_control_enabled: host_toggle },
            },
        },
        services: Services {
            model_execution: ready(any_provider, "no agent CLI on this host is ready"),
            remote_shell: ready(true, ""),
            machine_control: ready(host_toggle, "full control is turned off on this host"),
        },
        runtime: Runtime {
            platform: match std::env::consts::OS {
                "macos" => "darwin".to_owned(),
                other => other.to_owned(),
            },
            arch: match std::env::consts::ARCH {
                "x86_64" => "x64".to_owned(),
                "aarch64" => "arm64".to_owned(),
                other => other.to_owned(),
            },
            node_version: format!("none (rust {})", rustc_version_runtime::version()),
            gateway_version: crate::VERSION.to_owned(),
            image_reference: image_reference.map(str::to_lowercase),
        },
    }
}

/// The providers, checked at this wire time.
pub(super) fn providers(standings: &Standings, checked_at: &str) -> Providers {
    let of = |id| standings.get(&id).map(|standing| provider(standing, checked_at));
    Providers {
        claude_code: of(ProviderId::ClaudeCode).unwrap_or_default(),
        codex: of(ProviderId::Codex).unwrap_or_default(),
        gemini: of(ProviderId::Gemini).unwrap_or_default(),
    }
}

fn provider(standing: &Standing, checked_at: &str) -> Provider {
    let installed = standing.installed.as_ref();
    let extensions = installed.map(|installed| installed.extensions.clone());
    Provider {
        available: standing.health.is_ready(),
        version: installed.and_then(|installed| installed.version.clone()),
        error: error(standing),
        supported_flags: installed.map(|installed| {
            installed.flags.iter().map(|(name, is_there)| ((*name).to_owned(), *is_there)).collect()
        }),
        extensions: extensions.filter(|extensions| !extensions.is_empty()),
        supports: standing.supports,
        health: Some(standing.health.to_wire(checked_at)),
    }
}

fn error(standing: &Standing) -> Option<String> {
    if standing.health.is_undecided() {
        return Some(NOT_CHECKED.to_owned());
    }
    standing.health.error().map(str::to_owned)
}

/// The same for `status`.
pub(super) fn provider_states(standings: &Standings) -> Vec<ProviderState> {
    let state = |(id, standing): (&ProviderId, &Standing)| ProviderState {
        id: id.as_str().to_owned(),
        available: standing.health.is_ready(),
        version: standing.installed.as_ref().and_then(|installed| installed.version.clone()),
        error: error(standing),
    };
    standings.iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::model::ProviderSupports;
    use crate::observe::Redactor;
    use crate::providers::health::{CheckReport, Lack};
    use crate::providers::{Installed, Roster};

    const AT: &str = "2026-11-21T22:00:00.000Z";

    fn unknown() -> Standings {
        Roster::new(Redactor::default()).standings()
    }

    fn built(standings: &Standings) -> Value {
        let built = build("laptop", true, None, providers(standings, AT));
        serde_json::to_value(built).unwrap()
    }

    fn nulls(value: &Value) -> usize {
        match value {
            Value::Null => 1,
            Value::Array(items) => items.iter().map(nulls).sum(),
            Value::Object(fields) => fields.values().map(nulls).sum(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }

    #[test]
    fn the_schema_holds_no_null_and_all_three_providers() {
        let built = built(&unknown());
        assert_eq!(nulls(&built), 0, "{built}");
        let providers = built["providers"].as_object().unwrap();
        assert_eq!(providers.keys().collect::<Vec<_>>(), ["claude_code", "codex", "gemini"]);
        assert_eq!(built["services"]["machine_control"], json!({"ready": true}));
        assert_eq!(built["hosts"]["gateway"]["label"], "laptop");
        let version = built["runtime"]["node_version"].as_str().unwrap();
        assert!(version.starts_with("none (rust 1."), "{version}");
    }

    #[test]
    fn the_toggle_decides_machine_control() {
        let providers = providers(&unknown(), AT);
        let built = build("laptop", false, Some("Repo/IMAGE:1"), providers);
        let built = serde_json::to_value(built).unwrap();
        assert_eq!(built["services"]["machine_control"]["ready"], false);
        assert!(built["services"]["machine_control"]["reason"].is_string());
        assert_eq!(built["hosts"]["gateway"]["metadata"]["install_full_control_enabled"], false);
        assert_eq!(built["runtime"]["image_reference"], "repo/image:1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_is_on_offer_once_it_was_found_to_be_healthy() {
        let mut standings = unknown();
        let waiting = built(&standings);
        assert_eq!(waiting["services"]["model_execution"]["ready"], false);
        assert_eq!(
            waiting["providers"]["codex"],
            json!({"available": false, "error": NOT_CHECKED,
                "supports": {"output_schema": false, "stream_json": false, "tool_disable": false},
                "health": {"status": "unavailable", "check_type": "light", "checked_at": AT}})
        );
        let codex = standings.get_mut(&ProviderId::Codex).unwrap();
        codex.installed = Some(Installed {
            version: Some("codex-cli 0.169.0".to_owned()),
            flags: [("jsonFlag", true), ("modelFlag", false)].into(),
            ..Installed::default()
        });
        codex.supports = ProviderSupports { stream_json: true, ..ProviderSupports::default() };
        let report = CheckReport { model: Some("gpt-5.5".to_owned()) };
        codex.health.checked(Ok(report), AT, Duration::from_millis(900), Instant::now());
        let ready = built(&standings);
        assert_eq!(ready["services"]["model_execution"], json!({"ready": true}));
        assert_eq!(nulls(&ready), 0, "{ready}");
        assert_eq!(
            ready["providers"]["codex"],
            json!({"available": true, "version": "codex-cli 0.169.0",
                "supported_flags": {"jsonFlag": true, "modelFlag": false},
                "supports": {"output_schema": false, "stream_json": true, "tool_disable": false},
                "health": {"status": "healthy", "check_type": "full", "checked_at": AT,
                    "last_full_checked_at": AT, "last_full_status": "healthy",
                    "model": "gpt-5.5", "duration_ms": 900}})
        );
        let codex = standings.get_mut(&ProviderId::Codex).unwrap();
        codex.health.missing("it is gone", Lack::Absent, Instant::now());
        codex.installed = None;
        let gone = built(&standings);
        assert_eq!(gone["providers"]["codex"]["error"], "it is gone");
        assert_eq!(gone["providers"]["codex"]["health"]["status"], "unavailable");
        assert_eq!(gone["services"]["model_execution"]["ready"], false);
        assert_eq!(provider_states(&standings)[1].error.as_deref(), Some("it is gone"));
    }
}
