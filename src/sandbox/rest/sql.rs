//! Typed queries as SQL.
//!
//! The text of a statement is made of `&'static str` only (words of ours and names of the schema);
//! everything else is a bound parameter. So the shape of a request decides the text, never a value.

use rusqlite::types::Value as Sql;

use super::query::{Compare, Is};
use super::resolve::{Condition, Selection, Target};
use crate::sandbox::store::schema::Table;

/// A statement and its parameters in order.
#[derive(Debug, Default)]
pub(super) struct Statement {
    text: String,
    values: Vec<Sql>,
}

impl Statement {
    /// Starts with these words.
    pub(super) fn new(words: &'static str) -> Self {
        Self { text: words.to_owned(), values: Vec::new() }
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The parameters.
    pub(super) fn values(&self) -> impl Iterator<Item = &Sql> {
        self.values.iter()
    }

    /// Adds words.
    pub(super) fn push(&mut self, words: &'static str) -> &mut Self {
        self.text.push_str(words);
        self
    }

    /// Adds the name of a table or column of the schema.
    pub(super) fn name(&mut self, name: &'static str) -> &mut Self {
        self.push("\"").push(name).push("\"")
    }

    /// Adds a parameter.
    pub(super) fn bind(&mut self, value: Sql) -> &mut Self {
        self.values.push(value);
        self.push("?")
    }

    /// Adds what `item` adds for each, with commas between.
    pub(super) fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (index, each) in items.into_iter().enumerate() {
            if index > 0 {
                self.push(", ");
            }
            item(self, each);
        }
        self
    }

    /// Adds `FROM "table" WHERE condition`.
    pub(super) fn table_where(
        &mut self,
        table: &'static Table,
        condition: &Condition,
    ) -> &mut Self {
        self.push(" FROM ").name(table.name).push(" WHERE ").condition(condition)
    }

    /// Adds a condition.
    pub(super) fn condition(&mut self, condition: &Condition) -> &mut Self {
        match condition {
            Condition::Not(inner) => self.push("NOT (").condition(inner).push(")"),
            Condition::All(members) => self.joined(members, " AND ", "1"),
            Condition::Any(members) => self.joined(members, " OR ", "0"),
            Condition::Compare(target, compare, value) => self.compare(target, *compare, value),
            Condition::In(target, values) => {
                let values = Sql::Text(values.clone());
                self.target(target)
                    .push(" IN (SELECT value FROM json_each(")
                    .bind(values)
                    .push("))")
            }
            Condition::Rows(rows) => {
                let rows = Sql::Text(rows.clone());
                self.push("rowid IN (SELECT value FROM json_each(").bind(rows).push("))")
            }
            Condition::Is(target, is) => self.target(target).push(match is {
                Is::Null | Is::Unknown => " IS NULL",
                Is::NotNull => " IS NOT NULL",
                Is::True => " IS 1",
                Is::False => " IS 0",
            }),
        }
    }

    fn joined(
        &mut self,
        members: &[Condition],
        between: &'static str,
        none: &'static str,
    ) -> &mut Self {
        if members.is_empty() {
            return self.push(none);
        }
        self.push("(");
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                self.push(between);
            }
            self.condition(member);
        }
        self.push(")")
    }

    fn compare(&mut self, target: &Target, compare: Compare, value: &Sql) -> &mut Self {
        let between = match compare {
            Compare::Like => return self.like("pg_like(", target, value),
            Compare::Ilike => return self.like("pg_ilike(", target, value),
            Compare::Eq => " = ",
            Compare::Neq => " <> ",
            Compare::Gt => " > ",
            Compare::Gte => " >= ",
            Compare::Lt => " < ",
            Compare::Lte => " <= ",
        };
        self.target(target).push(between).bind(value.clone())
    }

    fn like(&mut self, function: &'static str, target: &Target, pattern: &Sql) -> &mut Self {
        self.push(function).target(target).push(", ").bind(pattern.clone()).push(")")
    }

    fn target(&mut self, target: &Target) -> &mut Self {
        let name = target.column.name;
        match &target.path {
            None => self.name(name),
            Some(path) => {
                let function = if path.as_text { "pg_json_text(" } else { "pg_json(" };
                self.push(function)
                    .name(name)
                    .push(", ")
                    .bind(Sql::Text(path.steps.clone()))
                    .push(")")
            }
        }
    }
}

/// `SELECT outputs FROM table WHERE condition ORDER BY order LIMIT limit OFFSET offset`; in the
/// order of insertion when none is asked for.
pub(super) fn select(selection: &Selection, limit: Option<u64>, offset: u64) -> Statement {
    let mut sql = Statement::new("SELECT ");
    sql.list(&selection.outputs, |sql, output| {
        sql.target(&output.target);
    });
    sql.table_where(selection.table, &selection.condition).push(" ORDER BY ");
    if selection.order.is_empty() {
        sql.push("rowid");
    }
    sql.list(&selection.order, |sql, order| {
        sql.target(&order.target).push(if order.descending { " DESC" } else { " ASC" });
        // SQLite cannot use an index for the other order of NULLs, so a column without any is
        // left alone.
        if order.target.nullable() {
            sql.push(if order.nulls_first { " NULLS FIRST" } else { " NULLS LAST" });
        }
    });
    let number = |number: u64| Sql::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    sql.push(" LIMIT ").bind(limit.map_or(Sql::Integer(-1), number));
    sql.push(" OFFSET ").bind(number(offset));
    sql
}

/// `SELECT count(*) FROM table WHERE condition`
pub(super) fn count(table: &'static Table, condition: &Condition) -> Statement {
    let mut sql = Statement::new("SELECT count(*)");
    sql.table_where(table, condition);
    sql
}

/// `UPDATE table SET column = value, .. WHERE condition RETURNING rowid`
pub(super) fn update(
    table: &'static Table,
    set: Vec<(&'static str, Sql)>,
    condition: &Condition,
) -> Statement {
    let mut sql = Statement::new("UPDATE ");
    sql.name(table.name).push(" SET ").list(set, |sql, (column, value)| {
        sql.name(column).push(" = ").bind(value);
    });
    sql.push(" WHERE ").condition(condition).push(" RETURNING rowid");
    sql
}

/// `DELETE FROM table WHERE condition RETURNING rowid`
pub(super) fn delete(table: &'static Table, condition: &Condition) -> Statement {
    let mut sql = Statement::new("DELETE");
    sql.table_where(table, condition).push(" RETURNING rowid");
    sql
}

/// What an INSERT does when the row is there already.
#[derive(Debug, Clone, Copy)]
pub(super) enum OnConflict<'a> {
    /// An error.
    Fail,
    /// Nothing.
    Ignore(&'a [&'static str]),
    /// Sets these columns to the new row's.
    Merge(&'a [&'static str], &'a [&'static str]),
}

/// `INSERT INTO table (columns) VALUES (values) ON CONFLICT .. RETURNING rowid`
pub(super) fn insert(
    table: &'static Table,
    row: &[(&'static str, Sql)],
    conflict: OnConflict<'_>,
) -> Statement {
    let mut sql = Statement::new("INSERT INTO ");
    sql.name(table.name);
    if row.is_empty() {
        sql.push(" DEFAULT VALUES");
    } else {
        let names = row.iter().map(|(name, _)| *name);
        sql.push(" (").list(names, |sql, name| {
            sql.name(name);
        });
        let values = row.iter().map(|(_, value)| value.clone());
        sql.push(") VALUES (").list(values, |sql, value| {
            sql.bind(value);
        });
        sql.push(")");
    }
    let (OnConflict::Ignore(keys) | OnConflict::Merge(keys, _)) = conflict else {
        sql.push(" RETURNING rowid");
        return sql;
    };
    sql.push(" ON CONFLICT (").list(keys.iter().copied(), |sql, name| {
        sql.name(name);
    });
    match conflict {
        OnConflict::Merge(_, set) if !set.is_empty() => {
            sql.push(") DO UPDATE SET ").list(set.iter().copied(), |sql, name| {
                sql.name(name).push(" = excluded.").name(name);
            });
        }
        OnConflict::Fail | OnConflict::Ignore(_) | OnConflict::Merge(..) => {
            sql.push(") DO NOTHING");
        }
    }
    sql.push(" RETURNING rowid");
    sql
}
