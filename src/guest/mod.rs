//! A managed VM: who the gateway is there, and how it confines what it runs.
//!
//! The VM is the boundary, so its host toggle is on; team and resource toggles still rule.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{GuestSettings, SavedConfig};

/// What a gateway in a managed VM knows of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Guest {
    vm_id: String,
    generation: Value,
    exec_user: Option<String>,
}

/// What `status` says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestState {
    /// The VM.
    pub vm_id: String,
    /// Which of its lives this is; null where the backend does not count them.
    pub generation: Value,
    /// As whom commands run; null: as the gateway's own user.
    pub exec_user: Option<String>,
}

impl Guest {
    /// Where the config says that this machine is one.
    pub fn of(saved: &SavedConfig, settings: &GuestSettings) -> Option<Self> {
        Some(Self {
            vm_id: saved.vm_id()?.to_owned(),
            generation: saved.guest_value("generation").cloned().unwrap_or_default(),
            exec_user: settings.agent_user.as_ref().map(|user| user.value.clone()),
        })
    }

    /// For `status`.
    pub fn state(&self) -> GuestState {
        GuestState {
            vm_id: self.vm_id.clone(),
            generation: self.generation.clone(),
            exec_user: self.exec_user.clone(),
        }
    }
}
