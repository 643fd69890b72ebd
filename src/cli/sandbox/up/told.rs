//! What a person is told once the sandbox and its gateway run.

use std::path::Path;

use serde_json::json;

use super::{Backend, Up, text};
use crate::cli::failure::Failure;
use crate::cli::sandbox::show_path;
use crate::config::ConfigStore;

impl Up<'_> {
    pub(super) async fn print_where(
        &self,
        backend: &Backend,
        gateway_id: Option<&str>,
        state: &str,
    ) -> Result<(), Failure> {
        let ui = &self.context.ui;
        let controlled = ConfigStore::new(self.paths.clone()).load()?.full_control()
            && backend.client.gateways().await?.iter().any(|row| {
                Some(text(row, "id")) == gateway_id && row["full_control_enabled"] == true
            });
        let data_dir = show_path(&self.data_dir);
        if self.args.common.json {
            let value = json!({"url": backend.url, "data_dir": data_dir,
                               "gateway_id": gateway_id, "config_dir": self.paths.dir});
            return Ok(ui.out(&value.to_string())?);
        }
        ui.out(&format!("The sandbox {state}."))?;
        ui.out(&format!("  URL:      {}", backend.url))?;
        ui.out(&format!("  Data:     {data_dir}"))?;
        let Some(id) = gateway_id else { return Ok(()) };
        ui.out(&format!("  Gateway:  {id}"))?;
        if let Some(folder) = &self.args.drive_sync {
            ui.out(&format!("  Drives:   {}", show_path(folder)))?;
            let state = show_path(&self.drive_state());
            ui.note(&format!(
                "Each drive has a folder in there. How they are:\n  \
                 panorama-gateway drive-sync status --state-dir {state}"
            ));
        }
        let (dir, option) = (show_path(&self.paths.dir), self.data_dir_option());
        if controlled {
            ui.note(&format!(
                "Machine control is on, as it was left. To turn it off:\n  \
                 panorama-gateway full-control disable --config-dir {dir}"
            ));
        } else {
            ui.note(&format!(
                "Machine control is off. To let jobs run commands on this machine:\n  \
                 panorama-gateway full-control enable --config-dir {dir}\n  \
                 panorama-gateway sandbox full-control on{option}"
            ));
        }
        ui.note(&format!(
            "To run a command: panorama-gateway sandbox submit shell-exec{option} --wait -- uname -a\n\
             Ctrl-C stops it."
        ));
        Ok(())
    }

    fn data_dir_option(&self) -> String {
        if self.args.common.data_dir.is_none() && !self.args.ephemeral {
            return String::new();
        }
        format!(" --data-dir {}", show_path(Path::new(&self.data_dir)))
    }
}
