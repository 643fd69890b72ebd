//! The log under whatever happens to its file, and what else a gateway leaves on disk.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use panorama_gateway::config::Environment;
use serde_json::{Value, json};

use crate::common::disk::SmallDisk;
use crate::common::{ControlPlane, Machine, Paired, say, wait_until};

/// A paired machine whose running gateway logs to `log`.
async fn logging_to(machine: Machine, control: &ControlPlane, log: &Path) -> Paired {
    let gateway_id = machine.pair(control).await;
    machine.allow_control().await;
    let resource_id = control.allow_shell(&gateway_id).await;
    let stderr = machine.home().join("stderr");
    let gateway = machine.spawn_logging(log, &stderr);
    machine.is_up().await;
    Paired { machine, gateway, gateway_id, resource_id }
}

async fn says(log: &Path, text: &str) -> String {
    wait_until(&format!("{} to say {text:?}", log.display()), || async {
        let log = std::fs::read_to_string(log).ok()?;
        log.lines().find(|line| line.contains(text)).map(str::to_owned)
    })
    .await
}

async fn completes(paired: &Paired, control: &ControlPlane) {
    assert_eq!(paired.shell(control, "true").await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_in_the_place_of_the_log_stops_neither_gateway_nor_reader() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let log = machine.home().join("gateway.log");
    let mut paired = logging_to(machine, &control, &log).await;
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let log_path = log.display().to_string();

    std::fs::remove_file(&log).unwrap();
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    completes(&paired, &control).await;
    completes(&paired, &control).await;
    let words = ["logs", "--no-follow", "--log-path", &log_path];
    let read = tokio::time::timeout(Duration::from_secs(20), paired.machine.run_async(&words));
    let ran = read.await.expect("`logs` hangs on a pipe");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("is a named pipe, not a regular file"), "{ran:?}");

    std::fs::remove_file(&log).unwrap();
    completes(&paired, &control).await;
    says(&log, "lost while the file could not be used").await;
    assert!(paired.gateway.is_running());

    // A file that was merely taken away is made anew without a word lost.
    std::fs::rename(&log, paired.machine.home().join("moved.log")).unwrap();
    completes(&paired, &control).await;
    says(&log, "job ended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_see_every_line_across_rotation() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.dir()).unwrap();
    let log = machine.dir().join("gateway.log");
    std::fs::write(&log, "before\n").unwrap();
    let mut command = machine.command(&["logs"]);
    let mut logs = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(logs.stdout.take().unwrap()).lines();
    assert_eq!(shown.next().unwrap().unwrap(), "before");
    let written = log.clone();
    let writing = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        for number in 0..40 {
            let mut file = std::fs::File::options().append(true).create(true).open(&written);
            writeln!(file.as_mut().unwrap(), "line {number}").unwrap();
            if number % 4 == 3 {
                for old in (1..5).rev() {
                    let name = |number| written.with_file_name(format!("gateway.log.{number}"));
                    let _absent = std::fs::rename(name(old), name(old + 1));
                }
                std::fs::rename(&written, written.with_file_name("gateway.log.1")).unwrap();
                // Not more rotations between two looks than files are kept.
                std::thread::sleep(Duration::from_millis(150));
            }
        }
    });
    for number in 0..40 {
        assert_eq!(shown.next().unwrap().unwrap(), format!("line {number}"));
    }
    writing.await.unwrap();
    logs.kill().unwrap();
    logs.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_lines_which_are_counted_and_no_job() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let dir = machine.home().join("logs");
    let disk = match SmallDisk::mount(&dir, 512) {
        Ok(disk) => disk,
        Err(why) => {
            say(&format!("SKIPPED: logs on a full disk: {why}"));
            assert_ne!(Environment::of_process().get("CI"), Some("true"), "skipped under CI");
            return;
        }
    };
    let log = dir.join("gateway.log");
    let mut paired = logging_to(machine, &control, &log).await;
    let full = disk.keep_full();
    assert_eq!(full.first.raw_os_error(), Some(nix::libc::ENOSPC), "{}", full.first);
    // As much as fits into the last block of each file, and a good deal more.
    for _ in 0..40 {
        completes(&paired, &control).await;
    }
    drop(full);
    completes(&paired, &control).await;
    let line = says(&log, "lost while the disk was full").await;
    say(&format!("full disk: {line}"));
    let note: Value = serde_json::from_str(&line).unwrap();
    assert!(note["lost"].as_u64().unwrap() > 10, "{line}");
    let audit = says(&dir.join("audit.jsonl"), "lines_lost").await;
    assert!(audit.contains("the disk was full"), "{audit}");
    assert!(paired.gateway.is_running());
    let status = paired.machine.status().await.unwrap();
    assert_eq!(status["phase"], "up");
    // What is there is whole lines, but for those that the disk cut.
    let text = std::fs::read_to_string(&log).unwrap();
    let whole = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
    assert!(whole + 2 >= text.lines().count(), "{text}");
}

fn plant(path: &Path, days: u64) -> PathBuf {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "left by an earlier gateway").unwrap();
    let at = SystemTime::now() - Duration::from_hours(24 * days);
    std::fs::File::open(path).unwrap().set_modified(at).unwrap();
    path.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_clears_what_earlier_ones_left_and_doctor_tells_of_it() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let dir = machine.dir();
    let old: Vec<_> =
        ["tmp/old", "jobs/rejected/r.json", "gateway.log.2", ".x.json.abcdefghij.tmp"]
            .iter()
            .map(|name| plant(&dir.join(name), 100))
            .collect();
    let kept: Vec<_> =
        ["tmp/young", "gateway.log.1"].iter().map(|name| plant(&dir.join(name), 0)).collect();
    // What a killed gateway leaves.
    plant(&dir.join("gateway.pid"), 1);
    std::fs::write(dir.join("gateway.pid"), "999999999\n").unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.join("gateway.sock")).unwrap());
    let on_disk = async || {
        let ran = machine.run_async(&["doctor", "--json"]).await;
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["id"] == "on_disk").unwrap().clone()
    };
    let before = on_disk().await;
    assert_eq!(before["status"], "warn", "{before:#}");
    assert_eq!(before["figures"]["tmp"]["count"], 2, "{before:#}");
    assert_eq!(before["figures"]["rejected"]["past_bounds"], json!(true), "{before:#}");

    let _gateway = machine.start().await;
    wait_until("the sweep", || async { old.iter().all(|path| !path.exists()).then_some(()) }).await;
    assert!(kept.iter().all(|path| path.exists()));
    let after = on_disk().await;
    assert_eq!(after["status"], "ok", "{after:#}");
    assert_eq!(after["figures"]["tmp"]["count"], 1, "{after:#}");
}
