//! Changes the disk, one step after the other; the base follows.

use super::super::model::{Base, Local, LocalTree, Stat};
use super::super::path::RelPath;
use super::super::plan::{Action, Step};
use super::super::ports::{Clock, Drive, Fs, FsError, Rng};
use super::super::state::Effect;
use super::failure::Failure;
use super::{Engine, TickError};

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    /// Steps on the disk, and those that only tell the base what is true already.
    pub(super) fn apply_local(&mut self, steps: &[Step]) -> Result<(), TickError> {
        for chunk in steps.chunks(self.settings.batch) {
            if self.out_of_time() {
                return Ok(());
            }
            let mut effects = Vec::new();
            let mut halt = None;
            for step in chunk {
                if self.passes_over(step) {
                    continue;
                }
                match self.on_disk(step).map_err(Failure::from) {
                    Ok(done) => {
                        effects.extend(done);
                        self.count(step);
                        self.troubles.cured(&step.path);
                    }
                    Err(failure) if failure.is_stop() => return Err(TickError::Stopped),
                    Err(Failure::Halt(error)) => {
                        halt = Some(error);
                        break;
                    }
                    Err(failure) => self.failed(step, failure),
                }
            }
            self.record(&effects)?;
            if let Some(error) = halt {
                return Err(error);
            }
        }
        Ok(())
    }

    fn on_disk(&mut self, step: &Step) -> Result<Vec<Effect>, FsError> {
        let path = &step.path;
        let effects = match &step.action {
            Action::SetAside { to, stat } => {
                let is_folder = self.is_folder(path);
                let stat = self.fs.rename(path, to, stat)?;
                self.renamed(path, to, stat);
                self.now.conflicts.push(to.clone());
                self.now.more = true;
                let path = path.clone();
                // Below a file the base says what was deleted there: that is still to be told.
                vec![if is_folder { Effect::ForgetTree { path } } else { Effect::Forget { path } }]
            }
            Action::MoveLocal { to, remote, stat } => {
                let stat = self.fs.rename(path, to, stat)?;
                self.renamed(path, to, stat);
                let base = Base { remote: remote.clone(), stat: Some(stat) };
                vec![
                    Effect::Forget { path: path.clone() },
                    Effect::Agree { path: to.clone(), base, racy: true },
                ]
            }
            Action::MakeLocalDirectory { remote } => {
                let stat = self.fs.make_directory(path)?;
                if let Some(tree) = &mut self.local {
                    tree.insert(path.clone(), Local::Directory { stat });
                }
                let base = Base { remote: remote.clone(), stat: Some(stat) };
                vec![Effect::Agree { path: path.clone(), base, racy: false }]
            }
            Action::DeleteLocal { replaced } => {
                self.fs.delete(path, replaced)?;
                self.vanished(path)
            }
            Action::RemoveLocalDirectory => {
                self.fs.remove_directory(path)?;
                self.vanished(path)
            }
            Action::Adopt { remote, stat } => {
                if !remote.kind.is_directory() {
                    self.check_durable(path, stat)?;
                }
                let base = Base { remote: remote.clone(), stat: Some(*stat) };
                let racy = self.is_racy(step);
                vec![Effect::Agree { path: path.clone(), base, racy }]
            }
            Action::Forget => vec![Effect::Forget { path: path.clone() }],
            Action::Fetch { .. }
            | Action::MoveRemote { .. }
            | Action::MakeRemoteDirectory { .. }
            | Action::Send { .. }
            | Action::DeleteRemote { .. }
            | Action::RemoveRemoteDirectory { .. } => Vec::new(),
        };
        Ok(effects)
    }

    /// What somebody else has written may be lost with the power: the base would lead then.
    pub(super) fn check_durable(&self, path: &RelPath, stat: &Stat) -> Result<(), FsError> {
        self.fs.open(path, stat)?.check()
    }

    fn vanished(&mut self, path: &RelPath) -> Vec<Effect> {
        if let Some(tree) = &mut self.local {
            tree.remove(path);
        }
        vec![Effect::Forget { path: path.clone() }]
    }

    fn is_folder(&self, path: &RelPath) -> bool {
        let local = self.local.as_ref().and_then(|tree| tree.get(path));
        matches!(local, Some(Local::Directory { .. }))
    }

    fn renamed(&mut self, from: &RelPath, to: &RelPath, stat: Stat) {
        if let Some(tree) = &mut self.local {
            rename_in(tree, from, to, stat);
        }
    }

    /// Whether the file of this step may have changed without a trace since it was read.
    pub(super) fn is_racy(&self, step: &Step) -> bool {
        let path = step.to().unwrap_or(&step.path);
        match self.local.as_ref().and_then(|tree| tree.get(path)) {
            Some(Local::File { racy, .. }) => *racy,
            Some(Local::Directory { .. }) => false,
            Some(Local::Opaque(_)) | None => true,
        }
    }
}

/// Gives an entry, and all that is below it, another place. The entry has `stat` there.
fn rename_in(tree: &mut LocalTree, from: &RelPath, to: &RelPath, stat: Stat) {
    let inside = tree.range::<RelPath, _>(from..).map(|(path, _)| path);
    let inside: Vec<RelPath> =
        inside.take_while(|path| *path == from || path.is_inside(from)).cloned().collect();
    let moved: Vec<_> = inside.iter().filter_map(|path| tree.remove_entry(path)).collect();
    for (path, local) in moved {
        let Some(path) = path.rebased(from, to) else { continue };
        let local = if path == *to { with_stat(local, stat) } else { local };
        tree.insert(path, local);
    }
}

fn with_stat(local: Local, stat: Stat) -> Local {
    match local {
        Local::File { content, .. } => Local::File { content, stat, racy: true },
        Local::Directory { .. } => Local::Directory { stat },
        Local::Opaque(_) => local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_takes_all_that_is_in_it_along_and_nothing_else() {
        let path = |text: &str| RelPath::parse(text).unwrap();
        let entry = Local::Directory { stat: Stat::default() };
        let mut tree: LocalTree =
            ["a", "b", "b/x", "b/x/y", "b-c", "c"].map(|text| (path(text), entry)).into();
        rename_in(&mut tree, &path("b"), &path("z"), Stat { ino: 7, ..Stat::default() });
        let names: Vec<_> = tree.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["a", "b-c", "c", "z", "z/x", "z/x/y"]);
        assert_eq!(tree[&path("z")].stat().unwrap().ino, 7);
        assert_eq!(tree[&path("z/x")].stat().unwrap().ino, 0);
    }
}
