//! `gateway.json` and the files beside it, in every state that people leave them in.

use std::os::unix::fs::{PermissionsExt, chown, symlink};

use serde_json::json;

use crate::common::{ControlPlane, Machine, Paired, wait_until};

fn mode(path: &std::path::Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_config_is_named_and_never_overwritten() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let damaged = "{\"gatewayId\": \"abc\", ";
    std::fs::write(machine.config_file(), damaged).unwrap();
    for args in [
        &["start", "--foreground"][..],
        &["full-control", "enable"],
        &["unpair", "--yes"],
        &["config", "show"],
    ] {
        let ran = machine.run_async(args).await;
        assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains("gateway.json"), "{args:?}: {ran:?}");
        assert_eq!(std::fs::read_to_string(machine.config_file()).unwrap(), damaged, "{args:?}");
    }
    // Pairing again replaces it and leaves a copy beside it.
    machine.pair(&control).await;
    let copies: Vec<_> = std::fs::read_dir(machine.dir())
        .unwrap()
        .flatten()
        .filter(|entry| std::fs::read_to_string(entry.path()).is_ok_and(|text| text == damaged))
        .collect();
    assert_eq!(copies.len(), 1);
    assert_eq!(mode(&copies[0].path()), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_or_null_config_is_not_paired() {
    let machine = Machine::new();
    assert_eq!(machine.run_async(&["start", "--foreground"]).await.code, 4);
    std::fs::create_dir_all(machine.dir()).unwrap();
    for text in ["", "null", "{}"] {
        std::fs::write(machine.config_file(), text).unwrap();
        let ran = machine.run_async(&["start", "--foreground"]).await;
        assert_eq!(ran.code, 4, "{text:?}: {ran:?}");
        assert!(ran.stderr.contains("pair"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_open_is_repaired() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    std::fs::set_permissions(machine.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(machine.config_file(), PermissionsExt::from_mode(0o644)).unwrap();
    let mut gateway = machine.start().await;
    assert_eq!(mode(&machine.dir()), 0o700);
    assert_eq!(mode(&machine.config_file()), 0o600);
    for file in ["gateway.log", "gateway.pid", "gateway.sock", "gateway.lock"] {
        assert_eq!(mode(&machine.dir().join(file)), 0o600, "{file}");
    }
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_or_not_a_file_is_refused() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let real = machine.home().join("elsewhere.json");
    std::fs::rename(machine.config_file(), &real).unwrap();

    symlink(&real, machine.config_file()).unwrap();
    let ran = machine.run_async(&["start", "--foreground"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("symbolic link"), "{ran:?}");

    std::fs::remove_file(machine.config_file()).unwrap();
    nix::unistd::mkfifo(&machine.config_file(), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let ran = machine.run_async(&["start", "--foreground"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");

    std::fs::remove_file(machine.config_file()).unwrap();
    std::fs::copy(&real, machine.config_file()).unwrap();
    if nix::unistd::geteuid().is_root() {
        chown(machine.config_file(), Some(65_534), None).unwrap();
        let ran = machine.run_async(&["start", "--foreground"]).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains("another user"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_dir_may_be_a_symlink_to_a_dir_of_ours() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let real = machine.home().join("disk");
    std::fs::create_dir(&real).unwrap();
    std::fs::create_dir(machine.home().join(".panorama")).unwrap();
    symlink(&real, machine.dir()).unwrap();
    machine.pair(&control).await;
    assert!(real.join("gateway.json").exists());
    assert_eq!(mode(&real), 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_write_at_once_lose_nothing() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    for round in 0..5 {
        let word = if round % 2 == 0 { "enable" } else { "disable" };
        let code = control.code().await;
        let url = control.url();
        let args = [
            "pair",
            &code,
            "--no-start",
            "--supabase-url",
            &url,
            "--anon-key",
            control.server.anon_key(),
        ];
        let before = machine.config()["gatewayId"].clone();
        let toggle = ["full-control", word];
        let (pair, toggle) = tokio::join!(machine.run_async(&args), machine.run_async(&toggle));
        assert_eq!((pair.code, toggle.code), (0, 0), "{pair:?} {toggle:?}");
        let config = machine.config();
        assert_ne!(config["gatewayId"], before, "the pairing was lost");
        assert_eq!(config["full_control_enabled"], json!(round % 2 == 0), "the toggle was lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_outlives_a_config_that_is_damaged_under_it() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let file = paired.machine.config_file();
    let whole = std::fs::read(&file).unwrap();
    let trouble = async |is_there: bool| {
        wait_until("status to tell of the config", || async {
            let status = paired.machine.status().await?;
            (status["config_trouble"].is_string() == is_there).then_some(status)
        })
        .await
    };
    // What is no JSON at all the command itself cannot read either.
    for (damage, told) in [
        ("", "earlier config"),
        ("null\n", "earlier config"),
        ("{\"gatewayId\": \"ab", "is damaged"),
    ] {
        std::fs::write(&file, damage).unwrap();
        let status = trouble(true).await;
        assert_eq!(status["phase"], "up", "{status}");
        let shown = paired.machine.run_async(&["status"]).await;
        assert!((shown.stdout.clone() + &shown.stderr).contains(told), "{shown:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), damage);
        std::fs::write(&file, &whole).unwrap();
        trouble(false).await;
        let row = paired.shell(&control, "echo well again").await;
        assert_eq!(row["result"]["stdout"], "well again\n", "{row}");
    }
}
