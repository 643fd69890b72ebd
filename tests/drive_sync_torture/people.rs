//! People and programs who work on the drive: at a VM's folder, or at the server.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use panorama_gateway::drive_sync::wire::{
    Delete, Inline, MAX_INLINE, Metadata, Operation, OperationResult, PutFile,
};

use crate::ledger::{Ledger, hash};
use crate::team::Team;
use crate::vm::Vm;

/// Names that collide often enough, and folders that come and go.
const NAMES: [&str; 7] = ["a.txt", "b.txt", "c", "dir/a.txt", "dir/b.txt", "dir/in/a", "dir"];
/// What is written to all the time.
const HOT: [&str; 4] = ["hot.log", "hot.txt", "a.txt", "dir/hot.md"];

/// A VM's folder. Who works there waits for the others who do, but not for the gateway.
pub(crate) struct Desk {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) ledger: Arc<Ledger>,
    pen: Mutex<()>,
}

impl Desk {
    pub(crate) fn new(vm: &Vm, team: &Team) -> Arc<Self> {
        let (name, folder) = (vm.name.clone(), vm.folder());
        Arc::new(Self { name, folder, ledger: Arc::clone(&team.ledger), pen: Mutex::default() })
    }

    pub(crate) fn at(&self, place: &str) -> PathBuf {
        self.folder.join(place)
    }

    /// Through one descriptor, as programs do that keep the file open. Whoever writes has read it.
    pub(crate) fn rewrite(&self, place: &str, times: usize) -> io::Result<()> {
        let _pen = self.pen.lock().unwrap();
        let bytes = self.ledger.content(&self.name, place, times);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(self.at(place))?;
        let mut before = Vec::new();
        file.read_to_end(&mut before)?;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&bytes)?;
        self.ledger.replaces(&before);
        self.ledger.owes(&bytes);
        Ok(())
    }

    /// As logs grow.
    pub(crate) fn append(&self, place: &str) -> io::Result<()> {
        let _pen = self.pen.lock().unwrap();
        let line = self.ledger.content(&self.name, place, 1);
        let mut file = File::options().read(true).append(true).create(true).open(self.at(place))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        file.write_all(&line)?;
        self.ledger.replaces(&bytes);
        bytes.extend(line);
        self.ledger.owes(&bytes);
        Ok(())
    }

    /// To a temporary file that takes the place, as git and most editors do.
    pub(crate) fn save_by_rename(&self, place: &str, times: usize) -> io::Result<()> {
        let _pen = self.pen.lock().unwrap();
        let bytes = self.ledger.content(&self.name, place, times);
        let temp = self.at(&format!(".{}.tmp", self.ledger.number()));
        fs::write(&temp, &bytes)?;
        self.sees(&self.at(place));
        match fs::rename(&temp, self.at(place)) {
            Ok(()) => {
                self.ledger.owes(&bytes);
                Ok(())
            }
            Err(error) => {
                fs::remove_file(&temp)?;
                Err(error)
            }
        }
    }

    fn delete(&self, place: &str) {
        let _pen = self.pen.lock().unwrap();
        self.sees(&self.at(place));
        let _ = fs::remove_file(self.at(place));
    }

    fn rename(&self, place: &str, to: &str) {
        let _pen = self.pen.lock().unwrap();
        if self.at(place).is_file() && !self.at(to).is_dir() && place != to {
            self.sees(&self.at(to));
            let _ = fs::rename(self.at(place), self.at(to));
        }
    }

    /// Whoever does something to a file has it before his eyes.
    pub(crate) fn sees(&self, file: &Path) {
        if let Ok(bytes) = fs::read(file) {
            self.ledger.replaces(&bytes);
        }
    }

    /// Something by chance. What does not work is nobody's loss.
    pub(crate) fn act(&self, rng: &mut fastrand::Rng) {
        let place = NAMES[rng.usize(..NAMES.len())];
        if let Some(folder) = self.at(place).parent() {
            let _ = fs::create_dir_all(folder);
        }
        // Some are larger than what goes inside a request.
        let times = if rng.u8(..) < 30 { 3000 } else { 1 };
        match rng.u8(..10) {
            0..3 => drop(self.rewrite(place, times)),
            3 => drop(self.append(place)),
            4..7 => drop(self.save_by_rename(place, times)),
            7 => self.delete(place),
            8 => self.rename(place, NAMES[rng.usize(..NAMES.len())]),
            _ => drop(fs::remove_dir(self.at("dir/in"))),
        }
    }

    /// Takes up the pen for a while, e.g. for an editor.
    pub(crate) fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        let _pen = self.pen.lock().unwrap();
        work()
    }
}

/// A program that saves the same few files again and again, until it is dropped.
pub(crate) struct HotWriter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl HotWriter {
    pub(crate) fn start(desk: &Arc<Desk>, seed: u64) -> Self {
        let (desk, stop) = (Arc::clone(desk), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut saves = 0;
            while !stopped.load(Ordering::Relaxed) {
                let place = HOT[rng.usize(..HOT.len())];
                let _ = fs::create_dir_all(desk.at("dir"));
                let done = match rng.u8(..20) {
                    0..12 if place == "hot.log" => desk.append(place),
                    0..10 => desk.rewrite(place, rng.usize(1..50)),
                    _ => desk.save_by_rename(place, rng.usize(1..50)),
                };
                saves += u64::from(done.is_ok());
                std::thread::sleep(Duration::from_millis(rng.u64(..25)));
            }
            saves
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; how often it saved.
    pub(crate) fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().unwrap())
    }
}

impl Drop for HotWriter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Team {
    /// Somebody at the server replaces or removes what he sees there, or puts something new.
    pub(crate) async fn act_at_server(&self, rng: &mut fastrand::Rng) {
        let place = NAMES[rng.usize(..NAMES.len() - 1)];
        let Ok(page) = self.control.admin.drive_entries(&self.drive_id, "", "", true).await else {
            return;
        };
        let there = page.entries.into_iter().find(|entry| entry.path == place);
        let replaced = there.as_ref().and_then(|entry| entry.content_sha256.clone());
        let version = there.map(|entry| entry.current_version_id);
        if version.is_some() && rng.u8(..) < 40 {
            let operation_id = format!("torture-{}", self.ledger.number());
            let path = place.to_owned();
            let delete =
                Delete { path, expected_version_id: version, expect_empty: false, operation_id };
            if self.change(Operation::Delete(delete)).await {
                self.ledger.replaces_hash(&replaced.unwrap_or_default());
            }
            return;
        }
        let bytes = self.ledger.content("server", place, 1);
        if self.put(place, &bytes, version).await {
            self.ledger.replaces_hash(&replaced.unwrap_or_default());
            self.ledger.owes(&bytes);
        }
    }

    /// Puts a small content; false: something else was there.
    pub(crate) async fn put(&self, path: &str, bytes: &[u8], version: Option<String>) -> bool {
        assert!(bytes.len() <= MAX_INLINE);
        let file = self.file(path, bytes, version);
        self.change(Operation::Put { file, content: Inline(bytes.to_vec()) }).await
    }

    pub(crate) fn file(&self, path: &str, bytes: &[u8], version: Option<String>) -> PutFile {
        PutFile {
            path: path.to_owned(),
            size_bytes: bytes.len() as u64,
            content_sha256: hash(bytes),
            mime_type: None,
            metadata: Metadata::default(),
            expected_version_id: version,
            operation_id: format!("torture-{}", self.ledger.number()),
        }
    }

    pub(crate) async fn change(&self, operation: Operation) -> bool {
        let done = self.control.admin.change_drive(&self.drive_id, vec![operation]).await.unwrap();
        matches!(done.results[..], [OperationResult::Done(_)])
    }
}
