//! Capabilities, schema `v1`: what a heartbeat says that this host can do.
//!
//! Optional keys are absent, never null: a null fails the readers' validation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Always `v1`.
    pub schema_version: String,
    /// The three agent CLIs.
    pub providers: Providers,
    /// The host itself.
    pub hosts: Hosts,
    /// What can be asked of it now.
    pub services: Services,
    /// What it runs on.
    pub runtime: Runtime,
}

/// All three are always present.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Providers {
    /// Claude Code.
    pub claude_code: Provider,
    /// Codex CLI.
    pub codex: Provider,
    /// Gemini CLI.
    pub gemini: Provider,
}

/// One agent CLI on this host.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Provider {
    /// Found, and its last verdict is not against it.
    pub available: bool,
    /// Trimmed stdout of `--version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it is not available, one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Which flags its help names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_flags: Option<BTreeMap<String, bool>>,
    /// Installed extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Vec<String>>,
    /// What follows from the flags.
    pub supports: ProviderSupports,
    /// The last check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<ProviderHealth>,
}

/// What a provider's flags allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProviderSupports {
    /// Answers under a JSON schema.
    pub output_schema: bool,
    /// Streams events.
    pub stream_json: bool,
    /// Tools can be turned off.
    pub tool_disable: bool,
}

/// The verdict of a provider's last check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderHealth {
    /// `healthy`, `unhealthy`, `unknown` or `unavailable`.
    pub status: String,
    /// `full` or `light`.
    pub check_type: String,
    /// Wire time; renewed at every heartbeat.
    pub checked_at: String,
    /// Wire time of the last full check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_full_checked_at: Option<String>,
    /// Its verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_full_status: Option<String>,
    /// One line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The model that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How long the check took, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// `hosts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hosts {
    /// This host.
    pub gateway: Host,
}

/// `hosts.gateway`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Always `gateway`.
    pub kind: String,
    /// Whether it takes work at all.
    pub available: bool,
    /// The device name.
    pub label: String,
    /// More about it.
    pub metadata: HostMetadata,
}

/// `hosts.gateway.metadata`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMetadata {
    /// The host toggle of machine control.
    pub install_full_control_enabled: bool,
}

/// `services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// Ready when any provider is.
    pub model_execution: Service,
    /// Ready when the host is available.
    pub remote_shell: Service,
    /// Ready when the host is available and its toggle is on.
    pub machine_control: Service,
}

/// Whether a service can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Yes or no.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `runtime`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// `linux` or `darwin`.
    pub platform: String,
    /// `x64` or `arm64`.
    pub arch: String,
    /// Required by the schema's readers; says that there is no Node here.
    pub node_version: String,
    /// [`crate::VERSION`].
    pub gateway_version: String,
    /// The guest's image, lower-cased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_reference: Option<String>,
}
