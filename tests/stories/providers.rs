//! How a gateway finds, checks and offers its agent CLIs, with fake ones.

use serde_json::{Value, json};

use crate::common::agents::{Agent, RECORDED};
use crate::common::{ControlPlane, Machine, Paired, wait_until};

/// What Claude Code prints when its model says hi, and for a run that wants `{message}`.
const SAYS_HI: &str = r#"cat > /dev/null
echo '{"type":"result","subtype":"success","is_error":false,"result":"","session_id":"s",' \
    '"structured_output":{"message":"hi"},"usage":{},"modelUsage":{"claude-sonnet-5":{}}}'"#;

/// What it prints without a login.
fn has_no_login() -> String {
    format!("cat > /dev/null; cat {RECORDED}/claude/no-key/stdout.txt; exit 1")
}

/// What the team reads of a provider, once `is_it` holds.
async fn provider(control: &ControlPlane, id: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let pointer = format!("/capabilities/providers/{id}");
    wait_until(&format!("the right word of {id}"), || async {
        let row = control.gateways().await.swap_remove(0);
        row.pointer(&pointer).filter(|provider| is_it(provider)).cloned()
    })
    .await
}

fn is(status: &'static str, check_type: &'static str) -> impl Fn(&Value) -> bool {
    move |provider| {
        let health = &provider["health"];
        health["status"] == status && health["check_type"] == check_type
    }
}

/// The first event of this code about this provider.
async fn event(control: &ControlPlane, code: &str, id: &str) -> Value {
    wait_until(&format!("{code} of {id}"), || async {
        let events = control.admin.events(None).await.unwrap();
        events.into_iter().find(|event| event["code"] == code && event["provider"] == id)
    })
    .await
}

async fn say_hi(control: &ControlPlane, paired: &Paired) -> String {
    let schema = json!({"type": "object", "properties": {"message": {"type": "string"}}});
    let payload = json!({"prompt": "Hi?", "model": "__default__", "json_schema": schema});
    control.submit(&paired.gateway_id, "model_run", payload).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_team_reads_which_providers_answer() {
    let control = ControlPlane::start().await;
    let (machine, _claude) = Agent::install(Machine::new(), "claude", SAYS_HI);
    let (machine, _gemini) = Agent::install(machine, "gemini", "echo '{}' >&2; exit 41");
    let paired = Paired::start_on(machine, &control).await;

    let claude = provider(&control, "claude_code", is("healthy", "full")).await;
    assert_eq!((&claude["available"], &claude["error"]), (&json!(true), &Value::Null), "{claude}");
    assert_eq!(claude["version"], "2.1.197 (Claude Code)");
    assert_eq!(claude["supported_flags"]["jsonSchemaFlag"], true);
    assert_eq!(claude["supports"]["output_schema"], true);
    assert_eq!(claude["health"]["model"], "claude-sonnet-5", "{claude}");
    assert!(claude["health"]["duration_ms"].is_u64() && claude["extensions"].is_null());

    let gemini = provider(&control, "gemini", is("unhealthy", "full")).await;
    assert_eq!(gemini["available"], false, "{gemini}");
    let told = event(&control, "provider_validation", "gemini").await;
    assert_eq!((&told["level"], &told["details"]["context"]), (&json!("error"), &json!("startup")));
    assert_eq!(told["details"]["error"], gemini["error"]);

    let codex = provider(&control, "codex", |codex| codex["error"] != Value::Null).await;
    assert_eq!((&codex["available"], &codex["version"]), (&json!(false), &Value::Null), "{codex}");
    let told = event(&control, "provider_validation", "codex").await;
    assert_eq!(
        (&told["level"], &told["details"]["status"]),
        (&json!("warn"), &json!("unavailable"))
    );

    let services = &control.gateways().await[0]["capabilities"]["services"];
    assert_eq!(services["model_execution"], json!({"ready": true}));
    let status = paired.machine.status().await.unwrap();
    assert_eq!(status["providers"][0]["available"], true, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_for_their_providers_first_verdict() {
    let control = ControlPlane::start().await;
    let act = format!("while ! [ -e $here/go ]; do sleep 0.05; done; {SAYS_HI}");
    let (machine, claude) = Agent::install(Machine::new(), "claude", SAYS_HI);
    let gateway_id = machine.pair(&control).await;
    // Pairing asks as well.
    let asked = claude.calls().len();
    claude.acts(&act);
    let paired = Paired::allowed(machine, &control, gateway_id).await;
    let job = say_hi(&control, &paired).await;
    let shell = paired.shell(&control, "true").await;
    assert_eq!(shell["status"], "completed", "others do not wait");
    wait_until("the check to begin", || async { (claude.calls().len() > asked).then_some(()) })
        .await;
    assert_eq!(control.admin.job(&job).await.unwrap()["status"], "queued");
    assert_eq!(claude.calls().len(), asked + 1);
    std::fs::write(claude.path("go"), "").unwrap();
    let row = control.ended(&job).await;
    assert_eq!(row["status"], "completed", "{row}");
    assert_eq!(claude.calls().len(), asked + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_tells_how_its_provider_is() {
    let control = ControlPlane::start().await;
    let (machine, claude) = Agent::install(Machine::new(), "claude", SAYS_HI);
    let paired = Paired::start_on(machine, &control).await;
    provider(&control, "claude_code", is("healthy", "full")).await;

    claude.acts(&has_no_login());
    let job = say_hi(&control, &paired).await;
    let row = control.ended(&job).await;
    assert_eq!(row["result"]["error_code"], "provider_auth", "{row}");
    let unhealthy = provider(&control, "claude_code", is("unhealthy", "light")).await;
    assert_eq!(unhealthy["health"]["last_full_status"], "healthy");
    let told = event(&control, "provider_unhealthy", "claude_code").await;
    assert_eq!(told["details"]["context"], "model_run", "{told}");
    assert_eq!(told["details"]["job_id"], json!(job));
    assert_eq!(told["details"]["error"], unhealthy["health"]["error"]);

    claude.acts(SAYS_HI);
    let job = say_hi(&control, &paired).await;
    assert_eq!(control.ended(&job).await["status"], "completed");
    provider(&control, "claude_code", is("healthy", "light")).await;
}
