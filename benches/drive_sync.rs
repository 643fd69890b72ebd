//! How fast drive sync sees that nothing has changed: `cargo bench --bench drive_sync`.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the figures, measured on the real clock"
)]

use std::convert::Infallible;
use std::time::Instant;

use fallible_streaming_iterator::convert;
use panorama_gateway::drive_sync::model::{
    Base, BaseTree, Content, Kind, Local, LocalTree, Remote, RemoteTree, Sha256, Stat,
};
use panorama_gateway::drive_sync::path::RelPath;
use panorama_gateway::drive_sync::planner::{Access, Rules, diff, plan};

const ENTRIES: u64 = 200_000;
/// An entry in so many is a folder, with the files after it inside.
const FOLDER: u64 = 100;

fn main() {
    let (local, remote, base) = trees();
    let (remote, base) = (Vec::from_iter(remote), Vec::from_iter(base));
    let rules = Rules { vm: "vm".to_owned(), access: Access::Write, release_deletions: false };
    let mut runs: Vec<f64> = (0..5)
        .map(|_| {
            let started = Instant::now();
            let remote = convert(remote.iter().map(Ok::<_, Infallible>));
            let base = convert(base.iter().map(Ok::<_, Infallible>));
            let Ok::<_, Infallible>(found) = diff(&local, remote, base);
            assert!(plan(&found, &rules).steps.is_empty() && found.triples.is_empty());
            started.elapsed().as_secs_f64()
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    let entries = u32::try_from(ENTRIES).unwrap();
    println!(
        "{ENTRIES} unchanged entries: {:.0} ms, {:.1} million a second (median of 5, goal 1)",
        runs[2] * 1e3,
        f64::from(entries) / runs[2] / 1e6
    );
}

fn trees() -> (LocalTree, RemoteTree, BaseTree) {
    let (mut local, mut remote, mut base) = (LocalTree::new(), RemoteTree::new(), BaseTree::new());
    for number in 0..ENTRIES {
        let folder = format!("projects and reports/folder {:06}", number / FOLDER);
        let path = match number % FOLDER {
            0 => folder,
            _ => format!("{folder}/a file with a name {number:09}.txt"),
        };
        add(number, &path, number % FOLDER == 0, &mut local, &mut remote, &mut base);
    }
    add(ENTRIES, "projects and reports", true, &mut local, &mut remote, &mut base);
    (local, remote, base)
}

fn add(
    number: u64,
    path: &str,
    folder: bool,
    local: &mut LocalTree,
    remote: &mut RemoteTree,
    base: &mut BaseTree,
) {
    let path = RelPath::parse(path).unwrap();
    let stat = Stat { dev: 1, ino: number, size: 1, ..Stat::default() };
    let mut sha256 = [7; 32];
    sha256[..8].copy_from_slice(&number.to_be_bytes());
    let content = Content { sha256: Sha256(sha256), size: 1, executable: false };
    let (kind, on_disk) = if folder {
        (Kind::Directory, Local::Directory { stat })
    } else {
        (Kind::File(content), Local::File { content, stat, racy: false })
    };
    let entry = Remote {
        id: format!("5f0c1d4e-0000-4000-8000-{number:012}"),
        version: format!("9a7b3c2d-0000-4000-8000-{number:012}"),
        kind,
    };
    local.insert(path.clone(), on_disk);
    base.insert(path.clone(), Base { remote: entry.clone(), stat: Some(stat) });
    remote.insert(path, entry);
}
