//! Fetches contents: written aside, checked, put in their places together, and then agreed on.

use sha2::{Digest as _, Sha256};

use super::super::model::{Base, Content, Local, Remote, Sha256 as Hash, add_packed};
use super::super::path::RelPath;
use super::super::plan::{Action, Replaced, Step};
use super::super::planted::{Bug, planted};
use super::super::ports::{Clock, Download, Drive, Fs, Install, Installed, Rng};
use super::super::state::Effect;
use super::failure::Failure;
use super::{BATCH_BYTES, Engine, TickError};

/// What a step wants.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    step: &'a Step,
    remote: &'a Remote,
    content: &'a Content,
    replaces: Option<Replaced>,
}

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    pub(super) fn apply_fetches(&mut self, steps: &[Step]) -> Result<(), TickError> {
        let mut fetched = Vec::new();
        let done = self.fetch_all(steps, &mut fetched);
        // All at once: each time the whole tree is gone through.
        if let Some(tree) = &mut self.local {
            add_packed(tree, fetched);
        }
        done
    }

    fn fetch_all(
        &mut self,
        steps: &[Step],
        fetched: &mut Vec<(RelPath, Local)>,
    ) -> Result<(), TickError> {
        let mut steps = steps.iter().filter_map(wanted).peekable();
        while steps.peek().is_some() && !self.out_of_time() {
            let free = self.fs.free_space()?;
            let mut room = free.saturating_sub(self.settings.download_floor);
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while batch.len() < self.settings.batch && bytes < BATCH_BYTES {
                let Some(wanted) = steps.next() else { break };
                if self.passes_over(wanted.step) {
                    continue;
                }
                let size = wanted.content.size;
                if room == 0 || size > room {
                    self.now.short_of_space = Some(free);
                    self.stick(wanted.step);
                    continue;
                }
                room -= size;
                bytes += size;
                batch.push(wanted);
            }
            self.fetch_batch(&batch, fetched)?;
        }
        Ok(())
    }

    fn fetch_batch(
        &mut self,
        batch: &[Wanted<'_>],
        fetched: &mut Vec<(RelPath, Local)>,
    ) -> Result<(), TickError> {
        let mut failures = Vec::new();
        let mut ready = Vec::new();
        let mut writers = Vec::new();
        for wanted in batch {
            match self.fs.stage(&key(wanted), wanted.content).map_err(Failure::from) {
                Ok(writer) => writers.push((wanted, writer)),
                Err(failure) => failures.push((wanted.step, failure)),
            }
        }
        if failures.iter().any(|(_, failure)| failure.is_stop()) {
            return Err(TickError::Stopped);
        }
        self.progress.names(batch.iter().map(|one| (&one.remote.id, &one.step.path)));
        let downloads: Vec<_> = writers
            .iter_mut()
            .map(|(wanted, writer)| Download {
                id: wanted.remote.id.clone(),
                version: wanted.remote.version.clone(),
                content: *wanted.content,
                into: &mut **writer,
            })
            .collect();
        let answers = if downloads.is_empty() { Vec::new() } else { self.drive.fetch(downloads) };
        for ((wanted, writer), answer) in writers.into_iter().zip(answers) {
            let staged = match answer {
                Ok(()) => writer.finish().map_err(Failure::from),
                Err(error) => Err(Failure::from(error)),
            };
            match staged {
                Ok(staged) => {
                    let (path, replaces) = (wanted.step.path.clone(), wanted.replaces);
                    ready.push((wanted, Install { staged, path, replaces, mtime: None }));
                }
                Err(failure) if failure.is_stop() => return Err(TickError::Stopped),
                Err(failure) => failures.push((wanted.step, failure)),
            }
        }
        if planted(Bug::BaseFirst) {
            let agree = |(wanted, _): &(&Wanted<'_>, Install)| Effect::Agree {
                path: wanted.step.path.clone(),
                base: Base { remote: wanted.remote.clone(), stat: None },
                racy: true,
            };
            self.record(&ready.iter().map(agree).collect::<Vec<_>>())?;
        }
        let (installing, items): (Vec<&Wanted<'_>>, Vec<Install>) = ready.into_iter().unzip();
        let results = if items.is_empty() { Vec::new() } else { self.fs.install(items) };
        let mut effects = Vec::new();
        for (wanted, result) in installing.into_iter().zip(results) {
            match result.map_err(Failure::from) {
                Ok(installed) => {
                    let (content, stat) = (*wanted.content, installed.stat);
                    let local = Local::File { content, stat, racy: true };
                    fetched.push((wanted.step.path.clone(), local));
                    effects.push(self.installed(wanted, &installed));
                }
                Err(failure) if failure.is_stop() => return Err(TickError::Stopped),
                Err(failure) => failures.push((wanted.step, failure)),
            }
        }
        self.record(&effects)?;
        self.all_failed(failures)
    }

    /// A file that has just been put there may be changed again within what its time can tell.
    fn installed(&mut self, wanted: &Wanted<'_>, installed: &Installed) -> Effect {
        let (path, stat) = (wanted.step.path.clone(), installed.stat);
        self.count(wanted.step);
        self.troubles.cured(&path);
        if let Some(rescued) = &installed.rescued {
            self.now.rescued.push(rescued.clone());
            self.now.more = true;
            self.dirty.insert(rescued.clone());
        }
        let base = Base { remote: wanted.remote.clone(), stat: Some(stat) };
        Effect::Agree { path, base, racy: true }
    }

    /// Notes what failed; when going on is of no use that is the result.
    fn all_failed(&mut self, failures: Vec<(&Step, Failure)>) -> Result<(), TickError> {
        let mut halt = None;
        for (step, failure) in failures {
            match failure {
                Failure::Halt(error) => {
                    halt.get_or_insert(error);
                }
                Failure::Unavailable { message, retry_after } => {
                    if halt.is_none() {
                        halt = Some(self.unavailable(message, retry_after));
                    }
                }
                // In the middle of the feed a version may be asked for that is gone already.
                Failure::Refused(message) if self.head.is_none() => {
                    self.failed(step, Failure::Stale(message));
                }
                Failure::Stale(_) | Failure::Refused(_) | Failure::Full(_) | Failure::ReadOnly => {
                    self.failed(step, failure);
                }
            }
        }
        halt.map_or(Ok(()), Err)
    }
}

fn wanted(step: &Step) -> Option<Wanted<'_>> {
    let Action::Fetch { remote, content, replaces } = &step.action else { return None };
    Some(Wanted { step, remote, content, replaces: *replaces })
}

/// Names what is fetched, so that a download that was broken off is continued, and never with
/// another version's bytes. Made of nothing that the server could choose.
fn key(wanted: &Wanted<'_>) -> String {
    let mut hasher = Sha256::new();
    for part in [&*wanted.remote.id, &*wanted.remote.version] {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hasher.update(wanted.content.sha256.0);
    hasher.update([u8::from(wanted.content.executable)]);
    Hash(hasher.finalize().into()).hex()[..32].to_owned()
}
