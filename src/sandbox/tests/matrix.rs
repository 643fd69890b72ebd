//! Every cell.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::world::{Who, World};
use super::{endpoints, realtime, tables};
use crate::sandbox::rules::Rules;
use crate::sandbox::store::schema::Schema;

const PAGE: &str = include_str!("../../../docs/ACCESS.md");

/// A row of the page: its name, and a word for each caller.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) words: Vec<&'static str>,
}

/// All rows of the page, in order. A row is a table line whose first cell is in code font.
pub(super) fn rows() -> Vec<Row> {
    let cells = |line: &'static str| -> Vec<&'static str> {
        line.trim().trim_matches('|').split('|').map(str::trim).collect()
    };
    let rows = PAGE.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let mut words = cells(line);
        let name = words.remove(0).trim_matches('`');
        Row { name, words }
    });
    rows.collect()
}

/// What a cell is in fact.
pub(super) async fn outcome(world: &mut World, row: &str, who: Who) -> String {
    if realtime::is_about(row) {
        return world.hears(row, who).await;
    }
    let schema = Schema::built_in();
    let of_table =
        row.split_once(": ").and_then(|(table, operation)| Some((schema.table(table)?, operation)));
    let probes = match of_table {
        Some((table, operation)) => tables::probes(world, table, operation, who),
        None => endpoints::probes(world, row, who).unwrap_or_default(),
    };
    assert!(!probes.is_empty(), "nothing is known of the row {row:?}");
    let mut seen = BTreeSet::new();
    for probe in probes {
        seen.insert(world.outcome(who, &probe).await);
    }
    seen.into_iter().collect::<Vec<_>>().join(" or ")
}

#[test]
fn everything_that_is_served_has_its_rows() {
    let mut wanted: BTreeSet<String> = endpoints::rows().into_iter().collect();
    for table in Schema::built_in().tables() {
        let rows = tables::operations(table);
        wanted.extend(rows.iter().map(|operation| format!("{}: {operation}", table.name)));
    }
    let listed: BTreeSet<String> = rows().iter().map(|row| row.name.to_owned()).collect();
    assert_eq!(listed.len(), rows().len(), "a row is listed twice");
    let missing: Vec<_> = wanted.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&wanted).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing {missing:#?}, unknown {unknown:#?}");
    let head = PAGE.lines().find(|line| line.starts_with("| what")).unwrap();
    let callers: Vec<&str> = head.trim_matches('|').split('|').skip(1).map(str::trim).collect();
    assert_eq!(callers, Who::ALL.map(|(_, name)| name));
}

#[tokio::test]
async fn every_cell_is_as_it_stands_in_the_page() {
    let started = Instant::now();
    let mut world = World::new(Schema::built_in(), Rules::default()).await;
    let (mut cells, mut wrong) = (0, Vec::new());
    for row in rows() {
        let mut line = vec![format!("| `{}`", row.name)];
        let mut differs = row.words.len() != Who::ALL.len();
        for (at, (who, _)) in Who::ALL.into_iter().enumerate() {
            let seen = outcome(&mut world, row.name, who).await;
            differs |= row.words.get(at) != Some(&seen.as_str());
            line.push(seen);
            cells += 1;
        }
        if differs {
            wrong.push(line.join(" | ") + " |");
        }
    }
    world.end().await;
    println!("{cells} cells in {:?}", started.elapsed());
    assert!(wrong.is_empty(), "these rows are otherwise:\n{}", wrong.join("\n"));
}
