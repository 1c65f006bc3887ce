//! The files of a shard's logs: carries out what [`crate::log`] asks for.
//!
//! Commits and reads go through the shard's own io_uring ([`super::poller`]), the one that tells readiness of its sockets,
//! so that a shard waits for both at one place. (glommio has rings of its own for files; waiting for those and for the
//! poller at once would cost a system call more per turn, and its probe for polled I/O can spin a core.) A commit is a
//! write linked with an `fdatasync`: one submission, and no wake-up between the two.
//!
//! Making files ready, which takes many milliseconds, removing them and writing notes is the work of a thread beside the
//! shard.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};

use super::log_directory::{Access, LogDirectory};
use super::operations::{Ended, Finished};
use super::poller::Poller;
use crate::log::{Answer, DiskFault, LogId, Outcome, Request, RequestId, Slot};

/// Files of one log that are kept open.
const OPEN_FILES_MAX: usize = 256;
/// Bits of a tag that hold the number of a request; the log's is above.
const REQUEST_BITS: u32 = 48;

/// Work for the thread beside the shard.
#[derive(Debug)]
struct Chore {
    log: LogId,
    directory: LogDirectory,
    id: RequestId,
    task: Task,
}

#[derive(Clone, Debug)]
enum Task {
    /// With so many bytes.
    Prepare {
        slot: Slot,
        bytes: u32,
        fill: bool,
    },
    Remove(Slot),
    /// With this content.
    Note(Vec<u8>),
}

/// How a chore ended; a prepared file comes back open.
#[derive(Debug)]
struct Done {
    log: LogId,
    id: RequestId,
    outcome: Result<Option<(Slot, File)>, DiskFault>,
    free: Option<u64>,
}

/// The files of one log.
#[derive(Debug)]
struct LogFiles {
    directory: LogDirectory,
    open: HashMap<Slot, Open>,
    uses: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// When it was used, by a count of uses.
    used: u64,
}

/// Carries out the requests of the logs of one shard, on its thread.
#[derive(Debug)]
pub(super) struct Files {
    logs: HashMap<LogId, LogFiles>,
    chores: Option<Sender<Chore>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Files {
    /// Without logs yet. `wake` is called, on another thread, when there may be something to
    /// [collect](Files::collect) that the poller knows nothing of.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn new(wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        // A log has one chore of each kind at a time.
        let (chores, todo) = crossbeam_channel::unbounded::<Chore>();
        let (finished, done) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new().name("leat-files".into()).spawn(move || {
            for chore in todo {
                if finished.send(chore.carry_out()).is_err() {
                    return;
                }
                wake();
            }
        })?;
        Ok(Self { logs: HashMap::new(), chores: Some(chores), done, thread: Some(thread) })
    }

    /// Takes over the files of a log.
    pub(super) fn add(&mut self, log: LogId, directory: LogDirectory) {
        if directory.access() == Access::Buffered {
            tracing::warn!("{} takes no direct I/O: its files are cached twice", directory.path().display());
        }
        self.logs.insert(log, LogFiles { directory, open: HashMap::new(), uses: 0 });
    }

    /// Begins to carry out `request` of a log; what fails at once is answered through `answers`.
    ///
    /// # Errors
    /// When the poller fails.
    pub(super) fn begin(
        &mut self,
        poller: &mut Poller,
        log: LogId,
        request: Request,
        answers: &mut Vec<Answer>,
    ) -> io::Result<()> {
        let Some(files) = self.logs.get_mut(&log) else {
            answers.push(failed(log, request.id(), DiskFault::Missing));
            return Ok(());
        };
        match request {
            Request::Prepare { id, slot, bytes, fill } => {
                self.chore(log, id, Task::Prepare { slot, bytes, fill }, answers);
            }
            Request::Remove { id, slot } => {
                files.open.remove(&slot);
                self.chore(log, id, Task::Remove(slot), answers);
            }
            Request::Note { id, content } => self.chore(log, id, Task::Note(content), answers),
            Request::Commit { id, slot, offset, data } => match files.file(slot) {
                Ok(file) => poller.commit(file.as_raw_fd(), u64::from(offset), data, tag(log, id))?,
                Err(error) => answers.push(failed(log, id, DiskFault::of(&error))),
            },
            Request::Read { id, slot, offset, bytes } => match files.file(slot) {
                Ok(file) => poller.read(file.as_raw_fd(), u64::from(offset), bytes as usize, tag(log, id))?,
                Err(error) => answers.push(failed(log, id, DiskFault::of(&error))),
            },
        }
        Ok(())
    }

    fn chore(&self, log: LogId, id: RequestId, task: Task, answers: &mut Vec<Answer>) {
        let directory = self.logs.get(&log).map(|files| files.directory.clone());
        let sent = self
            .chores
            .as_ref()
            .zip(directory)
            .is_some_and(|(chores, directory)| chores.send(Chore { log, directory, id, task }).is_ok());
        if !sent {
            answers.push(failed(log, id, DiskFault::Io(libc::EIO)));
        }
    }

    /// What has ended since the last call.
    pub(super) fn collect(&mut self, poller: &mut Poller, answers: &mut Vec<Answer>) {
        while let Some(Finished { tag, ended }) = poller.finished() {
            let outcome = match ended {
                Ended::Committed => Outcome::Done,
                Ended::Read(bytes) => Outcome::Read(bytes),
                Ended::Short => Outcome::Failed(DiskFault::Short),
                Ended::Failed(error) => Outcome::Failed(DiskFault::of(&error)),
            };
            let (log, id) = untag(tag);
            answers.push(Answer { log, id, outcome, free: None });
        }
        while let Ok(Done { log, id, outcome, free }) = self.done.try_recv() {
            let outcome = match outcome {
                Ok(file) => {
                    if let (Some((slot, file)), Some(files)) = (file, self.logs.get_mut(&log)) {
                        files.insert(slot, file);
                    }
                    Outcome::Done
                }
                Err(fault) => Outcome::Failed(fault),
            };
            answers.push(Answer { log, id, outcome, free });
        }
    }
}

impl Drop for Files {
    /// Waits for the chores at hand.
    fn drop(&mut self) {
        self.chores = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell that anybody could act on now.
            let _ = thread.join();
        }
    }
}

impl LogFiles {
    fn file(&mut self, slot: Slot) -> io::Result<&File> {
        self.uses += 1;
        if !self.open.contains_key(&slot) {
            let file = self.directory.open_file(slot)?;
            self.insert(slot, file);
        }
        let open = self.open.get_mut(&slot).ok_or(io::ErrorKind::NotFound)?;
        open.used = self.uses;
        Ok(&open.file)
    }

    /// Keeps a file open. One that is closed for it may be in use by operations: the kernel has a hold of its own on it.
    fn insert(&mut self, slot: Slot, file: File) {
        if self.open.len() >= OPEN_FILES_MAX
            && let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.used).map(|(slot, _)| *slot)
        {
            self.open.remove(&oldest);
        }
        self.open.insert(slot, Open { file, used: self.uses });
    }
}

impl Chore {
    fn carry_out(self) -> Done {
        let Self { log, directory, id, task } = self;
        let outcome = match task {
            Task::Prepare { slot, bytes, fill } => directory.prepare(slot, bytes, fill).map(|file| Some((slot, file))),
            Task::Remove(slot) => directory.remove(slot).map(|()| None),
            Task::Note(content) => directory.note(&content).map(|()| None),
        };
        let outcome = outcome.map_err(|error| DiskFault::of(&error));
        Done { log, id, outcome, free: directory.free_bytes() }
    }
}

fn failed(log: LogId, id: RequestId, fault: DiskFault) -> Answer {
    Answer { log, id, outcome: Outcome::Failed(fault), free: None }
}

/// Requests are numbered by each log for itself.
fn tag(log: LogId, id: RequestId) -> u64 {
    debug_assert!(id.0 >> REQUEST_BITS == 0, "one every nanosecond for three days");
    u64::from(log.0) << REQUEST_BITS | id.0
}

fn untag(tag: u64) -> (LogId, RequestId) {
    (LogId((tag >> REQUEST_BITS) as u16), RequestId(tag & ((1 << REQUEST_BITS) - 1)))
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
