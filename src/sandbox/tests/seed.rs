//! What the databases of these tests hold at first.

use std::path::Path;

use rusqlite::{Connection, params};

use super::storage;
use super::world::{
    CODE, OLD_CODE, OLD_VM_TOKEN, OTHER_TEAM, OWNER, RUN, SIBLING, STRANGER, SUBAGENT, USED_CODE,
    USED_VM_TOKEN, VM_TOKEN,
};
use crate::model::{GatewayId, TeamId};
use crate::sandbox::access::Identity;
use crate::sandbox::{auth, functions};

pub(super) fn identity(gateway: &str, team: &str) -> Identity {
    Identity {
        user_id: format!("user of {gateway}"),
        session_id: format!("session of {gateway}"),
        gateway_id: GatewayId::new(gateway),
        team_id: TeamId::new(team),
    }
}

/// The id of the owner's row of a table in a state.
pub(super) fn row_in(table: &str, state: &str) -> String {
    let area = match table {
        "gateway_jobs" => 1,
        "subagents" => 3,
        _ => 4,
    };
    let at = states(table).iter().position(|known| *known == state).unwrap();
    format!("00000000-0000-4000-8000-000000000{area}{:02}", at + 1)
}

/// The states of a table's rows; the first is the one that its rows work in.
pub(super) fn states(table: &str) -> &'static [&'static str] {
    if table == "subagents" {
        &["running", "idle", "completed", "failed", "cancelled"]
    } else {
        &["running", "queued", "completed", "failed", "cancelled"]
    }
}

pub(super) fn seed(database: &Connection, team: &str, refresh: &str) {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| database.execute(sql, values).unwrap();
    run("INSERT INTO teams VALUES (?1, 'other', 0)", params![OTHER_TEAM]);
    for (id, team, code) in
        [(OWNER, team, CODE), (SIBLING, team, USED_CODE), (STRANGER, OTHER_TEAM, OLD_CODE)]
    {
        let sql = "INSERT INTO team_gateways (id, team_id, device_name, created_at, updated_at)
                   VALUES (?1, ?2, 'box', 0, 0)";
        run(sql, params![id, team]);
        let token = if id == OWNER { refresh } else { id };
        auth::open_session(database, &identity(id, team), token, 0).unwrap();
        let (used, expires) = (code == USED_CODE, if code == OLD_CODE { 1 } else { i64::MAX });
        let sql = "INSERT INTO pairing_codes VALUES (?1, ?2, NULL, 0, ?3, iif(?4, 1, NULL))";
        run(sql, params![functions::code_hash(code), team, expires, used]);
    }
    run("INSERT INTO vms VALUES ('vm', ?1, NULL, 0, 0, 0)", params![team]);
    for (token, expires, used) in
        [(VM_TOKEN, i64::MAX, false), (USED_VM_TOKEN, i64::MAX, true), (OLD_VM_TOKEN, 1, false)]
    {
        let sql = "INSERT INTO vm_tokens VALUES (?1, 'vm', 0, ?2, iif(?3, 1, NULL), NULL)";
        run(sql, params![functions::vm_token_hash(token), expires, used]);
    }
    run("INSERT INTO secrets VALUES (?1, 'known', 0)", params![team]);
    for state in states("gateway_jobs") {
        let sql = "INSERT INTO gateway_jobs
                   (id, team_id, gateway_id, job_type, status, created_at, updated_at)
                   VALUES (?1, ?2, ?3, 'diagnostic', ?4, 0, 0)";
        run(sql, params![row_in("gateway_jobs", state), team, OWNER, state]);
    }
    let sql = "INSERT INTO job_secret_placeholders SELECT id, 'TOKEN', 'a secret', 'pano_sec_1'
               FROM gateway_jobs";
    run(sql, &[]);
    for state in states("subagents") {
        let sql = "INSERT INTO subagents
                   (id, team_id, gateway_id, subagent_type, status, created_at, updated_at)
                   VALUES (?1, ?2, ?3, 'codex_gateway', ?4, 0, 0)";
        run(sql, params![row_in("subagents", state), team, OWNER, state]);
    }
    for (sequence, state) in (1_i64..).zip(states("subagent_runs")) {
        let sql = "INSERT INTO subagent_runs (id, subagent_id, team_id, gateway_id, run_sequence,
                   status, prompt, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'do it', 0)";
        let id = row_in("subagent_runs", state);
        run(sql, params![id, SUBAGENT, team, OWNER, sequence, state]);
    }
    for (table, columns, values) in [
        (
            "subagent_run_events",
            "run_id, subagent_id, gateway_id, sequence, event_type",
            format!("'{RUN}', '{SUBAGENT}', '{OWNER}', 0, 'system'"),
        ),
        ("gateway_events", "gateway_id, level, message", format!("'{OWNER}', 'info', 'm'")),
        (
            "team_resources",
            "resource_type, max_access_level, updated_at",
            "'remote_shell', 'execute', 0".to_owned(),
        ),
    ] {
        let sql = format!(
            "INSERT INTO {table} (id, team_id, created_at, {columns}) VALUES (?1, ?2, 0, {values})"
        );
        run(&sql, params![super::tables::ROW, team]);
    }
}

pub(super) fn seed_objects(database: &Connection, team: &str, directory: &Path) {
    for (number, (is_other, bucket, name, text)) in storage::OBJECTS.into_iter().enumerate() {
        let size = i64::try_from(text.len()).unwrap();
        let hash = auth::sha256_hex(text);
        let parent = directory.join(&hash[..2]);
        std::fs::create_dir_all(&parent).unwrap();
        std::fs::write(parent.join(&hash), text).unwrap();
        let sql = "INSERT INTO contents (sha256, size, holders, version) VALUES (?1, ?2, 1, 1)";
        database.execute(sql, params![hash, size]).unwrap();
        let sql = "INSERT INTO objects VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'text/plain', NULL, 0, 0)";
        let team = if is_other { OTHER_TEAM } else { team };
        let id = number.to_string();
        database.execute(sql, params![id, team, bucket, name, hash, size]).unwrap();
    }
}
