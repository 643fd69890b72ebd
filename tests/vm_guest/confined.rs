//! As whom and in what a VM's commands run.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::agents::Agent;
use crate::common::{ControlPlane, Machine, Paired, say, wait_until};
use crate::scene::{provisioned, token, up, up_on};

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// A machine whose commands run as `nobody`, with a home that anybody may pass.
async fn of_nobody(control: &ControlPlane) -> Machine {
    let machine = provisioned(control, &token(control, "vm-1").await);
    std::fs::set_permissions(machine.home(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let work = machine.home().join("work").display().to_string();
    machine.with("PANORAMA_VM_AGENT_USER", "nobody").with("PANORAMA_VM_WORK_DIR", work)
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        say("skipped: only root may run commands as others");
    }
    root
}

fn stdout(row: &Value) -> &str {
    row["result"]["stdout"].as_str().expect("a command that was run")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exec_user_cannot_read_the_gateways_state() {
    if !is_root() {
        return;
    }
    let control = ControlPlane::start().await;
    let machine = of_nobody(&control).await.with("https_proxy", "http://proxy:1");
    let guest = up_on(machine, &control, "vm-1").await;
    let row = guest
        .shell(&control, "id -un; id -Gn; echo $HOME $USER $TMPDIR $https_proxy; umask; pwd")
        .await;
    assert_eq!(stdout(&row), "nobody\nnogroup\n/nonexistent nobody /tmp\n0022\n/\n", "{row}");
    assert_eq!(row["result"]["exec_user"], "nobody");
    let (config, pid) = (guest.machine.config_file(), guest.gateway.pid());
    let peek = format!(
        "cat {0}; ls {1}; cat /proc/{pid}/environ; cat /proc/$PPID/environ; kill -0 {pid}; true",
        config.display(),
        guest.machine.dir().display()
    );
    let row = guest.shell(&control, &peek).await;
    assert_eq!(stdout(&row), "", "{row}");
    let told = row["result"]["stderr"].as_str().unwrap();
    assert_eq!(told.matches("Permission denied").count(), 4, "{told}");
    assert!(told.contains("not permitted"), "{told}");
    // Signals, descriptors and capabilities are as a login has them.
    let row =
        guest.shell(&control, "grep -E 'Sig(Ign|Blk)|Cap(Prm|Eff|Amb)' /proc/self/status").await;
    for line in stdout(&row).lines() {
        let bits = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // The C library keeps signals 32 and 33 for itself, as whoever runs the tests has them.
        assert_eq!(bits & !0x1_8000_0000, 0, "{line}");
    }
    let row = guest.shell(&control, "ls /proc/self/fd | wc -l; kill -PIPE $$").await;
    assert_eq!((stdout(&row).trim(), &row["result"]["signal"]), ("4", &json!("SIGPIPE")), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_user_and_root_are_refused_with_a_reason() {
    let control = ControlPlane::start().await;
    for (user, reason) in [("no-such-user", "no user \"no-such-user\""), ("root", "is root")] {
        let machine = provisioned(&control, &token(&control, user).await)
            .with("PANORAMA_VM_AGENT_USER", user);
        let guest = up_on(machine, &control, user).await;
        let marker = guest.machine.home().join("marker");
        let row = guest.shell(&control, &format!("touch {}", marker.display())).await;
        assert_eq!(row["status"], "failed", "{row}");
        assert!(row["result"]["message"].as_str().unwrap().contains(reason), "{row}");
        assert!(!marker.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_run_as_the_user_in_a_directory_of_theirs() {
    if !is_root() {
        return;
    }
    let control = ControlPlane::start().await;
    let machine = of_nobody(&control).await;
    let (machine, agent) = Agent::install(machine, "codex", &Agent::structured("codex"));
    open_to_all(agent.path("").as_path());
    let guest = up_on(machine, &control, "vm-1").await;
    let seen = agent.path("seen");
    agent.acts(&format!(
        "{{ id -un; pwd; stat -c '%U %a' .; cat {}; }} > {} 2>&1; {}",
        guest.machine.config_file().display(),
        seen.display(),
        Agent::structured("codex")
    ));
    let payload = json!({"prompt": "p", "model": "gpt-5", "json_schema": {
        "type": "object", "properties": {"answer": {"type": "string"}}}});
    let job = control.submit(&guest.gateway_id, "model_run", payload).await;
    let row = control.ended(&job).await;
    assert_eq!(row["status"], "completed", "{row}");
    let seen = std::fs::read_to_string(seen).unwrap();
    let lines: Vec<&str> = seen.lines().collect();
    let work = guest.machine.home().join("work");
    assert_eq!(lines[0], "nobody", "{seen}");
    assert!(lines[1].starts_with(&work.join("model").display().to_string()), "{seen}");
    assert_eq!(lines[2], "nobody 700", "{seen}");
    assert!(lines[3].contains("Permission denied"), "{seen}");
    let left: Vec<_> = std::fs::read_dir(work.join("model")).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_has_a_cgroup_that_ends_with_it() {
    let control = ControlPlane::start().await;
    let machine = provisioned(&control, &token(&control, "vm-1").await)
        .with("PANORAMA_VM_JOB_PIDS_MAX", "200");
    let mut guest = up_on(machine, &control, "vm-1").await;
    let status = guest.machine.status().await.unwrap()["guest"].clone();
    let contained = status["containment"] == "cgroup";
    say(&format!("this machine: {status}"));
    let escape = "setsid env -i sleep 4321 </dev/null >/dev/null 2>&1 & \
                  echo $!; cat /proc/self/cgroup; cat /proc/$PPID/cgroup | grep 0::";
    let job = guest.submit_shell(&control, escape, json!({})).await;
    let row = control.ended(&job).await;
    let result = &row["result"];
    assert_eq!(result["workload_id"], format!("job-{job}"), "{row}");
    assert_eq!(result["process_tree_contained"], contained, "{row}");
    assert_eq!(result["cgroup_termination_error"], Value::Null, "{row}");
    let evidence = &result["readiness_evidence"];
    assert_eq!(
        (&evidence["vm_id"], &evidence["containment"], &evidence["trouble"]),
        (&json!("vm-1"), &status["containment"], &status["trouble"])
    );
    let pid: i32 = stdout(&row).lines().next().unwrap().parse().unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "background work is swept");
    if !contained {
        say("skipped: this machine gives no cgroups");
        return;
    }
    let (own, shims) = stdout(&row).trim().rsplit_once('\n').unwrap();
    assert!(own.contains(&format!("/job-{job}")) && shims.ends_with("/panorama-self"), "{row}");
    let cgroup = Path::new(result["cgroup"].as_str().unwrap());
    assert!(!cgroup.exists() && cgroup.parent().unwrap().exists(), "{}", cgroup.display());
    limits_are_enforced_or_said(&guest, &control, &status, evidence).await;
    let row =
        guest.submit_shell(&control, "sleep 100 & sleep 100", json!({"timeout_ms": 300})).await;
    let row = control.ended(&row).await;
    assert_eq!(
        (&row["result"]["timed_out"], &row["result"]["process_tree_contained"]),
        (&json!(true), &json!(true))
    );
    guest.gateway.signal(nix::sys::signal::Signal::SIGTERM);
    guest.gateway.ended().await;
    assert!(!cgroup.parent().unwrap().exists(), "nothing of the gateway is left");
}

async fn limits_are_enforced_or_said(
    guest: &Paired,
    control: &ControlPlane,
    status: &Value,
    evidence: &Value,
) {
    if let Some(trouble) = status["trouble"].as_str() {
        assert!(trouble.contains("pids.max"), "{trouble}");
        assert_eq!(evidence["limits"], json!({}));
        say(&format!("limits are not enforced here: {trouble}"));
        return;
    }
    assert_eq!(evidence["limits"], json!({"pids.max": "200"}));
    let forks = "for i in $(seq 300); do sleep 5 & done 2>&1 | grep -c retry";
    let row = guest.shell(control, forks).await;
    assert_ne!(stdout(&row).trim(), "0", "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_left_in_a_cgroup_is_ended() {
    let control = ControlPlane::start().await;
    let mut guest = up(&control, "vm-1").await;
    let job = guest.submit_shell(&control, "sleep 100", json!({"timeout_ms": 100_000})).await;
    wait_until("the job to run", || async {
        let row = control.admin.job(&job).await.unwrap();
        (row["status"] == "running").then_some(())
    })
    .await;
    guest.gateway.kill().await;
    let _again = crate::scene::spawn(&guest.machine);
    guest.machine.is_up().await;
    let row = control.ended(&job).await;
    assert_eq!(
        (&row["status"], &row["result"]["error_code"]),
        (&json!("failed"), &json!("gateway_restarted"))
    );
    let row = guest.shell(&control, "pgrep -fx 'sleep 100' | wc -l; true").await;
    assert_eq!(row["status"], "completed", "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_found_by_polling_alone() {
    let control = ControlPlane::start().await;
    let guest = up(&control, "vm-1").await;
    let mut waits = Vec::new();
    for at in 0..12_u32 {
        // A job ends just after a poll: spread over the two seconds until the next one.
        tokio::time::sleep(Duration::from_millis(u64::from(at * 710 % 2_000))).await;
        let inserted = Instant::now();
        let job = guest.submit_shell(&control, "true", json!({})).await;
        wait_until("the claim", || async {
            let row = control.admin.job(&job).await.unwrap();
            (row["status"] != "queued").then_some(())
        })
        .await;
        waits.push(inserted.elapsed());
        control.ended(&job).await;
    }
    waits.sort();
    say(&format!("poll only, insert to claimed: p50 {:?}, max {:?}", waits[6], waits[11]));
    assert!(waits[11] < Duration::from_secs(4), "{waits:?}");
}
