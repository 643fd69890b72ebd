//! Agent CLIs that print far too much, or what nobody can read: all that can be told is told, in
//! order, the run ends as it should, and the gateway stays small.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::backend::Fault;
use crate::common::{ProcessName, say, setting, wait_until};
use crate::scene::{Rows, SESSION, Scene, Subagent, conversation};

const MB: usize = 1_000_000;
const INSERT: &str = "POST /subagent_run_events";
/// Of a flood that takes its time on a machine that is busy.
const LONG: Duration = Duration::from_mins(5);

/// A scene whose gateway has run a subagent before, so that what it needs anyway is in its figures.
struct Flood {
    scene: Scene,
    /// Bytes of `VmHWM` then.
    before: usize,
}

impl Flood {
    async fn new() -> Self {
        let scene = Scene::new().await;
        let first = scene.subagent(&json!({})).await;
        assert_eq!(scene.job(&first).await["status"], "completed");
        let before = peak(&scene);
        Self { scene, before }
    }

    /// From now on the CLI prints this, and does nothing else.
    fn prints(&self, output: &[u8]) {
        std::fs::write(self.scene.agent.path("output"), output).unwrap();
        self.acts("cat \"$here/output\"");
    }

    fn acts(&self, act: &str) {
        self.scene.agent.acts(&format!("cat > /dev/null; {act}"));
    }

    async fn starts(&self, fields: &Value) -> (Subagent, String) {
        let one = self.scene.subagent(fields).await;
        let job = self.scene.submit(&one).await;
        (one, job)
    }

    /// The job's row at its end and everything else.
    async fn ends(&self, (one, job): &(Subagent, String)) -> (Value, Rows) {
        let deadline = Instant::now() + LONG;
        loop {
            let row = self.scene.control.admin.job(job).await.unwrap();
            if ["completed", "failed", "cancelled"].iter().any(|end| row["status"] == *end) {
                return (row, self.scene.rows(one));
            }
            assert!(Instant::now() < deadline, "the run does not end: {row}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A run that is expected to be completed.
    async fn completes(&self) -> Rows {
        let started = self.starts(&json!({})).await;
        let (job, rows) = self.ends(&started).await;
        assert_eq!(job["status"], "completed", "{job}");
        assert_eq!(job["result"]["output"]["content"], "It is so.", "{job}");
        assert_eq!(rows.types().last(), Some(&"run_completed"));
        self.scene.assert_tidy();
        rows
    }

    /// The gateway has not needed more than this, over what it needs for any run.
    fn assert_grown_less_than(&self, most: usize, what: &str) {
        let grown = peak(&self.scene) - self.before;
        say(&format!("{what}: {grown} bytes over {}", self.before));
        assert!(grown < most, "{what}: grew by {grown} bytes");
    }
}

/// Bytes of memory that the gateway had at most.
fn peak(scene: &Scene) -> usize {
    let pid = scene.paired.gateway.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// A line of what the model says, in a message of its own.
fn said(number: usize, text: &str) -> String {
    let content = json!([{"type": "text", "text": text}]);
    let message = json!({"id": format!("msg_{number}"), "role": "assistant", "content": content});
    format!("{}\n", json!({"type": "assistant", "session_id": SESSION, "message": message}))
}

fn result() -> String {
    format!("{}\n", conversation().last().unwrap())
}

/// What the run's messages say.
fn messages(rows: &Rows) -> Vec<&str> {
    let messages = rows.events.iter().filter(|(event_type, _)| event_type == "message");
    messages.map(|(_, payload)| payload["content"].as_str().unwrap()).collect()
}

/// So many numbered lines, with this behind each number, and then the result.
fn numbered(lines: usize, padding: &str) -> (Vec<String>, String) {
    let texts: Vec<String> = (0..lines).map(|number| format!("{number}{padding}")).collect();
    let mut output = String::new();
    for (number, text) in texts.iter().enumerate() {
        output.push_str(&said(number, text));
    }
    (texts, output + &result())
}

/// `PANORAMA_TEST_FLOOD_LINES=100000` takes a minute or more of a debug build.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_lines_is_all_told_and_in_order() {
    let lines = setting("PANORAMA_TEST_FLOOD_LINES").unwrap_or(20_000);
    let flood = Flood::new().await;
    let (texts, output) = numbered(usize::try_from(lines).unwrap(), "");
    flood.prints(output.as_bytes());
    let rows = flood.completes().await;
    assert!(messages(&rows) == texts, "lost, doubled or out of order");
    flood.assert_grown_less_than(8 * MB, "a burst of lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_fifty_megabytes_is_one_event_and_the_run_goes_on() {
    const LENGTH: usize = 50 * MB;
    let flood = Flood::new().await;
    flood.prints((said(2, "after") + &result()).as_bytes());
    let first = said(1, "before");
    flood.acts(&format!(
        "printf '%s' '{first}'; head -c {LENGTH} /dev/zero | tr '\\0' x; echo; cat \"$here/output\""
    ));
    let rows = flood.completes().await;
    assert_eq!(messages(&rows), ["before", "after"]);
    let told = rows.payload("system");
    assert_eq!((&told["truncated"], &told["original_bytes"]), (&json!(true), &json!(LENGTH)));
    assert_eq!(told["preview"], "x".repeat(2_000));
    flood.assert_grown_less_than(24 * MB, "a line of 50 MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_five_megabytes_are_told_by_their_beginning() {
    const LENGTH: usize = 5 * MB;
    let flood = Flood::new().await;
    let text = "x".repeat(LENGTH);
    let blocks = |role: &str, block: Value| {
        format!("{}\n", json!({"type": role, "message": {"id": "m", "content": [block]}}))
    };
    let call = json!({"type": "tool_use", "id": "t", "name": "Read", "input": {"query": text}});
    let answer = json!({"type": "tool_result", "tool_use_id": "t", "content": text});
    let output =
        said(1, &text) + &blocks("assistant", call) + &blocks("user", answer) + &said(2, "small");
    flood.prints((output + &result()).as_bytes());
    let rows = flood.completes().await;
    let told = &rows.events[2..6];
    let types: Vec<&str> = told.iter().map(|(event_type, _)| event_type.as_str()).collect();
    assert_eq!(types, ["message", "tool_call", "tool_result", "message"]);
    for (event_type, payload) in &told[..3] {
        let names: Vec<&String> = payload.as_object().unwrap().keys().collect();
        assert_eq!(names.len(), 3, "{event_type}: {names:?}");
        assert_eq!(payload["truncated"], true);
        assert!(payload["original_bytes"].as_u64().unwrap() > LENGTH as u64);
        assert_eq!(payload["preview"].as_str().unwrap().chars().count(), 200_000);
    }
    assert_eq!(told[3].1["content"], "small");
    flood.assert_grown_less_than(60 * MB, "events of 5 MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_no_json_do_not_disturb_the_others() {
    let flood = Flood::new().await;
    let deep = format!(
        "{{\"type\":\"assistant\",\"message\":{}1{}}}",
        "[".repeat(9_999),
        "]".repeat(9_999)
    );
    let noise: Vec<u8> =
        (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let bad: [&[u8]; 14] = [
        b"warning: something\n",
        b"{\"type\":\"assistant\",\n",
        b"\xff\xfe\x00\x80\n",
        b"[1,2]\nnull\n\"text\"\n7\n",
        b"{}\n{\"type\":7}\n{\"type\":\"of the future\",\"x\":[]}\n",
        b"{\"type\":\"assistant\"}\n{\"type\":\"assistant\",\"message\":\"text\"}\n",
        b"{\"type\":\"assistant\",\"message\":{\"id\":7,\"content\":{}}}\n",
        b"{\"type\":\"user\",\"message\":{\"content\":[null,7,{\"type\":\"tool_result\"}]}}\n",
        b"{\"type\":\"system\",\"subtype\":[]}\n",
        deep.as_bytes(),
        b"\n\r\n \t \n\0\0\0\n",
        b"\x1b[31mred\x1b[0m\r\n}{\n{\"a\":1}{\"b\":2}\n",
        &noise,
        b"\n",
    ];
    let mut output = Vec::new();
    for (number, bad) in bad.iter().enumerate() {
        output.extend_from_slice(said(number, &format!("good {number}")).as_bytes());
        output.extend_from_slice(bad);
    }
    // A line end of its own: the noise has none behind it.
    output.extend_from_slice(b"\n{\"type\":\"assistant\",\"message\":{\"id\":\"l\",\"content\":[{\"type\":\"text\",\"text\":\"\\ud800 \\u0000 \xff\"}]}}\r\n");
    output.extend_from_slice(result().as_bytes());
    flood.prints(&output);
    let rows = flood.completes().await;
    let mut expected: Vec<String> = (0..bad.len()).map(|number| format!("good {number}")).collect();
    // Glued to a piece of noise or a line that did not end.
    expected.retain(|text| text != "good 10" && text != "good 13");
    expected.push("\u{fffd} \u{fffd} \u{fffd}".to_owned());
    assert_eq!(messages(&rows), expected);
    flood.assert_grown_less_than(24 * MB, "garbage among good lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_keeps_stdout_open_does_not_hold_the_run() {
    let flood = Flood::new().await;
    flood.prints((said(1, "whole") + &result()).as_bytes());
    let pids = flood.scene.agent.path("pids");
    flood.acts(&format!(
        "cat \"$here/output\"; setsid sleep 300 & echo $! > {0}; setsid yes '{1}' & echo $! >> {0}",
        pids.display(),
        "garbage ".repeat(20),
    ));
    let began = Instant::now();
    let rows = flood.completes().await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(messages(&rows), ["whole"]);
    let left = std::fs::read_to_string(&pids).unwrap();
    assert_eq!(left.lines().count(), 2);
    assert!(left.lines().all(|pid| ProcessName::of(pid.parse().unwrap()).is_none()), "{left}");
    flood.assert_grown_less_than(24 * MB, "a stdout that stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_without_an_end_is_ended_by_the_time_limit() {
    let flood = Flood::new().await;
    flood.prints((said(1, "first") + &said(2, "second") + &result()).as_bytes());
    flood.acts("cat \"$here/output\"; exec yes \"$(head -c 90 /dev/zero | tr '\\0' x)\"");
    let started = flood.starts(&json!({"config": {"timeout_ms": 2_000}})).await;
    let (job, rows) = flood.ends(&started).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert_eq!(rows.status(), ("failed", "failed"));
    assert_eq!(rows.run["metadata"]["timed_out"], true);
    assert_eq!(messages(&rows), ["first", "second"]);
    assert_eq!(rows.types().last(), Some(&"run_failed"));
    flood.scene.assert_tidy();
    flood.assert_grown_less_than(24 * MB, "a flood without an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_the_result_does_not_change_it() {
    let flood = Flood::new().await;
    let mut output = said(1, "before") + &result();
    let padding = "y".repeat(1_000);
    for number in 0..5_000 {
        output.push_str(&said(number + 2, &format!("{number}{padding}")));
        writeln!(output, "{padding}").unwrap();
    }
    assert!(output.len() > 10 * MB);
    flood.prints(output.as_bytes());
    let rows = flood.completes().await;
    let told = messages(&rows);
    assert_eq!((told.len(), told[0]), (5_001, "before"));
    assert!(told[1..].iter().enumerate().all(|(n, text)| *text == format!("{n}{padding}")));
    flood.assert_grown_less_than(16 * MB, "10 MB after the result");
}

/// `PANORAMA_TEST_FLOOD_MB=1000` for a gigabyte of each.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_costs_no_memory_however_much_comes() {
    let bytes = setting("PANORAMA_TEST_FLOOD_MB").unwrap_or(200) * 1_000_000;
    let flood = Flood::new().await;
    flood.prints((said(1, "before") + &said(2, "between")).as_bytes());
    std::fs::write(flood.scene.agent.path("end"), said(3, "after") + &result()).unwrap();
    flood.acts(&format!(
        "cat \"$here/output\"; yes 'warning: {}' | head -c {bytes}; echo; cat \"$here/end\"",
        "w".repeat(150),
    ));
    let rows = flood.completes().await;
    assert_eq!(messages(&rows), ["before", "between", "after"]);
    flood.assert_grown_less_than(16 * MB, "garbage lines");

    flood.acts(&format!(
        "cat \"$here/output\"; head -c {bytes} /dev/urandom | tr -d '\\n'; echo; cat \"$here/end\""
    ));
    let rows = flood.completes().await;
    assert_eq!(messages(&rows), ["before", "between", "after"]);
    assert_eq!(rows.payload("system")["truncated"], true);
    flood.assert_grown_less_than(24 * MB, "garbage without a line end");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_long_stderr_only_the_beginning_is_kept() {
    let flood = Flood::new().await;
    flood.prints((said(1, "whole") + &result()).as_bytes());
    flood.acts("head -c 20000000 /dev/zero | tr '\\0' e >&2; cat \"$here/output\"");
    let rows = flood.completes().await;
    assert_eq!(rows.run["metadata"]["stderr_truncated"], true);
    let kept = rows.run["metadata"]["stderr"].as_str().map_or(0, str::len);
    assert!((1..=5 * MB).contains(&kept), "{kept}");
    assert_eq!(messages(&rows), ["whole"]);
    flood.assert_grown_less_than(60 * MB, "20 MB of stderr");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_waits_on_disk_while_the_backend_takes_nothing() {
    let flood = Flood::new().await;
    let (texts, output) = numbered(20_000, &" and more".repeat(100));
    flood.prints(output.as_bytes());
    let done = flood.scene.agent.path("done");
    flood.acts("cat \"$here/output\"; : > \"$here/done\"");
    let refused = Fault::Answer(500, "application/json", "{\"message\":\"broken\"}".to_owned());
    flood.scene.middleman.fault(INSERT, refused);
    flood.scene.middleman.forget();
    let started = flood.starts(&json!({})).await;
    wait_until("the CLI to be done", || async { done.exists().then_some(()) }).await;
    wait_until("several refused inserts", || async {
        let seen = flood.scene.middleman.seen();
        let tried = seen.iter().filter(|seen| seen.path.ends_with("/subagent_run_events"));
        (tried.filter(|seen| seen.method == "POST").count() >= 4).then_some(())
    })
    .await;
    assert!(flood.scene.rows(&started.0).events.is_empty());
    assert!(on_disk(&flood.scene.spool()) > 18 * MB as u64, "they wait on disk");
    flood.assert_grown_less_than(16 * MB, "a flood while the backend is broken");
    flood.scene.middleman.heal();
    let (job, rows) = flood.ends(&started).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert!(messages(&rows) == texts, "lost, doubled or out of order");
    assert_eq!(rows.types().last(), Some(&"run_completed"));
    flood.scene.assert_tidy();
    flood.assert_grown_less_than(16 * MB, "the same, once it was healed");
}

/// Bytes of the files in a folder.
fn on_disk(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    files.map(|file| file.metadata().unwrap().len()).sum()
}
