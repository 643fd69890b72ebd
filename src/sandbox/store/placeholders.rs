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
/// moment; of any other job, none.
pub(super) static RESOLVE: Function = Function {
    name: "resolve_secret_placeholders_for_job",
    arguments: &[Argument { name: "p_job_id", kind: Type::Uuid }],
    body: resolve,
};

fn resolve(tx: &Connection, caller: &Caller, arguments: &[Sql]) -> Result<Returned, CallError> {
    let (gateway, team) = (Claim::GatewayId.of(caller), Claim::TeamId.of(caller));
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
