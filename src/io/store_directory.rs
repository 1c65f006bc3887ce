//! The directory of a store: what it is, who uses it, and what in it is missing or does not belong there.
//!
//! Names are those of `layout`.
//!
//! A new store is made in an order that a crash can cut anywhere: directories first, then the copies, then `store.json`.
//! Afterwards any of the copies is enough to open it; one that is damaged or gone is written anew and told of. A missing
//! log is no reason to begin an empty one: the store is not opened.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::identity::{self, Identity, Told, Untold, Use};
use super::layout::{self, IDENTITY, LOCK, NOTE, directory_of, log_named, slot_named};
use super::log_directory::LogDirectory;
use super::regular::{self, flush_directory};
use crate::log::{LogId, StoreId};

/// A store that this process has for itself.
#[derive(Debug)]
pub struct StoreDirectory {
    id: StoreId,
    logs: Vec<LogDirectory>,
    oddities: Vec<Oddity>,
    /// Held as long as this value lives.
    _lock: File,
}

/// Something in a store's directory that is not as it should be. The store works all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// This does not belong here. It is left alone.
    Foreign(PathBuf),
    /// This copy of the store's identity was damaged or gone; it has been written anew from another one.
    Rewritten(PathBuf),
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(path) => write!(f, "{} is not part of the store", path.display()),
            Self::Rewritten(path) => {
                write!(f, "{} was damaged or missing and has been written anew from a copy", path.display())
            }
        }
    }
}

/// Why a store cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// Something could not be read, written or made.
    Io(PathBuf, io::Error),
    /// Another process uses it; its number, if it could be read.
    InUse(PathBuf, Option<u32>),
    /// It was written by a later version.
    Later(String),
    /// A log is missing.
    MissingLog(PathBuf),
    /// There are logs, but nothing says which store they belong to.
    Nameless(PathBuf),
    /// A log of another store is among its logs.
    OtherStore(PathBuf),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::InUse(path, Some(pid)) => write!(f, "{} is in use by process {pid}", path.display()),
            Self::InUse(path, None) => write!(f, "{} is in use by another process", path.display()),
            Self::Later(what) => f.write_str(what),
            Self::MissingLog(path) => write!(f, "{} is missing", path.display()),
            Self::Nameless(path) => {
                write!(f, "{} has logs, but {IDENTITY} and all copies of it are damaged or missing", path.display())
            }
            Self::OtherStore(path) => write!(f, "{} belongs to another store", path.display()),
        }
    }
}

impl std::error::Error for Unusable {}

impl From<Untold> for Unusable {
    fn from(untold: Untold) -> Self {
        match untold {
            Untold::Io(path, error) => Self::Io(path, error),
            Untold::Later(..) => Self::Later(untold.to_string()),
        }
    }
}

impl StoreDirectory {
    /// Opens the store in a directory, or makes one there with so many `logs` if there is none.
    ///
    /// # Errors
    /// Why not. What is there is as it was before.
    pub fn open(path: &Path, logs: u16) -> Result<Self, Unusable> {
        if !path.is_dir() {
            fs::create_dir_all(path).map_err(|error| Unusable::Io(path.to_owned(), error))?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            flush_directory(parent).map_err(|error| Unusable::Io(parent.to_owned(), error))?;
        }
        let lock = lock(path)?;
        let present = present_logs(path)?;
        let main = identity::read(path)?;
        let mut copies = Vec::new();
        for log in &present {
            let directory = log_path(path, *log);
            copies.push((directory.clone(), identity::read(&directory)?));
        }
        let from_copies = copies.iter().find_map(|(_, told)| match told {
            Told::Sound(id, logs) => Some((*id, *logs)),
            Told::Damaged | Told::Missing => None,
        });
        let mut oddities = Vec::new();
        let (id, logs) = match (main, from_copies) {
            (Told::Sound(id, logs), _) => (id, logs),
            (Told::Damaged | Told::Missing, Some((id, logs))) => {
                whole(path, &copies, id, logs)?;
                Identity::new(id, logs).write(path)?;
                oddities.push(Oddity::Rewritten(path.join(IDENTITY)));
                (id, logs)
            }
            (Told::Damaged | Told::Missing, None) => {
                let mut used = copies.iter().map(|(directory, _)| was_used(directory));
                if main == Told::Damaged || used.try_fold(false, |any, has| Ok::<_, Unusable>(any | has?))? {
                    return Err(Unusable::Nameless(path.to_owned()));
                }
                let id = create(path, logs)?;
                let told = (0..logs).map(|log| (log_path(path, log), Told::Sound(id, logs)));
                copies = told.collect();
                (id, logs)
            }
        };
        whole(path, &copies, id, logs)?;
        for (directory, told) in &copies {
            if matches!(told, Told::Damaged | Told::Missing) && number_of(directory).is_some_and(|log| log < logs) {
                Identity::new(id, logs).write(directory)?;
                oddities.push(Oddity::Rewritten(directory.join(IDENTITY)));
            }
        }
        foreign(path, logs, &mut oddities)?;
        let open = |log| {
            let path = log_path(path, log);
            LogDirectory::open(&path).map_err(|error| Unusable::Io(path, error))
        };
        let logs = (0..logs).map(open).collect::<Result<_, _>>()?;
        Ok(Self { id, logs, oddities, _lock: lock })
    }

    /// The store's name.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// The directory of each log.
    #[must_use]
    pub fn logs(&self) -> &[LogDirectory] {
        &self.logs
    }

    /// The directory of a log, if the store has it.
    #[must_use]
    pub fn log(&self, id: LogId) -> Option<&LogDirectory> {
        self.logs.get(usize::from(id.0))
    }

    /// What is not as it should be.
    #[must_use]
    pub fn oddities(&self) -> &[Oddity] {
        &self.oddities
    }
}

/// Makes a new store. Until the last step there is none.
fn create(path: &Path, logs: u16) -> Result<StoreId, Unusable> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Unusable::Io(path.to_owned(), io::Error::other(error)))?;
    let id = StoreId(bytes);
    let identity = Identity::new(id, logs);
    for log in 0..logs {
        let directory = log_path(path, log);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(Unusable::Io(directory, error)),
            _ => {}
        }
    }
    flush_directory(path).map_err(|error| Unusable::Io(path.to_owned(), error))?;
    for log in 0..logs {
        identity.write(&log_path(path, log))?;
    }
    identity.write(path)?;
    Ok(id)
}

/// All logs are there, and none of them is another store's.
fn whole(path: &Path, copies: &[(PathBuf, Told)], id: StoreId, logs: u16) -> Result<(), Unusable> {
    for log in 0..logs {
        let directory = log_path(path, log);
        match copies.iter().find(|(copy, _)| *copy == directory) {
            None => return Err(Unusable::MissingLog(directory)),
            Some((_, Told::Sound(other, _))) if *other != id => return Err(Unusable::OtherStore(directory)),
            Some(_) => {}
        }
    }
    Ok(())
}

fn log_path(path: &Path, log: u16) -> PathBuf {
    path.join(directory_of(LogId(log)))
}

/// The number of the log that has that directory, if it is one's.
fn number_of(directory: &Path) -> Option<u16> {
    log_named(directory.file_name()?.to_str()?).map(|log| log.0)
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, Unusable> {
    let list = || fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut entries = list().map_err(|error| Unusable::Io(path.to_owned(), error))?;
    entries.sort();
    Ok(entries)
}

fn present_logs(path: &Path) -> Result<Vec<u16>, Unusable> {
    Ok(entries(path)?.iter().filter(|entry| entry.is_dir()).filter_map(|entry| number_of(entry)).collect())
}

/// Whether an entry has a name of that kind.
fn has_name(entry: &Path, is_of_kind: impl FnOnce(&str) -> bool) -> bool {
    entry.file_name().and_then(|name| name.to_str()).is_some_and(is_of_kind)
}

fn is_segment(entry: &Path) -> bool {
    has_name(entry, |name| slot_named(name).is_some()) && entry.is_file()
}

/// Whether something was ever written to a log.
fn was_used(directory: &Path) -> Result<bool, Unusable> {
    Ok(entries(directory)?.iter().any(|entry| is_segment(entry) || has_name(entry, |name| name == NOTE)))
}

/// What is in the directories and belongs to nobody.
fn foreign(path: &Path, logs: u16, oddities: &mut Vec<Oddity>) -> Result<(), Unusable> {
    for entry in entries(path)? {
        match number_of(&entry).filter(|log| *log < logs && entry.is_dir()) {
            Some(_) => {
                let strangers = entries(&entry)?.into_iter();
                let strangers = strangers.filter(|entry| !is_segment(entry) && !has_name(entry, layout::is_in_log));
                oddities.extend(strangers.map(Oddity::Foreign));
            }
            None if has_name(&entry, layout::is_in_store) => {}
            None => oddities.push(Oddity::Foreign(entry)),
        }
    }
    Ok(())
}

/// Takes the store for this process, until the file is closed.
fn lock(path: &Path) -> Result<File, Unusable> {
    let place = path.join(LOCK);
    let take = || {
        let mut options = OpenOptions::new();
        let mut file = regular::open(options.read(true).write(true).create(true).truncate(false), 0, &place)?;
        if let Err(holder) = identity::lock(&file, Use::Alone)? {
            return Ok(Err(holder));
        }
        file.set_len(0)?;
        // On a full disk it stays empty.
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Ok(file))
    };
    take().map_err(|error| Unusable::Io(place.clone(), error))?.map_err(|pid| Unusable::InUse(path.to_owned(), pid))
}

#[cfg(test)]
#[path = "store_directory_tests.rs"]
mod tests;
