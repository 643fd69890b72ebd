//! `sandbox up --exec`: the whole of it in one command.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::{Machine, processes_of};

fn files_below(dir: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
            } else {
                files.insert(entry.path());
            }
        }
    }
    files
}

#[test]
fn prints_the_output_as_it_came_and_leaves_nothing_behind() {
    let machine = Machine::new();
    let ran = machine.run(&["sandbox", "up", "--exec", "uname -a; echo problem >&2"]);
    let uname = std::process::Command::new("uname").arg("-a").output().unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stdout, String::from_utf8(uname.stdout).unwrap());
    assert!(ran.stderr.lines().any(|line| line == "problem"), "{ran:?}");
    assert_eq!(processes_of(machine.home()), Vec::<i32>::new());
    let data_dir = machine.dir().join("sandbox");
    let outside: Vec<_> = files_below(machine.home())
        .into_iter()
        .filter(|file| !file.starts_with(&data_dir))
        .collect();
    assert_eq!(outside, Vec::<PathBuf>::new());
}

#[test]
fn exits_as_the_command_did() {
    let machine = Machine::new();
    for (command, code) in [("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137)] {
        let ran = machine.run(&["sandbox", "up", "--exec", command]);
        assert_eq!(ran.code, code, "{command}: {ran:?}");
    }
}

#[test]
fn json_is_the_row_of_the_job() {
    let machine = Machine::new();
    let ran = machine.run(&["sandbox", "up", "--json", "--exec", "echo hello; exit 3"]);
    let row: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&row["status"], &row["result"]["stdout"]),
        (&"completed".into(), &"hello\n".into())
    );
    assert_eq!(ran.code, 3, "{ran:?}");
}

#[test]
fn ephemeral_leaves_no_file_at_all() {
    let machine = Machine::new();
    let temp = machine.home().join("temp");
    std::fs::create_dir(&temp).unwrap();
    let mut command = machine.command(&["sandbox", "up", "--ephemeral", "--exec", "echo hello"]);
    let ran = crate::common::Ran::of(&command.env("TMPDIR", &temp).output().unwrap());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "hello\n"), "{ran:?}");
    assert_eq!(files_below(machine.home()), BTreeSet::new());
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0);
}

#[test]
fn a_second_time_uses_the_same_identity() {
    let machine = Machine::new();
    let identity = || {
        let ran = machine.run(&["sandbox", "up", "--exec", "true"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let file = machine.dir().join("sandbox/gateway/gateway.json");
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        config["gatewayId"].as_str().unwrap().to_owned()
    };
    assert_eq!(identity(), identity());
}

#[test]
fn no_secret_and_no_loose_file_in_the_data_dir() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new();
    let ran = machine.run(&["sandbox", "up", "--exec", "env"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let data_dir = machine.dir().join("sandbox");
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data_dir.join("gateway/gateway.json")).unwrap())
            .unwrap();
    let files = files_below(&data_dir);
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let mode = file.symlink_metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} is {mode:o}", file.display());
        if file.extension().is_some_and(|extension| extension == "log") {
            let text = std::fs::read_to_string(&file).unwrap();
            for secret in ["accessToken", "refreshToken", "supabaseAnonKey"] {
                assert!(!text.contains(config[secret].as_str().unwrap()), "{}", file.display());
            }
        }
    }
    for secret in ["accessToken", "refreshToken", "supabaseAnonKey"] {
        assert!(!ran.stdout.contains(config[secret].as_str().unwrap()), "{secret} reached a child");
    }
}
