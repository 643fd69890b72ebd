//! A gateway with one agent CLI, its control plane, and subagents in its tables.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

use crate::common::agents::Agent;
use crate::common::backend::{Fault, Middleman};
use crate::common::{ControlPlane, Machine, Paired, ProcessName, wait_until};

/// What the scripted CLI calls its session.
pub(crate) const SESSION: &str = "5e551011-0000-4000-8000-000000000001";
pub(crate) const PROMPT: &str = "Is it so?";

pub(crate) struct Scene {
    pub(crate) control: ControlPlane,
    pub(crate) middleman: Middleman,
    pub(crate) paired: Paired,
    pub(crate) agent: Agent,
}

/// A subagent with its one run.
#[derive(Debug, Clone)]
pub(crate) struct Subagent {
    pub(crate) id: String,
    pub(crate) run_id: String,
}

/// Everything that a run may change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    pub(crate) subagent: Value,
    pub(crate) run: Value,
    /// `[event_type, payload]`, by sequence; the numbers have no gap.
    pub(crate) events: Vec<(String, Value)>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::on(Machine::new(), |_| (), "").await
    }

    /// A gateway in a managed guest, where root may have full control too.
    pub(crate) async fn in_guest() -> Self {
        let into_guest = |machine: &Machine| {
            let mut config = machine.config();
            config["vmGuest"] = json!({"vmId": "vm-1"});
            std::fs::write(machine.config_file(), config.to_string()).unwrap();
        };
        Self::on(Machine::new(), into_guest, "").await
    }

    /// `change` is done to the paired machine before its gateway starts; flags with one of the
    /// words of `without` are not in the CLI's help.
    pub(crate) async fn on(machine: Machine, change: impl Fn(&Machine), without: &str) -> Self {
        let (machine, agent) = Agent::install(machine, "claude", &lines(&[checked()]));
        if !without.is_empty() {
            let help = std::fs::read_to_string(agent.path("help")).unwrap();
            let left = without.split(' ').fold(help, |help, flag| help.replace(flag, "--x-y"));
            std::fs::write(agent.path("help"), left).unwrap();
        }
        let control = ControlPlane::start().await;
        let middleman = Middleman::before(&control.url()).await;
        let (code, key) = (control.code().await, control.server.anon_key().to_owned());
        let gateway_id = machine.pair_with(&middleman.url, &key, &code).await;
        change(&machine);
        let paired = Paired::allowed(machine, &control, gateway_id).await;
        let scene = Self { control, middleman, paired, agent };
        wait_until("the team to know that agents can run", || async {
            let gateways = scene.control.gateways().await;
            let ready = gateways[0].pointer("/capabilities/services/model_execution/ready");
            (ready == Some(&json!(true))).then_some(())
        })
        .await;
        scene.agent.acts(&stream(&conversation()));
        scene
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.control.data_dir().join("sandbox.db")
    }

    /// One statement, at once.
    pub(crate) fn sql(&self, sql: &str) {
        execute(&self.database(), sql);
    }

    /// While requests like this are on their way to the backend, this statement is carried out.
    pub(crate) fn meanwhile(&self, which: &str, sql: String) {
        let database = self.database();
        self.middleman.fault(which, Fault::after(move || execute(&database, &sql)));
    }

    /// A subagent that is to run, with these fields over the usual ones.
    pub(crate) async fn subagent(&self, fields: &Value) -> Subagent {
        self.subagent_with(fields, &json!({})).await
    }

    /// The same with fields over those of the run.
    pub(crate) async fn subagent_with(&self, fields: &Value, of_run: &Value) -> Subagent {
        let made = Subagent {
            id: uuid::Uuid::new_v4().to_string(),
            run_id: uuid::Uuid::new_v4().to_string(),
        };
        let mut row = json!({
            "subagent_type": "claude_code_gateway", "status": "running", "config": {},
            "input": {"prompt": PROMPT, "run_id": made.run_id, "run_sequence": 1},
            "metadata": {"theirs": "kept", "current_run_id": made.run_id},
        });
        over(&mut row, fields);
        let mut run = json!({"run_sequence": 1, "status": "running", "prompt": PROMPT});
        over(&mut run, of_run);
        let team = self.control.admin.info().await.unwrap().team_id;
        let connection = open(&self.database());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        connection
            .execute(
                "INSERT INTO subagents (id, team_id, gateway_id, subagent_type, status, config, \
                 input, metadata, created_at, updated_at) VALUES (?,?,?,?,?,?,?,?,1,1)",
                params![
                    made.id,
                    team,
                    self.paired.gateway_id,
                    text(&row["subagent_type"]),
                    text(&row["status"]),
                    row["config"].to_string(),
                    row["input"].to_string(),
                    row["metadata"].to_string(),
                ],
            )
            .unwrap();
        if !of_run.is_null() {
            connection
                .execute(
                    "INSERT INTO subagent_runs (id, subagent_id, team_id, gateway_id, \
                     run_sequence, status, prompt, created_at) VALUES (?,?,?,?,?,?,?,1)",
                    params![
                        made.run_id,
                        made.id,
                        team,
                        self.paired.gateway_id,
                        run["run_sequence"].as_i64(),
                        text(&run["status"]),
                        text(&run["prompt"]),
                    ],
                )
                .unwrap();
        }
        made
    }

    /// Queues its run.
    pub(crate) async fn submit(&self, subagent: &Subagent) -> String {
        let payload = json!({"subagent_id": subagent.id, "run_id": subagent.run_id});
        self.submit_payload(payload).await
    }

    pub(crate) async fn submit_payload(&self, payload: Value) -> String {
        self.control.submit(&self.paired.gateway_id, "subagent_run", payload).await
    }

    /// The job's row at its end.
    pub(crate) async fn job(&self, subagent: &Subagent) -> Value {
        self.control.ended(&self.submit(subagent).await).await
    }

    pub(crate) fn rows(&self, of: &Subagent) -> Rows {
        let connection = open(&self.database());
        let events = connection
            .prepare(
                "SELECT sequence, event_type, payload FROM subagent_run_events \
                 WHERE run_id = ? ORDER BY sequence",
            )
            .unwrap()
            .query_map([&of.run_id], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })
            .unwrap()
            .map(Result::unwrap)
            .enumerate()
            .map(|(index, (sequence, event_type, payload))| {
                assert_eq!(usize::try_from(sequence).unwrap(), index, "a gap in the events");
                (event_type, serde_json::from_str(&payload).unwrap())
            })
            .collect();
        Rows {
            subagent: row(&connection, "subagents", &of.id),
            run: row(&connection, "subagent_runs", &of.run_id),
            events,
        }
    }

    /// The processes that a run has named in this file, one pid a line.
    pub(crate) async fn named(&self, file: &str, count: usize) -> Vec<ProcessName> {
        wait_until("the CLI's processes", || async {
            let text = std::fs::read_to_string(self.agent.path(file)).ok()?;
            let named: Vec<_> =
                text.lines().filter_map(|pid| ProcessName::of(pid.parse().ok()?)).collect();
            (named.len() == count).then_some(named)
        })
        .await
    }

    /// From now on the CLI says that it is here and then works until it is stopped.
    pub(crate) fn acts_for_ever(&self) {
        let pids = self.agent.path("pids");
        let act = format!(
            "cat > /dev/null; {}\nsetsid sleep 300 & echo $! >> {1}; echo $$ >> {1}; wait",
            lines(&conversation()[..2]),
            pids.display(),
        );
        self.agent.acts(&act);
    }

    /// From now on the CLI waits for this file before it ends as usual.
    pub(crate) fn acts_until(&self, file: &str) -> PathBuf {
        let go = self.agent.path(file);
        let (first, rest) = (lines(&conversation()[..4]), lines(&conversation()[4..]));
        let act = format!(
            "cat > /dev/null; {first}\necho $$ >> {}\nuntil [ -e {} ]; do sleep 0.05; done\n{rest}",
            self.agent.path("pids").display(),
            go.display()
        );
        self.agent.acts(&act);
        go
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.paired.machine.dir().join("jobs/events")
    }

    /// Nothing of the run is left on this machine, but the folder that it may be continued in.
    pub(crate) fn assert_tidy(&self) {
        let left: Vec<_> = std::fs::read_dir(self.spool())
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "spools are left: {left:?}");
    }
}

impl Rows {
    /// The events' types.
    pub(crate) fn types(&self) -> Vec<&str> {
        self.events.iter().map(|(event_type, _)| event_type.as_str()).collect()
    }

    /// The payload of the one event of this type.
    pub(crate) fn payload(&self, event_type: &str) -> &Value {
        let mut found = self.events.iter().filter(|(named, _)| named == event_type);
        let (_, payload) = found.next().expect(event_type);
        assert!(found.next().is_none(), "more than one {event_type}");
        payload
    }

    pub(crate) fn status(&self) -> (&str, &str) {
        (self.subagent["status"].as_str().unwrap(), self.run["status"].as_str().unwrap())
    }
}

fn over(row: &mut Value, fields: &Value) {
    for (name, value) in fields.as_object().into_iter().flatten() {
        row[name] = value.clone();
    }
}

pub(crate) fn open(database: &std::path::Path) -> Connection {
    let connection = Connection::open(database).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection
}

fn execute(database: &std::path::Path, sql: &str) {
    open(database).execute_batch(sql).unwrap();
}

/// A row as JSON; null when there is none.
fn row(connection: &Connection, table: &str, id: &str) -> Value {
    let sql = format!("SELECT * FROM {table} WHERE id = ?");
    let mut query = connection.prepare(&sql).unwrap();
    let names: Vec<String> = query.column_names().map(str::to_owned).collect();
    let mut rows = query.query([id]).unwrap();
    let Some(row) = rows.next().unwrap() else { return Value::Null };
    let value = |index: usize, name: &str| match row.get_ref(index).unwrap() {
        ValueRef::Integer(number) => json!(number),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).unwrap();
            let json = ["config", "input", "output", "metadata"].contains(&name);
            if json { serde_json::from_str(text).unwrap() } else { json!(text) }
        }
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Value::Null,
    };
    let fields: Map<String, Value> =
        names.iter().enumerate().map(|(at, name)| (name.clone(), value(at, name))).collect();
    Value::Object(fields)
}

/// What Claude Code prints for a short conversation.
pub(crate) fn conversation() -> Vec<Value> {
    let said = |id: &str, block: Value| {
        json!({"type": "assistant", "session_id": SESSION, "message": {
            "id": id, "type": "message", "role": "assistant", "model": "claude-x",
            "content": [block], "stop_reason": null,
        }})
    };
    vec![
        json!({"type": "system", "subtype": "init", "session_id": SESSION, "model": "claude-x"}),
        said("msg_1", json!({"type": "text", "text": "Let me look."})),
        said(
            "msg_1",
            json!({"type": "tool_use", "id": "t1", "name": "WebSearch", "input": {"query": "so"}}),
        ),
        json!({"type": "user", "session_id": SESSION, "message": {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "found"},
        ]}}),
        said("msg_2", json!({"type": "text", "text": "It is so."})),
        json!({
            "type": "result", "subtype": "success", "is_error": false, "num_turns": 2,
            "result": "It is so.", "session_id": SESSION, "total_cost_usd": 0.25,
            "usage": {"output_tokens": 7}, "modelUsage": {"claude-x": {"outputTokens": 7}},
            "permission_denials": [],
        }),
    ]
}

/// What the CLI says when it is asked whether it works.
pub(crate) fn checked() -> Value {
    json!({
        "type": "result", "subtype": "success", "is_error": false, "num_turns": 1, "result": "",
        "structured_output": {"message": "hi"}, "session_id": SESSION,
        "modelUsage": {"claude-x": {}},
    })
}

/// Shell commands that print these lines.
pub(crate) fn lines(objects: &[Value]) -> String {
    let line =
        |object: &Value| format!("printf '%s\\n' '{}'", object.to_string().replace('\'', ""));
    objects.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A CLI that keeps its prompt beside itself and says this.
pub(crate) fn stream(objects: &[Value]) -> String {
    format!("cat > \"$here/said\"\n{}", lines(objects))
}

/// What `metadata_patch`, and so both rows, hold of any run.
pub(crate) fn context() -> Value {
    json!({
        "execution_lane": "cloud", "execution_bridge": "gateway",
        "execution_substrate": "gateway_host", "trust_zone": "user_delegated_host",
        "delegate_kind": "gateway_cli",
    })
}

/// The object without these keys, which are checked to be there.
pub(crate) fn without(object: &Value, keys: &[&str]) -> Value {
    let mut fields = object.as_object().unwrap().clone();
    for key in keys {
        assert!(fields.shift_remove(*key).is_some(), "{key} is missing: {object}");
    }
    Value::Object(fields)
}

/// The first object with the others over it.
pub(crate) fn merged(objects: &[&Value]) -> Value {
    let mut all = json!({});
    for object in objects {
        over(&mut all, object);
    }
    all
}

impl Scene {
    /// Waits until such a request has come since the last [`Middleman::forget`].
    pub(crate) async fn asked_for(&self, which: &str) {
        let (method, path) = which.split_once(' ').unwrap();
        wait_until(which, || async {
            let seen = self.middleman.seen();
            let came = seen.iter().any(|seen| seen.method == method && seen.path.ends_with(path));
            came.then_some(())
        })
        .await;
    }
}
