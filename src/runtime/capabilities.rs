//! What a heartbeat says that this host can do.

use super::status::ProviderState;
use crate::model::{
    Capabilities, Host, HostMetadata, Hosts, Provider, Providers, Runtime, Service, Services,
};

/// Why no provider is on offer: this version runs no agent CLI yet.
const NO_PROVIDERS: &str = "this version of the gateway does not run agent CLIs yet";

/// The capabilities of this host with this toggle.
pub(super) fn build(
    device_name: &str,
    host_toggle: bool,
    image_reference: Option<&str>,
) -> Capabilities {
    let provider = || Provider { error: Some(NO_PROVIDERS.to_owned()), ..Provider::default() };
    let ready =
        |ready: bool, reason: &str| Service { ready, reason: (!ready).then(|| reason.to_owned()) };
    Capabilities {
        schema_version: "v1".to_owned(),
        providers: Providers { claude_code: provider(), codex: provider(), gemini: provider() },
        hosts: Hosts {
            gateway: Host {
                kind: "gateway".to_owned(),
                available: true,
                label: device_name.to_owned(),
                metadata: HostMetadata { install_full_control_enabled: host_toggle },
            },
        },
        services: Services {
            model_execution: ready(false, NO_PROVIDERS),
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

/// The same for `status`.
pub(super) fn provider_states() -> Vec<ProviderState> {
    ["claude_code", "codex", "gemini"]
        .map(|id| ProviderState {
            id: id.to_owned(),
            available: false,
            version: None,
            error: Some(NO_PROVIDERS.to_owned()),
        })
        .into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
        let built = serde_json::to_value(build("laptop", true, None)).unwrap();
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
        let built = serde_json::to_value(build("laptop", false, Some("Repo/IMAGE:1"))).unwrap();
        assert_eq!(built["services"]["machine_control"]["ready"], false);
        assert!(built["services"]["machine_control"]["reason"].is_string());
        assert_eq!(built["hosts"]["gateway"]["metadata"]["install_full_control_enabled"], false);
        assert_eq!(built["runtime"]["image_reference"], "repo/image:1");
    }
}
