//! What the tests share: short-lived tokens, the saved session, a session of the test's own.

use std::sync::Arc;
use std::time::Duration;

use panorama_gateway::backend::{Api, Endpoint, Http, Session};
use panorama_gateway::config::{ConfigStore, Paths};
use panorama_gateway::model::{GatewayId, TeamId};

use super::common::{ControlPlane, Gateway, Machine, wait_until};

/// A control plane whose access tokens have so little to live that each start refreshes, and which
/// forgives no reuse of a refresh token but that of the live one's parent.
pub(crate) async fn strict_control() -> ControlPlane {
    ControlPlane::start_with(|options| {
        options.access_token_lifetime = Duration::from_mins(1);
        options.reuse_interval = Duration::ZERO;
    })
    .await
}

/// The refresh token in `gateway.json`.
pub(crate) fn saved_refresh_token(machine: &Machine) -> String {
    machine.config()["refreshToken"].as_str().unwrap().to_owned()
}

/// A session of this process on the machine's `gateway.json`, as another command would have it.
pub(crate) fn session_on(machine: &Machine) -> Api {
    let config = machine.config();
    let text = |name: &str| config[name].as_str().unwrap().to_owned();
    let endpoint = Endpoint { url: text("supabaseUrl"), anon_key: text("supabaseAnonKey").into() };
    let http = Http::new(&endpoint).unwrap();
    let store = Arc::new(ConfigStore::new(Paths::in_dir(&machine.dir())));
    let session = Arc::new(Session::new(http.clone(), endpoint.clone(), store).unwrap());
    let (gateway, team) = (GatewayId::new(text("gatewayId")), TeamId::new(text("teamId")));
    Api::new(http, endpoint, session, gateway, team)
}

/// Waits until the gateway is up; it must not end instead.
pub(crate) async fn comes_up(machine: &Machine, gateway: &mut Gateway) {
    wait_until("the gateway to be up", || {
        let ended = gateway.child.try_wait().unwrap();
        async move {
            assert_eq!(ended, None, "the gateway ended instead of coming up");
            machine.status().await.filter(|status| status["phase"] == "up")
        }
    })
    .await;
}
