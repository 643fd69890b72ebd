//! Background work that keeps a job's pipes open does not hold the job.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::marks::Marks;
use crate::common::{ControlPlane, Paired, ProcessName, say, tree, wait_until};

fn duration(row: &Value) -> Duration {
    Duration::from_millis(row["result"]["duration_ms"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_in_the_background_does_not_hold_the_job() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let row = paired.shell(&control, "sleep 60 & echo done").await;
    assert_eq!((&row["status"], &row["result"]["stdout"]), (&json!("completed"), &json!("done\n")));
    let took = duration(&row);
    say(&format!("`sleep 60 & echo done` took {} ms", took.as_millis()));
    assert!(took < Duration::from_secs(1), "{row}");
    // It lives on, and was not ended so that the pipes would close.
    let left = Marks::in_dir(paired.machine.home()).left(paired.machine.home());
    let sleeper = left.iter().find(|(_, line)| line.starts_with("sleep 60"));
    let sleeper = ProcessName::of(sleeper.expect("the sleeper lives on").0).unwrap();
    tree::end(&sleeper);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_limit_ends_at_the_limit_and_the_grace() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let (limit, grace) = (Duration::from_secs(1), Duration::from_secs(2));
    // For a machine under load.
    let slack = Duration::from_millis(1500);
    let polite = ["sleep 60; echo", "sleep 60 & sleep 60"].map(|command| (command, limit));
    let deaf = [("trap '' TERM; sleep 60; echo", limit + grace)];
    for (command, soonest) in polite.into_iter().chain(deaf) {
        let job = paired.submit_shell(&control, command, json!({"timeout_ms": 1000})).await;
        let row = control.ended(&job).await;
        let took = duration(&row);
        say(&format!("`{command}` with a limit of 1 s ended after {} ms", took.as_millis()));
        assert_eq!(row["result"]["timed_out"], true, "{row}");
        assert!(took >= limit && took < soonest + slack, "{command}: {row}");
        let home = paired.machine.home();
        wait_until("only the gateway to be left", || async {
            let left = Marks::in_dir(home).left(home);
            left.iter().all(|(pid, _)| *pid == paired.gateway.pid()).then_some(())
        })
        .await;
    }
}
