//! The files of a log: carries out what [`crate::log`] asks for.
//!
//! Commits and reads go through the shard's own io_uring ([`super::poller`]), the one that tells readiness of its sockets,
//! so that a shard waits for both at one place. (glommio has rings of its own for files; waiting for those and for the
//! poller at once would cost a system call more per turn, and its probe for polled I/O can spin a core.) A commit is a
//! write linked with an `fdatasync`: one submission, and no wake-up between the two.
//!
//! Making files ready, which takes many milliseconds, and removing them is the work of a thread beside the shard.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};

use super::poller::Poller;
use crate::log::aligned::AlignedBuf;
use crate::log::recover::Files as ReadFiles;
use crate::log::request::{DiskFault, Outcome, Request, RequestId};
use crate::log::{BLOCK_BYTES, Slot};

/// Written at once when a file is made ready: short, so that commits get their turn between.
const FILL_BYTES: usize = 256 << 10;

/// Whether the page cache is passed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Direct I/O.
    Direct,
    /// The file system refuses direct I/O (tmpfs does): written through the page cache, flushed by `fdatasync` all the
    /// same.
    Buffered,
}

/// The directory of one log.
#[derive(Clone, Debug)]
pub struct LogDirectory {
    path: PathBuf,
    access: Access,
}

impl LogDirectory {
    /// Opens the directory, and makes it, durably, if it is not there. Finds out whether direct I/O works in it.
    ///
    /// # Errors
    /// When it cannot be made, listed or written to.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            flush_directory(path.parent().unwrap_or(Path::new("/")))?;
        }
        let probe = path.join("probe");
        let access = match probe_direct(&probe) {
            Ok(()) => Access::Direct,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Access::Buffered,
            // A full disk is no reason not to read what is there.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => Access::Direct,
            Err(error) => return Err(error),
        };
        let _ = std::fs::remove_file(&probe);
        Ok(Self { path: path.to_owned(), access })
    }

    /// How files are written.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The file of a slot.
    #[must_use]
    pub fn file_of(&self, slot: Slot) -> PathBuf {
        self.path.join(format!("{:08}.segment", slot.0))
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

    fn open_file(&self, slot: Slot, create: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false);
        if self.access == Access::Direct {
            options.custom_flags(libc::O_DIRECT);
        }
        options.open(self.file_of(slot))
    }

    /// Creates or overwrites a file with zeros, and flushes it and its name.
    fn prepare(&self, slot: Slot, bytes: u32) -> io::Result<File> {
        let file = self.open_file(slot, true)?;
        file.set_len(u64::from(bytes))?;
        let zeros = AlignedBuf::zeroed(FILL_BYTES);
        let mut offset = 0;
        while offset < bytes as usize {
            let count = FILL_BYTES.min(bytes as usize - offset);
            file.write_all_at(&zeros[..count], offset as u64)?;
            offset += count;
        }
        file.sync_all()?;
        flush_directory(&self.path)?;
        Ok(file)
    }
}

fn probe_direct(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    options.open(path)?.write_all(&AlignedBuf::zeroed(BLOCK_BYTES))
}

/// Makes names in a directory as durable as the files.
fn flush_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn fault(error: &io::Error) -> DiskFault {
    match error.kind() {
        io::ErrorKind::WriteZero | io::ErrorKind::UnexpectedEof => DiskFault::Short,
        _ => DiskFault::from_errno(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// What recovery reads from.
impl ReadFiles for LogDirectory {
    fn slots(&mut self) -> Result<Vec<(Slot, u64)>, DiskFault> {
        let mut slots = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(|error| fault(&error))? {
            let entry = entry.map_err(|error| fault(&error))?;
            let name = entry.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(".segment")).and_then(|name| name.parse().ok());
            if let Some(number) = number {
                let metadata = entry.metadata().map_err(|error| fault(&error))?;
                slots.push((Slot(number), metadata.len()));
            }
        }
        slots.sort_unstable();
        Ok(slots)
    }

    fn read(&mut self, slot: Slot, offset: u32, bytes: usize) -> Result<AlignedBuf, DiskFault> {
        let file = self.open_file(slot, false).map_err(|error| fault(&error))?;
        let mut buffer = AlignedBuf::zeroed(bytes);
        let mut filled = 0;
        while filled < bytes {
            match file.read_at(&mut buffer[filled..], u64::from(offset) + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fault(&error)),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    fn flush(&mut self, slot: Slot) -> Result<(), DiskFault> {
        let file = self.open_file(slot, false).map_err(|error| fault(&error))?;
        file.sync_all().map_err(|error| fault(&error))
    }
}

/// Work for the thread beside the shard.
#[derive(Debug)]
enum Chore {
    Prepare(RequestId, Slot, u32),
    Remove(RequestId, Slot),
}

/// How a chore ended; a prepared file comes back open.
#[derive(Debug)]
struct Done {
    id: RequestId,
    slot: Slot,
    outcome: Result<Option<File>, DiskFault>,
}

/// Carries out the requests of one log. Belongs to the thread of the shard that owns it.
#[derive(Debug)]
pub(super) struct Files {
    directory: LogDirectory,
    open: HashMap<Slot, File>,
    chores: Option<Sender<Chore>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Files {
    /// For the log in `directory`. `wake` is called, on another thread, when there may be something to
    /// [collect](Files::collect) that the poller knows nothing of.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn new(directory: LogDirectory, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (chores, todo) = crossbeam_channel::unbounded();
        let (finished, done) = crossbeam_channel::unbounded();
        let place = directory.clone();
        let thread = std::thread::Builder::new().name("leat-files".into()).spawn(move || {
            for chore in todo {
                let ended = carry_out(&place, &chore);
                if finished.send(ended).is_err() {
                    return;
                }
                wake();
            }
        })?;
        Ok(Self { directory, open: HashMap::new(), chores: Some(chores), done, thread: Some(thread) })
    }

    /// The directory.
    pub(super) fn directory(&self) -> &LogDirectory {
        &self.directory
    }

    /// Begins to carry out `request`; what fails at once is answered through `outcomes`.
    ///
    /// # Errors
    /// When the poller fails.
    pub(super) fn begin(
        &mut self,
        poller: &mut Poller,
        request: Request,
        outcomes: &mut Vec<(RequestId, Outcome)>,
    ) -> io::Result<()> {
        match request {
            Request::Prepare { id, slot, bytes } => self.chore(Chore::Prepare(id, slot, bytes), id, outcomes),
            Request::Remove { id, slot } => {
                self.open.remove(&slot);
                self.chore(Chore::Remove(id, slot), id, outcomes);
            }
            Request::Commit { id, slot, offset, data } => match self.file(slot) {
                Ok(file) => poller.commit(file.as_raw_fd(), u64::from(offset), data, id.0)?,
                Err(error) => outcomes.push((id, Outcome::Failed(fault(&error)))),
            },
            Request::Read { id, slot, offset, bytes } => match self.file(slot) {
                Ok(file) => poller.read(file.as_raw_fd(), u64::from(offset), bytes as usize, id.0)?,
                Err(error) => outcomes.push((id, Outcome::Failed(fault(&error)))),
            },
        }
        Ok(())
    }

    fn chore(&self, chore: Chore, id: RequestId, outcomes: &mut Vec<(RequestId, Outcome)>) {
        let taken = self.chores.as_ref().is_some_and(|chores| chores.send(chore).is_ok());
        if !taken {
            outcomes.push((id, Outcome::Failed(DiskFault::Io(libc::EIO))));
        }
    }

    fn file(&mut self, slot: Slot) -> io::Result<&File> {
        if !self.open.contains_key(&slot) {
            let file = self.directory.open_file(slot, false)?;
            self.open.insert(slot, file);
        }
        Ok(&self.open[&slot])
    }

    /// What has ended since the last call.
    pub(super) fn collect(&mut self, poller: &mut Poller, outcomes: &mut Vec<(RequestId, Outcome)>) {
        while let Some(finished) = poller.finished() {
            let outcome = match finished.outcome {
                Ok(_) if finished.short => Outcome::Failed(DiskFault::Short),
                Ok(None) => Outcome::Done,
                Ok(Some(buffer)) => Outcome::Read(Bytes::from_owner(buffer)),
                Err(error) => Outcome::Failed(fault(&error)),
            };
            outcomes.push((RequestId(finished.tag), outcome));
        }
        while let Ok(Done { id, slot, outcome }) = self.done.try_recv() {
            let outcome = match outcome {
                Ok(file) => {
                    if let Some(file) = file {
                        self.open.insert(slot, file);
                    }
                    Outcome::Done
                }
                Err(fault) => Outcome::Failed(fault),
            };
            outcomes.push((id, outcome));
        }
    }
}

impl Drop for Files {
    /// Waits for the chore at hand.
    fn drop(&mut self) {
        self.chores = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell that anybody could act on now.
            let _ = thread.join();
        }
    }
}

fn carry_out(directory: &LogDirectory, chore: &Chore) -> Done {
    match *chore {
        Chore::Prepare(id, slot, bytes) => {
            let outcome = directory.prepare(slot, bytes).map(Some).map_err(|error| fault(&error));
            Done { id, slot, outcome }
        }
        Chore::Remove(id, slot) => {
            let outcome = match std::fs::remove_file(directory.file_of(slot)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault(&error)),
                _ => flush_directory(&directory.path).map(|()| None).map_err(|error| fault(&error)),
            };
            Done { id, slot, outcome }
        }
    }
}
