//! The operator's side: which drives there are, who may use them, what is in them.

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::error::{Failure, Refused};
use super::tree::{self, new_id};
use super::{feed, path};
use crate::drive_sync::wire::Entry;
use crate::sandbox::app::{now_micros, wire_time};

/// Characters of a drive's name.
const MAX_NAME: usize = 100;

/// A drive that is to be.
#[derive(Debug, Clone)]
pub(in crate::sandbox) struct NewDrive {
    pub(in crate::sandbox) name: String,
    /// `none`, `read` or `write`: of gateways that nothing else was said of.
    pub(in crate::sandbox) access: String,
}

/// Makes a drive.
pub(in crate::sandbox) fn create(
    tx: &Connection,
    team_id: &str,
    new: &NewDrive,
) -> Result<Value, Failure> {
    let name = new.name.trim();
    let is_name =
        !name.is_empty() && name.chars().count() <= MAX_NAME && !name.chars().any(char::is_control);
    if !is_name {
        let message = format!("a drive's name has 1 to {MAX_NAME} characters that can be printed");
        return Err(Refused::invalid(message).into());
    }
    check_access(&new.access)?;
    let taken: bool = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM drives WHERE team_id = ?1 AND name = ?2)",
        [team_id, name],
        |row| row.get(0),
    )?;
    if taken {
        return Err(Refused::invalid(format!("there is a drive {name:?} already")).into());
    }
    let id = new_id();
    tx.execute(
        "INSERT INTO drives (id, team_id, name, slug, epoch, default_access, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![id, team_id, name, slug(tx, team_id, name)?, new_id(), new.access, now_micros()],
    )?;
    let mut drives = list(tx, team_id)?;
    drives.retain(|drive| drive["drive_id"] == id.as_str());
    Ok(drives.pop().ok_or_else(Refused::internal)?)
}

fn check_access(word: &str) -> Result<(), Refused> {
    if ["none", "read", "write"].contains(&word) {
        return Ok(());
    }
    Err(Refused::invalid("access is none, read or write"))
}

/// A name for directories that no other drive of the team has.
fn slug(tx: &Connection, team_id: &str, name: &str) -> rusqlite::Result<String> {
    let mut slug = String::new();
    for character in name.chars() {
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    let slug = if slug.is_empty() { "drive" } else { slug };
    let is_taken = |slug: &str| -> rusqlite::Result<bool> {
        tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM drives WHERE team_id = ?1 AND slug = ?2)")?
            .query_row([team_id, slug], |row| row.get(0))
    };
    let (mut number, mut unique) = (1, slug.to_owned());
    while is_taken(&unique)? {
        number += 1;
        unique = format!("{slug}-{number}");
    }
    Ok(unique)
}

/// The team's drives, by name.
pub(in crate::sandbox) fn list(
    connection: &Connection,
    team_id: &str,
) -> rusqlite::Result<Vec<Value>> {
    connection
        .prepare_cached(
            "SELECT id, name, slug, epoch, head, default_access, created_at,
                 (SELECT count(*) FROM drive_changes WHERE drive = number
                      AND until IS NULL AND change <> 'delete'),
                 (SELECT coalesce(sum(size), 0) FROM drive_changes WHERE drive = number
                      AND until IS NULL AND change <> 'delete')
             FROM drives WHERE team_id = ?1 ORDER BY name, slug",
        )?
        .query_map([team_id], |row| {
            Ok(json!({
                "drive_id": row.get::<_, String>(0)?,
                "name": row.get::<_, String>(1)?,
                "slug": row.get::<_, String>(2)?,
                "epoch": row.get::<_, String>(3)?,
                "head_sequence": row.get::<_, i64>(4)?,
                "access": row.get::<_, String>(5)?,
                "created_at": wire_time(row.get(6)?),
                "entries": row.get::<_, i64>(7)?,
                "size_bytes": row.get::<_, i64>(8)?,
            }))
        })?
        .collect()
}

/// Says what a gateway may do with a drive, whatever the drive's own word is.
pub(in crate::sandbox) fn set_access(
    tx: &Connection,
    team_id: &str,
    drive_id: &str,
    (gateway_id, access): (&str, &str),
) -> Result<(), Failure> {
    check_access(access)?;
    let drive = feed::find_drive(tx, Some(team_id), drive_id)?.ok_or_else(Refused::no_drive)?;
    tx.execute(
        "INSERT INTO drive_access (drive, gateway_id, access) VALUES (?1, ?2, ?3)
         ON CONFLICT (drive, gateway_id) DO UPDATE SET access = excluded.access",
        params![drive.number, gateway_id, access],
    )?;
    Ok(())
}

/// What is at a path (the root has no entry of its own), and a page of what is below it, by path.
pub(in crate::sandbox) fn entries(
    connection: &Connection,
    team_id: &str,
    drive_id: &str,
    (directory, after): (&str, &str),
) -> Result<(Option<Entry>, Vec<Entry>, bool), Failure> {
    let drive =
        feed::find_drive(connection, Some(team_id), drive_id)?.ok_or_else(Refused::no_drive)?;
    let mut own = None;
    if !directory.is_empty() {
        path::check(directory)?;
        own = tree::find(connection, &drive, directory)?;
    }
    let limit = feed::PAGE;
    let mut below = feed::page(connection, &drive, drive.head, (directory, after), limit + 1)?;
    let has_more = below.len() > limit as usize;
    below.truncate(limit as usize);
    Ok((own, below, has_more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_plain_and_unique() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE drives (team_id TEXT, slug TEXT);
                 INSERT INTO drives VALUES ('t', 'shared'), ('t', 'shared-2'), ('u', 'other');",
            )
            .unwrap();
        for (name, slug) in [
            ("Shared", "shared-3"),
            ("Our  Files!", "our-files"),
            ("other", "other"),
            ("Ünïcödé", "n-c-d"),
            ("日本", "drive"),
        ] {
            assert_eq!(super::slug(&connection, "t", name).unwrap(), slug, "{name}");
        }
    }
}
