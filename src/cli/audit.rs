//! Lines of the audit log that commands write themselves.

use serde_json::{Value, json};

use super::context::Context;
use crate::backend::Pairing;
use crate::config::{Paths, SavedConfig};
use crate::observe::Audit;
use crate::observe::audit::local_user;

/// One line, with who runs the command. A log that cannot be written is a warning.
pub(crate) fn tell(context: &Context, paths: &Paths, event: &str, about: Value) {
    let Value::Object(mut fields) = about else { return };
    fields.insert("by".to_owned(), Value::from(local_user()));
    let audit = Audit::of_command(&paths.audit_file(), context.redactor.clone());
    if let Err(error) = audit.record_now(event, fields) {
        context.ui.warn(&format!("the audit log does not tell of this: {error}"));
    }
}

/// A pairing that was saved.
pub(crate) fn paired(context: &Context, paths: &Paths, pairing: &Pairing, saved: &SavedConfig) {
    let about = json!({
        "gateway_id": pairing.gateway_id, "team_id": pairing.team_id,
        "device_name": saved.text("deviceName"), "backend": saved.text("supabaseUrl"),
        "full_control": saved.full_control(),
    });
    tell(context, paths, "paired", about);
}
