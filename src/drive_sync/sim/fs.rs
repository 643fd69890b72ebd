//! The disk as the engine sees it: the port's promises, kept while others write between any two
//! effects.

use std::collections::BTreeSet;
use std::io;

use crate::drive_sync::model::{Content, Local, LocalTree, Opaque, Stat};
use crate::drive_sync::path::RelPath;
use crate::drive_sync::plan::Replaced;
use crate::drive_sync::planted::{Bug, planted};
use crate::drive_sync::ports::{Fs, FsError, Install, Installed, Root, Scope, Source, StageWriter};

use super::client::Limbo;
use super::disk::{Disk, Ino, Link, Sort};
use super::files::{Reader, Writer};
use super::server::content;
use super::world::{self, Sim, Stop, Where, with};

const RACY: i64 = 2_000_000_000;

/// One client's disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimFs {
    pub(super) client: usize,
}

impl From<Stop> for FsError {
    fn from(_: Stop) -> Self {
        Self::Stopped
    }
}

pub(super) fn is_ignored(name: &str) -> bool {
    name.starts_with(".~lock.")
}

impl SimFs {
    pub(super) fn pause(self, what: &'static str) -> Result<(), Stop> {
        world::pause(self.client, what)
    }

    pub(super) fn disk<T>(self, act: impl FnOnce(&mut Disk, i64) -> T) -> T {
        with(|sim| {
            let now = sim.now;
            act(&mut sim.clients[self.client].disk, now)
        })
    }

    /// Before a change: others act, then the root is looked at.
    fn begin(self, what: &'static str, paths: &[&RelPath]) -> Result<(), FsError> {
        self.pause(what)?;
        with(|sim| paths.iter().for_each(|path| sim.clients[self.client].begun(path)));
        if self.disk(|disk, _| disk.root_is_home()) || planted(Bug::IgnoresRoot) {
            Ok(())
        } else {
            Err(FsError::RootLost("another folder is mounted there".to_owned()))
        }
    }

    /// The links of this folder are made durable, and the change is known to all who judge.
    fn settle(self, what: &str, folder: Ino, paths: &[&RelPath]) -> Result<(), FsError> {
        self.pause("before it is durable")?;
        self.disk(|disk, _| disk.sync_links(folder));
        self.told(what, paths)?;
        Ok(())
    }

    fn told(self, what: &str, paths: &[&RelPath]) -> Result<(), Stop> {
        let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
        world::effect(self.client, Where::Disk, what, &paths);
        self.pause("after it is durable")
    }

    // ------------------------------------------------------------ scan

    fn scan_folder(
        self,
        folder: Ino,
        path: Option<&RelPath>,
        before: &LocalTree,
        into: &mut LocalTree,
    ) -> Result<(), FsError> {
        self.pause("scan of a folder")?;
        for (name, _) in self.disk(|disk, _| disk.inside(folder)) {
            let path = match path {
                Some(path) => path.join(&name),
                None => RelPath::parse(&name),
            };
            if let (Ok(path), Some(ino)) = (path, self.disk(|disk, _| disk.at(folder, &name))) {
                self.scan_entry(&path, ino, before, into)?;
            }
        }
        Ok(())
    }

    fn scan_entry(
        self,
        path: &RelPath,
        ino: Ino,
        before: &LocalTree,
        tree: &mut LocalTree,
    ) -> Result<(), FsError> {
        let Some((sort, why_not, stat)) = self.disk(|disk, _| {
            let inode = disk.inodes.get(&ino)?;
            let why_not = match inode.sort {
                _ if is_ignored(path.name()) => Some(Opaque::Ignored),
                Sort::Symlink if !planted(Bug::FollowsLinks) => Some(Opaque::Symlink),
                Sort::Special => Some(Opaque::Special),
                _ if inode.unreadable => Some(Opaque::Unreadable),
                _ if inode.suspicious => Some(Opaque::Suspicious),
                Sort::File | Sort::Directory | Sort::Symlink => None,
            };
            Some((inode.sort, why_not, disk.stat(ino)))
        }) else {
            return Ok(());
        };
        let entry = match (why_not, sort) {
            (Some(opaque), _) => Some(Local::Opaque(opaque)),
            (None, Sort::File) => match before.get(path) {
                Some(Local::File { stat: old, racy: false, content }) if *old == stat => {
                    Some(Local::File { content: *content, stat, racy: false })
                }
                _ => self.read(ino)?,
            },
            (None, _) => Some(Local::Directory { stat }),
        };
        let Some(entry) = entry else { return Ok(()) };
        let is_directory = matches!(entry, Local::Directory { .. });
        tree.insert(path.clone(), entry);
        if is_directory {
            let folder = if sort == Sort::Symlink { super::disk::OUTSIDE } else { ino };
            self.scan_folder(folder, Some(path), before, tree)?;
        }
        Ok(())
    }

    /// Reads one file; `None` when it went.
    fn read(self, ino: Ino) -> Result<Option<Local>, FsError> {
        for _ in 0..3 {
            let look = |disk: &mut Disk, now| {
                let inode = disk.inodes.get(&ino)?;
                let stat = disk.stat(ino);
                let content = content(&inode.bytes, inode.executable);
                Some((stat, content, now - stat.ctime < RACY))
            };
            let Some((stat, content, racy)) = self.disk(look) else { return Ok(None) };
            self.pause("scan of a file")?;
            match self.disk(|disk, _| disk.inodes.contains_key(&ino).then(|| disk.stat(ino))) {
                Some(after) if after == stat => {
                    return Ok(Some(Local::File { content, stat, racy }));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
        Ok(Some(Local::Opaque(Opaque::Unsettled)))
    }

    /// The highest place at or above `path` that has to be looked at for it to be known.
    fn top(self, path: &RelPath, tree: &LocalTree) -> RelPath {
        let mut top = path.clone();
        let mut up = path.parent();
        while let Some(folder) = up {
            let known = matches!(tree.get(&folder), Some(Local::Directory { .. }));
            let there = self.disk(|disk, _| {
                let ino = disk.find(&folder.to_string());
                ino.is_some_and(|ino| {
                    disk.inodes[&ino].sort == Sort::Directory && !disk.inodes[&ino].unreadable
                })
            });
            if !known || !there {
                top = folder.clone();
            }
            up = folder.parent();
        }
        top
    }

    // ------------------------------------------------------------ install

    fn install_one(self, item: &Install) -> Result<(Installed, Ino), FsError> {
        self.begin("install", &[&item.path])?;
        let now = with(|sim| sim.now);
        let early = with(|sim| sim.chance.one_in(2));
        let path = item.path.to_string();
        let place = self.disk(|disk, _| disk.place(&path)).ok_or(FsError::Changed)?;
        let there = self.disk(|disk, _| disk.find(&path));
        let target = match (there, &item.replaces) {
            (Some(_), None) => return Err(FsError::Exists),
            (None, None) => None,
            (None, Some(_)) => return Err(FsError::Changed),
            (Some(ino), Some(replaced)) => {
                let is_file = self.disk(|disk, _| {
                    let inode = &disk.inodes[&ino];
                    inode.sort == Sort::File && !inode.unreadable
                });
                let differs = self.disk(|disk, _| disk.stat(ino)) != replaced.stat;
                if !is_file || (early && differs && !planted(Bug::InstallUnverified)) {
                    return Err(FsError::Changed);
                }
                Some(*replaced)
            }
        };
        let key = &item.staged.key;
        let Some(bytes) = self.disk(|disk, _| disk.staged.remove(key)) else {
            return Err(FsError::Io(io::ErrorKind::NotFound.into()));
        };
        let ino = self.disk(|disk, _| {
            let ino = disk.inode(Sort::File, bytes, now);
            disk.inodes.get_mut(&ino).unwrap().executable = item.staged.content.executable;
            if !planted(Bug::InstallUnsynced) {
                disk.sync_bytes(ino);
            }
            ino
        });
        let Some(expected) = target else {
            self.disk(|disk, now| disk.link(&place, ino, now));
            with(Sim::learn_facts);
            return Ok((
                Installed { stat: self.disk(|disk, _| disk.stat(ino)), rescued: None },
                ino,
            ));
        };
        let aside = self.disk(|disk, now| {
            let aside = disk.trash_place();
            disk.exchange(&place, ino, &aside, now);
            aside
        });
        with(Sim::learn_facts);
        let stat = self.disk(|disk, _| disk.stat(ino));
        // Whoever has written just what was fetched is in no conflict with it.
        let expected = [expected.content, item.staged.content];
        let rescued =
            self.looked_at(&item.path, aside, expected, |fs| fs.pause("exchanged, not verified"))?;
        Ok((Installed { stat, rescued }, ino))
    }

    /// Others act while a displaced file was not looked at yet; then it is, even after a crash.
    fn looked_at(
        self,
        path: &RelPath,
        aside: Link,
        expected: [Content; 2],
        meanwhile: impl FnOnce(Self) -> Result<(), Stop>,
    ) -> Result<Option<RelPath>, FsError> {
        with(|sim| {
            let one = &mut sim.clients[self.client];
            if let Some(ino) = one.disk.at(aside.0, &aside.1) {
                one.displaced.insert(ino, path.to_string());
                one.limbo.push(Limbo { path: path.clone(), aside, ino, expected });
            }
        });
        meanwhile(self)?;
        Ok(with(|sim| {
            let limbo = sim.clients[self.client].limbo.pop();
            limbo.and_then(|limbo| sim.verify(self.client, &limbo))
        }))
    }
}

impl Fs for SimFs {
    fn root(&self) -> Result<Option<Root>, FsError> {
        self.pause("look at the root")?;
        Ok(self.disk(|disk, _| {
            let (drive_id, marker) = disk.markers.get(&disk.root)?.clone();
            Some(Root { drive_id, marker, dev: disk.dev, ino: disk.root })
        }))
    }

    fn plant_marker(&self, drive_id: &str, marker: &str) -> Result<Root, FsError> {
        self.pause("plant the marker")?;
        let root = self.disk(|disk, _| {
            disk.markers.insert(disk.root, (drive_id.to_owned(), marker.to_owned()));
            let (drive_id, marker) = (drive_id.to_owned(), marker.to_owned());
            Root { drive_id, marker, dev: disk.dev, ino: disk.root }
        });
        self.told("plant the marker", &[])?;
        Ok(root)
    }

    fn scan(&self, previous: LocalTree, scope: &Scope) -> Result<LocalTree, FsError> {
        self.pause("scan")?;
        let root = self.disk(|disk, _| disk.root);
        let places = match scope {
            Scope::All => {
                let mut tree = LocalTree::new();
                self.scan_folder(root, None, &previous, &mut tree)?;
                return Ok(tree);
            }
            Scope::Only(places) => places,
        };
        let mut tree = previous.clone();
        let tops: BTreeSet<RelPath> = places.iter().map(|path| self.top(path, &previous)).collect();
        for top in tops {
            tree.retain(|path, _| *path != top && !path.is_inside(&top));
            if let Some(ino) = self.disk(|disk, _| disk.find(&top.to_string())) {
                self.scan_entry(&top, ino, &previous, &mut tree)?;
            }
        }
        Ok(tree)
    }

    fn make_directory(&self, path: &RelPath) -> Result<Stat, FsError> {
        self.begin("make a folder", &[path])?;
        let place = self.disk(|disk, _| disk.place(&path.to_string())).ok_or(FsError::Changed)?;
        if self.disk(|disk, _| disk.find(&path.to_string())).is_some() {
            return Err(FsError::Exists);
        }
        let ino = self.disk(|disk, now| {
            let ino = disk.inode(Sort::Directory, Vec::new(), now);
            disk.link(&place, ino, now);
            ino
        });
        with(Sim::learn_facts);
        let stat = self.disk(|disk, _| disk.stat(ino));
        self.settle("make a folder", place.0, &[path])?;
        Ok(stat)
    }

    fn remove_directory(&self, path: &RelPath) -> Result<(), FsError> {
        self.begin("remove a folder", &[path])?;
        let text = path.to_string();
        let (place, ino) = self
            .disk(|disk, _| Some((disk.place(&text)?, disk.find(&text)?)))
            .ok_or(FsError::Changed)?;
        let inside = self.disk(|disk, _| match disk.inodes[&ino].sort {
            Sort::Directory => Some(disk.inside(ino)),
            Sort::File | Sort::Symlink | Sort::Special => None,
        });
        let inside = inside.ok_or(FsError::Changed)?;
        let goes_along =
            |(name, _): &(String, Ino)| planted(Bug::RemovesIgnored) && is_ignored(name);
        if !inside.iter().all(goes_along) {
            return Err(FsError::NotEmpty);
        }
        self.disk(|disk, now| {
            for (name, _) in inside {
                disk.unlink(&(ino, name), now);
            }
            disk.unlink(&place, now);
        });
        self.settle("remove a folder", place.0, &[path])
    }

    fn rename(&self, from: &RelPath, to: &RelPath, stat: &Stat) -> Result<Stat, FsError> {
        self.begin("rename", &[from, to])?;
        let (old, new) = self
            .disk(|disk, _| Some((disk.place(&from.to_string())?, disk.place(&to.to_string())?)))
            .ok_or(FsError::Changed)?;
        let ino = self.disk(|disk, _| disk.at(old.0, &old.1)).ok_or(FsError::Changed)?;
        if !self.disk(|disk, _| disk.stat(ino)).same_inode(stat) || to.is_inside(from) {
            return Err(FsError::Changed);
        }
        if self.disk(|disk, _| disk.at(new.0, &new.1)).is_some() {
            return Err(FsError::Exists);
        }
        self.disk(|disk, now| disk.rename(&old, &new, now));
        with(Sim::learn_facts);
        // Else it follows a move.
        let marks = |path: &RelPath| path.name().matches("(conflict ").count();
        let told = with(|sim| sim.server.tree.at(&to.to_string()).is_some());
        if from.parent() == to.parent() && marks(to) > marks(from) && !told {
            world::conflict_copy(self.client, &from.to_string(), &to.to_string());
        }
        with(|sim| sim.ledger.pass_on(&from.to_string(), &to.to_string()));
        let stat = self.disk(|disk, _| disk.stat(ino));
        self.pause("renamed")?;
        self.disk(|disk, _| disk.sync_links(old.0));
        self.settle("rename", new.0, &[from, to])?;
        Ok(stat)
    }

    fn stage(&self, key: &str, content: &Content) -> Result<Box<dyn StageWriter + '_>, FsError> {
        self.begin("stage", &[])?;
        self.disk(|disk, _| disk.staged.entry(key.to_owned()).or_default().len());
        Ok(Box::new(Writer { fs: *self, key: key.to_owned(), content: *content }))
    }

    fn install(&self, items: Vec<Install>) -> Vec<Result<Installed, FsError>> {
        let mut results: Vec<_> = items.iter().map(|item| self.install_one(item)).collect();
        let stopped = |result: &Result<_, _>| matches!(result, Err(FsError::Stopped));
        let mut stop = results.iter().any(stopped) || self.pause("sync of installs").is_err();
        for (item, result) in items.iter().zip(&mut results) {
            if stop {
                break;
            }
            let Ok((installed, _)) = result else { continue };
            let path = item.path.to_string();
            self.disk(|disk, _| {
                if let Some(place) = disk.place(&path) {
                    disk.sync_links(place.0);
                }
            });
            let mut paths = vec![&item.path];
            paths.extend(&installed.rescued);
            stop = self.told("install", &paths).is_err();
        }
        let all = results.into_iter();
        all.map(|result| match result {
            _ if stop => Err(FsError::Stopped),
            result => result.map(|(installed, _)| installed),
        })
        .collect()
    }

    fn delete(&self, path: &RelPath, replaced: &Replaced) -> Result<(), FsError> {
        self.begin("delete", &[path])?;
        let text = path.to_string();
        let (place, ino) = self
            .disk(|disk, _| Some((disk.place(&text)?, disk.find(&text)?)))
            .ok_or(FsError::Changed)?;
        let same = |disk: &Disk| {
            let inode = &disk.inodes[&ino];
            inode.sort == Sort::File
                && content(&inode.bytes, inode.executable) == replaced.content
                && !inode.suspicious
                && !inode.unreadable
        };
        if !self.disk(|disk, _| same(disk) && disk.stat(ino) == replaced.stat) {
            return Err(FsError::Changed);
        }
        let aside = self.disk(|disk, now| {
            let aside = disk.trash_place();
            disk.rename(&place, &aside, now);
            aside
        });
        let mut put_back = false;
        let rescued = self.looked_at(path, aside.clone(), [replaced.content; 2], |fs| {
            fs.pause("displaced, not verified")?;
            let free = fs.disk(|disk, _| {
                disk.place(&text).as_ref() == Some(&place)
                    && disk.at(place.0, &place.1).is_none()
                    && !same(disk)
            });
            if free {
                fs.disk(|disk, now| disk.rename(&aside, &place, now));
                put_back = true;
            }
            Ok(())
        })?;
        if put_back || rescued.is_some() {
            self.settle("put back", place.0, &[path])?;
            return Err(FsError::Changed);
        }
        self.settle("delete", place.0, &[path])
    }

    fn open(&self, path: &RelPath, stat: &Stat) -> Result<Box<dyn Source + '_>, FsError> {
        self.begin("open", &[])?;
        let ino = self.disk(|disk, _| disk.find(&path.to_string())).ok_or(FsError::Changed)?;
        let fits = self.disk(|disk, _| {
            disk.inodes[&ino].sort == Sort::File
                && (disk.stat(ino) == *stat || planted(Bug::SendUnchecked))
        });
        if !fits {
            return Err(FsError::Changed);
        }
        self.disk(|disk, _| disk.reading.push(ino));
        Ok(Box::new(Reader { fs: *self, path: path.clone(), ino, stat: *stat }))
    }

    fn free_space(&self) -> Result<u64, FsError> {
        self.pause("free space")?;
        Ok(if self.disk(|disk, _| disk.full) { 100_000_000 } else { 10_000_000_000 })
    }
}
