//! A disk that really is small: a mounted tmpfs of a given size.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A mounted tmpfs; unmounted when dropped.
pub(crate) struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many KiB at `dir`, which is made; why not, where this machine does not let
    /// us.
    pub(crate) fn mount(dir: &Path, kib: u32) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("mounting needs root".to_owned());
        }
        std::fs::create_dir_all(dir).unwrap();
        let options = format!("size={kib}k,mode=0700,nodev,nosuid");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir);
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Self { dir: dir.to_owned() }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Makes it larger or smaller, so that so many bytes are free; nothing of what is there goes.
    pub(crate) fn leave(&self, free: u64) {
        // While somebody writes, the size that was wanted may have become too small.
        let resized = (0..100).any(|_| {
            let stat = rustix::fs::statvfs(&self.dir).unwrap();
            let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
            let size = format!("remount,size={}", (used + free).max(stat.f_frsize));
            let mut mount = Command::new("mount");
            mount.args(["-o", &size]).arg(&self.dir).output().unwrap().status.success()
        });
        assert!(resized, "{} cannot be given {free} free bytes", self.dir.display());
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }

    /// Takes every byte that is left; the error that said so.
    pub(crate) fn fill(&self) -> std::io::Error {
        fill(&self.filler())
    }

    /// Fills it, and goes on taking whatever becomes free.
    pub(crate) fn keep_full(&self) -> KeptFull {
        let (stop, hits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let first = self.fill();
        let filler = self.filler();
        let thread = {
            let (stop, hits, filler) = (Arc::clone(&stop), Arc::clone(&hits), filler.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = fill(&filler);
                    hits.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        };
        KeptFull { first, stop, hits, thread: Some(thread), filler }
    }

    /// Size and what is free, for people.
    pub(crate) fn usage(&self) -> String {
        let stat = rustix::fs::statvfs(&self.dir).unwrap();
        let kib = |blocks: u64| blocks * stat.f_frsize / 1024;
        format!("{} KiB, {} KiB free", kib(stat.f_blocks), kib(stat.f_bavail))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).output();
    }
}

/// Appends until the disk refuses even one byte.
fn fill(path: &Path) -> std::io::Error {
    let file = std::fs::File::options().create(true).append(true).open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(error) => return error,
    };
    let zeros = vec![0; 64 * 1024];
    let mut chunk = zeros.len();
    loop {
        match file.write(&zeros[..chunk]) {
            Ok(_) => {}
            Err(_) if chunk > 1 => chunk /= 2,
            Err(error) => return error,
        }
    }
}

/// A disk that stays full until this is dropped.
pub(crate) struct KeptFull {
    /// What the first write that did not fit got.
    pub(crate) first: std::io::Error,
    stop: Arc<AtomicBool>,
    hits: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
    filler: PathBuf,
}

impl KeptFull {
    /// How often it was filled up again.
    pub(crate) fn refills(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }
}

impl Drop for KeptFull {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.filler);
    }
}
