//! What is kept of a command's output.

use panorama_gateway::process::{Exit, Outcome};

use super::{bash, run, spec};

async fn output_of(script: &str) -> Outcome {
    run(bash(script)).await.unwrap()
}

#[tokio::test]
async fn a_flood_is_counted_and_cut() {
    let outcome = output_of("head -c 200000000 /dev/zero; echo end >&2").await;
    assert_eq!(outcome.exit, Exit::Code(0));
    assert_eq!(outcome.stdout.total, 200_000_000);
    assert_eq!(outcome.stdout.bytes.len(), 5_000_000);
    assert!(outcome.stdout.bytes.capacity() <= 5_000_000);
    assert!(outcome.stdout.truncated);
    assert_eq!(outcome.stderr.text(), "end\n");
    assert!(!outcome.stderr.truncated);
}

#[tokio::test]
async fn both_streams_flood_at_once() {
    let outcome =
        output_of("head -c 20000000 /dev/zero & head -c 20000000 /dev/zero >&2; wait").await;
    assert_eq!((outcome.stdout.total, outcome.stderr.total), (20_000_000, 20_000_000));
}

#[tokio::test]
async fn bytes_come_as_they_are() {
    let outcome = output_of(r"printf 'a\0b\377\xe2\x82'; printf '\0' >&2").await;
    assert_eq!(outcome.stdout.bytes, b"a\0b\xff\xe2\x82");
    assert_eq!(outcome.stderr.bytes, b"\0");
    assert!(!outcome.stdout.truncated);
}

#[tokio::test]
async fn a_character_on_the_bound_is_left_out() {
    let mut spec = bash("printf 'ab\\xe2\\x82\\xac'");
    spec.capture_limit = 4;
    let outcome = run(spec).await.unwrap();
    assert_eq!(outcome.stdout.bytes, b"ab");
    assert!(outcome.stdout.truncated);
    assert_eq!(outcome.stdout.total, 5);
}

#[tokio::test]
async fn exits_are_told_as_they_were() {
    for (script, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 255", Exit::Code(255)),
        ("kill -KILL $$", Exit::Signal(9)),
        ("kill -TERM $$", Exit::Signal(15)),
        ("kill -34 $$", Exit::Signal(34)),
    ] {
        let outcome = output_of(script).await;
        assert_eq!(outcome.exit, exit, "{script}");
        assert!(!outcome.left_background);
    }
}

#[tokio::test]
async fn what_was_written_just_before_the_exit_is_there() {
    for _ in 0..50 {
        let outcome = run(spec("/bin/echo", &["last words"])).await.unwrap();
        assert_eq!(outcome.stdout.bytes, b"last words\n");
    }
}
