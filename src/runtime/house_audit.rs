//! What the audit log is told of the gateway itself: start, upgrade, stop, and the host's toggle.

use serde_json::{Map, Value, json};

use super::gateway::{ExitReason, StartError};
use super::shared::Shared;
use crate::observe::Audit;
use crate::observe::audit::local_user;

/// The gateway starts, perhaps as another version than the last time.
pub(super) async fn started(audit: &Audit, shared: &Shared) {
    let own = audit.clone();
    let looked = tokio::task::spawn_blocking(move || {
        // Known from here on.
        local_user();
        own.last_version()
    });
    let last = looked.await.ok().flatten();
    if let Some(last) = last.filter(|last| last != crate::VERSION) {
        audit.record("gateway_upgraded", fields(json!({"from": last, "to": crate::VERSION}))).await;
    }
    let about = json!({
        "version": crate::VERSION, "pid": std::process::id(), "user": local_user(),
        "gateway_id": *shared.identity.borrow(), "full_control": *shared.toggle.borrow(),
    });
    audit.record("gateway_started", fields(about)).await;
}

/// It is over.
pub(super) async fn stopped(audit: &Audit, end: &Result<ExitReason, StartError>) {
    let reason = match end {
        Ok(ExitReason::Stopped) => "asked to stop".to_owned(),
        Ok(ExitReason::PairingRevoked(code)) => format!("the pairing was revoked ({code})"),
        Ok(ExitReason::HandedOver) => "handed over to another version".to_owned(),
        Ok(ExitReason::Unpaired) => "the pairing was removed from this machine".to_owned(),
        Err(error) => error.to_string(),
    };
    let about = json!({"version": crate::VERSION, "pid": std::process::id(), "reason": reason});
    audit.record("gateway_stopped", fields(about)).await;
}

/// Another value of the host's toggle counts from now on, whoever changed it.
pub(super) async fn toggled(audit: &Audit, enabled: bool) {
    let about = json!({"enabled": enabled, "pid": std::process::id()});
    audit.record("full_control_in_force", fields(about)).await;
}

fn fields(object: Value) -> Map<String, Value> {
    if let Value::Object(fields) = object { fields } else { Map::new() }
}
