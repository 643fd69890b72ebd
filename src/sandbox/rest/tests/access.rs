//! Every rule on who may do what, and an attempt to break it.

use super::*;

const REPRESENTATION: &str = "return=representation";

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The rows that are shown or changed.
    Rows(usize),
    /// Status and code.
    Refused(u16, &'static str),
}
use Outcome::{Refused as No, Rows};

const DENIED: Outcome = No(403, "42501");
const ABSENT: Outcome = No(404, "PGRST205");

struct Jobs {
    server: Server,
    queued: String,
    running: String,
    completed: String,
    mates: String,
    strangers: String,
}

impl Jobs {
    async fn new() -> Self {
        let server = Server::new().await;
        let made = async |gateway: &str, team: &str, status: &str| {
            let row = json!({"gateway_id": gateway, "team_id": team, "job_type": "diagnostic",
                             "status": status});
            server.insert("gateway_jobs", row).await
        };
        let queued = made(GATEWAY, TEAM, "queued").await;
        let running = made(GATEWAY, TEAM, "running").await;
        let completed = made(GATEWAY, TEAM, "completed").await;
        let mates = made(TEAM_MATE, TEAM, "running").await;
        let strangers = made(STRANGER, OTHER_TEAM, "running").await;
        for team in [TEAM, OTHER_TEAM] {
            let row = json!({"team_id": team, "resource_type": "remote_shell",
                             "max_access_level": "execute"});
            server.insert("team_resources", row).await;
        }
        let event =
            json!({"gateway_id": GATEWAY, "team_id": TEAM, "level": "info", "message": "m"});
        server.insert("gateway_events", event).await;
        Self { server, queued, running, completed, mates, strangers }
    }

    async fn outcome(
        &self,
        caller: &Caller,
        method: Method,
        target: &str,
        body: &Value,
    ) -> Outcome {
        // The rows of insert-only tables cannot be shown.
        let prefer = if method == Method::POST { "return=minimal" } else { REPRESENTATION };
        let headers = [("prefer", prefer)];
        let answer = self.server.call(caller, method, target, &headers, &body.to_string()).await;
        match answer.body.as_array() {
            Some(rows) => Rows(rows.len()),
            None if answer.status.is_success() => Rows(1),
            None => {
                let (status, code) = answer.error();
                let known = ["42501", "PGRST205", "23514", "23502"];
                No(status, known.into_iter().find(|known| *known == code).unwrap_or("other"))
            }
        }
    }

    async fn everything(&self) -> Vec<Value> {
        let read = self.server.store.read(|c| {
            let mut all = Vec::new();
            for table in ["gateway_jobs", "team_gateways", "team_resources", "gateway_events"] {
                all.extend(Store::rows(c, table, "ORDER BY rowid", [])?);
            }
            Ok::<_, StoreError>(all)
        });
        read.await.unwrap()
    }
}

#[tokio::test]
async fn reading_shows_the_callers_rows_only() {
    let jobs = Jobs::new().await;
    for (target, expected) in [
        ("gateway_jobs", Rows(4)),
        (&format!("gateway_jobs?team_id=eq.{OTHER_TEAM}"), Rows(0)),
        (&format!("gateway_jobs?id=eq.{}", jobs.strangers), Rows(0)),
        (&format!("gateway_jobs?or=(team_id.eq.{OTHER_TEAM},team_id.neq.{OTHER_TEAM})"), Rows(4)),
        ("gateway_jobs?not.and=(status.eq.x,status.neq.x)", Rows(4)),
        (&format!("gateway_jobs?id=eq.{}", jobs.mates), Rows(1)),
        ("team_gateways", Rows(1)),
        (&format!("team_gateways?id=eq.{TEAM_MATE}"), Rows(0)),
        (&format!("team_gateways?id=eq.{STRANGER}"), Rows(0)),
        ("team_resources", Rows(1)),
        (&format!("team_resources?team_id=eq.{OTHER_TEAM}"), Rows(0)),
        ("gateway_events", DENIED),
        ("teams", ABSENT),
        ("pairing_codes", ABSENT),
        ("sessions", ABSENT),
        ("refresh_tokens", ABSENT),
        ("sqlite_master", ABSENT),
        ("noted", ABSENT),
        ("Gateway_jobs", ABSENT),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let head = method == Method::HEAD;
            let headers = [("prefer", "count=exact")];
            let answer = jobs.server.call(&me(), method.clone(), target, &headers, "").await;
            match expected {
                Rows(count) => {
                    let total = answer.header("content-range").rsplit('/').next().unwrap();
                    assert_eq!(total, count.to_string(), "{method} {target}");
                    assert!(head || answer.body.as_array().unwrap().len() == count, "{target}");
                }
                No(status, _) => assert_eq!(answer.status, status, "{method} {target}"),
            }
        }
        if let No(..) = expected {
            assert_eq!(jobs.outcome(&me(), Method::GET, target, &json!({})).await, expected);
        }
    }
}

#[tokio::test]
async fn an_anonymous_caller_may_do_nothing() {
    let jobs = Jobs::new().await;
    let before = jobs.everything().await;
    let anonymous = Caller::Anonymous;
    for table in ["gateway_jobs", "team_gateways", "gateway_events", "team_resources", "items"] {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
            let target = if method == Method::POST {
                table.to_owned()
            } else {
                format!("{table}?id=not.is.null")
            };
            let outcome = jobs.outcome(&anonymous, method.clone(), &target, &json!({})).await;
            assert_eq!(outcome, No(401, "42501"), "{method} {table}");
        }
    }
    assert_eq!(jobs.outcome(&anonymous, Method::GET, "teams", &json!({})).await, ABSENT);
    assert_eq!(jobs.everything().await, before);
}

#[tokio::test]
async fn rows_are_made_and_removed_by_those_who_may() {
    let jobs = Jobs::new().await;
    let before = jobs.everything().await;
    let job = json!({"gateway_id": GATEWAY, "team_id": TEAM, "job_type": "shell_exec"});
    for (method, target, body) in [
        (Method::POST, "gateway_jobs", &job),
        (Method::POST, "gateway_jobs?on_conflict=id", &job),
        (Method::POST, "team_gateways", &json!({"team_id": TEAM, "device_name": "x"})),
        (
            Method::POST,
            "team_resources",
            &json!({"team_id": TEAM, "resource_type": "remote_shell", "max_access_level": "x"}),
        ),
        (Method::DELETE, "gateway_jobs?id=not.is.null", &json!({})),
        (Method::DELETE, "team_gateways?id=not.is.null", &json!({})),
        (Method::DELETE, "gateway_events?id=not.is.null", &json!({})),
        (Method::DELETE, "team_resources?id=not.is.null", &json!({})),
        (Method::PATCH, "team_gateways?id=not.is.null", &json!({"status": "ready"})),
        (Method::PATCH, "team_gateways?id=not.is.null", &json!({"full_control_enabled": true})),
        (Method::PATCH, "team_resources?id=not.is.null", &json!({"max_access_level": "admin"})),
        (Method::PATCH, "gateway_events?id=not.is.null", &json!({"level": "info"})),
    ] {
        for prefer in ["", "resolution=merge-duplicates", "resolution=ignore-duplicates"] {
            if target.contains("on_conflict") && prefer.is_empty() {
                continue;
            }
            let headers = [("prefer", prefer)];
            let text = body.to_string();
            let answer = jobs.server.call(&me(), method.clone(), target, &headers, &text).await;
            assert_eq!(answer.error(), (403, "42501"), "{method} {target} {prefer}");
        }
    }
    assert_eq!(jobs.everything().await, before);
}

#[tokio::test]
async fn events_are_the_gateways_own() {
    let jobs = Jobs::new().await;
    let before = jobs.everything().await;
    let event = |changes: Value| {
        let mut event = json!({"gateway_id": GATEWAY, "team_id": TEAM, "provider": null,
            "level": "warn", "code": "c", "message": "m", "details": {"k": 1}});
        for (name, value) in changes.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    };
    for (changes, expected) in [
        (json!({"gateway_id": TEAM_MATE}), DENIED),
        (json!({"gateway_id": STRANGER, "team_id": OTHER_TEAM}), DENIED),
        (json!({"team_id": OTHER_TEAM}), DENIED),
        (json!({"team_id": null}), DENIED),
        (json!({"created_at": "2020-01-01T00:00:00Z"}), DENIED),
        (json!({"level": "fatal"}), No(400, "23514")),
        (json!({"level": null}), No(400, "23502")),
        (json!({"message": "m".repeat(2001)}), No(400, "23514")),
        (json!({"details": [1]}), No(400, "23514")),
        (json!({"details": "text"}), No(400, "23514")),
        (json!({"details": null}), No(400, "23502")),
    ] {
        let outcome =
            jobs.outcome(&me(), Method::POST, "gateway_events", &event(changes.clone())).await;
        assert_eq!(outcome, expected, "{changes}");
    }
    // A bulk insert with one foreign row leaves none.
    let bulk = json!([event(json!({})), event(json!({"gateway_id": TEAM_MATE}))]);
    assert_eq!(jobs.outcome(&me(), Method::POST, "gateway_events", &bulk).await, DENIED);
    let no_owner = json!({"level": "info", "message": "m"});
    assert_eq!(jobs.outcome(&me(), Method::POST, "gateway_events", &no_owner).await, DENIED);
    for prefer in [REPRESENTATION, "return=headers-only", "resolution=merge-duplicates"] {
        let answer = jobs.server.post("gateway_events", prefer, &event(json!({}))).await;
        assert_eq!(answer.error(), (403, "42501"), "{prefer}");
    }
    assert_eq!(jobs.everything().await, before);
    for changes in [json!({}), json!({"message": "ü".repeat(2000)})] {
        let outcome = jobs.outcome(&me(), Method::POST, "gateway_events", &event(changes)).await;
        assert_eq!(outcome, Rows(1));
    }
    // Sent again with the same id: nothing happens, and that is no error.
    let id = "00000000-0000-4000-8000-000000000001";
    for status in [201, 200] {
        let prefer = "return=minimal,resolution=ignore-duplicates";
        let answer = jobs.server.post("gateway_events", prefer, &event(json!({"id": id}))).await;
        assert_eq!(answer.status, status);
    }
    assert_eq!(jobs.everything().await.len(), before.len() + 3);
}

#[tokio::test]
async fn of_a_job_only_what_reports_on_it_may_be_changed() {
    let jobs = Jobs::new().await;
    let target = format!("gateway_jobs?id=eq.{}", jobs.running);
    let before = jobs.everything().await;
    let free = ["status", "result", "error", "debug", "started_at", "completed_at"];
    let table = jobs.server.store.schema().table("gateway_jobs").unwrap();
    for column in table.columns.iter().filter(|column| !free.contains(&column.name)) {
        if column.name == "gateway_id" {
            continue;
        }
        // Its own value, too: a right is a right on the column.
        let same = jobs.server.row("gateway_jobs", &jobs.running).await[column.name].clone();
        let body = json!({"status": "running", column.name: same});
        for id in [&jobs.running, &jobs.strangers] {
            let target = format!("gateway_jobs?id=eq.{id}");
            assert_eq!(jobs.outcome(&me(), Method::PATCH, &target, &body).await, DENIED, "{body}");
        }
    }
    for id in [TEAM_MATE, STRANGER] {
        let body = json!({"gateway_id": id});
        assert_eq!(jobs.outcome(&me(), Method::PATCH, &target, &body).await, DENIED);
    }
    let body = json!({"gateway_id": null});
    assert_eq!(jobs.outcome(&me(), Method::PATCH, &target, &body).await, DENIED);
    assert_eq!(jobs.everything().await, before);
    let report = json!({"gateway_id": GATEWAY, "status": "running", "result": {"a": 1},
        "error": "e", "debug": {"d": 1}, "started_at": "2026-01-01T00:00:00.000Z"});
    assert_eq!(jobs.outcome(&me(), Method::PATCH, &target, &report).await, Rows(1));
}

#[tokio::test]
async fn jobs_of_others_do_not_match() {
    let jobs = Jobs::new().await;
    let before = jobs.everything().await;
    for id in [&jobs.mates, &jobs.strangers] {
        for body in [json!({"status": "completed"}), json!({"debug": {}})] {
            let target = format!("gateway_jobs?id=eq.{id}");
            assert_eq!(jobs.outcome(&me(), Method::PATCH, &target, &body).await, Rows(0));
            let wide = format!("gateway_jobs?or=(id.eq.{id},id.eq.{id})");
            assert_eq!(jobs.outcome(&me(), Method::PATCH, &wide, &body).await, Rows(0));
        }
    }
    assert_eq!(jobs.everything().await, before);
    // Of all jobs, only its own are reached: three of five.
    let all = "gateway_jobs?id=not.is.null";
    let outcome = jobs.outcome(&me(), Method::PATCH, all, &json!({"debug": {"x": 1}})).await;
    assert_eq!(outcome, Rows(3));
    for id in [&jobs.mates, &jobs.strangers] {
        assert_eq!(jobs.server.row("gateway_jobs", id).await["debug"], Value::Null);
    }
}

#[tokio::test]
async fn a_job_goes_forward_only() {
    let states = ["queued", "running", "completed", "failed", "cancelled"];
    let server = Server::new().await;
    for from in states {
        for to in states {
            let row = json!({"gateway_id": GATEWAY, "team_id": TEAM, "job_type": "diagnostic",
                             "status": from});
            let id = server.insert("gateway_jobs", row).await;
            let target = format!("gateway_jobs?id=eq.{id}");
            let body = json!({"status": to, "result": {"by": "test"}});
            let answer = server.patch(&target, REPRESENTATION, &body).await;
            let what = format!("{from} to {to}");
            let after = server.row("gateway_jobs", &id).await;
            match (from, to) {
                ("queued", "running")
                | ("running", "running" | "completed" | "failed" | "cancelled") => {
                    assert_eq!(answer.body, json!([after]), "{what}");
                    assert_eq!(after["status"], to, "{what}");
                    continue;
                }
                // What is over is hidden from updates.
                ("completed" | "failed" | "cancelled", _) => {
                    assert_eq!((answer.status.as_u16(), answer.body), (200, json!([])), "{what}");
                }
                _ => assert_eq!(answer.error(), (403, "42501"), "{what}"),
            }
            assert_eq!(
                (&after["status"], &after["result"]),
                (&json!(from), &Value::Null),
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn debug_may_change_in_any_state_and_nothing_else_in_a_final_one() {
    let jobs = Jobs::new().await;
    for id in [&jobs.queued, &jobs.running, &jobs.completed] {
        let target = format!("gateway_jobs?id=eq.{id}");
        let outcome =
            jobs.outcome(&me(), Method::PATCH, &target, &json!({"debug": {"d": 1}})).await;
        assert_eq!(outcome, Rows(1));
        assert_eq!(jobs.server.row("gateway_jobs", id).await["debug"], json!({"d": 1}));
    }
    let target = format!("gateway_jobs?id=eq.{}", jobs.completed);
    for body in [
        json!({"result": {"r": 1}}),
        json!({"error": "e"}),
        json!({"started_at": null}),
        json!({"completed_at": "2026-01-01T00:00:00Z"}),
        json!({"gateway_id": GATEWAY}),
        json!({"debug": {"d": 2}, "error": "e"}),
    ] {
        assert_eq!(jobs.outcome(&me(), Method::PATCH, &target, &body).await, Rows(0), "{body}");
    }
    // A queued job is claimed before anything is said about it.
    let target = format!("gateway_jobs?id=eq.{}", jobs.queued);
    let body = json!({"result": {"r": 1}});
    assert_eq!(jobs.outcome(&me(), Method::PATCH, &target, &body).await, DENIED);
    for status in [json!(null), json!("nonsense"), json!("")] {
        let body = json!({"status": status});
        assert_eq!(jobs.outcome(&me(), Method::PATCH, &target, &body).await, DENIED, "{body}");
    }
    // One row in the wrong state undoes the statement for all.
    let body = json!({"status": "completed"});
    let all = "gateway_jobs?id=not.is.null";
    assert_eq!(jobs.outcome(&me(), Method::PATCH, all, &body).await, DENIED);
    assert_eq!(jobs.server.row("gateway_jobs", &jobs.running).await["status"], "running");
}

#[tokio::test]
async fn the_server_keeps_updated_at() {
    let jobs = Jobs::new().await;
    let before = jobs.server.row("gateway_jobs", &jobs.running).await;
    let target = format!("gateway_jobs?id=eq.{}", jobs.running);
    jobs.outcome(&me(), Method::PATCH, &target, &json!({"debug": {}})).await;
    let after = jobs.server.row("gateway_jobs", &jobs.running).await;
    let at = |row: &Value| row["updated_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(at(&after) > at(&before));
    assert_eq!(after["created_at"], before["created_at"]);
}

#[test]
fn no_right_to_update_reaches_a_column_that_rights_rest_on() {
    for table in items::added_to(Schema::built_in()).tables() {
        let Some(update) = table.rights.update else { continue };
        for owned in update.rows.iter().chain(table.rights.select.into_iter().flatten()) {
            assert!(!update.columns.contains(&owned.column), "{}.{}", table.name, owned.column);
        }
    }
}
