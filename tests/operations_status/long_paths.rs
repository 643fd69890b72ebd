//! A config dir whose path is longer than a socket's may be.

use crate::common::{ControlPlane, Machine};

#[tokio::test(flavor = "multi_thread")]
async fn a_long_path_serves_like_a_short_one() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let mut dir = machine.home().to_owned();
    while dir.as_os_str().len() < 300 {
        dir.push("a-rather-long-name-of-a-directory");
    }
    std::fs::create_dir_all(&dir).unwrap();
    // For this test's own looks.
    std::fs::create_dir(machine.home().join(".panorama")).unwrap();
    std::os::unix::fs::symlink(&dir, machine.dir()).unwrap();
    let machine = machine.with("PANORAMA_GATEWAY_CONFIG_DIR", dir.display().to_string());
    machine.pair(&control).await;
    let mut gateway = machine.start().await;
    let shown = machine.run_async(&["status", "--json", "--check"]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["gateway"]["phase"], "up", "{shown}");
    assert_eq!(shown["paths"]["socket"], dir.join("gateway.sock").display().to_string());
    let stopped = machine.run_async(&["stop", "--force", "--wait=20"]).await;
    assert_eq!(stopped.code, 0, "{stopped:?}");
    assert!(gateway.ended().await.success());
    assert!(!dir.join("gateway.sock").exists());
}
