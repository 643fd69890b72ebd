//! Wire types that several rooms share: ids, job rows, capabilities, times.

mod capabilities;
mod ids;
mod job;
pub mod time;

pub use capabilities::{
    Capabilities, Host, HostMetadata, Hosts, Provider, ProviderHealth, ProviderSupports, Providers,
    Runtime, Service, Services,
};
pub use ids::{GatewayId, JobId, ResourceId, RunId, SubagentId, TeamId};
pub use job::{Job, JobRowError, JobStatus};

use serde::{Deserialize, Serialize};

/// What a heartbeat says of the gateway; the `status` of a `team_gateways` row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayStatus {
    /// Starting, or draining: no new jobs are taken.
    Pending,
    /// Accepting jobs, and the last poll is recent.
    Ready,
    /// Something keeps the gateway from working; it may pass.
    Error,
    /// Going away.
    Offline,
}

impl GatewayStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Error => "error",
            Self::Offline => "offline",
        }
    }
}
