use std::path::PathBuf;

use super::*;

struct Running {
    shared: Arc<Shared>,
    path: PathBuf,
    _group: Group,
    _dir: tempfile::TempDir,
}

fn start() -> Running {
    let (shared, dir) = Shared::for_tests();
    let shared = Arc::new(shared);
    let path = dir.path().join("gateway.sock");
    let listener = Arc::new(bind(&path).unwrap());
    let mut group = Group::new(CancellationToken::new());
    let own = Arc::clone(&shared);
    group.spawn("socket", move |stop| run(own, listener, stop));
    Running { shared, path, _group: group, _dir: dir }
}

struct Client(BufReader<UnixStream>);

impl Client {
    async fn connect(running: &Running) -> Self {
        Self(BufReader::new(UnixStream::connect(&running.path).await.unwrap()))
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.unwrap();
    }

    /// `None` at the end.
    async fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).await.unwrap_or(0);
        (length > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    async fn ask(&mut self, line: &str) -> Option<Value> {
        self.say(format!("{line}\n").as_bytes()).await;
        self.hear().await
    }

    async fn request(&mut self, name: &str) -> Value {
        self.ask(&json!({ "request": name }).to_string()).await.unwrap()
    }
}

#[tokio::test]
async fn each_request_has_its_answer() {
    let running = start();
    let mut client = Client::connect(&running).await;
    let status = client.request("status").await;
    assert_eq!((&status["phase"], &status["health"]["ready"]), (&json!("starting"), &json!(false)));
    let health = client.request("health").await;
    assert_eq!((&health["ok"], &health["reasons"][0]["code"]), (&json!(true), &json!("starting")));
    let jobs = client.request("jobs").await;
    assert_eq!(jobs, json!({"active": [], "queued": [], "queued_total": 0}));
    let metrics = client.request("metrics").await;
    assert!(metrics["metrics"].as_str().unwrap().ends_with("# EOF\n"), "{metrics}");
    assert_eq!(client.request("cancel").await, json!({"ok": true}));
    assert_eq!(*running.shared.stops.borrow(), 2);
}

#[tokio::test]
async fn bad_lines_are_answered_and_the_next_one_counts() {
    let running = start();
    let mut client = Client::connect(&running).await;
    for line in ["", "nonsense", "[]", "{}", "{\"request\": 7}", "{\"request\": \"nothing\"}", "\0"]
    {
        let answer = client.ask(line).await.unwrap();
        assert!(answer["error"].is_string(), "{line}: {answer}");
    }
    client.say(&[0xff, 0xfe, b'\n']).await;
    assert!(client.hear().await.unwrap()["error"].is_string());
    let deep = "[".repeat(10_000);
    assert!(client.ask(&deep).await.unwrap()["error"].is_string());
    let unknown = client.request(&"x".repeat(1_000)).await;
    assert!(unknown["error"].as_str().unwrap().len() < 100, "{unknown}");
    assert_eq!(client.request("health").await["ok"], true);
}

#[tokio::test]
async fn a_line_without_an_end_is_refused() {
    let running = start();
    let mut client = Client::connect(&running).await;
    client.say(&vec![b'x'; usize::try_from(MAX_REQUEST).unwrap()]).await;
    let answer = client.hear().await.unwrap();
    assert!(answer["error"].as_str().unwrap().contains("at most 65536"), "{answer}");
    assert_eq!(client.hear().await, None);
}

#[tokio::test]
async fn who_is_silent_gives_way() {
    let running = start();
    let mut silent = Vec::new();
    for _ in 0..3 * MAX_CONNECTIONS {
        let mut client = Client::connect(&running).await;
        client.say(b"{\"request\"").await;
        silent.push(client);
    }
    let mut client = Client::connect(&running).await;
    assert_eq!(client.request("health").await["ok"], true);
    // The first to come were the first to go.
    assert_eq!(silent[0].hear().await, None);
}

#[tokio::test]
async fn who_does_not_read_is_closed_and_hinders_nobody() {
    let running = start();
    let requests = "{\"request\":\"metrics\"}\n".repeat(500);
    let mut deaf = Vec::new();
    for _ in 0..MAX_CONNECTIONS - 1 {
        let mut client = Client::connect(&running).await;
        client.say(requests.as_bytes()).await;
        deaf.push(client);
    }
    let mut client = Client::connect(&running).await;
    assert_eq!(client.request("health").await["ok"], true);
    // Closed, as soon as writing fails.
    while deaf[0].0.get_mut().write_all(b"\n").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What was sent is all that was ever kept for it.
    let mut answers = 0;
    while deaf[0].hear_any().await {
        answers += 1;
    }
    assert!(answers < 500, "all {answers} answers were kept for it");
}

impl Client {
    async fn hear_any(&mut self) -> bool {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0)
    }
}

#[tokio::test]
async fn a_gateway_whose_jobs_do_not_answer_says_so() {
    let running = start();
    // A controller that has no time.
    let (ear, _never_heard) = tokio::sync::mpsc::channel(1);
    running.shared.news.send_replace(Some(ear));
    let mut client = Client::connect(&running).await;
    assert!(client.request("jobs").await["error"].is_string());
}

#[test]
fn only_our_user_and_root_may_ask() {
    assert!(may_ask(1000, 1000) && may_ask(0, 1000));
    assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
}
