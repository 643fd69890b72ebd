//! The rows of the matrix that are about tables. They follow from a table's rights, so a new table
//! or right asks for new rows.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::realtime;
use super::seed::{row_in, states};
use super::world::{Expect, OTHER_TEAM, OWNER, Probe, RUN, SIBLING, SUBAGENT, Who, World};
use crate::sandbox::store::schema::{Claim, Column, Moves, Table, Type};

/// The row of tables whose rows have no state.
pub(super) const ROW: &str = "00000000-0000-4000-8000-000000000999";

/// What the rows of a table are called.
pub(super) fn operations(table: &Table) -> Vec<String> {
    let mut all = vec!["read".to_owned(), "insert".into(), "update".into(), "delete".into()];
    all.extend(realtime::OPERATIONS.map(str::to_owned));
    if table.rights.insert.is_some() {
        all.extend(["insert in another's name".into(), "insert other columns".into()]);
    }
    if let Some(update) = table.rights.update {
        all.push("update other columns".into());
        if !update.pinned.is_empty() {
            all.push("update in another's name".into());
        }
        if let Some(moves) = update.moves {
            let steps: Vec<String> =
                moves.steps.iter().map(|(from, to)| format!("{from}→{to}")).collect();
            all.push(format!("{} {}", moves.column, steps.join(" ")));
            all.push(format!("{} any other step", moves.column));
            all.push("update in a final state".into());
            if !moves.always.is_empty() {
                all.push(format!("update {} in any state", moves.always.join(" ")));
            }
        }
    }
    all
}

/// The requests of one cell. `table` is the one that the matrix is about, not a changed one.
pub(super) fn probes(world: &World, table: &Table, operation: &str, who: Who) -> Vec<Probe> {
    let update = table.rights.update;
    let moves = update.and_then(|update| update.moves);
    let listed = update.map_or(&[][..], |update| update.columns);
    let is_pinned = |column: &Column| {
        update.is_some_and(|update| update.pinned.iter().any(|owned| owned.column == column.name))
    };
    let is_state = |column: &Column| moves.is_some_and(|moves| moves.column == column.name);
    let id = target(table, moves.map(|_| "running"));
    let sample = |column: &Column| sample(world, table, column, who);
    let columns = || table.columns.iter().copied();
    let each = |wanted: &dyn Fn(&Column) -> bool, id: &str| -> Vec<Probe> {
        columns()
            .filter(|column| wanted(column))
            .map(|column| patch(table, id, &json!({column.name: sample(&column)})))
            .collect()
    };
    match operation {
        "read" => {
            let path = format!("/rest/v1/{}?select=id&id=eq.{id}", table.name);
            vec![Probe::get(path, Expect::Shows(id.leak()))]
        }
        "insert" => vec![insert(world, table, who, None)],
        "insert in another's name" => owned(table)
            .map(|(column, claim)| {
                insert(world, table, who, Some((column, anothers(world, who, claim))))
            })
            .collect(),
        "insert other columns" => columns()
            .filter(|column| !may_insert(table, column.name))
            .map(|column| insert(world, table, who, Some((column.name, sample(&column)))))
            .collect(),
        "update" if update.is_none() => table
            .columns
            .last()
            .map(|column| patch(table, &id, &json!({column.name: sample(column)})))
            .into_iter()
            .collect(),
        "update" => each(
            &|column| (listed.contains(&column.name) || is_pinned(column)) && !is_state(column),
            &id,
        ),
        "update other columns" => columns()
            .filter(|column| !listed.contains(&column.name) && !is_pinned(column))
            .map(|column| {
                let value = match column.name {
                    "gateway_id" => anothers(world, who, Claim::GatewayId),
                    "team_id" => anothers(world, who, Claim::TeamId),
                    "subagent_id" => json!(row_in("subagents", "idle")),
                    _ => sample(&column),
                };
                patch(table, &id, &json!({column.name: value}))
            })
            .collect(),
        "update in another's name" => update
            .into_iter()
            .flat_map(|update| update.pinned)
            .map(|pinned| {
                let value = anothers(world, who, pinned.claim);
                patch(table, &id, &json!({pinned.column: value}))
            })
            .collect(),
        "update in a final state" => moves.map_or_else(Vec::new, |moves| {
            let mut all = Vec::new();
            for state in states(table.name).iter().filter(|state| !is_open(&moves, state)) {
                let id = row_in(table.name, state);
                let locked = |column: &Column| {
                    listed.contains(&column.name) && !moves.always.contains(&column.name)
                };
                all.extend(each(&|column| locked(column) && !is_state(column), &id));
                for to in states(table.name) {
                    all.push(patch(table, &id, &json!({moves.column: to})));
                }
            }
            all
        }),
        "delete" => {
            let path = format!("/rest/v1/{}?id=eq.{id}", table.name);
            let expect = Expect::Writes(vec![(table.name, Some(id))]);
            vec![Probe { method: Method::DELETE, ..Probe::get(path, expect) }]
        }
        other => moves.map_or_else(Vec::new, |moves| {
            if other.ends_with("in any state") {
                let free = |column: &Column| moves.always.contains(&column.name);
                return states(table.name)
                    .iter()
                    .flat_map(|state| each(&free, &row_in(table.name, state)))
                    .collect();
            }
            let wants_listed = !other.ends_with("any other step");
            steps(table, &moves, wants_listed)
        }),
    }
}

fn is_open(moves: &Moves, state: &str) -> bool {
    moves.steps.iter().any(|(from, _)| *from == state)
}

/// Each step from a state that may be left, if it is listed or not.
fn steps(table: &Table, moves: &Moves, listed: bool) -> Vec<Probe> {
    let mut all = Vec::new();
    for from in states(table.name).iter().filter(|from| is_open(moves, from)) {
        for to in states(table.name) {
            if moves.steps.contains(&(*from, *to)) == listed {
                let body = json!({moves.column: to, "started_at": "2026-01-01T00:00:00.000Z"});
                all.push(patch(table, &row_in(table.name, from), &body));
            }
        }
    }
    all
}

fn target(table: &Table, state: Option<&str>) -> String {
    match (table.name, state) {
        (_, Some(state)) => row_in(table.name, state),
        ("team_gateways", _) => OWNER.to_owned(),
        _ => ROW.to_owned(),
    }
}

fn patch(table: &Table, id: &str, body: &Value) -> Probe {
    let path = format!("/rest/v1/{}?id=eq.{id}", table.name);
    let expect = Expect::Writes(vec![(table.name, Some(id.to_owned()))]);
    Probe { method: Method::PATCH, ..Probe::post(path, body.clone(), expect) }
}

fn may_insert(table: &Table, column: &str) -> bool {
    table.rights.insert.is_some_and(|insert| insert.columns.contains(&column))
}

fn owned(table: &Table) -> impl Iterator<Item = (&'static str, Claim)> {
    let owned = table.rights.insert.map_or(&[][..], |insert| insert.owned);
    owned.iter().map(|owned| (owned.column, owned.claim))
}

/// An insert in the caller's own name, with one column more or other than it should be.
fn insert(world: &World, table: &Table, who: Who, other: Option<(&str, Value)>) -> Probe {
    let body: Map<String, Value> = table
        .columns
        .iter()
        .filter(|column| column.name != "id")
        .filter(|column| table.rights.insert.is_none() || may_insert(table, column.name))
        .map(|column| (column.name.to_owned(), sample(world, table, column, who)))
        .chain(other.map(|(name, value)| (name.to_owned(), value)))
        .collect();
    let expect = Expect::Writes(vec![(table.name, None)]);
    Probe::post(format!("/rest/v1/{}", table.name), body.into(), expect)
}

fn anothers(world: &World, who: Who, claim: Claim) -> Value {
    match claim {
        Claim::GatewayId if who.gateway() == SIBLING => json!(OWNER),
        Claim::GatewayId => json!(SIBLING),
        Claim::TeamId if world.team_of(who) == OTHER_TEAM => json!(world.team),
        Claim::TeamId => json!(OTHER_TEAM),
        Claim::UserId => json!("somebody"),
    }
}

/// A value that the column takes, and that it did not hold before; identities are the caller's.
pub(super) fn sample(world: &World, table: &Table, column: &Column, who: Who) -> Value {
    match (column.name, column.kind) {
        ("status", _) if table.name == "team_gateways" => json!("ready"),
        ("team_id", _) => json!(world.team_of(who)),
        ("gateway_id", _) => json!(who.gateway()),
        ("subagent_id", _) => json!(SUBAGENT),
        ("run_id", _) => json!(RUN),
        ("status", _) => json!("completed"),
        ("level", _) => json!("warn"),
        ("event_type", _) => json!("message"),
        (_, Type::Uuid) => json!("00000000-0000-4000-8000-000000000777"),
        (_, Type::Text) => json!("something else"),
        (_, Type::Int4 | Type::Int8) => json!(77),
        (_, Type::Bool) => json!(true),
        (_, Type::Timestamptz) => json!("2026-01-01T00:00:00.000Z"),
        (_, Type::Jsonb) => json!({"a": 1}),
    }
}
