//! Each rule is taken away in turn, and some cell must have another outcome.

use tokio::time::Instant;

use super::matrix::{self, Row};
use super::seed::states;
use super::world::{Who, World};
use crate::sandbox::rules::{Rule, Rules};
use crate::sandbox::store::schema::{Insert, Moves, Owned, Rights, Schema, Table, Update};

/// The first cell of these rows that is otherwise in `world`.
async fn noticed(world: &mut World, rows: &[&Row], callers: &[Who]) -> Option<String> {
    for row in rows {
        for (at, (who, caller)) in Who::ALL.into_iter().enumerate() {
            if !callers.contains(&who) {
                continue;
            }
            let seen = matrix::outcome(world, row.name, who).await;
            if seen != row.words[at] {
                return Some(format!("{} / {caller}: {} → {seen}", row.name, row.words[at]));
            }
        }
    }
    None
}

/// Each rule with the rows that are to notice; a row is named by its beginning.
const RULES: [(Rule, &str); 69] = [
    (Rule::Host, "any route under a foreign Host"),
    (Rule::Origin, "any admin route from a foreign page"),
    (Rule::Key, "GET /auth/v1/user"),
    (Rule::Key, "GET /storage/v1/object/{bucket}/{name}"),
    (Rule::Key, "GET /realtime/v1/websocket"),
    (Rule::Key, "GET /realtime/v1/websocket, a wrong key"),
    (Rule::Session, "gateway_jobs: read"),
    (Rule::Session, "GET /storage/v1/object/{bucket}/{name}"),
    (Rule::Signature, "gateway_jobs: read"),
    (Rule::Signature, "GET /storage/v1/object/{bucket}/{name}"),
    (Rule::Signature, "gateway_jobs: changes"),
    (Rule::Expiry, "gateway_jobs: read"),
    (Rule::Expiry, "GET /storage/v1/object/{bucket}/{name}"),
    (Rule::Expiry, "gateway_jobs: changes"),
    (Rule::Beginning, "GET /auth/v1/user, a token of tomorrow"),
    (Rule::Kind, "gateway_jobs: read"),
    (Rule::Kind, "GET /storage/v1/object/{bucket}/{name}"),
    (Rule::Kind, "gateway_jobs: changes"),
    (Rule::OpenSession, "GET /auth/v1/user, the session ended"),
    (Rule::Refresh, "POST /auth/v1/token, the session ended"),
    (Rule::Reuse, "POST /auth/v1/token, a token long used"),
    (Rule::Admin, "GET /admin/v1/info"),
    (Rule::Toggle, "POST /functions/v1/set-gateway-full-control"),
    (Rule::ToggleTeam, "POST /functions/v1/set-gateway-full-control, a gateway"),
    (Rule::CodeOnce, "POST /functions/v1/exchange-gateway-pairing-code, a used"),
    (Rule::CodeExpiry, "POST /functions/v1/exchange-gateway-pairing-code, an expired"),
    (Rule::Guesses, "POST /functions/v1/exchange-gateway-pairing-code, after ten"),
    (Rule::VmTokenOnce, "POST /functions/v1/exchange-vm-bootstrap-token, a used"),
    (Rule::VmTokenExpiry, "POST /functions/v1/exchange-vm-bootstrap-token, an expired"),
    (Rule::BeatTeam, "POST /functions/v1/gateway-heartbeat"),
    (Rule::RunTeam, "POST /functions/v1/finalize-gateway-subagent-run"),
    (Rule::RunGateway, "POST /functions/v1/finalize-gateway-subagent-run"),
    (Rule::RunAssigned, "POST /functions/v1/finalize-gateway-subagent-run"),
    (Rule::RunOver, "POST /functions/v1/finalize-gateway-subagent-run, again"),
    (Rule::ObjectTeam, "GET /storage/v1/object/{bucket}/{name}"),
    (Rule::ObjectTeam, "DELETE /storage/v1/object/{bucket}"),
    (Rule::Bucket, "any storage request of a session, a bucket that"),
    (Rule::ObjectStays, "POST /storage/v1/object/{bucket}/{name}, what is there"),
    (Rule::ObjectSize, "POST /storage/v1/object/{bucket}/{name}, larger"),
    (Rule::UrlSignature, "GET /storage/v1/object/sign/{bucket}/{name}, forged"),
    (Rule::UrlSignature, "PUT /storage/v1/object/upload/sign/{bucket}/{name}, forged"),
    (Rule::UrlExpiry, "GET /storage/v1/object/sign/{bucket}/{name}, expired"),
    (Rule::UrlExpiry, "PUT /storage/v1/object/upload/sign/{bucket}/{name}, expired"),
    (Rule::UrlBucket, "GET /storage/v1/object/sign/{bucket}/{name}, of another bucket"),
    (Rule::UrlBucket, "PUT /storage/v1/object/upload/sign/{bucket}/{name}, of another bucket"),
    (Rule::UrlName, "GET /storage/v1/object/sign/{bucket}/{name}, of another name"),
    (Rule::UrlName, "PUT /storage/v1/object/upload/sign/{bucket}/{name}, of another name"),
    (Rule::UrlReads, "GET /storage/v1/object/sign/{bucket}/{name}, made to store"),
    (Rule::UrlStores, "PUT /storage/v1/object/upload/sign/{bucket}/{name}, made to read"),
    (Rule::UrlReplaces, "PUT /storage/v1/object/upload/sign/{bucket}/{name}, what is there"),
    (Rule::UrlSignature, "GET /drives/v1/contents/{version}, forged"),
    (Rule::UrlSignature, "PUT /drives/v1/uploads/{upload}/{part}, forged"),
    (Rule::UrlExpiry, "GET /drives/v1/contents/{version}, expired"),
    (Rule::UrlExpiry, "PUT /drives/v1/uploads/{upload}/{part}, expired"),
    (Rule::Signature, "POST /functions/v1/vm-drive-sync, a drive token"),
    (Rule::Expiry, "POST /functions/v1/vm-drive-sync, a drive token"),
    (Rule::DriveKind, "POST /functions/v1/vm-drive-sync"),
    (Rule::DrivePaired, "POST /functions/v1/vm-drive-sync, a drive token, the session"),
    (Rule::DriveTeam, "POST /functions/v1/vm-drive-sync, a drive token, a drive for the team"),
    (Rule::DriveAccess, "POST /functions/v1/vm-drive-sync, a drive token, a drive for the owner"),
    (Rule::DriveReadOnly, "POST /functions/v1/vm-drive-sync, a drive token, a write"),
    (Rule::DriveVersion, "POST /functions/v1/vm-drive-sync, a drive token, a version"),
    (Rule::DriveContent, "POST /functions/v1/vm-drive-sync, a drive token, a content"),
    (Rule::DriveUrlPurpose, "GET /drives/v1/contents/{version}, made"),
    (Rule::DriveUrlPurpose, "PUT /drives/v1/uploads/{upload}/{part}, made"),
    (Rule::DriveUrlName, "GET /drives/v1/contents/{version}, of another"),
    (Rule::Reader, "gateway_jobs: changes"),
    (Rule::ChannelExpiry, "GET /realtime/v1/websocket, a channel whose"),
    (Rule::Renewal, "GET /realtime/v1/websocket, the owner's"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_rule_of_the_server_some_cell_fails() {
    let started = Instant::now();
    let untested: Vec<_> =
        Rule::ALL.iter().filter(|rule| RULES.iter().all(|(known, _)| known != *rule)).collect();
    assert!(untested.is_empty(), "no rows are to notice {untested:?}");
    let rows = matrix::rows();
    let mut unnoticed = Vec::new();
    for (rule, beginning) in RULES {
        let mut world = World::new(Schema::built_in(), Rules { broken: Some(rule) }).await;
        let suspects: Vec<&Row> =
            rows.iter().filter(|row| row.name.starts_with(beginning)).collect();
        match noticed(&mut world, &suspects, &Who::ALL.map(|(who, _)| who)).await {
            Some(cell) => println!("{rule:?} → {cell}"),
            None => unnoticed.push((rule, beginning)),
        }
        world.end().await;
    }
    println!("{} rules in {:?}", Rule::ALL.len(), started.elapsed());
    assert!(unnoticed.is_empty(), "nothing notices without {unnoticed:?}");
}

/// A change of a table's rights, and the end of the name of the row that is to notice.
struct Mutation {
    what: String,
    rights: Rights,
    row: String,
}

fn leaked<T>(items: Vec<T>) -> &'static [T] {
    Vec::leak(items)
}

fn without<T: Copy>(items: &[T], at: usize) -> &'static [T] {
    let kept = items.iter().enumerate().filter(|(index, _)| *index != at);
    leaked(kept.map(|(_, item)| *item).collect())
}

fn with<T: Copy>(items: &[T], item: T) -> &'static [T] {
    leaked(items.iter().copied().chain([item]).collect())
}

fn mutations(table: &Table) -> Vec<Mutation> {
    let rights = table.rights;
    let mut all = Vec::new();
    let mut add = |what: String, rights: Rights, row: &str| {
        all.push(Mutation { what, rights, row: row.to_owned() });
    };
    let names: Vec<&'static str> = table.columns.iter().map(|column| column.name).collect();
    let everything: &'static [&'static str] = leaked(names);
    // What may not be read may not be changed either, so such a right counts with that to read.
    let seen = Rights { select: rights.select.or(Some(&[])), ..rights };
    // Realtime shows what REST shows.
    for row in ["read", "changes"] {
        match rights.select {
            None => add(format!("select is given ({row})"), seen, row),
            Some(rows) => drops(rows, |what, rows| {
                let rights = Rights { select: Some(rows), ..rights };
                add(format!("select {what} ({row})"), rights, row);
            }),
        }
    }
    match rights.delete {
        None => add("delete is given".into(), Rights { delete: Some(&[]), ..seen }, "delete"),
        Some(rows) => drops(rows, |what, rows| {
            add(format!("delete {what}"), Rights { delete: Some(rows), ..rights }, "delete");
        }),
    }
    if let Some(insert) = rights.insert {
        let mut changed = |what: String, insert: Insert, row: &str| {
            add(format!("insert {what}"), Rights { insert: Some(insert), ..rights }, row);
        };
        drops(insert.owned, |what, owned| {
            changed(what, Insert { owned, ..insert }, "insert in another's name");
        });
        for name in everything.iter().filter(|name| !insert.columns.contains(name)) {
            let columns = with(insert.columns, *name);
            changed(format!("allows {name}"), Insert { columns, ..insert }, "insert other columns");
        }
    } else {
        let insert = Some(Insert { columns: everything, owned: &[] });
        add("insert is given".into(), Rights { insert, ..rights }, "insert");
    }
    if let Some(update) = rights.update {
        of_update(table, update, everything, |what, update, row| {
            add(format!("update {what}"), Rights { update: Some(update), ..rights }, row);
        });
    } else {
        let update = Update { rows: &[], columns: everything, pinned: &[], moves: None };
        add("update is given".into(), Rights { update: Some(update), ..seen }, "update");
    }
    all
}

fn drops(owned: &'static [Owned], mut each: impl FnMut(String, &'static [Owned])) {
    for (at, one) in owned.iter().enumerate() {
        each(format!("drops the clause on {}", one.column), without(owned, at));
    }
}

fn of_update(
    table: &Table,
    update: Update,
    everything: &'static [&'static str],
    mut add: impl FnMut(String, Update, &str),
) {
    drops(update.rows, |what, rows| add(what, Update { rows, ..update }, "update"));
    for name in everything.iter().filter(|name| !update.columns.contains(name)) {
        let columns = with(update.columns, *name);
        let is_pinned = update.pinned.iter().any(|pinned| pinned.column == *name);
        let row = if is_pinned { "update in another's name" } else { "update other columns" };
        add(format!("allows {name}"), Update { columns, ..update }, row);
    }
    drops(update.pinned, |what, pinned| {
        add(format!("pin: {what}"), Update { pinned, ..update }, "update");
    });
    let Some(moves) = update.moves else { return };
    add("drops the steps".into(), Update { moves: None, ..update }, "update in a final state");
    let listed = format!("{} {}→{}", moves.column, moves.steps[0].0, moves.steps[0].1);
    for from in states(table.name) {
        for to in states(table.name) {
            let at = moves.steps.iter().position(|step| step == &(*from, *to));
            let is_open = moves.steps.iter().any(|(open, _)| open == from);
            let (what, steps, row) = match at {
                Some(at) => ("forbids", without(moves.steps, at), listed.clone()),
                None if is_open => {
                    let row = format!("{} any other step", moves.column);
                    ("allows", with(moves.steps, (*from, *to)), row)
                }
                None => {
                    let steps = with(moves.steps, (*from, *to));
                    ("allows", steps, "update in a final state".into())
                }
            };
            let moves = Some(Moves { steps, ..moves });
            add(format!("{what} {from}→{to}"), Update { moves, ..update }, &row);
        }
    }
    for name in update.columns.iter().filter(|name| **name != moves.column) {
        let at = moves.always.iter().position(|free| free == name);
        let (what, always, row) = match at {
            Some(at) => ("locks", without(moves.always, at), "in any state"),
            None => ("frees", with(moves.always, *name), "update in a final state"),
        };
        let moves = Some(Moves { always, ..moves });
        add(format!("{what} {name}"), Update { moves, ..update }, row);
    }
}

fn changed(table: &'static Table, rights: Rights) -> Schema {
    let Table { name, columns, key, unique, touched, .. } = *table;
    let table = Table { name, columns, key, unique, touched, rights };
    Schema::built_in().with_table(Box::leak(Box::new(table)), "")
}

/// The cell that notices a changed right.
async fn notices(
    rows: &[Row],
    table: &'static Table,
    mutation: Mutation,
) -> (String, Option<String>) {
    // Rights tell gateways apart; others have none to lose.
    let callers = [Who::Owner, Who::Sibling, Who::Stranger, Who::Moved];
    let Mutation { what, rights, row } = mutation;
    let is_suspect = |known: &&Row| {
        known.name.split_once(": ").is_some_and(|(name, operation)| {
            let is_row = operation == row
                || (row == "changes" && operation.starts_with(&row))
                || (row.contains('→') && operation.starts_with(&row))
                || (row == "in any state" && operation.ends_with(&row));
            name == table.name && is_row
        })
    };
    let suspects: Vec<&Row> = rows.iter().filter(is_suspect).collect();
    let mut world = World::new(changed(table, rights), Rules::default()).await;
    let cell = noticed(&mut world, &suspects, &callers).await;
    world.end().await;
    (format!("{}: {what}", table.name), cell)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_right_as_it_is_some_cell_fails() {
    let started = Instant::now();
    let rows = matrix::rows();
    let all: Vec<_> = Schema::built_in()
        .tables()
        .flat_map(|table| mutations(table).into_iter().map(move |mutation| (table, mutation)))
        .collect();
    let (count, mut unnoticed) = (all.len(), Vec::new());
    let mut waiting = all.into_iter();
    loop {
        let some: Vec<_> = waiting.by_ref().take(8).collect();
        if some.is_empty() {
            break;
        }
        let tried = some.into_iter().map(|(table, mutation)| notices(&rows, table, mutation));
        for (what, cell) in futures_util::future::join_all(tried).await {
            match cell {
                Some(cell) => println!("{what} → {cell}"),
                None => unnoticed.push(what),
            }
        }
    }
    println!("{count} rights in {:?}", started.elapsed());
    assert!(unnoticed.is_empty(), "nothing notices: {unnoticed:#?}");
}
