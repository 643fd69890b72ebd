//! A drive at the server whose contents are counted as they come and go.

use super::super::ports::{
    Changes, Digest, Download, Drive, FsError, Recall, RemoteError, SnapshotPage, Source,
    StageWriter, Staged, Upload, Write, Written,
};
use super::super::progress::{Direction, Progress, Transfer};
use super::monitor::Monitor;

/// Contents of this many bytes are shown one by one while they are on their way.
const SHOWN_FROM: u64 = 1 << 20;

/// Passes everything on.
pub(super) struct Observed<D> {
    pub(super) drive: D,
    pub(super) progress: Progress,
    pub(super) monitor: Monitor,
}

impl<D: Drive> Drive for Observed<D> {
    fn changes(&self, after: u64, limit: u32) -> Result<Changes, RemoteError> {
        self.drive.changes(after, limit)
    }

    fn snapshot(&self, page: Option<&str>) -> Result<SnapshotPage, RemoteError> {
        self.drive.snapshot(page)
    }

    fn digest(&self) -> Result<Digest, RemoteError> {
        self.drive.digest()
    }

    fn apply(&self, changes: &[Write]) -> Vec<Result<Written, RemoteError>> {
        self.drive.apply(changes)
    }

    fn send(&self, uploads: Vec<Upload<'_>>) -> Vec<Result<Written, RemoteError>> {
        let counted = uploads.into_iter().map(|upload| {
            let transfer = Transfer {
                path: Some(upload.path.clone()),
                direction: Direction::Send,
                moved: 0,
                size: upload.content.size,
            };
            let source = Box::new(CountedSource { source: upload.source, way: self.way(transfer) });
            Upload { source, ..upload }
        });
        self.drive.send(counted.collect())
    }

    fn recall(&self, uploads: &[Recall]) -> Vec<Result<Option<Written>, RemoteError>> {
        self.drive.recall(uploads)
    }

    fn fetch(&self, downloads: Vec<Download<'_>>) -> Vec<Result<(), RemoteError>> {
        let mut writers: Vec<_> = Vec::with_capacity(downloads.len());
        let mut wanted = Vec::with_capacity(downloads.len());
        for Download { id, version, content, into } in downloads {
            let transfer = Transfer {
                path: None,
                direction: Direction::Fetch,
                moved: into.written(),
                size: content.size,
            };
            let way = self.way(transfer);
            writers.push(CountedWriter { into, way, progress: &self.progress, id: id.clone() });
            wanted.push((id, version, content));
        }
        let downloads = writers
            .iter_mut()
            .zip(wanted)
            .map(|(into, (id, version, content))| Download { id, version, content, into });
        self.drive.fetch(downloads.collect())
    }
}

impl<D> Observed<D> {
    fn way(&self, transfer: Transfer) -> Way<'_> {
        Way { progress: &self.progress, monitor: &self.monitor, transfer, number: None }
    }
}

/// How one content comes along; shown from its first byte on until it is dropped.
struct Way<'a> {
    progress: &'a Progress,
    monitor: &'a Monitor,
    transfer: Transfer,
    number: Option<u64>,
}

impl Way<'_> {
    fn goes(
        &mut self,
        bytes: u64,
        moved: u64,
        name: impl FnOnce() -> Option<super::super::path::RelPath>,
    ) {
        self.monitor.count(|tally| match self.transfer.direction {
            Direction::Fetch => tally.fetched_bytes += bytes,
            Direction::Send => tally.sent_bytes += bytes,
        });
        if self.transfer.size < SHOWN_FROM {
            self.progress.moved_small(bytes);
            return;
        }
        let number = *self.number.get_or_insert_with(|| {
            let path = self.transfer.path.clone().or_else(name);
            self.progress.begin(Transfer { path, ..self.transfer.clone() })
        });
        self.progress.moved(number, bytes, moved);
        if moved >= self.transfer.size {
            self.progress.end(number);
        }
    }
}

impl Drop for Way<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.progress.end(number);
        }
    }
}

/// What is written to it has arrived.
struct CountedWriter<'a> {
    into: &'a mut (dyn StageWriter + 'a),
    way: Way<'a>,
    progress: &'a Progress,
    id: String,
}

impl StageWriter for CountedWriter<'_> {
    fn written(&self) -> u64 {
        self.into.written()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        self.into.write(bytes)?;
        let (progress, id) = (self.progress, &self.id);
        self.way.goes(bytes.len() as u64, self.into.written(), || progress.name_of(id));
        Ok(())
    }

    fn restart(&mut self) -> Result<(), FsError> {
        self.into.restart()
    }

    /// The engine ends its own writer; nobody has this one but for the time of a call.
    fn finish(self: Box<Self>) -> Result<Staged, FsError> {
        Err(FsError::WrongContent)
    }
}

/// What is read from it is on its way.
struct CountedSource<'a> {
    source: Box<dyn Source + 'a>,
    way: Way<'a>,
}

impl Source for CountedSource<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, FsError> {
        let count = self.source.read_at(offset, buffer)?;
        if count > 0 {
            let bytes = count as u64;
            self.way.goes(bytes, offset + bytes, || None);
        }
        Ok(count)
    }

    fn check(&mut self) -> Result<(), FsError> {
        self.source.check()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::model::{Content, Sha256};
    use super::super::super::path::RelPath;
    use super::*;

    /// A server that gives and takes half of everything, and looks at what is told meanwhile.
    struct Half(Progress);

    const WHOLE: usize = 4 << 20;

    impl Drive for Half {
        fn changes(&self, _: u64, _: u32) -> Result<Changes, RemoteError> {
            Err(RemoteError::AccessLost)
        }
        fn snapshot(&self, _: Option<&str>) -> Result<SnapshotPage, RemoteError> {
            Err(RemoteError::AccessLost)
        }
        fn digest(&self) -> Result<Digest, RemoteError> {
            Err(RemoteError::AccessLost)
        }
        fn apply(&self, _: &[Write]) -> Vec<Result<Written, RemoteError>> {
            Vec::new()
        }
        fn send(&self, uploads: Vec<Upload<'_>>) -> Vec<Result<Written, RemoteError>> {
            for mut upload in uploads {
                upload.source.read_at(0, &mut vec![0; WHOLE / 2]).unwrap();
                self.assert_half("up", Direction::Send);
            }
            Vec::new()
        }
        fn recall(&self, _: &[Recall]) -> Vec<Result<Option<Written>, RemoteError>> {
            Vec::new()
        }
        fn fetch(&self, downloads: Vec<Download<'_>>) -> Vec<Result<(), RemoteError>> {
            for download in downloads {
                download.into.write(&vec![0; WHOLE / 2]).unwrap();
                self.assert_half("down", Direction::Fetch);
            }
            Vec::new()
        }
    }

    impl Half {
        fn assert_half(&self, path: &str, direction: Direction) {
            let now = self.0.now();
            let path = Some(RelPath::parse(path).unwrap());
            let (moved, size) = (WHOLE as u64 / 2, WHOLE as u64);
            let wanted = Transfer { path, direction, moved, size };
            assert_eq!(now.transfers().collect::<Vec<_>>(), [&wanted]);
        }
    }

    struct Bytes(u64);

    impl StageWriter for Bytes {
        fn written(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) -> Result<(), FsError> {
            self.0 += bytes.len() as u64;
            Ok(())
        }
        fn restart(&mut self) -> Result<(), FsError> {
            Ok(())
        }
        fn finish(self: Box<Self>) -> Result<Staged, FsError> {
            Err(FsError::Changed)
        }
    }

    impl Source for Bytes {
        fn read_at(&mut self, _: u64, buffer: &mut [u8]) -> Result<usize, FsError> {
            Ok(buffer.len())
        }
        fn check(&mut self) -> Result<(), FsError> {
            Ok(())
        }
    }

    #[test]
    fn contents_are_shown_with_their_names_while_they_move_and_counted() {
        let (progress, monitor) = (Progress::default(), Monitor::default());
        let drive = Half(progress.clone());
        let observed = Observed { drive, progress: progress.clone(), monitor: monitor.clone() };
        let content = Content { sha256: Sha256([0; 32]), size: WHOLE as u64, executable: false };
        let (id, path) = ("e1".to_owned(), RelPath::parse("down").unwrap());
        progress.names([(&id, &path)].into_iter());
        let mut writer = Bytes(0);
        observed.fetch(vec![Download { id, version: "v1".into(), content, into: &mut writer }]);
        observed.send(vec![Upload {
            operation_id: "o1".into(),
            path: RelPath::parse("up").unwrap(),
            content,
            expect: None,
            source: Box::new(Bytes(0)),
        }]);
        assert_eq!(progress.now().transfers().count(), 0, "what failed is not shown any more");
        let half = WHOLE as u64 / 2;
        let tally = monitor.tally();
        assert_eq!((tally.fetched_bytes, tally.sent_bytes), (half, half));
        assert_eq!(progress.now().moving, 2 * half);
    }
}
