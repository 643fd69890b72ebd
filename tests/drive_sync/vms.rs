//! Managed VMs: their drives over kills and restarts, by the real binary.

use serde_json::json;

use crate::common::{ControlPlane, Machine, wait_until};
use crate::vm::Vm;

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_mirrors_its_drives_over_restarts() {
    let control = ControlPlane::start().await;
    control.admin.create_drive("Team", "write").await.unwrap();
    let (mut one, mut other) = (
        Vm::new(Machine::new(), &control, "vm-1").await,
        Vm::new(Machine::new(), &control, "vm-2").await,
    );
    one.start();
    other.start();
    one.is_up_to_date().await;
    other.is_up_to_date().await;
    std::fs::write(one.folder().join("a.txt"), "one").unwrap();
    let there = other.folder().join("a.txt");
    let has = |text: &'static str| {
        let there = there.clone();
        async move { (std::fs::read_to_string(there).ok()? == text).then_some(()) }
    };
    wait_until("the other VM to have it", || has("one")).await;
    other.kill().await;
    std::fs::write(one.folder().join("a.txt"), "two").unwrap();
    other.start();
    wait_until("the other VM to have the new one", || has("two")).await;
    other.is_up_to_date().await;

    let status = other.machine.run_async(&["drive-sync", "status"]).await;
    assert_eq!(status.code, 0, "{status:?}");
    assert!(status.stdout.starts_with("Team  "), "{status:?}");
    let resync = other.machine.run_async(&["drive-sync", "resync"]).await;
    assert_eq!(resync.stdout, "Team: everything is compared with the server anew\n", "{resync:?}");
    other.is_up_to_date().await;
    wait_until("the other VM to have it still", || has("two")).await;
    one.stop().await;
    other.stop().await;
    let status = other.machine.run_async(&["drive-sync", "status"]).await;
    assert!(status.stdout.starts_with("problem: drive sync does not run\n"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn drive_sync_that_cannot_run_leaves_the_gateway_alone() {
    let control = ControlPlane::start().await;
    let mut vm = Vm::new(Machine::new(), &control, "vm-1").await;
    std::fs::write(vm.machine.home().join("drive-state"), "a file where the folder should be")
        .unwrap();
    vm.start();
    vm.machine.is_up().await;
    let event = wait_until("the event", || async {
        let events = control.admin.events(None).await.ok()?;
        events.into_iter().find(|event| event["code"] == "drive_sync_stopped")
    })
    .await;
    assert_eq!(event["level"], "error");
    let gateway_id = vm.machine.config()["gatewayId"].as_str().unwrap().to_owned();
    let id = control.submit(&gateway_id, "diagnostic", json!({})).await;
    // Whether this machine is fit is another story: it was looked at.
    let result = control.ended(&id).await["result"].clone();
    assert!(result.is_object(), "{result}");
    vm.stop().await;
}
