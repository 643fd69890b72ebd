//! Who asks.

use crate::model::{GatewayId, TeamId};

/// The identity behind a request, proven by its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Only the anon key.
    Anonymous,
    /// A paired gateway's access token.
    Gateway {
        /// `sub` of the token.
        user_id: String,
        /// `session_id` of the token.
        session_id: String,
        /// Its gateway row.
        gateway_id: GatewayId,
        /// Its team.
        team_id: TeamId,
    },
    /// A token for drive sync, which nothing but drive sync takes.
    Drive {
        /// Whose gateway it is for.
        gateway_id: GatewayId,
        /// Its team.
        team_id: TeamId,
        /// Its VM, if it is one.
        vm_id: Option<String>,
    },
}

impl Caller {
    /// Whether it is a paired gateway; only these have rights on tables and functions.
    pub fn is_gateway(&self) -> bool {
        matches!(self, Self::Gateway { .. })
    }
}
