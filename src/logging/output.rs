//! Where lines end up: standard error, or a file that is rotated and reopened.
//!
//! Used by the logger thread alone, which may block on it.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use super::{LogConfig, LogError};

#[derive(Debug)]
pub(super) enum Output {
    Stderr,
    File(LogFile),
}

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Rotate above this many bytes; 0 = never.
    size_limit: u64,
    /// The size at which rotation is tried; above `size_limit` after a failed one.
    rotate_above: u64,
    /// Files to keep, this one included; 0 = all.
    files_max: usize,
    offset: UtcOffset,
}

/// What a rotation came to.
#[derive(Debug, PartialEq)]
pub(super) enum Rotation {
    /// The old file has this name now.
    Done(PathBuf),
    /// The old file is still in use.
    Failed(String),
}

impl Output {
    pub(super) fn open(config: &LogConfig, offset: UtcOffset) -> Result<Self, LogError> {
        let Some(path) = &config.file else {
            return Ok(Self::Stderr);
        };
        let file = LogFile::open(path, config, offset);
        file.map(Self::File).map_err(|error| LogError::File(path.clone(), error))
    }

    /// The difference to UTC of the times in names of backups.
    pub(super) fn set_offset(&mut self, offset: UtcOffset) {
        if let Self::File(log) = self {
            log.offset = offset;
        }
    }

    /// Whether lines are read by somebody at a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Stderr) && io::stderr().is_terminal()
    }

    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().write_all(text),
            Self::File(log) => log.write(text),
        }
    }

    /// Whether `pending` more bytes would be the moment to rotate.
    pub(super) fn is_full_with(&self, pending: usize) -> bool {
        match self {
            Self::Stderr => false,
            Self::File(log) => log.size_limit > 0 && log.bytes + pending as u64 > log.rotate_above,
        }
    }

    /// Removes the oldest backups if there are more than are to be kept; tells of each.
    pub(super) fn purge(&self) -> Vec<Result<String, String>> {
        match self {
            Self::File(log) if log.files_max > 0 => log.purge(),
            _ => Vec::new(),
        }
    }

    /// Starts a new file if the present one is full.
    pub(super) fn rotate_if_full(&mut self, now: SystemTime) -> Option<Rotation> {
        match self {
            Self::File(log) if log.size_limit > 0 && log.bytes > log.rotate_above => Some(log.rotate(now)),
            _ => None,
        }
    }
}

impl LogFile {
    fn open(path: &Path, config: &LogConfig, offset: UtcOffset) -> io::Result<Self> {
        let (file, bytes) = open_for_append(path)?;
        let LogConfig { size_limit, files_max, .. } = *config;
        Ok(Self { path: path.to_owned(), file, bytes, size_limit, rotate_above: size_limit, files_max, offset })
    }

    /// Opens the path again. If that fails the old file stays in use.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.bytes) = open_for_append(&self.path)?;
        self.rotate_above = self.size_limit;
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.file.write_all(text)?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self, now: SystemTime) -> Rotation {
        match self.try_rotate(now) {
            Ok(backup) => Rotation::Done(backup),
            Err(error) => {
                self.rotate_above = self.bytes + self.size_limit;
                Rotation::Failed(format!(
                    "Unable to rotate the log file {}: {error}; next attempt at {} bytes",
                    self.path.display(),
                    self.rotate_above
                ))
            }
        }
    }

    fn try_rotate(&mut self, now: SystemTime) -> io::Result<PathBuf> {
        let stamp = OffsetDateTime::from(now).to_offset(self.offset);
        let stamp = stamp.format(BACKUP_STAMP).map_err(io::Error::other)?;
        let mut name = self.path.as_os_str().to_owned();
        name.push(".");
        name.push(stamp);
        let backup = PathBuf::from(name);
        fs::rename(&self.path, &backup)?;
        self.reopen()?;
        Ok(backup)
    }
}

impl LogFile {
    fn purge(&self) -> Vec<Result<String, String>> {
        let failed = |what: &Path, error: io::Error| format!("Unable to purge log files: {}: {error}", what.display());
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Some(name) = self.path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => return vec![Err(failed(dir, error))],
        };
        let mut backups: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|file| is_backup(name, file))
            .collect();
        // By time, since they are named by it.
        backups.sort();
        backups.truncate(backups.len().saturating_sub(self.files_max - 1));
        let remove = |backup: String| {
            let path = dir.join(&backup);
            fs::remove_file(&path).map(|()| backup).map_err(|error| failed(&path, error))
        };
        backups.into_iter().map(remove).collect()
    }
}

/// Whether `file` is named as a backup of the log `name`.
fn is_backup(name: &str, file: &str) -> bool {
    let Some(stamp) = file.strip_prefix(name) else { return false };
    let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    shape == ".9999.99.99.99.99.99.999999999"
}

fn open_for_append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(LOG_FILE_MODE).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

const LOG_FILE_MODE: u32 = 0o640;

const BACKUP_STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year].[month].[day].[hour].[minute].[second].[subsecond digits:9]");
