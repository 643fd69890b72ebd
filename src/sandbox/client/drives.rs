//! The calls about drives.

use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{AdminClient, AdminClientError, http_client, refused, segment, typed};
use crate::drive_sync::wire::{
    Action, BatchDone, CommitUpload, Done, Download, Entry, Operation, Prepared, PutFile, Wanted,
};

/// Contents of gigabytes are put together or sent; the server and the network have bounds of their
/// own on silence.
const TRANSFER_TIME_LIMIT: Duration = Duration::from_hours(24);

/// What is at a path of a drive and below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveEntries {
    /// At the path itself; the root has none.
    pub entry: Option<Entry>,
    /// Below it, by path: up to 1,000.
    pub entries: Vec<Entry>,
    /// Whether there are more after these.
    pub has_more: bool,
}

impl AdminClient {
    /// `{drive_id, name, slug, epoch, head_sequence, access, created_at, entries, size_bytes}` of
    /// each, by name.
    pub async fn drives(&self) -> Result<Vec<Value>, AdminClientError> {
        typed(self.get("drives").await?)
    }

    /// Makes a drive; `access` (`none`, `read`, `write`) is that of gateways that nothing else was
    /// said of.
    pub async fn create_drive(&self, name: &str, access: &str) -> Result<Value, AdminClientError> {
        self.post("drives", &json!({"name": name, "access": access})).await
    }

    /// Says what one gateway may do with a drive.
    pub async fn set_drive_access(
        &self,
        drive_id: &str,
        gateway_id: &str,
        access: &str,
    ) -> Result<Value, AdminClientError> {
        let body = json!({"gateway_id": gateway_id, "access": access});
        self.post(&format!("drives/{}/access", segment(drive_id)), &body).await
    }

    /// Takes a drive back to how it was at a sequence, or leaves it as it is; a new epoch either way.
    pub async fn restore_drive(
        &self,
        drive_id: &str,
        sequence: Option<u64>,
    ) -> Result<Value, AdminClientError> {
        let path = format!("drives/{}/restore", segment(drive_id));
        self.post(&path, &json!({"sequence": sequence})).await
    }

    /// A drive token `{gateway_id, token, expires_at}` for a gateway, or the one seen last.
    pub async fn make_drive_token(
        &self,
        gateway_id: Option<&str>,
        vm_id: Option<&str>,
    ) -> Result<Value, AdminClientError> {
        self.post("drive-tokens", &json!({"gateway_id": gateway_id, "vm_id": vm_id})).await
    }

    /// A page of what is in a drive, after a path (empty: from the beginning). `all`: at any depth.
    pub async fn drive_entries(
        &self,
        drive_id: &str,
        path: &str,
        after: &str,
        all: bool,
    ) -> Result<DriveEntries, AdminClientError> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("path", path)
            .append_pair("after", after)
            .append_pair("all", if all { "true" } else { "false" })
            .finish();
        typed(self.get(&format!("drives/{}/entries?{query}", segment(drive_id))).await?)
    }

    /// Writes of one drive, in their order.
    pub async fn change_drive(
        &self,
        drive_id: &str,
        operations: Vec<Operation>,
    ) -> Result<BatchDone, AdminClientError> {
        let drive_id = drive_id.to_owned();
        typed(self.sync_drive(&Action::Batch { drive_id, operations }).await?)
    }

    /// One write of a drive that is done at once; an upload is prepared by
    /// [`AdminClient::prepare_upload`].
    pub async fn change_drive_once(&self, write: &Action) -> Result<Done, AdminClientError> {
        typed(self.sync_drive(write).await?)
    }

    /// Where to send a content.
    pub async fn prepare_upload(
        &self,
        drive_id: &str,
        file: PutFile,
    ) -> Result<Prepared, AdminClientError> {
        let drive_id = drive_id.to_owned();
        typed(self.sync_drive(&Action::PrepareUpload { drive_id, file }).await?)
    }

    /// Makes a content that was sent a file's.
    pub async fn commit_upload(
        &self,
        drive_id: &str,
        upload: CommitUpload,
    ) -> Result<Done, AdminClientError> {
        let drive_id = drive_id.to_owned();
        typed(self.sync_drive(&Action::CommitUpload { drive_id, upload }).await?)
    }

    /// Sends a part of a content to where it was told.
    pub async fn send_part(&self, url: &str, bytes: Vec<u8>) -> Result<(), AdminClientError> {
        let unreachable = |source| AdminClientError::Unreachable { url: self.url.clone(), source };
        let request = http_client()?.put(url).timeout(TRANSFER_TIME_LIMIT).body(bytes);
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let body = answer.bytes().await.map_err(unreachable)?;
        Err(refused(status, &serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// The content of a version, as it comes.
    pub async fn open_content(
        &self,
        drive_id: &str,
        wanted: Wanted,
    ) -> Result<reqwest::Response, AdminClientError> {
        let drive_id = drive_id.to_owned();
        let link: Download = typed(self.sync_drive(&Action::Download { drive_id, wanted }).await?)?;
        let unreachable = |source| AdminClientError::Unreachable { url: self.url.clone(), source };
        let request = http_client()?.get(&link.url).timeout(TRANSFER_TIME_LIMIT);
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.map_err(unreachable)?;
        Err(refused(status, &serde_json::from_slice(&body).unwrap_or_default()))
    }

    async fn sync_drive(&self, action: &Action) -> Result<Value, AdminClientError> {
        let request = self.request(Method::POST, "drive-sync")?;
        self.send(request.timeout(TRANSFER_TIME_LIMIT).json(action)).await
    }
}
