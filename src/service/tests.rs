use std::ffi::OsString;

use super::*;

fn plain() -> Description {
    let words = ["/home/ann/.local/bin/panorama-gateway", "start", "--foreground"];
    Description {
        scope: Scope::User,
        command: words.map(OsString::from).to_vec(),
        path: Some("/home/ann/.local/bin:/usr/bin:/bin".into()),
        umask: 0o022,
        drain_limit: None,
    }
}

fn awkward() -> Description {
    let words = [
        "/opt/Acme & Söhne/100%/$bin/panorama-gateway",
        "start",
        "--foreground",
        "--config-dir",
        "/srv/a b/$HOME/%h \"x\" \\ 'y'",
        "--device-name",
        "Büro <1>; # not a comment",
        "--env-file",
        "/etc/gate%way.env",
        "--claude-cli",
        "",
    ];
    Description {
        scope: Scope::System { user: "gate way".to_owned() },
        command: words.map(OsString::from).to_vec(),
        path: None,
        umask: 0o077,
        drain_limit: Some(Duration::from_mins(10)),
    }
}

#[test]
fn the_unit_of_a_user() {
    insta::assert_snapshot!(systemd::unit(&plain(), Some(252)).unwrap());
}

#[test]
fn the_unit_of_a_machine_with_awkward_paths() {
    insta::assert_snapshot!(systemd::unit(&awkward(), Some(257)).unwrap());
}

#[test]
fn the_agent_of_a_user() {
    insta::assert_snapshot!(launchd::plist(&plain()).unwrap());
}

#[test]
fn the_daemon_of_a_machine_with_awkward_paths() {
    insta::assert_snapshot!(launchd::plist(&awkward()).unwrap());
}

#[test]
fn a_stop_is_given_more_time_than_a_drain() {
    let unit = |drain_limit| {
        let text = systemd::unit(&Description { drain_limit, ..plain() }, None).unwrap();
        text.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap().to_owned()
    };
    assert_eq!(unit(None), "120");
    assert_eq!(unit(Some(Duration::from_secs(5))), "120");
    assert_eq!(unit(Some(Duration::from_hours(1))), "3690");
}

#[test]
fn files_of_others_are_known_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("units/x.service");
    assert_eq!(look(&path).unwrap(), Present::Nothing);
    let text = systemd::unit(&plain(), None).unwrap();
    write(&path, &text).unwrap();
    assert_eq!(look(&path).unwrap(), Present::Ours(text.clone()));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    std::fs::write(&path, "[Service]\nExecStart=/bin/true\n").unwrap();
    assert_eq!(look(&path).unwrap(), Present::Foreign);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    assert_eq!(look(&path).unwrap(), Present::Foreign, "a masked unit");
}

#[test]
fn a_program_is_called_as_its_user_calls_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (real, link) = (dir.join("v1"), dir.join("gateway"));
    std::fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let called = |word: &str| {
        let path = OsString::from(format!("/nowhere:relative:{}", dir.display()));
        program(Some(&word.into()), Some(path), &real)
    };
    assert_eq!(called("gateway"), link);
    assert_eq!(called("v1"), real);
    assert_eq!(called("other"), real);
    assert_eq!(called(&link.display().to_string()), link);
    assert_eq!(called("./gateway"), real, "of another directory");
    assert_eq!(program(None, None, &real), real);
}

#[test]
fn what_systemd_says_of_the_unit() {
    let state = systemd::State::parse(
        "LoadState=loaded\nUnitFileState=enabled\nActiveState=failed\nSubState=failed\nMainPID=0\n\
         Result=exit-code\nExecMainStatus=4\nNRestarts=2\nStatusText=a=b\n",
    );
    assert!(state.is_enabled() && !state.is_active());
    assert_eq!(state.main_pid(), None);
    assert_eq!(state.get("StatusText"), Some("a=b"));
    assert_eq!(state.line(), "failed (failed), ended with exit code 4, restarted 2 times");
    let running = systemd::State::parse(
        "ActiveState=active\nSubState=running\nMainPID=7\nResult=success\nNRestarts=0",
    );
    assert_eq!(running.line(), "active (running), pid 7");
    assert_eq!(systemd::State::parse("").line(), "unknown");
}

#[test]
fn versions_of_systemd() {
    for (text, wanted) in [
        ("Version=252.38-1~deb12u1\n", Some(252)),
        ("Version=v257-rc1", Some(257)),
        ("Version=", None),
        ("", None),
    ] {
        assert_eq!(systemd::version(text), wanted, "{text}");
    }
}

#[test]
fn what_launchd_prints() {
    let printed = "gui/501/x = {\n\tactive count = 1\n\tstate = running\n\tpid = 42\n}\n";
    assert_eq!(launchd::property(printed, "pid"), Some("42"));
    assert_eq!(launchd::property(printed, "state"), Some("running"));
    assert_eq!(launchd::property(printed, "last exit code"), None);
}
