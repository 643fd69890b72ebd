//! A control plane and machines that are VMs.

use std::time::Instant;

use serde_json::{Value, json};

use crate::common::{ControlPlane, Gateway, Machine, Paired, Ran};

/// A bootstrap token for this VM.
pub(crate) async fn token(control: &ControlPlane, vm: &str) -> String {
    control.admin.make_vm_token(Some(vm), None).await.unwrap().token
}

/// A machine with the variables of a VM that was just provisioned, against this address.
pub(crate) fn provisioned_at(url: &str, control: &ControlPlane, token: &str) -> Machine {
    Machine::new()
        .with("PANORAMA_SUPABASE_URL", url)
        .with("PANORAMA_SUPABASE_ANON_KEY", control.server.anon_key())
        .with("PANORAMA_VM_BOOTSTRAP_TOKEN", token)
}

pub(crate) fn provisioned(control: &ControlPlane, token: &str) -> Machine {
    provisioned_at(&control.url(), control, token)
}

pub(crate) const START: [&str; 4] = ["start", "--foreground", "--mode", "managed"];

/// Starts it as a VM's supervisor does; it is not up yet.
pub(crate) fn spawn(machine: &Machine) -> Gateway {
    Gateway::silent(&mut machine.command(&START))
}

/// The same for one that ends by itself.
pub(crate) async fn ends(machine: &Machine) -> Ran {
    let ran = tokio::time::timeout(crate::common::PATIENCE, machine.run_async(&START)).await;
    ran.expect("it goes on")
}

/// A VM with everything allowed and its gateway up.
pub(crate) async fn up(control: &ControlPlane, vm: &str) -> Paired {
    up_on(provisioned(control, &token(control, vm).await), control, vm).await
}

pub(crate) async fn up_on(machine: Machine, control: &ControlPlane, vm: &str) -> Paired {
    sweep_cgroups();
    let began = Instant::now();
    let gateway = spawn(&machine);
    machine.is_up().await;
    crate::common::say(&format!("bootstrap to up: {:?} (debug build)", began.elapsed()));
    let gateway_id = machine.config()["gatewayId"].as_str().unwrap().to_owned();
    control.admin.set_full_control(Some(&gateway_id), true).await.unwrap();
    let resource_id = control
        .resource(&gateway_id, "remote_shell", "editor", json!({"vm_id": vm, "full_control": true}))
        .await;
    Paired { machine, gateway, gateway_id, resource_id }
}

/// Gateways that were killed leave an empty cgroup, for one of the same id to come; here none comes.
fn sweep_cgroups() {
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("panorama-jobs-") {
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }
}

/// `gateway.json` written by hand.
pub(crate) fn write_config(machine: &Machine, config: &Value) {
    std::fs::create_dir_all(machine.dir()).unwrap();
    std::fs::write(machine.config_file(), config.to_string()).unwrap();
}
