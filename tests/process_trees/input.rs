//! What a command is fed on stdin, and that feeding never holds a run.

use std::time::Duration;

use panorama_gateway::process::{Ended, Exit, Outcome, Run, RunSpec};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, bash, run};

/// Far more than a pipe holds.
const MUCH: usize = 3_000_000;

fn fed(script: &str, stdin: impl Into<Vec<u8>>) -> RunSpec {
    RunSpec { stdin: Some(stdin.into()), ..bash(script) }
}

async fn outcome(spec: RunSpec) -> Outcome {
    timeout(PATIENCE, run(spec)).await.unwrap().unwrap()
}

#[tokio::test]
async fn everything_arrives_and_then_the_end() {
    let text: Vec<u8> = (0..MUCH).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let echoed = outcome(fed("cat", text.clone())).await;
    assert_eq!(echoed.exit, Exit::Code(0));
    assert!(echoed.stdout.bytes == text, "{} bytes came back", echoed.stdout.bytes.len());
    let counted = outcome(fed("sleep 0.3; wc -c", text)).await;
    assert_eq!(counted.stdout.text().trim(), MUCH.to_string());
}

#[tokio::test]
async fn nothing_to_say_is_an_end_at_once() {
    let empty = outcome(fed("cat; readlink /proc/self/fd/0; echo end", "")).await;
    let text = empty.stdout.text();
    assert!(text.starts_with("pipe:") && text.ends_with("end\n"), "{text}");
    let unfed = outcome(bash("cat; readlink /proc/self/fd/0")).await;
    assert_eq!(unfed.stdout.text(), "/dev/null\n");
}

#[tokio::test]
async fn a_command_need_not_read() {
    for (script, code) in [
        ("exit 3", 3),
        ("exec 0<&-; sleep 0.3; exit 4", 4),
        ("read -r -n 1 c; sleep 0.3; exit 5", 5),
        ("sleep 0.3; exit 6", 6),
        // Who holds the other end is swept, and does not hold the run meanwhile.
        ("sleep 1000 <&0 & exit 7", 7),
    ] {
        let ended = outcome(fed(script, vec![b'x'; MUCH])).await;
        assert_eq!((ended.ended, ended.exit), (Ended::ByItself, Exit::Code(code)), "{script}");
    }
}

#[tokio::test]
async fn a_limit_ends_a_command_that_does_not_read() {
    let begun = Instant::now();
    let run = Run::spawn(fed("sleep 1000", vec![b'x'; MUCH])).await.unwrap();
    let limit = Some(Duration::from_millis(300));
    let ended = timeout(PATIENCE, run.wait(limit, &CancellationToken::new())).await.unwrap();
    assert_eq!(ended.unwrap().ended, Ended::TimeLimit);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
