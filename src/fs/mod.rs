//! Durable, owner-only files: everything that the gateway keeps on disk goes through here.
//!
//! Directories are 0700 and files 0600, created that way; what is ours and looser is repaired, what
//! is somebody else's or of the wrong kind is refused. Writes go to a temp file in the same
//! directory, fsync, rename, fsync of the directory.
//!
//! Every check is made on the opened descriptor, so that nothing can be swapped between check and
//! use; nothing here waits for a peer, whatever stands at the path. Only the leaf that a caller
//! names is checked and repaired: directories above it may be anybody's.

use std::fs::{DirBuilder, File, FileType, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags};
use tempfile::NamedTempFile;

mod acting;
pub mod socket;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use acting::{Owner, acting_as, give_dir};

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const STICKY: u32 = 0o1000;
const A_FILE: &str = "a regular file";
const A_DIRECTORY: &str = "a directory";
/// Random characters in the name of a temp file.
const TEMP_RANDOM: usize = 10;
const TEMP_SUFFIX: &str = ".tmp";

/// Why a path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// Owned by another user.
    #[error("{} belongs to another user", path.display())]
    ForeignOwner {
        /// The path.
        path: PathBuf,
    },
    /// A symlink, fifo, directory … where a regular file is wanted (or no directory where one is).
    #[error("{} is {found}, not {wanted}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What stands there, e.g. `a symbolic link`.
        found: &'static str,
        /// What is wanted, e.g. `a regular file`.
        wanted: &'static str,
    },
    /// Larger than the reader takes.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// The bound, bytes.
        limit: u64,
    },
    /// The operating system refused.
    #[error("could not {verb} {}", path.display())]
    Io {
        /// What was tried, e.g. `write`.
        verb: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl FsError {
    /// What the operating system refused, for a caller that used the path by itself.
    pub fn io(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { verb, path: path.to_owned(), source }
    }

    /// The path that cannot be used.
    pub fn path(&self) -> &Path {
        match self {
            Self::ForeignOwner { path }
            | Self::WrongKind { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Io { path, .. } => path,
        }
    }

    /// Whether no room is left: the disk is full, or the user's share of it.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            ),
            Self::ForeignOwner { .. } | Self::WrongKind { .. } | Self::TooLarge { .. } => false,
        }
    }

    /// Whether the operating system keeps us from it: no permission, or a read-only file system.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
            }
            Self::ForeignOwner { .. } | Self::WrongKind { .. } | Self::TooLarge { .. } => false,
        }
    }
}

/// Makes `path` (and missing parents) a directory of ours with mode 0700; repairs a looser one of
/// ours; follows a symlink to a directory of ours. Refuses the root and directories that are shared
/// on purpose (sticky, as `/tmp`), which a repair would take away from everybody else.
pub fn ensure_private_dir(path: &Path) -> Result<(), FsError> {
    let dir = match open_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_dirs(path)?;
            open_dir(path)
        }
        opened => opened,
    };
    let dir = dir.map_err(|error| refused_dir("open", path, error))?;
    let metadata = dir.metadata().map_err(|error| FsError::io("examine", path, error))?;
    check_owner(path, &metadata)?;
    let mode = metadata.mode();
    let shared = path.parent().is_none() || (mode & STICKY != 0 && mode & 0o022 != 0);
    if shared {
        return Err(FsError::WrongKind {
            path: path.to_owned(),
            found: "a directory shared by all users",
            wanted: "a private directory",
        });
    }
    if mode & 0o077 != 0 {
        repair(&dir, path, DIR_MODE)?;
    }
    Ok(())
}

/// Whether we may make entries in `dir`, or, when it does not exist yet, in the nearest directory
/// above it. Changes nothing.
pub fn check_writable_dir(dir: &Path) -> Result<(), FsError> {
    for ancestor in dir.ancestors() {
        match rustix::fs::access(ancestor, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(FsError::io("write to", ancestor, error.into())),
        }
    }
    Err(FsError::io("write to", dir, ErrorKind::NotFound.into()))
}

/// Checks `path` before use: absent is `Ok(false)`; a regular file of ours is repaired to 0600 and
/// is `Ok(true)`; anything else is refused. Never follows a symlink.
pub fn check_private_file(path: &Path) -> Result<bool, FsError> {
    Ok(open_private(path, OpenOptions::new().read(true))?.is_some())
}

/// Reads a checked private file of at most `limit` bytes; `None` when it is absent.
pub fn read_private(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FsError> {
    match open_private(path, OpenOptions::new().read(true))? {
        Some((file, metadata)) => read_bounded(path, &file, &metadata, limit).map(Some),
        None => Ok(None),
    }
}

/// Reads a regular file of ours or of root of at most `limit` bytes, and changes nothing, not even
/// its permissions: for files on a file system that cannot be written. `None` when it is absent.
pub fn read_unrepaired(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FsError> {
    match open_file(path, OpenOptions::new().read(true))? {
        Some((file, metadata)) => {
            if metadata.uid() != 0 {
                check_owner(path, &metadata)?;
            }
            read_bounded(path, &file, &metadata, limit).map(Some)
        }
        None => Ok(None),
    }
}

/// Opens a regular file for reading, whoever owns it, and changes nothing; `None` when it is absent.
/// Never follows a symlink, and never waits for the peer of a fifo.
pub fn open_to_look(path: &Path) -> Result<Option<File>, FsError> {
    Ok(open_file(path, OpenOptions::new().read(true))?.map(|(file, _)| file))
}

/// Opens a private file for appending, made 0600 when absent (missing parents 0700), checked when
/// present.
pub fn append_private(path: &Path) -> Result<File, FsError> {
    open_or_create(path, OpenOptions::new().append(true).create(true))
}

/// The same for reading and writing anywhere in it.
pub fn edit_private(path: &Path) -> Result<File, FsError> {
    open_or_create(path, OpenOptions::new().read(true).write(true).create(true))
}

fn open_or_create(path: &Path, options: &OpenOptions) -> Result<File, FsError> {
    let mut opened = open_private(path, options)?;
    if opened.is_none() {
        create_dirs(parent_of(path))?;
        opened = open_private(path, options)?;
    }
    match opened {
        Some((file, _)) => Ok(file),
        None => Err(FsError::io("create", path, ErrorKind::NotFound.into())),
    }
}

/// Replaces `path` by `contents`: temp file in the same directory (0600 from birth), fsync, rename,
/// fsync of the directory. A reader sees the old contents or the new, never a part. Missing parents
/// are made 0700; what stands at `path` must be a regular file of ours, or nothing.
pub fn save(path: &Path, contents: &[u8]) -> Result<(), FsError> {
    replace(path, contents, Durability::PowerCut)
}

/// As [`save`], without the syncs: what is written outlives this process, but not a power cut.
pub fn save_unsynced(path: &Path, contents: &[u8]) -> Result<(), FsError> {
    replace(path, contents, Durability::Kill)
}

/// What a write outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    Kill,
    PowerCut,
}

fn replace(path: &Path, contents: &[u8], durability: Durability) -> Result<(), FsError> {
    match path.symlink_metadata() {
        Ok(metadata) => {
            check_kind(path, metadata.file_type())?;
            check_owner(path, &metadata)?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(FsError::io("examine", path, error)),
    }
    let parent = parent_of(path);
    let failed = |error| FsError::io("write", path, error);
    let mut temp = match temp_beside(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_dirs(parent)?;
            temp_beside(path)
        }
        made => made,
    }
    .map_err(failed)?;
    temp.write_all(contents).map_err(failed)?;
    let synced = durability == Durability::PowerCut;
    if synced {
        temp.as_file().sync_all().map_err(failed)?;
    }
    temp.persist(path).map_err(|error| failed(error.error))?;
    if synced { sync_dir(parent).map_err(failed) } else { Ok(()) }
}

/// A file in `dir` without a lasting name, 0600 from birth, for contents that come bit by bit;
/// removed when dropped. [`place`] gives it a name.
pub fn temp_in(dir: &Path) -> Result<NamedTempFile, FsError> {
    tempfile::Builder::new()
        .prefix("")
        .suffix(TEMP_SUFFIX)
        .rand_bytes(TEMP_RANDOM)
        .permissions(Permissions::from_mode(FILE_MODE))
        .tempfile_in(dir)
        .map_err(|error| FsError::io("create a file in", dir, error))
}

/// Makes what was made, renamed or removed in a directory outlive a power cut.
pub fn sync_entries(dir: &Path) -> Result<(), FsError> {
    sync_dir(dir).map_err(|error| FsError::io("write", dir, error))
}

/// Puts a temp file of the same file system at `path`, in place of what is there, and syncs the
/// directory. The contents must be synced already.
pub fn place(temp: NamedTempFile, path: &Path) -> Result<(), FsError> {
    temp.persist(path).map_err(|error| FsError::io("write", path, error.error))?;
    sync_entries(parent_of(path))
}

/// Removes what saves of `path` left behind when they were killed half-way. The caller holds the
/// lock under which `path` is saved. Best effort.
pub fn remove_leftovers(path: &Path) {
    let prefix = temp_prefix(path);
    let Ok(entries) = std::fs::read_dir(parent_of(path)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let random = name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix))
            .and_then(|rest| rest.strip_suffix(TEMP_SUFFIX));
        if random.is_some_and(|random| random.len() == TEMP_RANDOM) {
            // One that cannot be removed is found again by the next save.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Opens a checked file of ours, repaired to 0600; `None` when it (or its directory) is absent.
fn open_private(path: &Path, options: &OpenOptions) -> Result<Option<(File, Metadata)>, FsError> {
    let Some((file, metadata)) = open_file(path, options)? else { return Ok(None) };
    check_owner(path, &metadata)?;
    if metadata.mode() & 0o7777 & !FILE_MODE != 0 {
        repair(&file, path, FILE_MODE)?;
    }
    Ok(Some((file, metadata)))
}

/// Opens a regular file without following a symlink and without waiting for the peer of a fifo.
fn open_file(path: &Path, options: &OpenOptions) -> Result<Option<(File, Metadata)>, FsError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened =
        options.clone().mode(FILE_MODE).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused_file("open", path, error)),
    };
    let metadata = file.metadata().map_err(|error| FsError::io("examine", path, error))?;
    check_kind(path, metadata.file_type())?;
    Ok(Some((file, metadata)))
}

fn open_dir(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::DIRECTORY.bits().cast_signed()).open(path)
}

fn create_dirs(path: &Path) -> Result<(), FsError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(path)
        .map_err(|error| refused_dir("create", path, error))
}

/// Names what an open refused: opening comes first, so that what is examined here only words the
/// error and decides nothing.
fn refused_file(verb: &'static str, path: &Path, error: io::Error) -> FsError {
    let Ok(metadata) = path.symlink_metadata() else { return FsError::io(verb, path, error) };
    check_kind(path, metadata.file_type())
        .and_then(|()| check_owner(path, &metadata))
        .err()
        .unwrap_or_else(|| FsError::io(verb, path, error))
}

fn refused_dir(verb: &'static str, path: &Path, error: io::Error) -> FsError {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            check_owner(path, &metadata).err().unwrap_or_else(|| FsError::io(verb, path, error))
        }
        Ok(metadata) => FsError::WrongKind {
            path: path.to_owned(),
            found: describe(metadata.file_type()),
            wanted: A_DIRECTORY,
        },
        Err(_) if path.is_symlink() => FsError::WrongKind {
            path: path.to_owned(),
            found: "a symbolic link to nothing",
            wanted: A_DIRECTORY,
        },
        Err(_) => FsError::io(verb, path, error),
    }
}

fn check_kind(path: &Path, kind: FileType) -> Result<(), FsError> {
    if kind.is_file() {
        return Ok(());
    }
    Err(FsError::WrongKind { path: path.to_owned(), found: describe(kind), wanted: A_FILE })
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), FsError> {
    if metadata.uid() == acting::user() {
        return Ok(());
    }
    Err(FsError::ForeignOwner { path: path.to_owned() })
}

fn describe(kind: FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        A_DIRECTORY
    } else if kind.is_file() {
        A_FILE
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn repair(file: &File, path: &Path, mode: u32) -> Result<(), FsError> {
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(|error| FsError::io("make private", path, error))
}

fn read_bounded(
    path: &Path,
    file: &File,
    metadata: &Metadata,
    limit: u64,
) -> Result<Vec<u8>, FsError> {
    let too_large = || FsError::TooLarge { path: path.to_owned(), limit };
    if metadata.len() > limit {
        return Err(too_large());
    }
    let mut contents = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut contents)
        .map_err(|error| FsError::io("read", path, error))?;
    // It may have grown since it was opened.
    if contents.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(contents)
}

/// The directory of a file; a bare name lies in the current one.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

fn temp_prefix(path: &Path) -> String {
    format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy())
}

fn temp_beside(path: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(&temp_prefix(path))
        .suffix(TEMP_SUFFIX)
        .rand_bytes(TEMP_RANDOM)
        .permissions(Permissions::from_mode(FILE_MODE))
        .tempfile_in(parent_of(path))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    match open_dir(path)?.sync_all() {
        // Some file systems cannot sync a directory, and need not.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}
