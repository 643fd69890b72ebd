//! Documents that are saved as editors save them, call by call, while gateways look and are killed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::PATIENCE;
use crate::kills::{pause, run};
use crate::people::Desk;
use crate::team::{Team, conflict_copies};

const DOCUMENTS: [&str; 5] =
    ["notes.txt", "main.rs", "office/report.odt", "office/plan.docx", "office/list.md"];
/// Saves of the only one who writes.
const SAVES: usize = 14;
/// In CI.
const KILLS: u64 = 8;

/// A document that somebody has open.
struct Open<'a> {
    desk: &'a Desk,
    document: PathBuf,
    name: String,
    /// As it was read.
    before: Vec<u8>,
    new: Vec<u8>,
    rng: &'a mut fastrand::Rng,
}

type Editor = fn(&mut Open<'_>) -> io::Result<()>;

const EDITORS: [(&str, Editor); 6] = [
    ("vim", vim),
    ("VS Code", vs_code),
    ("VS Code, by rename", vs_code_by_rename),
    ("LibreOffice", libre_office),
    ("Word", word),
    ("gedit", gedit),
];

impl Open<'_> {
    /// A file beside the document.
    fn beside(&self, name: &str) -> PathBuf {
        self.document.with_file_name(name)
    }

    fn something(&mut self) -> u32 {
        self.rng.u32(..)
    }

    /// Now and then long enough for the gateway to see what is there between two calls.
    fn breathe(&mut self) {
        let millis = if self.rng.u8(..) < 50 { 120 } else { 4 };
        std::thread::sleep(Duration::from_millis(self.rng.u64(..millis)));
    }

    fn write(&mut self, to: &Path) -> io::Result<()> {
        let mut file = File::create(to)?;
        self.breathe();
        let (one, other) = self.new.split_at(self.new.len() / 2);
        file.write_all(one)?;
        file.write_all(other)?;
        file.sync_all()
    }
}

/// A swap file (and a look whether its neighbour's name can be had), the probe, the old file renamed
/// away, a new one written in its place.
fn vim(open: &mut Open<'_>) -> io::Result<()> {
    let swap = open.beside(&format!(".{}.swp", open.name));
    let probe = open.beside(&format!(".{}.swx", open.name));
    drop((File::create_new(&swap)?, File::create_new(&probe)?));
    fs::remove_file(&probe)?;
    fs::remove_file(&swap)?;
    fs::write(&swap, b"b0VIM 9.1")?;
    open.breathe();
    let probe = open.beside("4913");
    drop(File::create_new(&probe)?);
    fs::remove_file(&probe)?;
    let backup = open.beside(&format!("{}~", open.name));
    let renamed = fs::rename(&open.document, &backup);
    open.breathe();
    open.write(&open.document.clone())?;
    open.breathe();
    if renamed.is_ok() {
        // Somebody may have deleted it elsewhere meanwhile.
        let _ = fs::remove_file(&backup);
    }
    fs::remove_file(&swap)
}

fn vs_code(open: &mut Open<'_>) -> io::Result<()> {
    open.write(&open.document.clone())
}

fn vs_code_by_rename(open: &mut Open<'_>) -> io::Result<()> {
    let temp = open.beside(&format!("{}.vsctmp", open.name));
    open.write(&temp)?;
    open.breathe();
    fs::rename(&temp, &open.document)
}

fn libre_office(open: &mut Open<'_>) -> io::Result<()> {
    let lock = open.beside(&format!(".~lock.{}#", open.name));
    fs::write(&lock, ",somebody,vm,22.11.2026 13:26,file:///profile;")?;
    by_two_temps(open, "lu", "lu")?;
    fs::remove_file(&lock)
}

fn word(open: &mut Open<'_>) -> io::Result<()> {
    let lock = open.beside(&format!("~${}", open.name));
    fs::write(&lock, b"\x08somebody")?;
    by_two_temps(open, "", "~WRL")?;
    fs::remove_file(&lock)
}

/// The new one beside it; the old one to another name; the new one to its place; the old one away.
fn by_two_temps(open: &mut Open<'_>, new: &str, old: &str) -> io::Result<()> {
    let number = open.something();
    let (new, old) = (
        open.beside(&format!("{new}{number:08X}.tmp")),
        open.beside(&format!("{old}{:04}.tmp", number % 9999)),
    );
    open.write(&new)?;
    open.breathe();
    let renamed = fs::rename(&open.document, &old);
    open.breathe();
    fs::rename(&new, &open.document)?;
    open.breathe();
    if renamed.is_ok() {
        let _ = fs::remove_file(&old);
    }
    Ok(())
}

/// As desktop programs replace a file: the backup is a second name of the old one, and stays.
fn gedit(open: &mut Open<'_>) -> io::Result<()> {
    let number = open.something() % 0xff_ffff;
    let temp = open.beside(&format!(".goutputstream-{number:06X}"));
    open.write(&temp)?;
    let backup = open.beside(&format!("{}~", open.name));
    let _ = fs::remove_file(&backup);
    let _ = fs::hard_link(&open.document, &backup);
    open.breathe();
    fs::rename(&temp, &open.document)
}

/// One save of one document, by this editor.
fn save(desk: &Desk, document: &str, editor: Editor, rng: &mut fastrand::Rng) -> io::Result<()> {
    desk.alone(|| {
        let file = desk.at(document);
        fs::create_dir_all(file.parent().unwrap())?;
        let before = fs::read(&file).unwrap_or_default();
        let times = if rng.u8(..) < 30 { 3000 } else { rng.usize(1..40) };
        let new = desk.ledger.content(&desk.name, document, times);
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let mut open = Open { desk, document: file, name, before, new, rng };
        editor(&mut open)?;
        open.desk.ledger.replaces(&open.before);
        open.desk.ledger.owes(&open.new);
        Ok(())
    })
}

/// Somebody who edits until told to stop; how often he saved.
fn edit(desk: &Desk, seed: u64, stop: &AtomicBool) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut saves = 0;
    while !stop.load(Ordering::Relaxed) {
        let document = DOCUMENTS[rng.usize(..DOCUMENTS.len())];
        let (_, editor) = EDITORS[rng.usize(..EDITORS.len())];
        // A folder can go away under an editor.
        saves += u64::from(save(desk, document, editor, &mut rng).is_ok());
        std::thread::sleep(Duration::from_millis(rng.u64(..80)));
    }
    saves
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_live_through_editors_and_kills() {
    let (mut rng, kills, title) = run("editors under torture", KILLS);
    let mut team = Team::of(2).await;
    let desks: Vec<Arc<Desk>> = team.vms.iter().map(|vm| Desk::new(vm, &team)).collect();

    // Where one person edits, and no gateway is killed, there is nothing to copy.
    for number in 0..SAVES {
        let (document, (name, editor)) = (DOCUMENTS[number / 3], EDITORS[number % EDITORS.len()]);
        let (desk, mut chance) = (Arc::clone(&desks[0]), rng.fork());
        let saved =
            tokio::task::spawn_blocking(move || save(&desk, document, editor, &mut chance)).await;
        saved.unwrap().unwrap_or_else(|error| panic!("{name}: {document}: {error}"));
        pause(&mut rng, 150).await;
    }
    let end = team.at_rest(PATIENCE).await;
    assert_eq!(conflict_copies(&end), Vec::<&std::path::PathBuf>::new(), "{:#?}", team.history());
    team.judge(&format!("{title}: one who writes"), &end).await;

    let stop = Arc::new(AtomicBool::new(false));
    let people: Vec<_> = desks
        .iter()
        .map(|desk| {
            let (desk, stop, seed) = (Arc::clone(desk), Arc::clone(&stop), rng.u64(..));
            std::thread::spawn(move || edit(&desk, seed, &stop))
        })
        .collect();
    for _ in 0..kills {
        pause(&mut rng, 400).await;
        team.kill_one(2, &mut rng).await;
    }
    stop.store(true, Ordering::Relaxed);
    let saves: u64 = people.into_iter().map(|person| person.join().unwrap()).sum();
    let end = team.at_rest(PATIENCE).await;
    team.judge(&format!("{title}, {saves} saves"), &end).await;
    team.leave().await;
}
