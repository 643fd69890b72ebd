//! Watches `gateway.json`: the host toggle counts within a second, a new pairing is adopted.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::file_watch::watch;
use super::house_audit;
use super::shared::Shared;
use crate::config::{ConfigStore, SavedConfig};
use crate::observe::{Audit, Redactor};

/// The file is looked at this often even when no event came: watches can be exhausted.
const AUDIT_EVERY: Duration = Duration::from_secs(30);
/// Several events of one rename become one reading.
const SETTLE: Duration = Duration::from_millis(20);

/// Runs until `stop`.
pub(super) async fn run(
    shared: Arc<Shared>,
    config: ConfigStore,
    redactor: Redactor,
    audit: Audit,
    stop: CancellationToken,
) {
    let changed = Arc::new(Notify::new());
    let file = slice::from_ref(&config.paths().config_file);
    let watcher = watch(file, Arc::clone(&changed));
    if let Err(error) = &watcher {
        tracing::warn!(%error, "gateway.json cannot be watched; it is read every 30 s");
    }
    let mut reload = shared.reload.subscribe();
    loop {
        let asked = *reload.borrow_and_update();
        let before = *shared.toggle.borrow();
        read(&shared, &config, &redactor).await;
        let now = *shared.toggle.borrow();
        if now != before {
            house_audit::toggled(&audit, now).await;
        }
        shared.reloaded.send_if_modified(|done| std::mem::replace(done, asked) != asked);
        tokio::select! {
            // Cancel safe, each arm: notifications and timers.
            () = changed.notified() => {}
            () = tokio::time::sleep(AUDIT_EVERY) => {}
            _ = reload.changed() => {}
            () = stop.cancelled() => return,
        }
        tokio::time::sleep(SETTLE).await;
    }
}

async fn read(shared: &Shared, config: &ConfigStore, redactor: &Redactor) {
    let store = config.clone();
    match tokio::task::spawn_blocking(move || store.load_again()).await {
        Ok(Ok(saved)) => {
            trouble(shared, None);
            take(shared, &saved, redactor);
        }
        // What was read last stands; a job that needs the toggle reads it again and is refused.
        Ok(Err(error)) => trouble(shared, Some(error.to_string())),
        Err(error) => tracing::error!(%error, "reading gateway.json failed"),
    }
}

/// Says it once, and once that it is over.
fn trouble(shared: &Shared, now: Option<String>) {
    let mut notes = shared.notes();
    if notes.config_trouble == now {
        return;
    }
    if let Some(error) = &now {
        tracing::warn!(%error, "gateway.json cannot be read");
    } else {
        tracing::info!("gateway.json can be read again");
    }
    notes.config_trouble = now;
}

fn take(shared: &Shared, saved: &SavedConfig, redactor: &Redactor) {
    saved.secrets().for_each(|secret| redactor.add_secret(secret));
    let toggle = saved.full_control();
    shared.toggle.send_if_modified(|now| {
        let changed = *now != toggle;
        if changed {
            tracing::info!(enabled = toggle, "full control of this host was changed");
        }
        *now = toggle;
        changed
    });
    let identity = saved.is_paired().then(|| saved.text("gatewayId").map(str::to_owned)).flatten();
    shared.identity.send_if_modified(|now| {
        let changed = *now != identity;
        *now = identity;
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Paths;

    #[tokio::test]
    async fn a_file_that_is_damaged_meanwhile_is_told_left_alone_and_read_again_when_whole() {
        let (shared, dir) = Shared::for_tests();
        let config = ConfigStore::new(Paths::in_dir(&dir.path().join("config")));
        let (redactor, file) = (Redactor::default(), config.paths().config_file.clone());
        let whole = |name: &str, on: bool| {
            let names = ["gatewayId", "teamId", "accessToken", "refreshToken"];
            config.update(|saved| {
                for field in names {
                    saved.set(field, name);
                }
                saved.set("full_control_enabled", on);
            })
        };
        whole("first", true).unwrap();
        read(&shared, &config, &redactor).await;
        let kept = std::fs::read(&file).unwrap();
        let half = &kept[..kept.len() / 2];
        for damage in [half, b"garbage", b"[1]"] {
            std::fs::write(&file, damage).unwrap();
            read(&shared, &config, &redactor).await;
            let trouble = shared.live_status().config_trouble.unwrap();
            assert!(trouble.contains("gateway.json"), "{trouble}");
            assert!(config.update(|saved| saved.set("accessToken", "new")).is_err());
            assert_eq!(std::fs::read(&file).unwrap(), damage);
        }
        // Written anew, that would be a pairing given up.
        for nothing in [&b""[..], b" \n", b"null\n"] {
            std::fs::write(&file, nothing).unwrap();
            read(&shared, &config, &redactor).await;
            assert!(shared.live_status().config_trouble.is_some(), "{nothing:?}");
            assert_eq!(shared.identity.borrow().as_deref(), Some("first"));
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        read(&shared, &config, &redactor).await;
        assert!(shared.live_status().config_trouble.is_some());
        assert_eq!(shared.identity.borrow().as_deref(), Some("first"));
        assert!(*shared.toggle.borrow());

        std::fs::remove_dir(&file).unwrap();
        whole("second", false).unwrap();
        read(&shared, &config, &redactor).await;
        assert_eq!(shared.live_status().config_trouble, None);
        assert_eq!(shared.identity.borrow().as_deref(), Some("second"));
        assert!(!*shared.toggle.borrow());
    }
}
