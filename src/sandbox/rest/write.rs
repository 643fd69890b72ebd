//! POST, PATCH and DELETE, inside the write transaction. An error rolls everything back.

use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::Value;

use super::body::Values;
use super::error::RestError;
use super::headers::{Form, Give, Preferences, Resolution};
use super::query::{Compare, Query};
use super::read::{self, Window};
use super::resolve::{self, Condition, Target};
use super::sql::{self, OnConflict};
use crate::sandbox::Caller;
use crate::sandbox::store::schema::{Claim, Column, Fallback, Moves, Owned, Table, Update};
use crate::sandbox::store::value;

/// What all three have in common.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) table: &'static Table,
    pub(super) caller: Caller,
    pub(super) query: Query,
    pub(super) window: Window,
    pub(super) preferences: Preferences,
    pub(super) form: Form,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Done {
    /// How many rows are other than before.
    pub(super) affected: u64,
    /// How many of them are new.
    pub(super) inserted: u64,
    /// As asked for by `return=representation`.
    pub(super) rows: Option<Vec<Value>>,
    /// The key of a new row, for `return=headers-only`.
    pub(super) key: Option<Value>,
}

impl Change {
    /// PATCH.
    pub(super) fn update(&self, tx: &Connection, body: &Values) -> Result<Done, RestError> {
        let table = self.table;
        let rights = self.right(table.rights.update)?;
        self.check_columns(&rights, body)?;
        let filters = self.filters("UPDATE")?;
        if body.is_empty() {
            return self.done(tx, &[], 0);
        }
        let mut conditions =
            vec![filters, read::visible(table, &self.caller)?, self.owned(rights.rows)];
        if let Some(moves) = rights.moves {
            conditions.extend(steps(table, &moves, body, &conditions, tx)?);
        }
        let mut set: Vec<(&'static str, Sql)> =
            body.iter().map(|(column, value)| (column.name, value.clone())).collect();
        if let Some(touched) = table.touched {
            set.retain(|(name, _)| *name != touched);
            set.push((touched, Sql::Integer(value::now())));
        }
        let sql = sql::update(table, set, &Condition::All(conditions));
        let rowids = read::touched(tx, &sql)?;
        self.done(tx, &rowids, 0)
    }

    /// DELETE.
    pub(super) fn delete(&self, tx: &Connection) -> Result<Done, RestError> {
        let table = self.table;
        let rows = self.right(table.rights.delete)?;
        let filters = self.filters("DELETE")?;
        let visible = read::visible(table, &self.caller)?;
        let condition = Condition::All(vec![filters, visible, self.owned(rows)]);
        // Rows that are gone cannot be shown, so they are read before.
        let shown = if self.preferences.give == Give::Representation {
            let selection = resolve::selection(table, &self.query, condition.clone())?;
            Some(read::rows(tx, &selection, self.window)?)
        } else {
            None
        };
        let affected = read::touched(tx, &sql::delete(table, &condition))?.len() as u64;
        self.check_affected(affected)?;
        Ok(Done { affected, inserted: 0, rows: shown, key: None })
    }

    /// POST.
    pub(super) fn insert(&self, tx: &Connection, rows: &[Values]) -> Result<Done, RestError> {
        let table = self.table;
        let rights = self.right(table.rights.insert)?;
        if self.preferences.give != Give::Minimal {
            read::visible(table, &self.caller)?;
        }
        let conflict_key = self.conflict_key()?;
        let mut rowids = Vec::new();
        let mut inserted = 0;
        for body in rows {
            for (column, _) in body {
                if !rights.columns.contains(&column.name) {
                    return Err(denied_column(table, column));
                }
            }
            let named: Vec<&'static Column> = body.iter().map(|(column, _)| *column).collect();
            let row = self.with_defaults(body.clone());
            if !rights.owned.iter().all(|owned| holds(&row, owned, &self.caller)) {
                return Err(RestError::violates_policy(table.name));
            }
            let (new, rowid) = self.put(tx, &named, &row, conflict_key)?;
            inserted += u64::from(new);
            rowids.extend(rowid);
        }
        self.done(tx, &rowids, inserted)
    }

    /// Inserts one row, or does with the one that is there what was asked for. True: it is new.
    fn put(
        &self,
        tx: &Connection,
        named: &[&'static Column],
        row: &[(&'static str, Sql)],
        conflict_key: &'static [&'static str],
    ) -> Result<(bool, Option<i64>), RestError> {
        let table = self.table;
        let mut set = Vec::new();
        let (mut new, mut conflict) = (true, OnConflict::Fail);
        match self.preferences.resolution {
            None => {}
            Some(Resolution::Ignore) => conflict = OnConflict::Ignore(conflict_key),
            Some(Resolution::Merge) => {
                new = !self.may_merge(tx, named, row, conflict_key)?;
                set.extend(
                    named.iter().map(|column| column.name).filter(|n| !conflict_key.contains(n)),
                );
                if let Some(touched) = table.touched
                    && !set.is_empty()
                    && !set.contains(&touched)
                {
                    // New rows hold the server's time by their default.
                    set.push(touched);
                }
                conflict = OnConflict::Merge(conflict_key, &set);
            }
        }
        let rowid = read::touched(tx, &sql::insert(table, row, conflict))?.pop();
        Ok((new && rowid.is_some(), rowid))
    }

    /// Whether a row with the same key is there; an error when the caller may not change it.
    fn may_merge(
        &self,
        tx: &Connection,
        named: &[&'static Column],
        row: &[(&'static str, Sql)],
        conflict_key: &'static [&'static str],
    ) -> Result<bool, RestError> {
        let table = self.table;
        let rights = table.rights.update.ok_or_else(|| RestError::denied(table.name))?;
        if rights.moves.is_some() {
            return Err(RestError::new("0A000", "this table takes no merge-duplicates")
                .hint("insert, then update"));
        }
        for column in named {
            let listed = rights.columns.contains(&column.name)
                || conflict_key.contains(&column.name)
                || rights.pinned.iter().any(|owned| owned.column == column.name);
            if !listed {
                return Err(denied_column(table, column));
            }
        }
        let mut same = Vec::new();
        for (name, value) in row.iter().filter(|(name, _)| conflict_key.contains(name)) {
            if let Some(column) = table.column(name) {
                let target = Target { column, path: None };
                same.push(Condition::Compare(target, Compare::Eq, value.clone()));
            }
        }
        if same.len() < conflict_key.len() {
            return Ok(false);
        }
        let there = read::count(tx, table, &Condition::All(same.clone()))?;
        same.push(self.owned(rights.rows));
        same.push(read::visible(table, &self.caller)?);
        let changeable = read::count(tx, table, &Condition::All(same))?;
        if changeable < there {
            return Err(RestError::violates_policy(table.name));
        }
        Ok(there > 0)
    }

    /// By what an upsert knows a row again.
    fn conflict_key(&self) -> Result<&'static [&'static str], RestError> {
        let Some(names) = &self.query.on_conflict else { return Ok(self.table.key) };
        let mut sets = std::iter::once(&self.table.key).chain(self.table.unique);
        let same = |set: &&&'static [&'static str]| {
            set.len() == names.len() && set.iter().all(|name| names.iter().any(|n| n == name))
        };
        sets.find(same).copied().ok_or_else(|| {
            RestError::new(
                "42P10",
                "there is no unique or exclusion constraint matching the ON CONFLICT specification",
            )
        })
    }

    fn with_defaults(&self, body: Values) -> Vec<(&'static str, Sql)> {
        let mut row: Vec<(&'static str, Sql)> =
            body.into_iter().map(|(column, value)| (column.name, value)).collect();
        for column in self.table.columns {
            if row.iter().any(|(name, _)| *name == column.name) {
                continue;
            }
            let value = match column.fallback {
                Fallback::Sql => None,
                Fallback::NewUuid => Some(Sql::Text(uuid::Uuid::new_v4().to_string())),
                Fallback::Now => Some(Sql::Integer(value::now())),
                Fallback::Claim(claim) => self.claim(claim),
            };
            row.extend(value.map(|value| (column.name, value)));
        }
        row
    }

    fn claim(&self, claim: Claim) -> Option<Sql> {
        claim.of(&self.caller).map(|claim| Sql::Text(claim.to_owned()))
    }

    /// A right that the table gives, if the caller is one whom it gives any.
    fn right<T>(&self, right: Option<T>) -> Result<T, RestError> {
        match &self.caller {
            Caller::Gateway { .. } => right.ok_or_else(|| RestError::denied(self.table.name)),
            Caller::Anonymous | Caller::Drive { .. } => Err(RestError::denied(self.table.name)),
        }
    }

    fn owned(&self, rows: &[Owned]) -> Condition {
        resolve::owned(self.table, rows, &self.caller)
    }

    /// Without any filter every row would match: nobody means that.
    fn filters(&self, verb: &str) -> Result<Condition, RestError> {
        if self.query.filters.is_empty() {
            return Err(RestError::new("21000", format!("{verb} requires a WHERE clause")));
        }
        resolve::filters(self.table, &self.query.filters)
    }

    fn check_columns(&self, rights: &Update, body: &Values) -> Result<(), RestError> {
        for (column, value) in body {
            if rights.columns.contains(&column.name) {
                continue;
            }
            let pinned = rights.pinned.iter().find(|owned| owned.column == column.name);
            let Some(pinned) = pinned else { return Err(denied_column(self.table, column)) };
            if self.claim(pinned.claim).as_ref() != Some(value) {
                return Err(RestError::violates_policy(self.table.name));
            }
        }
        Ok(())
    }

    fn check_affected(&self, affected: u64) -> Result<(), RestError> {
        if let Some(most) = self.preferences.max_affected
            && affected > most
        {
            return Err(RestError::new(
                "PGRST124",
                "Query result exceeds max-affected preference constraint",
            )
            .details(format!("The query affects {affected} rows")));
        }
        if self.form == Form::Object && affected != 1 {
            return Err(not_one_row(affected));
        }
        Ok(())
    }

    fn done(&self, tx: &Connection, rowids: &[i64], inserted: u64) -> Result<Done, RestError> {
        let affected = rowids.len() as u64;
        self.check_affected(affected)?;
        let mut done = Done { affected, inserted, rows: None, key: None };
        if self.preferences.give == Give::Minimal {
            return Ok(done);
        }
        let visible = read::visible(self.table, &self.caller)?;
        let condition = Condition::All(vec![visible, read::among(rowids)]);
        if self.preferences.give == Give::Representation {
            let selection = resolve::selection(self.table, &self.query, condition)?;
            done.rows = Some(read::rows(tx, &selection, self.window)?);
        } else if affected == 1 && inserted == 1 {
            let all = resolve::selection(self.table, &Query::default(), condition)?;
            done.key = read::rows(tx, &all, Window { offset: 0, limit: None })?.pop();
        }
        Ok(done)
    }
}

/// The error of an object that is not one row.
pub(super) fn not_one_row(rows: u64) -> RestError {
    RestError::new("PGRST116", "Cannot coerce the result to a single JSON object")
        .details(format!("The result contains {rows} rows"))
}

fn denied_column(table: &Table, column: &Column) -> RestError {
    RestError::denied(table.name)
        .details(format!("the column \"{}\" is not yours to write", column.name))
}

fn holds(row: &[(&'static str, Sql)], owned: &Owned, caller: &Caller) -> bool {
    let value = row.iter().find(|(name, _)| *name == owned.column);
    matches!((value, owned.claim.of(caller)), (Some((_, Sql::Text(text))), Some(claim)) if text == claim)
}

/// The condition that rows are in a state that may be left or kept; an error when a row that the
/// update would reach may not take the step.
fn steps(
    table: &'static Table,
    moves: &Moves,
    body: &Values,
    reached: &[Condition],
    tx: &Connection,
) -> Result<Option<Condition>, RestError> {
    if body.iter().all(|(column, _)| moves.always.contains(&column.name)) {
        return Ok(None);
    }
    let Some(column) = table.column(moves.column) else {
        return Err(RestError::new("XX000", "the table's rights name a column that it lacks"));
    };
    let among = |states: Vec<&'static str>| {
        Condition::In(Target { column, path: None }, Value::from(states).to_string())
    };
    let to = body.iter().find(|(column, _)| column.name == moves.column);
    let legal = moves.steps.iter().filter(|(from, step_to)| match to {
        Some((_, Sql::Text(to))) => to == step_to,
        Some(_) => false,
        None => from == step_to,
    });
    let legal = among(legal.map(|(from, _)| *from).collect());
    let open = among(moves.steps.iter().map(|(from, _)| *from).collect());
    let mut refused = reached.to_vec();
    refused.extend([open.clone(), Condition::Not(Box::new(legal))]);
    if read::count(tx, table, &Condition::All(refused))? > 0 {
        return Err(RestError::violates_policy(table.name)
            .details(format!("\"{}\" may not take that step", moves.column)));
    }
    Ok(Some(open))
}
