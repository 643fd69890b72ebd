//! `service install`, `uninstall` and `status`, with tools that only write down how they are called.

use crate::common::{BINARY, ControlPlane, Machine};
use crate::tools::Tools;

const UNIT: &str = "panorama-gateway.service";

fn user_orders(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("systemctl --user {word}")).collect()
}

#[test]
fn install_again_and_uninstall() {
    let tools = Tools::paired();
    let ran = tools.machine.run(&["service", "install"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let enable = format!("enable {UNIT}");
    let start = format!("start {UNIT}");
    let wanted = user_orders(&["daemon-reload", &enable, &start]);
    assert_eq!(tools.orders(), wanted);
    assert!(ran.stderr.contains("loginctl enable-linger"), "lingering is offered: {ran:?}");
    let unit = std::fs::read_to_string(tools.unit()).unwrap();
    assert!(unit.contains(&format!("ExecStart={BINARY} start --foreground\n")), "{unit}");
    let printed = tools.machine.run(&["service", "install", "--dry-run"]);
    assert_eq!(printed.stdout, unit);

    let written = std::fs::metadata(tools.unit()).unwrap().modified().unwrap();
    tools.calls();
    let ran = tools.machine.run(&["service", "install", "--user", "--linger"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut wanted = wanted;
    wanted.push("loginctl enable-linger".to_owned());
    assert_eq!(tools.orders(), wanted);
    assert_eq!(std::fs::metadata(tools.unit()).unwrap().modified().unwrap(), written);

    let ran = tools.machine.run(&["service", "uninstall"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let (disable, stop) = (format!("disable {UNIT}"), format!("stop {UNIT}"));
    let reset = format!("reset-failed {UNIT}");
    assert_eq!(tools.orders(), user_orders(&[&disable, &stop, "daemon-reload", &reset]));
    assert!(!tools.unit().exists());
    let again = tools.machine.run(&["service", "uninstall"]);
    assert_eq!((again.code, again.stdout.as_str()), (0, "The service is not installed.\n"));
    assert!(tools.orders().is_empty());
}

#[test]
fn a_change_of_a_service_that_runs_does_not_cut_its_work_short() {
    let tools = Tools::paired();
    assert_eq!(tools.machine.run(&["service", "install"]).code, 0);
    tools.says("ActiveState=active\nMainPID=4242\n");
    tools.calls();
    let ran = tools.machine.run(&["service", "install", "--device-name", "den"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains(&format!("systemctl --user restart {UNIT}")), "{ran:?}");
    assert_eq!(tools.orders(), user_orders(&["daemon-reload", &format!("enable {UNIT}")]));
    assert!(std::fs::read_to_string(tools.unit()).unwrap().contains("--device-name den"));
}

#[test]
fn what_others_have_put_there_stays() {
    let tools = Tools::paired();
    std::fs::create_dir_all(tools.unit().parent().unwrap()).unwrap();
    std::fs::write(tools.unit(), "[Service]\n").unwrap();
    for command in ["install", "uninstall"] {
        let ran = tools.machine.run(&["service", command]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains("was not made by this program"), "{ran:?}");
    }
    assert_eq!(std::fs::read_to_string(tools.unit()).unwrap(), "[Service]\n");
    assert!(tools.calls().is_empty());
}

#[test]
fn options_mean_the_same_for_the_service() {
    let tools = Tools::paired();
    let home = tools.machine.home().display().to_string();
    std::fs::write(tools.machine.home().join("x.env"), "A=1\n").unwrap();
    let ran = tools.machine.run(&[
        "--config-dir",
        "a b/100%",
        "service",
        "install",
        "--dry-run",
        "--env-file",
        "x.env",
        "--claude-cli",
        "./claude",
        "--codex-cli=codex",
        "--device-name",
        "my $HOME",
        "-v",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let line = ran.stdout.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert_eq!(
        line.replace(&home, "~"),
        format!(
            "{BINARY} start --foreground --config-dir \"~/a b/100%%\" --env-file ~/x.env \
             --device-name \"my $$HOME\" --claude-cli ~/./claude --codex-cli codex --verbose"
        )
        .replace("~/./", if line.contains("/./") { "~/./" } else { "~/" })
    );
    assert!(tools.orders().is_empty() && !tools.unit().exists());
}

#[test]
fn secrets_and_pipes_do_not_go_into_a_service() {
    let tools = Tools::paired();
    let ran = tools.machine.run(&["service", "install", "--anon-key", "k"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let ran = tools.machine.run(&["service", "install", "--env-file", "/dev/null"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(tools.orders().is_empty());
}

#[test]
fn variables_that_a_service_does_not_see_are_named() {
    let tools = Tools::paired();
    let machine = tools
        .machine
        .with("PANORAMA_GATEWAY_CONCURRENCY", "3")
        .with("PANORAMA_GATEWAY_LOG_PATH", "log");
    let ran = machine.run(&["service", "install", "--dry-run"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("will not see PANORAMA_GATEWAY_CONCURRENCY\n"), "{ran:?}");
    let log = machine.home().join("log");
    assert!(ran.stdout.contains(&format!("--log-path {}\n", log.display())), "{ran:?}");
}

#[test]
fn an_unpaired_machine_gets_no_service() {
    let tools = Tools::new();
    let ran = tools.machine.run(&["service", "install"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(tools.orders().is_empty() && !tools.unit().exists());
}

#[test]
fn a_machine_without_a_service_manager_is_told_what_to_do() {
    let tools = Tools::paired();
    std::fs::write(tools.machine.home().join("refuse"), "").unwrap();
    let nowhere = tools.machine.home().join("empty");
    let bare = Machine::new().with("PATH", nowhere.display().to_string());
    for (machine, command) in [
        (&tools.machine, "install"),
        (&tools.machine, "status"),
        (&bare, "install"),
        (&bare, "status"),
    ] {
        let ran = machine.run(&["service", command]);
        assert_eq!(ran.code, 1, "{command}: {ran:?}");
        assert!(ran.stderr.contains("systemd"), "{command}: {ran:?}");
        assert!(ran.stderr.contains("hint:"), "{command}: {ran:?}");
    }
    assert!(!tools.unit().exists());
    let ran = bare.run(&["service", "install", "--dry-run"]);
    assert_eq!(ran.code, 0, "the file can still be printed: {ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_runs_already_is_left_in_peace() {
    let control = ControlPlane::start().await;
    let tools = Tools::new();
    tools.machine.pair(&control).await;
    let mut gateway = tools.machine.start().await;
    let ran = tools.machine.run_async(&["service", "install"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains(&format!("(pid {})", gateway.pid())), "{ran:?}");
    assert_eq!(tools.orders(), user_orders(&["daemon-reload", &format!("enable {UNIT}")]));
    assert!(gateway.is_running());

    tools.says(&format!(
        "UnitFileState=enabled\nActiveState=active\nSubState=running\nMainPID={}\n\
         StatusText=Up, no jobs in hand\n",
        gateway.pid()
    ));
    let ran = tools.machine.run_async(&["service", "status"]).await;
    let shown = ran.stdout.replace(&tools.machine.home().display().to_string(), "~");
    insta::assert_snapshot!(shown.replace(&gateway.pid().to_string(), "PID"), @r"
    installed  ~/.config/systemd/user/panorama-gateway.service
    enabled    yes
    service    active (running), pid PID
    it says    Up, no jobs in hand
    gateway    up (pid PID)
    ");
    tools.says("ActiveState=inactive\nSubState=dead\nMainPID=0\n");
    let ran = tools.machine.run_async(&["service", "status"]).await;
    assert!(ran.stdout.contains("but not as this service"), "{ran:?}");
}

#[test]
fn a_service_of_the_machine_runs_as_somebody() {
    let tools = Tools::paired();
    let ran =
        tools.machine.run(&["service", "install", "--system", "--dry-run", "--run-as=nobody"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("\nUser=nobody\n"), "{ran:?}");
    assert!(ran.stdout.contains("WantedBy=multi-user.target"), "{ran:?}");
    let ran =
        tools.machine.run(&["service", "install", "--system", "--run-as=nobody-of-this-name"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    if nix::unistd::getuid().is_root() {
        // Whose service it would be must be said.
        let ran = tools.machine.run(&["service", "install", "--system", "--dry-run"]);
        assert_eq!(ran.code, 2, "{ran:?}");
        let by_sudo = Tools::new();
        let machine = by_sudo.machine.with("SUDO_USER", "nobody");
        let ran = machine.run(&["service", "install", "--system", "--dry-run"]);
        assert!(ran.stdout.contains("\nUser=nobody\n"), "{ran:?}");
        let ran = machine.run(&["service", "install"]);
        assert_eq!(ran.code, 2, "root's own service, unasked: {ran:?}");
    } else {
        let ran = tools.machine.run(&["service", "install", "--system"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains("sudo"), "{ran:?}");
    }
    assert!(tools.orders().is_empty());
}

#[test]
fn an_agent_of_launchd() {
    let tools = Tools::paired();
    let domain = format!("gui/{}", nix::unistd::getuid());
    let run = |command: &str| tools.machine.run(&["service", command, "--manager=launchd"]);
    let ran = run("install");
    assert_eq!(ran.code, 0, "{ran:?}");
    let plist = tools.plist().display().to_string();
    assert_eq!(
        tools.orders(),
        [
            format!("launchctl enable {domain}/ai.panorama.gateway"),
            format!("launchctl bootstrap {domain} {plist}"),
        ]
    );
    let ran = run("install");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(tools.orders().is_empty());
    let ran = run("status");
    assert!(ran.stdout.contains("service    running"), "{ran:?}");
    let ran = run("uninstall");
    assert_eq!(ran.code, 0, "{ran:?}");
    tools.calls().iter().for_each(|call| assert!(!call.contains("bootstrap")));
    assert!(!tools.plist().exists());
    assert_eq!(run("uninstall").code, 0);
}
