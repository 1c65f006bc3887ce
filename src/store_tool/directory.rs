//! The directory of a stopped store, for reading: its logs, whose store it is, and that nobody else uses it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::io::identity::{self, Told, Untold, Use};
use crate::io::layout::{self, IDENTITY, LOCK, NOTE, directory_of, file_of, log_named, slot_named};
use crate::io::regular;
use crate::log::aligned::AlignedBuf;
use crate::log::recover::Files;
use crate::log::{BLOCK_BYTES, DiskFault, LogId, NOTE_BYTES_MAX, SegmentHead, Slot, StoreId};

/// Why a directory cannot be looked at.
#[derive(Debug)]
pub enum Unusable {
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
    /// Another process uses it; its number, if it could be read.
    InUse(PathBuf, Option<u32>),
    /// It was written by a later version.
    Later(String),
    /// There is no store in it.
    NoStore(PathBuf),
    /// A log cannot be opened.
    Refused(PathBuf, crate::log::recover::Refusal),
    /// No stream, or more than one, is called so.
    Stream(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "{}: {error}", path.display()),
            Self::InUse(path, Some(pid)) => {
                write!(f, "{} is in use by process {pid}; stop it first", path.display())
            }
            Self::InUse(path, None) => write!(f, "{} is in use by another process; stop it first", path.display()),
            Self::Later(what) => f.write_str(what),
            Self::NoStore(path) => write!(f, "{}: there is no store in this directory", path.display()),
            Self::Refused(path, refusal) => write!(f, "{}: {refusal}", path.display()),
            Self::Stream(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Unusable {}

impl From<Untold> for Unusable {
    fn from(untold: Untold) -> Self {
        match untold {
            Untold::Io(path, error) => Self::Unreadable(path, error),
            Untold::Later(..) => Self::Later(untold.to_string()),
        }
    }
}

/// Something that is not as it should be with what is around the segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// It belongs to nobody.
    Foreign(PathBuf),
    /// This copy of the store's identity makes no sense. A server that opens the store writes it anew.
    DamagedIdentity(PathBuf),
    /// This copy of the store's identity is not there. A server that opens the store writes it anew.
    MissingIdentity(PathBuf),
    /// This copy of the store's identity is another store's.
    OtherStore(PathBuf),
    /// No file says which store this is; the heads of its segments do.
    Nameless,
    /// A log that the store should have is not there.
    MissingLog(PathBuf),
}

impl Oddity {
    /// Whether something is lost, or bytes are not as they were written.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Foreign(_) | Self::MissingIdentity(_))
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(path) => write!(f, "{}: not part of the store", path.display()),
            Self::DamagedIdentity(path) => write!(f, "{}: damaged", path.display()),
            Self::MissingIdentity(path) => write!(f, "{}: missing", path.display()),
            Self::OtherStore(path) => write!(f, "{}: belongs to another store", path.display()),
            Self::Nameless => f.write_str("which store this is can only be told from the heads of its segments"),
            Self::MissingLog(path) => write!(f, "{}: a log is missing", path.display()),
        }
    }
}

/// The directory of a store that no server has open.
#[derive(Debug)]
pub struct StoreDirectory {
    path: PathBuf,
    store: StoreId,
    logs: Vec<LogId>,
    oddities: Vec<Oddity>,
    /// Keeps servers away.
    _lock: Option<File>,
}

impl StoreDirectory {
    /// Opens the directory for reading. Several readers may have it open at a time, but no server.
    ///
    /// # Errors
    /// It cannot be read, is in use, or is no store.
    pub fn open(path: &Path) -> Result<Self, Unusable> {
        let entries = list(path)?;
        let lock = lock(path)?;
        let (mut logs, mut oddities) = (Vec::new(), Vec::new());
        for (name, entry) in entries {
            match log_named(&name).filter(|_| entry.is_dir()) {
                Some(log) => logs.push(log),
                None if layout::is_in_store(&name) => {}
                None => oddities.push(Oddity::Foreign(entry)),
            }
        }
        let mut told = Vec::new();
        for directory in std::iter::once(path.to_owned()).chain(logs.iter().map(|log| path.join(directory_of(*log)))) {
            told.push((directory.join(IDENTITY), identity::read(&directory)?));
        }
        let named = told.iter().find_map(|(_, told)| match told {
            Told::Sound(store, logs) => Some((*store, *logs)),
            Told::Damaged | Told::Missing => None,
        });
        let (store, count) = match named {
            Some(named) => named,
            None => {
                let store = by_segments(path, &logs)?.ok_or_else(|| Unusable::NoStore(path.to_owned()))?;
                oddities.push(Oddity::Nameless);
                (store, 0)
            }
        };
        for (file, told) in told {
            match told {
                Told::Sound(other, _) if other != store => oddities.push(Oddity::OtherStore(file)),
                Told::Sound(..) => {}
                Told::Damaged => oddities.push(Oddity::DamagedIdentity(file)),
                Told::Missing => oddities.push(Oddity::MissingIdentity(file)),
            }
        }
        for log in (0..count).map(LogId).filter(|log| !logs.contains(log)) {
            oddities.push(Oddity::MissingLog(path.join(directory_of(log))));
        }
        for log in &logs {
            let strangers = list(&path.join(directory_of(*log)))?;
            let strangers =
                strangers.into_iter().filter(|(name, _)| slot_named(name).is_none() && !layout::is_in_log(name));
            oddities.extend(strangers.map(|(_, entry)| Oddity::Foreign(entry)));
        }
        Ok(Self { path: path.to_owned(), store, logs, oddities, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose store it is.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Its logs, in order.
    #[must_use]
    pub fn logs(&self) -> &[LogId] {
        &self.logs
    }

    /// What is not as it should be.
    #[must_use]
    pub fn oddities(&self) -> &[Oddity] {
        &self.oddities
    }

    /// The directory of a log.
    #[must_use]
    pub fn path_of(&self, log: LogId) -> PathBuf {
        self.path.join(directory_of(log))
    }

    /// The files of a log. `on_read` is told how many bytes each read has brought.
    #[must_use]
    pub fn files<'a>(&self, log: LogId, on_read: &'a dyn Fn(u64)) -> SegmentFiles<'a> {
        SegmentFiles { path: self.path_of(log), open: None, on_read }
    }
}

/// Keeps servers away as long as the file is open; other readers are welcome. `None` if no server has been here.
fn lock(path: &Path) -> Result<Option<File>, Unusable> {
    let place = path.join(LOCK);
    let unreadable = |error| Unusable::Unreadable(place.clone(), error);
    let file = match regular::open_to_read(&place) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    match identity::lock(&file, Use::Reading).map_err(unreadable)? {
        Ok(()) => Ok(Some(file)),
        Err(holder) => Err(Unusable::InUse(path.to_owned(), holder)),
    }
}

/// Names and paths of what is in a directory, in order.
fn list(path: &Path) -> Result<Vec<(String, PathBuf)>, Unusable> {
    let named = |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path());
    let list = || fs::read_dir(path)?.map(|entry| entry.map(named)).collect::<io::Result<Vec<_>>>();
    let mut entries = list().map_err(|error| Unusable::Unreadable(path.to_owned(), error))?;
    entries.sort_unstable();
    Ok(entries)
}

/// Whose segments these are, if they agree.
fn by_segments(path: &Path, logs: &[LogId]) -> Result<Option<StoreId>, Unusable> {
    let mut store = None;
    for log in logs {
        let directory = path.join(directory_of(*log));
        let mut files = SegmentFiles { path: directory.clone(), open: None, on_read: &|_| {} };
        let unreadable =
            |fault: DiskFault| Unusable::Unreadable(directory.clone(), io::Error::other(fault.to_string()));
        for (slot, _) in files.slots().map_err(unreadable)? {
            let head = files.read(slot, 0, BLOCK_BYTES).ok().and_then(|block| SegmentHead::parse(&block).ok());
            match head.filter(|head| head.log == *log) {
                Some(head) if store.is_some_and(|store| store != head.store) => return Ok(None),
                Some(head) => store = Some(head.store),
                None => {}
            }
        }
    }
    Ok(store)
}

/// The files of a log, to be read only.
pub struct SegmentFiles<'a> {
    path: PathBuf,
    /// The file that was read last.
    open: Option<(Slot, File)>,
    on_read: &'a dyn Fn(u64),
}

impl SegmentFiles<'_> {
    fn file(&mut self, slot: Slot) -> io::Result<&File> {
        let file = match self.open.take() {
            Some((of, file)) if of == slot => file,
            _ => regular::open_to_read(&self.path.join(file_of(slot)))?,
        };
        Ok(&self.open.insert((slot, file)).1)
    }

    fn read_at(&mut self, slot: Slot, offset: u32, bytes: usize) -> io::Result<AlignedBuf> {
        let file = self.file(slot)?;
        // A broken batch may claim to be larger than its file.
        let rest = file.metadata()?.len().saturating_sub(offset.into());
        let mut buffer = AlignedBuf::zeroed(bytes.min(usize::try_from(rest).unwrap_or(usize::MAX)));
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], u64::from(offset) + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }
}

impl Files for SegmentFiles<'_> {
    fn slots(&mut self) -> Result<Vec<(Slot, u64)>, DiskFault> {
        let list = || {
            let mut slots = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                if let Some(slot) = entry.file_name().to_str().and_then(slot_named) {
                    slots.push((slot, entry.metadata()?.len()));
                }
            }
            slots.sort_unstable();
            Ok(slots)
        };
        list().map_err(|error| DiskFault::of(&error))
    }

    fn read(&mut self, slot: Slot, offset: u32, bytes: usize) -> Result<AlignedBuf, DiskFault> {
        let read = self.read_at(slot, offset, bytes).map_err(|error| DiskFault::of(&error))?;
        (self.on_read)(read.len() as u64);
        Ok(read)
    }

    fn note(&mut self) -> Result<Option<Vec<u8>>, DiskFault> {
        regular::read(&self.path.join(NOTE), NOTE_BYTES_MAX).map_err(|error| DiskFault::of(&error))
    }

    /// Nothing is acknowledged here that would have to be proven.
    fn flush(&mut self, _: Slot) -> Result<(), DiskFault> {
        Ok(())
    }
}
