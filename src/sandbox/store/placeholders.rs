//! `resolve_secret_placeholders_for_job`: what stands for a job's secrets in its environment.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params};

use super::schema::{Argument, CallError, Claim, Column, Function, Returned, Rights, Table, Type};
use super::tables::NOTHING;
use crate::sandbox::Caller;

/// The rows that the function returns. REST does not know the table itself, so the function alone
/// decides who sees which.
static PLACEHOLDERS: Table = Table {
    name: "job_secret_placeholders",
    columns: &[
        Column::new("env_name", Type::Text),
        Column::new("secret_name", Type::Text),
        Column::new("placeholder", Type::Text),
    ],
    key: &["env_name"],
    unique: &[],
    touched: None,
    rights: Rights { select: Some(&[]), ..NOTHING },
};

/// `{p_job_id}`: rows `{env_name, secret_name, placeholder}` of a job that the caller runs at the
/// moment; of any other job, none. They are made when they are first asked for: one for each
/// variable of `payload.secret_env` whose secret the team has, of a job in a VM.
pub(super) static RESOLVE: Function = Function {
    name: "resolve_secret_placeholders_for_job",
    arguments: &[Argument { name: "p_job_id", kind: Type::Uuid }],
    body: resolve,
};

fn resolve(tx: &Connection, caller: &Caller, arguments: &[Sql]) -> Result<Returned, CallError> {
    let (gateway, team) = (Claim::GatewayId.of(caller), Claim::TeamId.of(caller));
    make(tx, arguments.first(), gateway, team)?;
    let mut found = tx.prepare_cached(
        "SELECT held.rowid FROM job_secret_placeholders AS held
         JOIN gateway_jobs AS jobs ON jobs.id = held.job_id
         WHERE jobs.id = ?1 AND jobs.gateway_id = ?2 AND jobs.team_id = ?3
             AND jobs.status = 'running'
         ORDER BY held.env_name",
    )?;
    let rows = found.query_map(params![arguments.first(), gateway, team], |row| row.get(0))?;
    Ok(Returned::Rows(&PLACEHOLDERS, rows.collect::<Result<_, _>>()?))
}

fn make(
    tx: &Connection,
    job: Option<&Sql>,
    gateway: Option<&str>,
    team: Option<&str>,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO job_secret_placeholders (job_id, env_name, secret_name, placeholder)
         SELECT jobs.id, wanted.key, secrets.name, 'pano_sec_' || lower(hex(randomblob(18)))
         FROM gateway_jobs AS jobs
         JOIN team_gateways AS gateways
             ON gateways.id = jobs.gateway_id AND gateways.vm_id IS NOT NULL
         JOIN json_each(jobs.payload, '$.secret_env') AS wanted ON wanted.type = 'text'
         JOIN secrets ON secrets.team_id = jobs.team_id AND secrets.name = wanted.value
         WHERE jobs.id = ?1 AND jobs.gateway_id = ?2 AND jobs.team_id = ?3
             AND jobs.status = 'running'
             AND json_type(jobs.payload, '$.secret_env') = 'object'",
    )?
    .execute(params![job, gateway, team])?;
    Ok(())
}
