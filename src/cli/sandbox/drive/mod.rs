//! `sandbox drive …`: what people do with drives. VMs see it as any other change.

pub(crate) mod args;
mod change;
mod copy;

use serde_json::{Value, json};
use uuid::Uuid;

use self::args::{Access, CreateArgs, DriveCommand, ListArgs, LsArgs, OfDrive};
use super::client;
use super::outcome::text;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::{printable, table};
use crate::drive_sync::wire::{Entry, EntryType};
use crate::sandbox::AdminClient;

/// Runs the command.
pub(super) async fn run(context: &Context, command: &DriveCommand) -> Outcome {
    match command {
        DriveCommand::Create(args) => create(context, args).await,
        DriveCommand::List(args) => list(context, args).await,
        DriveCommand::Ls(args) => ls(context, args).await,
        DriveCommand::Put(args) => copy::put(context, args).await,
        DriveCommand::Get(args) => copy::get(context, args).await,
        DriveCommand::Mkdir(args) => change::mkdir(context, args).await,
        DriveCommand::Rm(args) => change::rm(context, args).await,
        DriveCommand::Mv(args) => change::mv(context, args).await,
    }
}

async fn create(context: &Context, args: &CreateArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let access = match args.access {
        Access::None => "none",
        Access::Read => "read",
        Access::Write => "write",
    };
    let drive = client.create_drive(&args.name, access).await?;
    if args.common.json {
        context.ui.out(&table::json(&drive))?;
    } else {
        context.ui.out(&printable::line(text(&drive, "slug")))?;
    }
    Ok(Exit::Done)
}

async fn list(context: &Context, args: &ListArgs) -> Outcome {
    let client = client(context, &args.common).await?;
    let drives = client.drives().await?;
    if args.common.json {
        context.ui.out(&table::json(&Value::Array(drives)))?;
    } else if drives.is_empty() {
        context.ui.note("no drives; `panorama-gateway sandbox drive create NAME` makes one");
    } else {
        let rows = drives.iter().map(|drive| {
            let field = |name| printable::line(text(drive, name));
            let number = |name| drive[name].to_string();
            [
                field("name"),
                field("slug"),
                field("access"),
                number("entries"),
                number("size_bytes"),
                field("drive_id"),
            ]
        });
        let headings = ["NAME", "SLUG", "GATEWAYS MAY", "ENTRIES", "BYTES", "ID"];
        context.ui.out(&table::text(headings, rows.collect()))?;
    }
    Ok(Exit::Done)
}

async fn ls(context: &Context, args: &LsArgs) -> Outcome {
    let drive = Drive::find(context, &args.of).await?;
    let path = clean(&args.path);
    let (own, mut entries) = drive.below(path, args.recursive).await?;
    match own {
        None if !path.is_empty() => return Err(nothing_at(path)),
        Some(file) if file.entry_type == EntryType::File => entries = vec![file],
        Some(_) | None => {}
    }
    if args.of.common.json {
        context.ui.out(&table::json(&json!(entries)))?;
    } else if entries.is_empty() {
        context.ui.note("nothing is there");
    } else {
        let rows = entries.iter().map(row).collect();
        context.ui.out(&table::text(["BYTES", "CHANGED", "PATH"], rows))?;
    }
    Ok(Exit::Done)
}

fn row(entry: &Entry) -> [String; 3] {
    let path = printable::line(&entry.path);
    let (size, slash) = match entry.size_bytes {
        Some(size) => (size.to_string(), ""),
        None => ("-".to_owned(), "/"),
    };
    [size, printable::line(&entry.updated_at), format!("{path}{slash}")]
}

/// One drive of a running sandbox.
struct Drive {
    client: AdminClient,
    id: String,
}

impl Drive {
    /// The one that was named, by name, slug or id; else the oldest.
    async fn find(context: &Context, of: &OfDrive) -> Result<Self, Failure> {
        let client = client(context, &of.common).await?;
        let drives = client.drives().await?;
        let found = match &of.drive {
            Some(named) => ["drive_id", "slug", "name"]
                .iter()
                .find_map(|field| drives.iter().find(|drive| text(drive, field) == named)),
            None => drives.iter().min_by_key(|drive| text(drive, "created_at")),
        };
        let missing = || match &of.drive {
            Some(named) => Failure::new(format!("there is no drive {named:?}"))
                .hint("`panorama-gateway sandbox drive list` lists them"),
            None => Failure::new("this sandbox has no drive yet")
                .hint("`panorama-gateway sandbox drive create NAME` makes one"),
        };
        let id = text(found.ok_or_else(missing)?, "drive_id").to_owned();
        Ok(Self { client, id })
    }

    /// What is at a path.
    async fn at(&self, path: &str) -> Result<Option<Entry>, Failure> {
        if path.is_empty() {
            return Ok(None);
        }
        Ok(self.client.drive_entries(&self.id, path, "", false).await?.entry)
    }

    /// Whether a directory is at a path; the root is one.
    async fn is_directory(&self, path: &str) -> Result<bool, Failure> {
        let entry = self.at(path).await?;
        Ok(path.is_empty() || entry.is_some_and(|entry| entry.entry_type == EntryType::Directory))
    }

    /// What is at a path, and what is below it, by path.
    async fn below(&self, path: &str, all: bool) -> Result<(Option<Entry>, Vec<Entry>), Failure> {
        let mut page = self.client.drive_entries(&self.id, path, "", all).await?;
        let (own, mut entries) = (page.entry.take(), page.entries);
        let mut has_more = page.has_more;
        while has_more {
            let after = entries.last().map_or_else(String::new, |last| last.path.clone());
            let page = self.client.drive_entries(&self.id, path, &after, all).await?;
            entries.extend(page.entries);
            has_more = page.has_more;
        }
        Ok((own, entries))
    }
}

/// People write slashes at either end.
fn clean(path: &str) -> &str {
    path.trim_matches('/')
}

/// Where something goes that was told to go to `to`, which is a directory or not.
fn into(to: &str, is_directory: bool, name: &str) -> String {
    match (is_directory, clean(to)) {
        (true, "") => name.to_owned(),
        (true, directory) => format!("{directory}/{name}"),
        (false, path) => path.to_owned(),
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn nothing_at(path: &str) -> Failure {
    Failure::new(format!("nothing is at {path:?}"))
        .hint("`panorama-gateway sandbox drive ls` shows what is there")
}

fn new_operation() -> String {
    Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_the_name() {
        for (to, is_directory, path) in [
            ("", true, "f"),
            ("/", true, "f"),
            ("d/", true, "d/f"),
            ("/d/e", true, "d/e/f"),
            ("/d/e", false, "d/e"),
        ] {
            assert_eq!(into(to, is_directory, "f"), path);
        }
        assert_eq!((name_of("a/b"), name_of("b")), ("b", "b"));
    }
}
