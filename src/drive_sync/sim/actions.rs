//! What happens around the engines: people at the disks and at the server, accidents, ticks. Each
//! action is data and makes sense (or does nothing) in every state, so that a failing list of them
//! can be cut down.

use super::chance::Chance;
use super::world::Fault;

/// What is in a file of the ignore list.
pub(super) const LOCK: &[u8] = b"locked";

/// An action, and how many pauses of the engines it lets pass before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) wait: u32,
    pub(super) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// An engine works; inside another one's tick too.
    Tick { client: usize, audit: bool },
    /// The engine that is at work (else this one) is killed.
    Kill { client: usize },
    /// Its machine loses power.
    Power { client: usize, seed: u64 },
    /// Somebody at a disk.
    Disk { client: usize, act: DiskAct, unseen: bool },
    /// Somebody at the server.
    Server(ServerAct),
    /// The line to the server.
    Line { client: usize, line: Line },
    /// Time passes, in milliseconds.
    Pass(u32),
    /// Between ticks: writers and accidents stop, and all must come to rest.
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DiskAct {
    Write { path: String, word: u32, sync: bool },
    Edit { pick: usize, word: u32, sync: bool },
    Delete { pick: usize },
    DeleteTree { pick: usize },
    Rename { pick: usize, path: String },
    MakeDirectory { path: String },
    SaveBegin { pick: usize, word: u32, sync: bool },
    SaveEnd,
    Open { pick: usize },
    WriteOpen { word: u32 },
    Close,
    Chmod { pick: usize },
    Touch { pick: usize },
    Symlink { path: String },
    SwapForLink { pick: usize },
    Ignored { pick: usize },
    Unreadable { pick: usize },
    Readable,
    Full { on: bool },
    LoseRoot { on: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerAct {
    Write { path: String, word: u32 },
    Delete { pick: usize },
    MakeDirectory { path: String },
    Move { pick: usize, path: String },
    BadName { which: usize, word: u32 },
    Prune,
    Backup,
    Restore,
    Deliver,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Outage { calls: u32, retry_after: bool },
    Fault(Fault),
    ReadOnly { on: bool },
    AccessLost { on: bool },
}

// ---------------------------------------------------------------- making them up

/// What a run is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flavour {
    pub(super) clients: usize,
    /// Contents come from a small pool, so that equal ones meet; else each is unique.
    pub(super) pool: bool,
    /// No crash, no other writers than one: nothing may come in conflict.
    pub(super) calm: bool,
}

pub(super) fn flavour(chance: &mut Chance) -> Flavour {
    Flavour { clients: 2 + chance.index(2), pool: chance.one_in(3), calm: chance.one_in(5) }
}

pub(super) fn invent(chance: &mut Chance, flavour: Flavour, count: usize) -> Vec<Entry> {
    let gap = chance.pick(&[2, 5, 12]);
    (0..count)
        .map(|_| {
            let wait = if chance.one_in(6) { 200 } else { chance.below(gap) as u32 };
            Entry { wait, action: action(chance, flavour) }
        })
        .collect()
}

fn action(chance: &mut Chance, flavour: Flavour) -> Action {
    let client = chance.index(flavour.clients);
    match chance.below(100) {
        0..=21 => Action::Tick { client, audit: chance.one_in(3) },
        22..=24 if !flavour.calm => Action::Kill { client },
        25..=26 if !flavour.calm => Action::Power { client, seed: chance.bits() },
        27..=68 => Action::Disk {
            client: if flavour.calm { 0 } else { client },
            act: disk_act(chance, flavour),
            unseen: chance.one_in(10),
        },
        69..=82 if !flavour.calm => Action::Server(server_act(chance, flavour)),
        83..=92 => Action::Line { client, line: line(chance) },
        _ => Action::Pass(chance.pick(&[1, 100, 1_500, 2_500, 10_000, 700_000])),
    }
}

fn word(chance: &mut Chance, flavour: Flavour) -> u32 {
    if flavour.pool { chance.below(4) as u32 } else { chance.below(90_000_000) as u32 + 10 }
}

fn path(chance: &mut Chance) -> String {
    let depth = chance.pick(&[1, 1, 1, 2, 2, 3]);
    let names: Vec<_> = (0..depth).map(|_| chance.pick(&["a", "b", "c.txt"])).collect();
    names.join("/")
}

fn disk_act(chance: &mut Chance, flavour: Flavour) -> DiskAct {
    let (pick, sync) = (chance.index(1000), chance.one_in(3));
    match chance.below(100) {
        0..=24 => DiskAct::Write { path: path(chance), word: word(chance, flavour), sync },
        25..=39 => DiskAct::Edit { pick, word: word(chance, flavour), sync },
        40..=47 => DiskAct::Delete { pick },
        48..=50 => DiskAct::DeleteTree { pick },
        51..=60 => DiskAct::Rename { pick, path: path(chance) },
        61..=65 => DiskAct::MakeDirectory { path: path(chance) },
        66..=70 => DiskAct::SaveBegin { pick, word: word(chance, flavour), sync },
        71..=75 => DiskAct::SaveEnd,
        76..=78 => DiskAct::Open { pick },
        79..=83 => DiskAct::WriteOpen { word: word(chance, flavour) },
        84 => DiskAct::Close,
        85..=86 => DiskAct::Chmod { pick },
        87 => DiskAct::Touch { pick },
        88..=89 => DiskAct::Symlink { path: path(chance) },
        90..=91 => DiskAct::SwapForLink { pick },
        92..=93 => DiskAct::Ignored { pick },
        94 => DiskAct::Unreadable { pick },
        95 => DiskAct::Readable,
        96..=97 => DiskAct::Full { on: chance.one_in(3) },
        _ => DiskAct::LoseRoot { on: chance.one_in(2) },
    }
}

fn server_act(chance: &mut Chance, flavour: Flavour) -> ServerAct {
    let pick = chance.index(1000);
    match chance.below(100) {
        0..=44 => ServerAct::Write { path: path(chance), word: word(chance, flavour) },
        45..=62 => ServerAct::Delete { pick },
        63..=69 => ServerAct::MakeDirectory { path: path(chance) },
        70..=82 => ServerAct::Move { pick, path: path(chance) },
        83..=84 => ServerAct::BadName { which: chance.index(3), word: word(chance, flavour) },
        85..=87 => ServerAct::Prune,
        88..=90 => ServerAct::Backup,
        91 => ServerAct::Restore,
        _ => ServerAct::Deliver,
    }
}

fn line(chance: &mut Chance) -> Line {
    match chance.below(20) {
        0..=3 => Line::Outage { calls: 1 + chance.below(4) as u32, retry_after: chance.one_in(2) },
        4..=6 => Line::Fault(Fault::LostBefore),
        7..=11 => Line::Fault(Fault::LostAfter),
        12..=13 => Line::Fault(Fault::Late),
        14..=15 => Line::Fault(Fault::Corrupt),
        16 => Line::Fault(Fault::Broken),
        17 => Line::AccessLost { on: chance.one_in(2) },
        _ => Line::ReadOnly { on: chance.one_in(2) },
    }
}
