//! Ids as types of their own, so that a job's id is never passed where a team's is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the backend's text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text as the backend sent it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

string_id!(
    /// `gateway_jobs.id`.
    JobId
);
string_id!(
    /// `team_gateways.id`.
    GatewayId
);
string_id!(
    /// The team that a gateway works for.
    TeamId
);
string_id!(
    /// `team_resources.id`.
    ResourceId
);
string_id!(
    /// `subagents.id`.
    SubagentId
);
string_id!(
    /// `subagent_runs.id`.
    RunId
);
