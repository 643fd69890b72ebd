//! What `config show` prints.

use std::path::Path;
use std::time::Duration;

use super::Settings;
use super::backend::shown;
use crate::config::SavedConfig;
use crate::config::layers::{Source, Sourced};

type Row = (String, String, String);

impl Settings {
    /// Name, value (secrets as `set`/`unset`) and source of every setting, for `config show`.
    pub fn table(&self, saved: &SavedConfig) -> Vec<Row> {
        let mut rows = self.path_rows();
        rows.extend([
            optional("supabase-url", self.supabase_url.as_ref(), |url| shown(url)),
            optional("anon-key", self.anon_key.as_ref(), |_| "set".to_owned()),
            row("device-name", &self.device_name.value, &self.device_name.source),
            sourced("concurrency", &self.concurrency, usize::to_string),
            optional("agent-concurrency", self.agent_concurrency.as_ref(), usize::to_string),
            sourced("auto-restart", &self.auto_restart, on_off),
            sourced("restart-check", &self.restart_check, milliseconds),
            sourced("restart-max-wait", &self.restart_max_wait, limit),
            sourced("drain-timeout", &self.drain_timeout, limit),
            sourced("log", &self.log_filter, String::clone),
            optional("metrics-listen", self.metrics_listen.as_ref(), ToString::to_string),
            sourced("live-events", &self.live_events, on_off),
            sourced("allow-insecure-backend", &self.allow_insecure, on_off),
        ]);
        rows.extend(self.guest_rows());
        rows.extend([
            optional("claude-cli", self.claude_cli.as_ref(), String::clone),
            optional("codex-cli", self.codex_cli.as_ref(), String::clone),
            optional("gemini-cli", self.gemini_cli.as_ref(), String::clone),
        ]);
        rows.extend(saved_rows(saved));
        rows
    }

    fn guest_rows(&self) -> Vec<Row> {
        let guest = &self.guest;
        vec![
            optional("vm-bootstrap-token", guest.bootstrap_token.as_ref(), |_| "set".to_owned()),
            sourced("vm-bootstrap-force", &guest.bootstrap_force, on_off),
            optional("vm-device-name", guest.device_name.as_ref(), String::clone),
            optional("vm-image-reference", guest.image_reference.as_ref(), String::clone),
            optional("vm-agent-user", guest.agent_user.as_ref(), String::clone),
            sourced("vm-work-dir", &guest.work_dir, |dir| dir.display().to_string()),
            optional("vm-job-memory-max", guest.memory_max.as_ref(), String::clone),
            optional("vm-job-pids-max", guest.pids_max.as_ref(), String::clone),
            optional("vm-job-cpu-max", guest.cpu_max.as_ref(), String::clone),
        ]
    }

    fn path_rows(&self) -> Vec<Row> {
        let Self { paths, path_sources: sources, .. } = self;
        let path = |name, path: &Path, source| row(name, &path.display().to_string(), source);
        let mut rows = vec![
            path("config-dir", &paths.dir, &sources.dir),
            path("config-path", &paths.config_file, &sources.config_file),
            path("log-path", &paths.log_file, &sources.log_file),
            path("pid-path", &paths.pid_file, &sources.pid_file),
        ];
        let env_file = self.env_file.as_ref().map(|path| path.display().to_string());
        rows.push(match env_file {
            Some(path) => ("env-file".to_owned(), path, "asked for".to_owned()),
            None => row("env-file", "none", &Source::Default),
        });
        rows
    }
}

fn saved_rows(saved: &SavedConfig) -> Vec<Row> {
    let source = |name: &str| {
        if saved.value(name).is_some() { Source::Saved } else { Source::Default }
    };
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    let paired = if saved.is_paired() { Source::Saved } else { Source::Default };
    let mut rows = vec![
        row("paired", yes_no(saved.is_paired()), &paired),
        row("full-control", &on_off(&saved.full_control()), &source("full_control_enabled")),
    ];
    for (name, field) in [("gateway-id", "gatewayId"), ("team-id", "teamId")] {
        rows.push(row(name, saved.text(field).unwrap_or("unset"), &source(field)));
    }
    for (name, field) in [("access-token", "accessToken"), ("refresh-token", "refreshToken")] {
        let state = if saved.text(field).is_some() { "set" } else { "unset" };
        rows.push(row(name, state, &source(field)));
    }
    rows
}

fn row(name: &str, value: &str, source: &Source) -> Row {
    (name.to_owned(), value.to_owned(), source.to_string())
}

fn sourced<T>(name: &str, setting: &Sourced<T>, show: impl FnOnce(&T) -> String) -> Row {
    row(name, &show(&setting.value), &setting.source)
}

fn optional<T>(name: &str, setting: Option<&Sourced<T>>, show: impl FnOnce(&T) -> String) -> Row {
    match setting {
        Some(setting) => sourced(name, setting, show),
        None => row(name, "unset", &Source::Default),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "passed as a function of a setting's value")]
fn on_off(on: &bool) -> String {
    if *on { "on" } else { "off" }.to_owned()
}

fn milliseconds(duration: &Duration) -> String {
    format!("{} ms", duration.as_millis())
}

#[expect(clippy::ref_option, reason = "passed as a function of a setting's value")]
fn limit(duration: &Option<Duration>) -> String {
    duration.as_ref().map_or_else(|| "none".to_owned(), milliseconds)
}
