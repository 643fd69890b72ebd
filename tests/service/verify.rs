//! systemd's own opinion of the unit files.

use std::path::Path;
use std::process::Command;

use panorama_gateway::config::Environment;

use crate::common::{BINARY, say};
use crate::tools::Tools;

/// `systemd-analyze` is part of Debian's `systemd`; `.ci/run` installs it.
fn analyzer() -> bool {
    let found = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !found {
        say("service: skipped: the check of the unit files needs systemd-analyze");
        let environment = Environment::of_process();
        assert_ne!(environment.get("CI"), Some("true"), "missing under CI: systemd-analyze");
    }
    found
}

/// Says nothing about a unit that is in order.
fn complaints(level: &str, file: &Path) -> String {
    let output = Command::new("systemd-analyze")
        .args([level, "--man=no", "--generators=no", "--recursive-errors=no", "verify"])
        .arg(file)
        .env("XDG_RUNTIME_DIR", file.parent().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    // Other units of this machine are not ours to mend.
    text.lines().filter(|line| line.contains("panorama-gateway")).collect::<Vec<_>>().join("\n")
}

#[test]
fn systemd_accepts_the_unit_files() {
    if !analyzer() {
        return;
    }
    let tools = Tools::paired();
    let home = tools.machine.home();
    let bin = home.join("b in/100% $HOME; #é");
    std::fs::create_dir_all(&bin).unwrap();
    let program = bin.join("panorama-gateway");
    std::os::unix::fs::symlink(BINARY, &program).unwrap();
    for (level, words) in
        [("--user", ["--user"].as_slice()), ("--system", &["--system", "--run-as", "daemon"])]
    {
        let output = Command::new(&program)
            .args(["service", "install", "--dry-run", "--device-name", "a \"b\" \\ 'c' %n $x\ty"])
            .args(["--config-dir", "d ir/%h"])
            .args(words)
            .env_clear()
            .env("HOME", home)
            .env("PATH", "/usr/bin:/b in/$x:/bin")
            .current_dir(home)
            .output()
            .unwrap();
        let unit = String::from_utf8(output.stdout).unwrap();
        assert!(unit.contains("100%%"), "called by its link: {unit}");
        let file = home.join("panorama-gateway.service");
        std::fs::write(&file, &unit).unwrap();
        assert_eq!(complaints(level, &file), "", "{level}: {unit}");
        // It does complain of what is wrong.
        std::fs::write(&file, unit.replace("KillMode=process", "KillMode=gently")).unwrap();
        assert!(complaints(level, &file).contains("gently"), "{level}");
    }
}
