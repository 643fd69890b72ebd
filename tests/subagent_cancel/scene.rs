//! A gateway with subagents, and their rows behind the control plane's back.

use std::time::Duration;

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use crate::common::agents::Agent;
use crate::common::backend::{Fault, Middleman};
use crate::common::tree::Tree;
use crate::common::{ControlPlane, Machine, Paired, wait_until};

/// What is asked of every agent here.
const PROMPT: &str = "Go on until you are stopped";

/// A machine with a Codex CLI, its gateway, and a control plane behind a middleman.
pub(crate) struct Scene {
    pub(crate) control: ControlPlane,
    pub(crate) middle: Middleman,
    pub(crate) paired: Paired,
    pub(crate) agent: Agent,
}

/// A subagent and its run.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) subagent: String,
    pub(crate) run: String,
}

/// What the tables hold of a subject.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    pub(crate) subagent: Value,
    pub(crate) run: Value,
    /// `sequence`, `event_type`, `payload`.
    pub(crate) events: Vec<(i64, String, Value)>,
}

impl Rows {
    pub(crate) fn event_types(&self) -> Vec<&str> {
        self.events.iter().map(|(_, event_type, _)| event_type.as_str()).collect()
    }

    /// The last event, whose type must be this one; there must be no gaps before it.
    pub(crate) fn last_event(&self, event_type: &str) -> &Value {
        let sequences: Vec<i64> = self.events.iter().map(|(sequence, ..)| *sequence).collect();
        let gapless: Vec<i64> = (0..).take(sequences.len()).collect();
        assert_eq!(sequences, gapless, "{self:?}");
        let (_, last, payload) = self.events.last().expect("an event");
        assert_eq!(last, event_type, "{self:?}");
        payload
    }
}

impl Scene {
    /// The gateway is up; it may not have made up its mind about the CLI.
    pub(crate) async fn new() -> Self {
        Self::on(Machine::new()).await
    }

    pub(crate) async fn on(machine: Machine) -> Self {
        let (machine, agent) = Agent::install(machine, "codex", &Agent::structured("codex"));
        let control = ControlPlane::start().await;
        let middle = Middleman::before(&control.url()).await;
        let code = control.code().await;
        let gateway_id = machine.pair_with(&middle.url, control.server.anon_key(), &code).await;
        let paired = Paired::allowed(machine, &control, gateway_id).await;
        Self { control, middle, paired, agent }
    }

    /// The same once the gateway has made up its mind about the CLI, which does this from then on.
    pub(crate) async fn with_act(act: &str) -> Self {
        Self::with_act_on(Machine::new(), act).await
    }

    pub(crate) async fn with_act_on(machine: Machine, act: &str) -> Self {
        let scene = Self::on(machine).await;
        let payload = json!({
            "prompt": "Is it so?", "model": "__default__", "provider": "codex",
            "output_format": "text",
        });
        let job = scene.control.submit(&scene.paired.gateway_id, "model_run", payload).await;
        scene.control.ended(&job).await;
        scene.agent.acts(act);
        scene
    }

    pub(crate) fn database(&self) -> Connection {
        let database = Connection::open(self.control.data_dir().join("sandbox.db")).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        database
    }

    /// A subagent in this state; one that is `running` has a run that is.
    pub(crate) fn add(&self, subagent_type: &str, status: &str) -> Subject {
        let subject = Subject { subagent: uuid(), run: uuid() };
        let database = self.database();
        let team: String = database
            .query_row(
                "SELECT team_id FROM team_gateways WHERE id = ?1",
                [&self.paired.gateway_id],
                |row| row.get(0),
            )
            .unwrap();
        let input = json!({"prompt": PROMPT, "run_id": subject.run, "run_sequence": 1});
        database
            .execute(
                "INSERT INTO subagents (id, team_id, gateway_id, subagent_type, status, input,
                     metadata, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0)",
                params![
                    subject.subagent,
                    team,
                    self.paired.gateway_id,
                    subagent_type,
                    status,
                    input.to_string(),
                    json!({"kept": 1}).to_string()
                ],
            )
            .unwrap();
        self.add_run(&subject, 1, status);
        subject
    }

    /// One more run of a subagent, by its own id.
    pub(crate) fn add_run(&self, subject: &Subject, sequence: i64, status: &str) {
        let status = if status == "idle" { "completed" } else { status };
        self.database()
            .execute(
                "INSERT INTO subagent_runs (id, subagent_id, team_id, gateway_id, run_sequence,
                     status, prompt, metadata, created_at)
                 SELECT ?1, id, team_id, gateway_id, ?2, ?3, ?4, ?5, 0 FROM subagents WHERE id = ?6",
                params![
                    subject.run,
                    sequence,
                    status,
                    PROMPT,
                    json!({"own": 2}).to_string(),
                    subject.subagent
                ],
            )
            .unwrap();
    }

    pub(crate) fn rows(&self, subject: &Subject) -> Rows {
        let database = self.database();
        let row = |table: &str, id: &str| {
            let sql = format!(
                "SELECT json_object('status', status, 'output', json(output), 'error', error,
                     'metadata', json(metadata), 'completed', completed_at IS NOT NULL)
                 FROM {table} WHERE id = ?1"
            );
            let text: String = database.query_row(&sql, [id], |row| row.get(0)).unwrap();
            let mut row: Value = serde_json::from_str(&text).unwrap();
            row["completed"] = json!(row["completed"] == 1);
            row
        };
        let mut events = database
            .prepare(
                "SELECT sequence, event_type, payload FROM subagent_run_events
                 WHERE run_id = ?1 ORDER BY sequence",
            )
            .unwrap();
        let event = |row: &rusqlite::Row<'_>| {
            let payload: String = row.get(2)?;
            Ok((row.get(0)?, row.get(1)?, serde_json::from_str(&payload).unwrap()))
        };
        Rows {
            subagent: row("subagents", &subject.subagent),
            run: row("subagent_runs", &subject.run),
            events: events.query_map([&subject.run], event).unwrap().map(Result::unwrap).collect(),
        }
    }

    /// Queues the job of a subject's run.
    pub(crate) async fn start(&self, subject: &Subject) -> String {
        let payload = json!({"subagent_id": subject.subagent, "run_id": subject.run});
        self.control.submit(&self.paired.gateway_id, "subagent_run", payload).await
    }

    /// Queues a cancel.
    pub(crate) async fn submit_cancel(&self, payload: Value) -> String {
        self.control.submit(&self.paired.gateway_id, "subagent_cancel", payload).await
    }

    /// Cancels; gives the job's row at its end.
    pub(crate) async fn cancel(&self, payload: Value) -> Value {
        let job = self.submit_cancel(payload).await;
        self.control.ended(&job).await
    }

    /// Cancels the run of a subject with a reason of its own; gives the job's result.
    pub(crate) async fn cancel_run(&self, subject: &Subject) -> Value {
        let payload =
            json!({"subagent_id": subject.subagent, "run_id": subject.run, "reason": "Not needed"});
        let row = self.cancel(payload).await;
        assert_eq!((&row["status"], &row["error"]), (&json!("completed"), &Value::Null), "{row}");
        row["result"].clone()
    }

    /// Waits until the gateway has sent such a request since the last time that it was asked to
    /// forget.
    pub(crate) async fn sent(&self, method: &str, path: &str) {
        wait_until(&format!("{method} {path}"), || async {
            let seen = self.middle.seen();
            seen.iter().any(|seen| seen.method == method && seen.path.ends_with(path)).then_some(())
        })
        .await;
    }

    /// The rows once the subagent has ended like this.
    pub(crate) async fn ended(&self, subject: &Subject, status: &str) -> Rows {
        wait_until(&format!("the subagent to be {status}"), || async {
            let rows = self.rows(subject);
            (rows.subagent["status"] == status).then_some(rows)
        })
        .await
    }

    pub(crate) fn fault(&self, which: &str, fault: Fault) {
        self.middle.fault(which, fault);
    }
}

/// What the CLI does to grow a tree that is hard to end, and to go on until it is ended.
pub(crate) fn grows(tree: &Tree) -> String {
    format!("cat > /dev/null\nexec {}", tree.command())
}

/// A fresh id.
pub(crate) fn uuid() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The work dir of a run, where none is kept.
pub(crate) fn work_dir(scene: &Scene, subject: &Subject) -> std::path::PathBuf {
    scene.paired.machine.dir().join("work/subagents").join(&subject.subagent).join(&subject.run)
}
