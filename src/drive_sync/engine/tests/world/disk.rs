//! The disk of the engine's tests.

use super::*;

impl Fs for Outside {
    fn root(&self) -> Result<Option<Root>, FsError> {
        Ok(self.disk("root")?.marker.clone())
    }

    fn plant_marker(&self, drive_id: &str, marker: &str) -> Result<Root, FsError> {
        let (drive_id, marker) = (drive_id.to_owned(), marker.to_owned());
        let root = Root { drive_id, marker, dev: 1, ino: 2 };
        self.disk("plant")?.marker = Some(root.clone());
        Ok(root)
    }

    fn scan(&self, _: LocalTree, _: &Scope) -> Result<LocalTree, FsError> {
        let world = self.disk("scan")?;
        let is_unread = |path: &RelPath| world.unread.contains(&path.to_string());
        let local = |path: &RelPath, node: &Node| match &node.bytes {
            Some(_) if is_unread(path) => Local::Opaque(Opaque::Unread),
            Some(bytes) => Local::File { content: content(bytes), stat: node.stat(), racy: false },
            None => Local::Directory { stat: node.stat() },
        };
        Ok(world.disk.iter().map(|(path, node)| (path.clone(), local(path, node))).collect())
    }

    fn make_directory(&self, path: &RelPath) -> Result<Stat, FsError> {
        let mut world = self.disk("mkdir")?;
        Self::place(&world, path)?;
        world.folder(path);
        Ok(world.disk[path].stat())
    }

    fn remove_directory(&self, path: &RelPath) -> Result<(), FsError> {
        let mut world = self.disk("rmdir")?;
        if world.disk.keys().any(|there| there.is_inside(path)) {
            return Err(FsError::NotEmpty);
        }
        world.disk.remove(path).map(drop).ok_or(FsError::Changed)
    }

    fn rename(&self, from: &RelPath, to: &RelPath, stat: &Stat) -> Result<Stat, FsError> {
        let mut world = self.disk("rename")?;
        Self::place(&world, to)?;
        let node = world.disk.get(from).filter(|node| node.stat().same_inode(stat)).cloned();
        let node = node.ok_or(FsError::Changed)?;
        world.disk.remove(from);
        world.disk.insert(to.clone(), node.clone());
        Ok(node.stat())
    }

    fn stage(&self, key: &str, content: &Content) -> Result<Box<dyn StageWriter + '_>, FsError> {
        let mut world = self.disk("stage")?;
        if let Some(free) = world.filled.take() {
            world.free = free;
            return Err(FsError::Full);
        }
        drop(world);
        let outside = self.clone();
        Ok(Box::new(Writer { outside, key: key.to_owned(), content: *content, bytes: Vec::new() }))
    }

    fn install(&self, items: Vec<Install>) -> Vec<Result<Installed, FsError>> {
        items.into_iter().map(|item| self.install_one(&item)).collect()
    }

    fn delete(&self, path: &RelPath, replaced: &Replaced) -> Result<(), FsError> {
        let mut world = self.disk("delete")?;
        let there = world.disk.get(path).filter(|node| node.stat() == replaced.stat).cloned();
        let bytes = there.and_then(|node| node.bytes).ok_or(FsError::Changed)?;
        world.trash.push(bytes);
        world.disk.remove(path);
        Ok(())
    }

    fn open(&self, path: &RelPath, stat: &Stat) -> Result<Box<dyn Source + '_>, FsError> {
        let world = self.disk("open")?;
        let there = world.disk.get(path).filter(|node| node.stat() == *stat);
        let bytes = there.and_then(|node| node.bytes.clone()).ok_or(FsError::Changed)?;
        Ok(Box::new(Opened(bytes.into_bytes(), !world.volatile)))
    }

    fn free_space(&self) -> Result<u64, FsError> {
        Ok(self.disk("free")?.free)
    }
}

/// Staged bytes are found again by this suffix of their key, so that no store is needed.
fn staged_bytes(key: &str) -> &str {
    key.split_once('#').map_or("", |(_, bytes)| bytes)
}

impl Outside {
    fn install_one(&self, item: &Install) -> Result<Installed, FsError> {
        let mut world = self.disk("install")?;
        match &item.replaces {
            None => Self::place(&world, &item.path)?,
            Some(replaced) => {
                let there = world.disk.get(&item.path).ok_or(FsError::Changed)?;
                if there.stat() != replaced.stat {
                    return Err(FsError::Changed);
                }
            }
        }
        world.disk.remove(&item.path);
        world.write(&item.path.to_string(), staged_bytes(&item.staged.key));
        Ok(Installed { stat: world.disk[&item.path].stat(), rescued: None })
    }
}

struct Writer {
    outside: Outside,
    key: String,
    content: Content,
    bytes: Vec<u8>,
}

impl StageWriter for Writer {
    fn written(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        self.bytes.extend(bytes);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), FsError> {
        self.bytes.clear();
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Staged, FsError> {
        drop(self.outside.disk("finish")?);
        let bytes = String::from_utf8(self.bytes).unwrap();
        if content(&bytes) != self.content {
            return Err(FsError::WrongContent);
        }
        Ok(Staged { key: format!("{}#{bytes}", self.key), content: self.content })
    }
}

struct Opened(Vec<u8>, bool);

impl Source for Opened {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, FsError> {
        let rest = &self.0[usize::try_from(offset).unwrap()..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn check(&mut self) -> Result<(), FsError> {
        if self.1 { Ok(()) } else { Err(FsError::Changed) }
    }
}
