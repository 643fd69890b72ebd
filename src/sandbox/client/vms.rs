//! Calls about managed VMs.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{AdminClient, AdminClientError, typed};

/// A bootstrap token, with what a VM needs to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmToken {
    /// Works once.
    pub token: String,
    /// Its VM.
    pub vm_id: String,
    /// Base URL, for the VM.
    pub url: String,
    /// The project's key.
    pub anon_key: String,
    /// Wire time.
    pub expires_at: String,
}

impl AdminClient {
    /// Makes a bootstrap token that lasts so many seconds (default: an hour) for a VM, which is made
    /// when there is none of that id (default: a new one).
    pub async fn make_vm_token(
        &self,
        vm_id: Option<&str>,
        expires_in_seconds: Option<u64>,
    ) -> Result<VmToken, AdminClientError> {
        let body = json!({"vm_id": vm_id, "expires_in_seconds": expires_in_seconds});
        typed(self.post("vm-tokens", &body).await?)
    }

    /// Names of secrets that jobs in VMs may ask for: `{name, created_at}`.
    pub async fn secrets(&self) -> Result<Vec<Value>, AdminClientError> {
        typed(self.get("secrets").await?)
    }

    /// Adds one.
    pub async fn add_secret(&self, name: &str) -> Result<Value, AdminClientError> {
        self.post("secrets", &json!({"name": name})).await
    }

    /// Removes one; `secret_not_found` when there is none.
    pub async fn remove_secret(&self, name: &str) -> Result<Value, AdminClientError> {
        self.post("secrets/remove", &json!({"name": name})).await
    }
}
