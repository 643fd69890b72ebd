//! Whether the drive's folder is still the one that the state is about, and has room.

use super::super::planted::{Bug, planted};
use super::super::ports::{Clock, Drive, Fs, Rng, Root};
use super::{Engine, TickError};

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    /// A folder that is missing, empty where it was not, or another one, is an error: what it does
    /// not hold was not deleted by anybody.
    pub(super) fn check_root(&mut self) -> Result<(), TickError> {
        let found = self.fs.root()?;
        let ours = &self.settings.drive_id;
        match (self.state.root()?, found) {
            (Some(_), _) if planted(Bug::IgnoresRoot) => Ok(()),
            (Some(known), Some(found)) if known == found && known.drive_id == *ours => {
                Ok(self.state.root_seen(&self.settings.start)?)
            }
            (Some(known), Some(found))
                if known == (Root { dev: known.dev, ..found.clone() })
                    && known.drive_id == *ours
                    && self.is_new_start()? =>
            {
                // The same folder of the same disk, which has another number since the last start.
                self.local = None;
                Ok(self.state.root_has_device(found.dev, &self.settings.start)?)
            }
            (Some(known), Some(found)) => {
                Err(TickError::RootLost(difference(&known, &found, ours)))
            }
            (Some(_), None) => Err(TickError::RootLost("its marker is gone".to_owned())),
            (None, found) => self.bind_root(found),
        }
    }

    /// Whether the machine was started anew since the root was seen last.
    fn is_new_start(&self) -> Result<bool, TickError> {
        let start = &self.settings.start;
        Ok(!start.is_empty() && self.state.root_start()?.is_none_or(|seen| seen != *start))
    }

    /// A person says that the folder which is there now is the right one. What it holds and what the
    /// server has are both kept.
    pub fn accept_root(&mut self) -> Result<(), TickError> {
        let found = self.fs.root()?;
        self.local = None;
        self.idle = None;
        self.bind_root(found)
    }

    /// A marker without a state is there when the state was lost, or when the engine was stopped
    /// between the two.
    fn bind_root(&mut self, found: Option<Root>) -> Result<(), TickError> {
        let root = match found {
            Some(root) if root.drive_id == self.settings.drive_id => root,
            Some(root) => {
                let why = format!("it belongs to drive {}", root.drive_id);
                return Err(TickError::RootLost(why));
            }
            None => {
                let marker = self.operation_id();
                self.fs.plant_marker(&self.settings.drive_id, &marker)?
            }
        };
        self.state.bind_root(&root)?;
        Ok(self.state.root_seen(&self.settings.start)?)
    }

    /// Little space is a reason to do nothing at all: even a record needs some.
    pub(super) fn check_space(&mut self) -> Result<(), TickError> {
        let free = self.fs.free_space()?;
        if free < self.settings.floor { Err(TickError::NoSpace { free }) } else { Ok(()) }
    }
}

fn difference(known: &Root, found: &Root, ours: &str) -> String {
    if found.drive_id != ours {
        format!("it belongs to drive {}", found.drive_id)
    } else if known.marker != found.marker {
        "it has another marker".to_owned()
    } else {
        format!(
            "it was {}:{} and is {}:{}, as a copy or another mount would be",
            known.dev, known.ino, found.dev, found.ino
        )
    }
}
