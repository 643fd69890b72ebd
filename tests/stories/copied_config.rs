//! A config that was copied to a second machine: two gateways under one identity.

use serde_json::{Value, json};

use crate::common::{ControlPlane, Machine, Paired, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_on_one_identity_say_so() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let other = Machine::new();
    std::fs::create_dir_all(other.dir()).unwrap();
    std::fs::copy(paired.machine.config_file(), other.config_file()).unwrap();
    let _second = other.start().await;
    let jobs = std::cell::RefCell::new(Vec::new());
    let told = wait_until("one of them to tell", || async {
        let job = paired.submit_shell(&control, "true", json!({})).await;
        jobs.borrow_mut().push(job);
        [&paired.machine, &other].into_iter().find_map(|machine| {
            let log = std::fs::read_to_string(machine.dir().join("gateway.log")).ok()?;
            log.lines().find(|line| line.contains("its config was copied")).map(str::to_owned)
        })
    })
    .await;
    let line: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(line["level"], "ERROR", "{line}");
    for job in jobs.into_inner() {
        let row = control.ended(&job).await;
        assert_eq!(row["status"], "completed", "{row}");
    }
}
