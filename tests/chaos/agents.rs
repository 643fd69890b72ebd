//! Subagents of a lane: a Claude Code that does what its prompt says, runs with their rows, and what
//! they are to come to.

use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use serde_json::{Map, Value, json};

use super::plan::Does;
use crate::common::agents::Agent;
use crate::common::marks::Marks;
use crate::common::{ControlPlane, Machine, wait_until};

/// What every run does, by the first words of its prompt: who it is, what to do, and two numbers.
/// Any other prompt asks whether it works.
const ACT: &str = r#"
read -r name what count pause
line() { printf '%s\n' "$1"; }
said() {
    line '{"type":"assistant","session_id":"'"$name"'","message":{"id":"'"$1"'","type":"message","role":"assistant","model":"claude-x","content":['"$2"'],"stop_reason":null}}'
}
text() { said "$1" '{"type":"text","text":"'"$2"'"}'; }
call() { said "$1" '{"type":"tool_use","id":"'"$2"'","name":"WebSearch","input":{"query":"'"$2"'"}}'; }
found() {
    line '{"type":"user","session_id":"'"$name"'","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"'"$1"'","content":"'"$2"'"}]}}'
}
ends() {
    line '{"type":"result","subtype":"success","num_turns":1,"result":"'"$1"'","session_id":"'"$name"'","total_cost_usd":0.25,"usage":{"output_tokens":7},"modelUsage":{"claude-x":{"outputTokens":7}},"permission_denials":[],'"$2"'}'
}
case $what in
    talks | errs | fails | sleeps | snoops) ;;
    *)
        line '{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"","structured_output":{"message":"hi"},"session_id":"check","modelUsage":{"claude-x":{}}}'
        exit 0 ;;
esac
echo "$name $PANORAMA_RUN_ID" >> "$marks"
line '{"type":"system","subtype":"init","session_id":"'"$name"'","model":"claude-x"}'
text m0 "This is $name."
case $what in
    talks)
        turn=0
        while [ "$turn" -lt "$count" ]; do
            call "m$turn" "t$turn"
            found "t$turn" "Found $turn for $name."
            sleep "0.$pause"
            turn=$((turn + 1))
            text "m$turn" "Turn $turn of $name."
        done
        ends "Result of $name." '"is_error":false' ;;
    errs) ends "No luck for $name." '"is_error":true,"api_error_status":529' ;;
    fails) echo "no luck for $name" >&2; exit "$count" ;;
    sleeps) call m0 t0; setsid sleep 300 & wait ;;
    snoops)
        token=$(sed -n 's/.*"refreshToken": *"\([^"]*\)".*/\1/p' "$config")
        text m1 "The token is $token."
        ends "The token is $token." '"is_error":false' ;;
esac
"#;

/// The CLI of a lane.
pub(crate) struct Claude(Agent);

impl Claude {
    /// Puts it on the machine.
    pub(crate) fn install(machine: Machine) -> (Machine, Self) {
        let (machine, agent) = Agent::install(machine, "claude", "");
        let marks = Marks::in_dir(machine.home());
        let (marks, config) = (marks.path().display(), machine.config_file());
        agent.acts(&format!("marks='{marks}'\nconfig='{}'\n{ACT}", config.display()));
        (machine, Self(agent))
    }

    /// Waits until the team knows that agents can run.
    pub(crate) async fn is_ready(&self, control: &ControlPlane, gateway_id: &str) {
        wait_until(&format!("{} to be ready", self.0.provider()), || async {
            let gateways = control.gateways().await;
            let row = gateways.iter().find(|row| row["id"] == gateway_id)?;
            let ready = row.pointer("/capabilities/services/model_execution/ready");
            (ready == Some(&json!(true))).then_some(())
        })
        .await;
    }
}

/// What a run wrote.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) subagent: Value,
    pub(crate) run: Value,
    /// `sequence`, `event_type`, `payload`, by sequence.
    pub(crate) events: Vec<(i64, String, Value)>,
}

impl std::fmt::Display for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let events: Vec<_> = self.events.iter().map(|event| json!(event)).collect();
        write!(f, "{} {} {}", self.run, self.subagent, Value::Array(events))
    }
}

/// A subagent that was made for one run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) does: Does,
    pub(crate) subagent: String,
    pub(crate) id: String,
}

impl Run {
    /// Makes the rows.
    pub(crate) async fn make(
        control: &ControlPlane,
        gateway_id: &str,
        name: &str,
        does: Does,
    ) -> Self {
        let uuid = || uuid::Uuid::new_v4().to_string();
        let run = Self { name: name.to_owned(), does, subagent: uuid(), id: uuid() };
        let team = control.admin.info().await.unwrap().team_id;
        let prompt = run.prompt();
        let input = json!({"prompt": prompt, "run_id": run.id, "run_sequence": 1});
        let metadata = json!({"theirs": "kept", "current_run_id": run.id});
        let mut connection = open(control);
        let all = connection.transaction().unwrap();
        all.execute(
            "INSERT INTO subagents (id, team_id, gateway_id, subagent_type, status, input, \
             metadata, created_at, updated_at) \
             VALUES (?1, ?2, ?3, 'claude_code_gateway', 'running', ?4, ?5, 1, 1)",
            params![run.subagent, team, gateway_id, input.to_string(), metadata.to_string()],
        )
        .unwrap();
        all.execute(
            "INSERT INTO subagent_runs (id, subagent_id, team_id, gateway_id, run_sequence, \
             status, prompt, created_at) VALUES (?1, ?2, ?3, ?4, 1, 'running', ?5, 1)",
            params![run.id, run.subagent, team, gateway_id, prompt],
        )
        .unwrap();
        all.commit().unwrap();
        run
    }

    fn prompt(&self) -> String {
        let name = &self.name;
        match self.does {
            Does::Talks { turns, pause } => format!("{name} talks {turns} {pause:03}"),
            Does::SaysError => format!("{name} errs"),
            Does::Fails(code) => format!("{name} fails {code}"),
            Does::Sleeps => format!("{name} sleeps"),
            Does::Snoops => format!("{name} snoops"),
        }
    }

    /// Of its job, and of that of a cancel.
    pub(crate) fn payload(&self) -> Value {
        json!({"subagent_id": self.subagent, "run_id": self.id, "reason": "chaos"})
    }

    /// What the CLI says in a run that it can finish, as kind and content, in order.
    pub(crate) fn says(&self) -> Vec<(&'static str, String)> {
        let name = &self.name;
        let mut says = vec![("message", format!("This is {name}."))];
        match self.does {
            Does::Talks { turns, .. } => {
                for turn in 0..turns {
                    says.push(("tool_call", format!("Query: t{turn}")));
                    says.push(("tool_result", format!("Found {turn} for {name}.")));
                    says.push(("message", format!("Turn {} of {name}.", turn + 1)));
                }
            }
            Does::Sleeps => says.push(("tool_call", "Query: t0".to_owned())),
            Does::Snoops => says.push(("message", "The token is [REDACTED].".to_owned())),
            Does::SaysError | Does::Fails(_) => {}
        }
        says
    }

    /// The content of a completed run's output.
    pub(crate) fn answer(&self) -> String {
        match self.does {
            Does::Snoops => "The token is [REDACTED].".to_owned(),
            Does::Talks { .. } | Does::SaysError | Does::Fails(_) | Does::Sleeps => {
                format!("Result of {}.", self.name)
            }
        }
    }

    /// Whether everything was told that there is to tell.
    pub(crate) fn is_over(&self, control: &ControlPlane) -> bool {
        let sql = "SELECT (SELECT status FROM subagents WHERE id = ?1) <> 'running' \
             AND (SELECT status FROM subagent_runs WHERE id = ?2) <> 'running' \
             AND EXISTS (SELECT 1 FROM subagent_run_events WHERE run_id = ?2 AND event_type \
                 IN ('run_completed', 'run_failed', 'run_cancelled'))";
        let ids = [&self.subagent, &self.id];
        open(control).query_row(sql, ids, |row| row.get(0)).unwrap()
    }

    pub(crate) fn rows(&self, control: &ControlPlane) -> Rows {
        let connection = open(control);
        let event = |row: &Row<'_>| {
            let payload: String = row.get(2)?;
            Ok((row.get(0)?, row.get(1)?, serde_json::from_str(&payload).unwrap()))
        };
        let mut events = connection
            .prepare(
                "SELECT sequence, event_type, payload FROM subagent_run_events \
                 WHERE run_id = ? ORDER BY sequence",
            )
            .unwrap();
        let events = events.query_map([&self.id], event).unwrap();
        Rows {
            subagent: row(&connection, "subagents", &self.subagent),
            run: row(&connection, "subagent_runs", &self.id),
            events: events.map(Result::unwrap).collect(),
        }
    }
}

fn open(control: &ControlPlane) -> Connection {
    let connection = Connection::open(control.data_dir().join("sandbox.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    connection
}

fn row(connection: &Connection, table: &str, id: &str) -> Value {
    let mut query = connection.prepare(&format!("SELECT * FROM {table} WHERE id = ?")).unwrap();
    let names: Vec<String> = query.column_names().map(str::to_owned).collect();
    let fields = |row: &Row<'_>| {
        let value = |(index, name): (usize, &String)| {
            let value = match row.get_ref(index).unwrap() {
                ValueRef::Integer(number) => json!(number),
                ValueRef::Text(text) if matches!(name.as_str(), "output" | "metadata") => {
                    serde_json::from_slice(text).unwrap()
                }
                ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
                ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Value::Null,
            };
            (name.clone(), value)
        };
        Ok(Value::Object(names.iter().enumerate().map(value).collect::<Map<_, _>>()))
    };
    query.query_row([id], fields).unwrap()
}
