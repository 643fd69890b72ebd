//! From a token to an identity, and again.

use nix::sys::signal::Signal;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

use crate::common::backend::{Fault, Middleman};
use crate::common::disk::SmallDisk;
use crate::common::{ControlPlane, say, wait_until};
use crate::scene::{ends, provisioned, provisioned_at, spawn, token, up, up_on, write_config};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_a_gateway_that_takes_jobs() {
    let control = ControlPlane::start().await;
    let guest = up(&control, "vm-1").await;
    let config = guest.machine.config();
    assert_eq!(
        (&config["vmGuest"]["vmId"], &config["vmGuest"]["generation"]),
        (&json!("vm-1"), &json!(1))
    );
    assert_eq!(config["full_control_enabled"], true, "the VM is the boundary");
    let row = &control.gateways().await[0];
    assert_eq!((&row["vm_id"], &row["id"]), (&json!("vm-1"), &json!(guest.gateway_id)));
    let status = guest.machine.status().await.unwrap();
    assert_eq!(
        (&status["realtime"]["state"], &status["ingress"]),
        (&json!("off"), &json!("polling"))
    );
    assert_eq!(status["guest"]["vm_id"], "vm-1");
    let row = guest.shell(&control, "echo $PANORAMA_VM_BOOTSTRAP_TOKEN").await;
    assert_eq!(row["result"]["stdout"], "\n", "{row}");
    let shown = guest.machine.run_async(&["status"]).await.stdout;
    assert!(shown.contains("Managed VM:") && shown.contains("vm-1, generation 1"), "{shown}");
    control.admin.set_full_control(Some(&guest.gateway_id), false).await.unwrap();
    let row = guest.shell(&control, "true").await;
    assert_eq!(row["status"], "failed", "the team's toggle still rules: {row}");
    let log = std::fs::read_to_string(guest.machine.dir().join("gateway.log")).unwrap();
    let token = guest.machine.command(&[]);
    let token = token.get_envs().find(|(name, _)| *name == "PANORAMA_VM_BOOTSTRAP_TOKEN");
    let token = token.unwrap().1.unwrap().to_str().unwrap().to_owned();
    assert!(!log.contains(&token) && !config.to_string().contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_the_token_that_was_used_is_no_error() {
    let control = ControlPlane::start().await;
    let mut guest = up(&control, "vm-1").await;
    let before = guest.machine.config();
    guest.gateway.kill().await;
    for _ in 0..2 {
        let mut again = spawn(&guest.machine);
        guest.machine.is_up().await;
        again.signal(Signal::SIGTERM);
        assert!(again.ended().await.success());
    }
    let forced = guest.machine.with("PANORAMA_VM_BOOTSTRAP_FORCE", "1");
    let _again = spawn(&forced);
    forced.is_up().await;
    assert_eq!(forced.config()["vmGuest"], before["vmGuest"], "it was exchanged once");
    assert_eq!(control.gateways().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_no_good_end_the_start_with_a_reason() {
    let control = ControlPlane::start().await;
    let good = token(&control, "vm-1").await;
    let used = token(&control, "vm-2").await;
    drop(up_on(provisioned(&control, &used), &control, "vm-2").await);
    let expired = token(&control, "vm-1").await;
    let database = rusqlite::Connection::open(control.data_dir().join("sandbox.db")).unwrap();
    database.execute("UPDATE vm_tokens SET expires_at = 1 WHERE rowid = 3", []).unwrap();
    let truncated = &good[..good.len() - 3];
    for (token, reason) in [
        (used.as_str(), "used already"),
        (expired.as_str(), "expired"),
        (truncated, "not known"),
        ("pano_vm_forged", "not known"),
    ] {
        let machine = provisioned(&control, token);
        let ran = ends(&machine).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains("given no identity"), "{ran:?}");
        assert!(ran.stderr.contains("hint: ") && ran.stderr.contains("minted"), "{ran:?}");
        assert!(!ran.stderr.contains(token) && !ran.stdout.contains(token), "{ran:?}");
        let mut verbose = machine.command(&crate::scene::START);
        let verbose = tokio::task::spawn_blocking(move || verbose.arg("-v").output());
        let verbose = verbose.await.unwrap().unwrap();
        let said = String::from_utf8(verbose.stderr).unwrap();
        assert!(said.contains(reason) && !said.contains(token), "{reason}: {said}");
        assert!(machine.config()["gatewayId"].is_null());
    }
    let machine = provisioned(&control, &good);
    drop(up_on(machine, &control, "vm-1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_vms_config_is_refused_until_it_is_forced() {
    let control = ControlPlane::start().await;
    let mut first = up(&control, "vm-1").await;
    first.gateway.kill().await;
    let clone = provisioned(&control, &token(&control, "vm-2").await);
    write_config(&clone, &first.machine.config());
    let ran = ends(&clone).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("identity of VM vm-1"), "{ran:?}");
    assert!(ran.stderr.contains("PANORAMA_VM_BOOTSTRAP_FORCE"), "{ran:?}");
    assert_eq!(clone.config()["vmGuest"]["vmId"], "vm-1", "nothing was changed");
    let mut config = clone.config();
    config["vmGuest"]["egress"] = json!({"kept": true});
    write_config(&clone, &config);
    let forced = clone.with("PANORAMA_VM_BOOTSTRAP_FORCE", "1");
    let _gateway = spawn(&forced);
    forced.is_up().await;
    let config = forced.config();
    assert_eq!(config["vmGuest"]["vmId"], "vm-2");
    assert_eq!(config["vmGuest"]["egress"], json!({"kept": true}));
    assert_eq!(control.gateways().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_pairing_is_not_taken_over() {
    let control = ControlPlane::start().await;
    let machine = provisioned(&control, &token(&control, "vm-1").await);
    machine.pair(&control).await;
    let before = machine.config();
    let ran = ends(&machine).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("a person paired this gateway"), "{ran:?}");
    assert_eq!(machine.config(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_comes_late_is_waited_for() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let path = "exchange-vm-bootstrap-token";
    middleman.fault(path, Fault::Answer(503, "text/plain", "not yet".into()));
    let token = token(&control, "vm-1").await;
    let machine = provisioned_at(&middleman.url, &control, &token);
    let mut gateway = spawn(&machine);
    let asked = || middleman.seen().iter().filter(|seen| seen.path.ends_with(path)).count();
    wait_until("two tries", || async { (asked() >= 2).then_some(()) }).await;
    assert!(gateway.is_running());
    middleman.heal();
    machine.is_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_and_a_kill_cost_no_identity() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let path = "exchange-vm-bootstrap-token";
    middleman.fault(path, Fault::LostAnswer);
    let token = token(&control, "vm-1").await;
    let machine = provisioned_at(&middleman.url, &control, &token);
    let mut gateway = spawn(&machine);
    let asked = || middleman.seen().iter().filter(|seen| seen.path.ends_with(path)).count();
    wait_until("a try whose answer is lost", || async { (asked() >= 1).then_some(()) }).await;
    wait_until("the backend's gateway", || async {
        (!control.gateways().await.is_empty()).then_some(())
    })
    .await;
    gateway.kill().await;
    middleman.heal();
    let _again = spawn(&machine);
    machine.is_up().await;
    assert_eq!(control.gateways().await.len(), 1);
    assert_eq!(machine.config()["vmGuest"]["generation"], json!(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_written_no_token_is_used_up() {
    let control = ControlPlane::start().await;
    let token = token(&control, "vm-1").await;
    let machine = provisioned(&control, &token);
    let dir = machine.dir();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o500)).unwrap();
    // Root writes anywhere, so the machine is somebody else's.
    let machine = machine.used_by(65534);
    let config_dir = dir.display().to_string();
    let ran = {
        let mut command = machine.command(&crate::scene::START);
        command.args(["--config-dir", &config_dir]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        crate::common::Ran::of(&output.unwrap())
    };
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("could not write to"), "{ran:?}");
    let other = provisioned(&control, &token);
    up_on(other, &control, "vm-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_no_token() {
    let control = ControlPlane::start().await;
    let token = token(&control, "vm-1").await;
    let machine = provisioned(&control, &token);
    let disk = match SmallDisk::mount(&machine.dir(), 4096) {
        Ok(disk) => disk,
        Err(why) => return say(&format!("skipped: no small disk here ({why})")),
    };
    let full = disk.keep_full();
    let ran = ends(&machine).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("could not be saved"), "{ran:?}");
    drop(full);
    let _guest = up_on(machine, &control, "vm-1").await;
    assert_eq!(control.gateways().await.len(), 1);
}
