//! The directory of one log: names of files, how they are opened, made ready and removed, and reading them while a log
//! is opened. Everything here may take long: it is not called on a shard, but for the opening of a file that is there.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::layout::{NOTE, PROBE, file_of, slot_named};
use super::regular::{self, NoFile, flush_directory};
use crate::log::aligned::AlignedBuf;
use crate::log::recover::Files;
use crate::log::request::DiskFault;
use crate::log::{BLOCK_BYTES, NOTE_BYTES_MAX, Slot};

/// Written at once when a file is made ready: short, so that commits get their turn between.
const FILL_BYTES: usize = 256 << 10;

/// Whether the page cache is passed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Direct I/O.
    Direct,
    /// The file system refuses direct I/O: written through the page cache, flushed by `fdatasync` all the same.
    Buffered,
}

/// The directory of one log.
#[derive(Clone, Debug)]
pub struct LogDirectory {
    path: PathBuf,
    access: Access,
}

impl LogDirectory {
    /// Takes a directory that is there. Finds out whether direct I/O works in it.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn open(path: &Path) -> io::Result<Self> {
        let probe = path.join(PROBE);
        let access = match probe_direct(&probe) {
            Ok(()) => Access::Direct,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Access::Buffered,
            // A full disk is no reason not to read what is there.
            Err(error) if DiskFault::of(&error) == DiskFault::Full => Access::Direct,
            Err(error) => return Err(io::Error::new(error.kind(), format!("{PROBE}: {error}"))),
        };
        // One that stays is overwritten by the next probe.
        let _ = std::fs::remove_file(&probe);
        Ok(Self { path: path.to_owned(), access })
    }

    /// The same with another way to write files.
    #[cfg(test)]
    pub(super) fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// How files are written.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a slot.
    #[must_use]
    pub fn file_of(&self, slot: Slot) -> PathBuf {
        self.path.join(file_of(slot))
    }

    /// Bytes free for unprivileged users on the file system.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        let path = CString::new(self.path.as_os_str().as_bytes()).ok()?;
        // SAFETY: `statvfs` is plain data, for which zeros are a value.
        let mut stats: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: a terminated path and a place for the answer, both of which outlive the call.
        let outcome = unsafe { libc::statvfs(path.as_ptr(), &raw mut stats) };
        (outcome == 0).then(|| stats.f_bavail.saturating_mul(stats.f_frsize))
    }

    /// Opens the file of a slot.
    pub(super) fn open_file(&self, slot: Slot) -> io::Result<File> {
        self.open_with(OpenOptions::new().read(true).write(true), slot)
    }

    fn open_with(&self, options: &mut OpenOptions, slot: Slot) -> io::Result<File> {
        let flags = if self.access == Access::Direct { libc::O_DIRECT } else { 0 };
        regular::open(options, flags, &self.file_of(slot))
    }

    /// Creates or overwrites a file with zeros, or only allocates a new one, and flushes it and its name.
    pub(super) fn prepare(&self, slot: Slot, bytes: u32, fill: bool) -> io::Result<File> {
        let file = self.open_with(OpenOptions::new().read(true).write(true).create(true).truncate(false), slot)?;
        if !fill {
            // Whatever it held must not show through.
            file.set_len(0)?;
        }
        file.set_len(u64::from(bytes))?;
        allocate(&file, bytes)?;
        // What is merely allocated costs a change of the file system's own records with each first write.
        let zeros = AlignedBuf::zeroed(if fill { FILL_BYTES } else { 0 });
        let mut offset = if fill { 0 } else { bytes as usize };
        while offset < bytes as usize {
            let count = FILL_BYTES.min(bytes as usize - offset);
            file.write_all_at(&zeros[..count], offset as u64)?;
            offset += count;
        }
        file.sync_all()?;
        flush_directory(&self.path)?;
        Ok(file)
    }

    /// Puts this in the place of the note of the newest segment.
    pub(super) fn note(&self, content: &[u8]) -> io::Result<()> {
        regular::exchange(&self.path, NOTE, content)
    }

    /// Removes a file for good.
    pub(super) fn remove(&self, slot: Slot) -> io::Result<()> {
        match std::fs::remove_file(self.file_of(slot)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => flush_directory(&self.path),
        }
    }
}

fn probe_direct(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    regular::open(&mut options, libc::O_DIRECT, path)?.write_all(&AlignedBuf::zeroed(BLOCK_BYTES))
}

/// Takes the space of a file at once: a disk that is full says so before anything is written.
fn allocate(file: &File, bytes: u32) -> io::Result<()> {
    // SAFETY: no pointers are passed, and the descriptor is that of an open file.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, libc::off_t::from(bytes)) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        error => Err(error),
    }
}

impl DiskFault {
    /// The fault that an error of the standard library stands for.
    pub(crate) fn of(error: &io::Error) -> Self {
        if let Some(NoFile(what)) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return Self::NoFile(what);
        }
        match error.kind() {
            io::ErrorKind::WriteZero | io::ErrorKind::UnexpectedEof => Self::Short,
            _ => Self::from_errno(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}

/// What recovery reads from.
#[derive(Debug)]
pub struct LogReader<'a> {
    directory: &'a LogDirectory,
    /// The file that was read last: a walk goes through one after the other.
    open: Option<(Slot, File)>,
}

impl<'a> LogReader<'a> {
    /// Reads the files in `directory`.
    #[must_use]
    pub fn new(directory: &'a LogDirectory) -> Self {
        Self { directory, open: None }
    }

    fn file(&mut self, slot: Slot) -> io::Result<&File> {
        let file = match self.open.take() {
            Some((open, file)) if open == slot => file,
            _ => self.directory.open_file(slot)?,
        };
        Ok(&self.open.insert((slot, file)).1)
    }

    fn read_at(&mut self, slot: Slot, offset: u64, buffer: &mut AlignedBuf) -> io::Result<()> {
        let file = self.file(slot)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // Direct I/O reads on from whole blocks only; anything else is the end of the file.
            if !filled.is_multiple_of(BLOCK_BYTES) {
                break;
            }
        }
        buffer.truncate(filled);
        Ok(())
    }
}

impl Files for LogReader<'_> {
    fn slots(&mut self) -> Result<Vec<(Slot, u64)>, DiskFault> {
        let list = || -> io::Result<Vec<_>> {
            let mut slots = Vec::new();
            for entry in std::fs::read_dir(self.directory.path())? {
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
        let mut buffer = AlignedBuf::zeroed(bytes);
        self.read_at(slot, u64::from(offset), &mut buffer).map_err(|error| DiskFault::of(&error))?;
        Ok(buffer)
    }

    fn note(&mut self) -> Result<Option<Vec<u8>>, DiskFault> {
        regular::read(&self.directory.path().join(NOTE), NOTE_BYTES_MAX).map_err(|error| DiskFault::of(&error))
    }

    fn flush(&mut self, slot: Slot) -> Result<(), DiskFault> {
        self.file(slot).and_then(File::sync_all).map_err(|error| DiskFault::of(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files are zeros whatever was in them, and as long as asked for, whatever their length was.
    #[test]
    fn a_prepared_file_is_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let mut direct = LogDirectory::open(dir.path()).unwrap();
        assert!(!dir.path().join(PROBE).exists());
        for (access, fill) in [(direct.access(), true), (Access::Buffered, true), (direct.access(), false)] {
            direct.access = access;
            for (before, bytes) in [(None, 1 << 20), (Some(3 << 20), 1 << 20), (Some(5000), 300 << 10)] {
                if let Some(before) = before {
                    std::fs::write(direct.file_of(Slot(3)), vec![7; before]).unwrap();
                }
                direct.prepare(Slot(3), bytes, fill).unwrap();
                let content = std::fs::read(direct.file_of(Slot(3))).unwrap();
                assert!(content.len() == bytes as usize && content.iter().all(|byte| *byte == 0));
            }
            let mut reader = LogReader::new(&direct);
            assert_eq!(reader.slots().unwrap(), [(Slot(3), 300 << 10)]);
            direct.remove(Slot(3)).unwrap();
            direct.remove(Slot(3)).unwrap();
            assert_eq!(reader.slots().unwrap(), []);
        }
    }

    /// Something else in the place of a segment's file is a fault of that file, and nobody waits for it.
    #[test]
    fn what_is_no_file_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let directory = LogDirectory::open(dir.path()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(directory.file_of(Slot(2))).status().unwrap().success());
        std::fs::create_dir(dir.path().join(NOTE)).unwrap();
        let mut reader = LogReader::new(&directory);
        assert_eq!(reader.slots().unwrap(), [(Slot(2), 0)]);
        assert_eq!(reader.read(Slot(2), 0, 4096).unwrap_err(), DiskFault::NoFile("a FIFO"));
        assert_eq!(reader.note(), Err(DiskFault::NoFile("a directory")));
        let prepared = directory.prepare(Slot(2), 1 << 20, false).unwrap_err();
        assert_eq!(DiskFault::of(&prepared), DiskFault::NoFile("a FIFO"));
    }

    #[test]
    fn reading_ends_at_the_end_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let directory = LogDirectory::open(dir.path()).unwrap();
        let content = (0..10_000_u32).flat_map(|n| [n as u8]).collect::<Vec<_>>();
        std::fs::write(directory.file_of(Slot(0)), &content).unwrap();
        let mut reader = LogReader::new(&directory);
        assert_eq!(reader.read(Slot(0), 4096, 4096).unwrap()[..], content[4096..8192]);
        assert_eq!(reader.read(Slot(0), 4096, 16384).unwrap()[..], content[4096..]);
        assert!(reader.read(Slot(0), 12288, 4096).unwrap().is_empty());
        assert_eq!(reader.read(Slot(1), 0, 4096).unwrap_err(), DiskFault::Missing);
        assert_eq!(reader.flush(Slot(1)), Err(DiskFault::Missing));
        reader.flush(Slot(0)).unwrap();
    }
}
