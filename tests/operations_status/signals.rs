//! Signals in every order and phase, as a table.

use std::time::Duration;

use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGTERM};

use crate::common::backend::Middleman;
use crate::common::{ControlPlane, Gateway, Machine, Paired, processes_of, say, wait_until};
use crate::scene::Waiting;

/// What is done to a gateway, or seen of it.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A signal, once.
    Send(Signal),
    /// The same signal again and again, of which one counts each second, until this is so.
    SendUntil(Signal, Seen),
    /// Wait until this is so.
    Until(Seen),
    /// This is still so after the gateway has had its turn.
    Still(Seen),
    /// The command may end by itself.
    LetGo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Starting,
    Up,
    Draining,
    Cancelling,
    Gone,
}

use Seen::{Cancelling, Draining, Gone, Starting, Up};
use Step::{LetGo, Send, SendUntil, Still, Until};

/// What becomes of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    None,
    Completed,
    Cancelled,
    /// The next gateway says how it ended.
    LeftRunning,
}

async fn see(machine: &Machine, gateway: &mut Gateway) -> Option<Seen> {
    if !gateway.is_running() {
        return Some(Gone);
    }
    let status = machine.status().await?;
    let cancels = status["detail"].as_str().is_some_and(|text| text.starts_with("cancelling"));
    match status["phase"].as_str()? {
        "starting" => Some(Starting),
        "up" => Some(Up),
        "draining" if cancels => Some(Cancelling),
        "draining" => Some(Draining),
        _ => None,
    }
}

/// Carries out the steps; the name of what is wrong otherwise.
async fn carry_out(
    machine: &Machine,
    gateway: &mut Gateway,
    job: Option<&Waiting>,
    steps: &[Step],
) {
    for step in steps {
        match *step {
            Send(signal) => gateway.signal(signal),
            LetGo => job.unwrap().let_go(),
            Until(wanted) => until(machine, gateway, None, wanted).await,
            SendUntil(signal, wanted) => until(machine, gateway, Some(signal), wanted).await,
            Still(wanted) => {
                // Each look is a turn of the gateway; signals come before it.
                for _ in 0..20 {
                    assert_eq!(see(machine, gateway).await, Some(wanted), "{steps:?}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
}

async fn until(machine: &Machine, gateway: &mut Gateway, signal: Option<Signal>, wanted: Seen) {
    let deadline = tokio::time::Instant::now() + crate::common::PATIENCE;
    loop {
        let seen = see(machine, gateway).await;
        if seen == Some(wanted) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{wanted:?} in vain; it is {seen:?}");
        if let Some(signal) = signal.filter(|_| gateway.is_running()) {
            gateway.signal(signal);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn left_nothing(machine: &Machine, gateway: &mut Gateway, steps: &[Step]) {
    let status = gateway.child.wait().unwrap();
    assert!(status.success(), "{steps:?}: {status}");
    for name in ["gateway.pid", "gateway.sock"] {
        assert!(!machine.dir().join(name).exists(), "{steps:?} left {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_starts_or_is_up_and_idle() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let machine = Machine::new();
    let code = control.code().await;
    machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
    let cases: &[(Seen, &[Step])] = &[
        (Starting, &[Send(SIGTERM), Until(Gone)]),
        (Starting, &[Send(SIGTERM), Send(SIGTERM), Until(Gone)]),
        (Starting, &[Send(SIGINT), Send(SIGTERM), Send(SIGHUP), Until(Gone)]),
        (Starting, &[Send(SIGHUP), Still(Starting), Send(SIGTERM), Until(Gone)]),
        (Starting, &[SendUntil(SIGTERM, Gone)]),
        (Up, &[Send(SIGTERM), Until(Gone)]),
        (Up, &[Send(SIGINT), Send(SIGTERM), Until(Gone)]),
        (Up, &[Send(SIGHUP), Send(SIGHUP), Still(Up), Send(SIGINT), Until(Gone)]),
        (Up, &[Send(SIGTERM), Send(SIGHUP), Until(Gone)]),
        (Up, &[Send(SIGTERM), Send(SIGTERM), Send(SIGTERM), Until(Gone)]),
    ];
    for (phase, steps) in cases {
        if *phase == Starting {
            middleman.cut();
        } else {
            middleman.heal();
        }
        let mut gateway = machine.spawn(&[]);
        until(&machine, &mut gateway, None, *phase).await;
        carry_out(&machine, &mut gateway, None, steps).await;
        left_nothing(&machine, &mut gateway, steps);
        if *phase == Up {
            assert_eq!(control.gateways().await[0]["status"], "offline", "{steps:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_drains_or_cancels() {
    let cases: &[(&[Step], Job)] = &[
        (&[Send(SIGTERM), Until(Draining), LetGo, Until(Gone)], Job::Completed),
        (
            &[Send(SIGTERM), Send(SIGTERM), Send(SIGINT), Until(Draining), Still(Draining), LetGo],
            Job::Completed,
        ),
        (
            &[Send(SIGINT), Until(Draining), Send(SIGHUP), Still(Draining), LetGo, Until(Gone)],
            Job::Completed,
        ),
        (&[Send(SIGTERM), Until(Draining), SendUntil(SIGINT, Cancelling)], Job::Cancelled),
        (
            &[Send(SIGINT), SendUntil(SIGTERM, Cancelling), Send(SIGHUP), Still(Cancelling)],
            Job::Cancelled,
        ),
        (
            &[Send(SIGTERM), SendUntil(SIGTERM, Cancelling), Send(SIGTERM), Still(Cancelling)],
            Job::Cancelled,
        ),
        (
            &[Send(SIGTERM), SendUntil(SIGTERM, Cancelling), SendUntil(SIGINT, Gone)],
            Job::LeftRunning,
        ),
    ];
    let control = ControlPlane::start().await;
    for (steps, expected) in cases {
        let mut paired = Paired::start(&control).await;
        // One that takes its time to end, so that there is something to see.
        let waiting = Waiting::deaf(&control, &paired).await;
        carry_out(&paired.machine, &mut paired.gateway, Some(&waiting), steps).await;
        paired.gateway.ended().await;
        left_nothing(&paired.machine, &mut paired.gateway, steps);
        wait_until("the command to be gone", || async {
            (!waiting.process.is_alive()).then_some(())
        })
        .await;
        wait_until("every process to be gone", || async {
            processes_of(paired.machine.home()).is_empty().then_some(())
        })
        .await;
        let row = control.admin.job(&waiting.job).await.unwrap();
        let status = row["status"].as_str().unwrap();
        let found = match status {
            "completed" => Job::Completed,
            "cancelled" => Job::Cancelled,
            "running" => Job::LeftRunning,
            _ => Job::None,
        };
        assert_eq!(found, *expected, "{steps:?}: {row}");
        if *expected == Job::LeftRunning {
            paired.gateway = paired.machine.start().await;
            let row = control.ended(&waiting.job).await;
            assert_eq!(row["status"], "failed", "{row}");
            assert_eq!(row["result"]["error_code"], "gateway_restarted", "{row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_any_moment_of_a_start() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let (mut killed, mut orderly) = (0, 0);
    for delay in [0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 100, 150, 250] {
        let mut gateway = machine.spawn(&[]);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        gateway.signal(SIGTERM);
        let status = gateway.ended().await;
        // Before it listens to signals it dies of one; then there is nothing to put in order.
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            assert_eq!(signal, SIGTERM as i32);
            killed += 1;
        } else {
            assert!(status.success(), "after {delay} ms: {status}");
            orderly += 1;
        }
        let shown = machine.run_async(&["status", "--check"]).await;
        assert_eq!(shown.code, 3, "after {delay} ms: {shown:?}");
    }
    say(&format!("of the starts {killed} died of the signal and {orderly} ended in order"));
    let mut gateway = machine.start().await;
    gateway.signal(SIGTERM);
    gateway.ended().await;
    left_nothing(&machine, &mut gateway, &[Send(SIGTERM)]);
}
