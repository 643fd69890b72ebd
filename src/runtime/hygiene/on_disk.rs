//! What is on disk, for `doctor`.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::places::{Keeper, Place, measure, places};
use crate::config::Paths;
use crate::doctor::Check;

/// A sweep comes every hour, and what it spares for a while is no reason to worry.
const OVERDUE: Duration = Duration::from_hours(24);

/// What one kind comes to.
struct Usage {
    kind: &'static str,
    title: &'static str,
    count: usize,
    bytes: u64,
    /// What to do, when it is past its bounds.
    hint: Option<&'static str>,
    bound: u64,
}

impl Usage {
    fn of(place: &Place, now: SystemTime) -> Self {
        let (mut bytes, mut overdue) = (0_u64, false);
        for entry in &place.found {
            let (size, changed) = measure(&entry.path);
            let age = changed.and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
            bytes = bytes.saturating_add(size);
            overdue |= age > place.bounds.age + OVERDUE;
        }
        // The file that is written may be as old as its last line.
        let overdue = overdue && place.kind != "logs" && place.kind != "audit";
        let count = place.found.len();
        let past = overdue || bytes > place.bounds.bytes || count >= place.entries;
        Self {
            kind: place.kind,
            title: place.title,
            count,
            bytes,
            hint: past.then(|| hint(place)),
            bound: place.bounds.bytes,
        }
    }

    fn for_people(&self) -> String {
        format!("{} {} ({})", self.title, self.count, size(self.bytes))
    }
}

fn hint(place: &Place) -> &'static str {
    match (place.kind, place.keeper) {
        ("journal", _) => {
            "results wait for the backend: `panorama-gateway logs` says why it does not take them"
        }
        (_, Keeper::Sweep | Keeper::SweepOfClosed | Keeper::Owner) => {
            "a running gateway clears that within an hour: `panorama-gateway start`; if it stays \
             so, `panorama-gateway logs` says why"
        }
    }
}

/// What the gateway's files come to. Reads directories, removes nothing.
pub(crate) fn check(paths: &Paths) -> Check {
    let now = SystemTime::now();
    let usages: Vec<_> = places(paths).iter().map(|place| Usage::of(place, now)).collect();
    report(&usages)
}

fn report(usages: &[Usage]) -> Check {
    const ID: &str = "on_disk";
    let there: Vec<_> =
        usages.iter().filter(|usage| usage.count > 0).map(Usage::for_people).collect();
    let past: Vec<_> = usages.iter().filter(|usage| usage.hint.is_some()).collect();
    let all = if there.is_empty() { "nothing yet".to_owned() } else { there.join(", ") };
    let check = match past.iter().find_map(|usage| usage.hint) {
        Some(hint) => {
            let titles: Vec<_> = past.iter().map(|usage| usage.title).collect();
            Check::warn(ID, format!("past the bounds: {}; of {all}", titles.join(", ")), hint)
        }
        None => Check::ok(ID, all),
    };
    let figures: Map<String, Value> = usages
        .iter()
        .map(|usage| {
            let Usage { count, bytes, bound, hint, .. } = usage;
            let figures = json!({
                "count": count, "bytes": bytes, "bytes_bound": bound, "past_bounds": hint.is_some(),
            });
            (usage.kind.to_owned(), figures)
        })
        .collect();
    check.with_figures(Value::Object(figures))
}

/// `12 B`, `3 KiB`, `4.5 MiB`.
fn size(bytes: u64) -> String {
    let unit = |shift: u32, name: &str| {
        let tenths = (bytes >> (shift - 10)) * 10 / 1024;
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    };
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => unit(20, "MiB"),
        _ => unit(30, "GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn sizes() {
        let shown = [0, 1023, 1024, 1_048_575, 3 << 19, 5 << 30].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1023 KiB", "1.5 MiB", "5.0 GiB"]);
    }

    #[test]
    fn what_is_past_its_bounds_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::in_dir(dir.path());
        let fresh = check(&paths);
        assert_eq!((fresh.status, fresh.detail.as_str()), (Status::Ok, "nothing yet"));
        std::fs::create_dir_all(paths.journal().join("rejected")).unwrap();
        std::fs::create_dir_all(paths.tmp()).unwrap();
        std::fs::write(paths.tmp().join("old"), "12345").unwrap();
        std::fs::write(paths.journal().join("j.json"), "{}").unwrap();
        std::fs::write(&paths.log_file, "a line\n").unwrap();
        std::fs::write(paths.audit_file(), "{}\n").unwrap();
        let in_order = check(&paths);
        let long_ago = SystemTime::now() - Duration::from_hours(24 * 9);
        let old = std::fs::File::open(paths.tmp().join("old")).unwrap();
        old.set_modified(long_ago).unwrap();
        let past = check(&paths);
        let lines = [&fresh, &in_order, &past].map(|check| {
            format!(
                "{} {}; {}",
                check.status.as_str(),
                check.detail,
                check.hint.as_deref().unwrap_or("-")
            )
        });
        insta::assert_snapshot!(lines.join("\n"));
        let figures = past.figures.unwrap();
        let wanted =
            json!({"count": 1, "bytes": 5, "bytes_bound": 4_u64 << 30, "past_bounds": true});
        assert_eq!(figures["tmp"], wanted);
        let kinds: Vec<_> = figures.as_object().unwrap().keys().collect();
        let all =
            ["journal", "events", "rejected", "work", "kept", "tmp", "leftovers", "logs", "audit"];
        assert_eq!(kinds, all);
    }
}
