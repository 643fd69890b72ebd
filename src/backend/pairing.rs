//! Exchange of a pairing code for an identity.

use super::{BackendError, Endpoint, Http, Tokens};
use crate::model::{GatewayId, TeamId};

/// What a code was exchanged for.
#[derive(Debug, Clone)]
pub struct Pairing {
    /// The new gateway.
    pub gateway_id: GatewayId,
    /// Its team.
    pub team_id: TeamId,
    /// Its session.
    pub tokens: Tokens,
}

/// `POST U/functions/v1/exchange-gateway-pairing-code` `{"code","device_name"}`; 30 s.
pub async fn exchange_pairing_code(
    http: &Http,
    endpoint: &Endpoint,
    code: &str,
    device_name: &str,
) -> Result<Pairing, BackendError> {
    unimplemented!("{http:?} {endpoint:?} {code} {device_name}")
}
