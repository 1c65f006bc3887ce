//! Reads and writes of files on the shard's own io_uring, and the memory that the kernel uses meanwhile.
//!
//! A commit is a write and an `fdatasync` linked behind it: the flush begins when the write has ended with all its bytes,
//! and is cancelled by the kernel if the write fails or falls short. Where the kernel can (5.17) it tells one completion
//! per commit, so that nobody wakes up for the write alone: that of the flush if the write has succeeded, that of the
//! write if not.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use io_uring::squeue::Flags;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};
use slab::Slab;

use crate::log::aligned::AlignedBuf;

/// The two top bits of user data tell operations from what is polled.
const OPERATION: u64 = 3 << 62;
/// The lowest bit tells the flush of a commit from its write.
const FLUSH: u64 = 1;

/// An operation that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// As given when it was asked for.
    pub(super) tag: u64,
    /// How.
    pub(super) ended: Ended,
}

/// How an operation has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Written wholly, and flushed.
    Committed,
    /// Fewer bytes than asked for were written or read.
    Short,
    /// What was read.
    Read(Bytes),
    /// Not at all, as far as anybody knows.
    Failed(io::Error),
}

#[derive(Debug)]
enum Operation {
    Commit {
        tag: u64,
        /// What the kernel reads the places of the buffers from.
        _vectors: Vectors,
        _data: Vec<Arc<AlignedBuf>>,
        bytes: usize,
        written: Option<i32>,
        flushed: Option<i32>,
    },
    Read {
        tag: u64,
        buffer: AlignedBuf,
    },
}

/// Places of buffers for the kernel.
struct Vectors(Box<[libc::iovec]>);

impl fmt::Debug for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} buffers", self.0.len())
    }
}

/// Buffers of reads that nobody needs any more, for the next ones: clearing memory takes longer than the disk does.
#[derive(Debug, Default)]
struct Pool(Mutex<Vec<AlignedBuf>>);

/// Buffers that are kept.
const POOLED: usize = 16;

impl Pool {
    fn clear(&self) {
        if let Ok(mut buffers) = self.0.lock() {
            *buffers = Vec::new();
        }
    }

    fn take(&self) -> AlignedBuf {
        self.0.lock().ok().and_then(|mut buffers| buffers.pop()).unwrap_or_default()
    }
}

/// A buffer that goes back to the pool.
struct Lent {
    buffer: AlignedBuf,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Ok(mut buffers) = self.pool.0.lock()
            && buffers.len() < POOLED
        {
            buffers.push(std::mem::take(&mut self.buffer));
        }
    }
}

/// Operations in flight and those that have ended.
#[derive(Debug)]
pub(super) struct Operations {
    flying: Slab<Operation>,
    finished: VecDeque<Finished>,
    pool: Arc<Pool>,
    /// A write that succeeds has no completion of its own.
    writes_are_silent: bool,
}

impl Operations {
    /// `writes_are_silent` if the kernel can leave out the completion of a write that succeeds.
    pub(super) fn new(writes_are_silent: bool) -> Self {
        Self { flying: Slab::new(), finished: VecDeque::new(), pool: Arc::default(), writes_are_silent }
    }

    /// The two entries of a commit. They have to be submitted together, or [withdrawn](Operations::withdraw).
    pub(super) fn commit(
        &mut self,
        fd: RawFd,
        offset: u64,
        data: Vec<Arc<AlignedBuf>>,
        tag: u64,
    ) -> [squeue::Entry; 2] {
        let vectors: Box<[_]> = data
            .iter()
            .map(|buffer| libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() })
            .collect();
        let bytes = data.iter().map(|buffer| buffer.len()).sum();
        let write = opcode::Writev::new(Fd(fd), vectors.as_ptr(), vectors.len() as u32).offset(offset).build();
        let flush = opcode::Fsync::new(Fd(fd)).flags(FsyncFlags::DATASYNC).build();
        let operation =
            Operation::Commit { tag, _vectors: Vectors(vectors), _data: data, bytes, written: None, flushed: None };
        let key = (self.flying.insert(operation) as u64) << 1;
        let silence = if self.writes_are_silent { Flags::SKIP_SUCCESS } else { Flags::empty() };
        let write = write.flags(Flags::IO_LINK | silence).user_data(OPERATION | key);
        [write, flush.user_data(OPERATION | key | FLUSH)]
    }

    /// Gives back the memory of buffers that wait for reads.
    pub(super) fn rest(&self) {
        self.pool.clear();
    }

    /// The entry of a read, as [`Operations::commit`].
    pub(super) fn read(&mut self, fd: RawFd, offset: u64, bytes: usize, tag: u64) -> squeue::Entry {
        let mut buffer = self.pool.take();
        buffer.set_len(bytes);
        let place = buffer.as_mut_ptr();
        let key = self.flying.insert(Operation::Read { tag, buffer }) as u64;
        opcode::Read::new(Fd(fd), place, bytes as u32).offset(offset).build().user_data(OPERATION | key << 1)
    }

    /// Forgets the operation of an entry that the kernel has not been given.
    pub(super) fn withdraw(&mut self, entry: &squeue::Entry) {
        self.flying.try_remove(key_of(entry.get_user_data()));
    }

    /// Whether a completion is of an operation.
    pub(super) fn is_operation(user_data: u64) -> bool {
        user_data & OPERATION == OPERATION
    }

    /// Takes note of a completion.
    pub(super) fn complete(&mut self, user_data: u64, result: i32) {
        let key = key_of(user_data);
        if let Some(Operation::Commit { written, flushed, bytes, .. }) = self.flying.get_mut(key) {
            *(if user_data & FLUSH == FLUSH { &mut *flushed } else { &mut *written }) = Some(result);
            if self.writes_are_silent {
                // Whichever of the two is told is all that is told.
                written.get_or_insert(*bytes as i32);
            } else if written.is_none() || flushed.is_none() {
                return;
            }
        }
        let Some(operation) = self.flying.try_remove(key) else { return };
        let (tag, ended) = match operation {
            Operation::Commit { tag, bytes, written, flushed, .. } => {
                (tag, commit_ended(bytes, written.unwrap_or(0), flushed.unwrap_or(-libc::ECANCELED)))
            }
            Operation::Read { tag, buffer } => (tag, read_ended(buffer, &self.pool, result)),
        };
        self.finished.push_back(Finished { tag, ended });
    }

    pub(super) fn finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    pub(super) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    pub(super) fn in_flight(&self) -> bool {
        !self.flying.is_empty()
    }

    /// Gives the memory of operations in flight to the kernel for good.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.flying));
    }
}

fn key_of(user_data: u64) -> usize {
    (user_data & !OPERATION) as usize >> 1
}

fn commit_ended(bytes: usize, written: i32, flushed: i32) -> Ended {
    match (usize::try_from(written), flushed) {
        (Err(_), _) => Ended::Failed(error(written)),
        (Ok(written), _) if written != bytes => Ended::Short,
        (Ok(_), ..0) => Ended::Failed(error(flushed)),
        (Ok(_), 0..) => Ended::Committed,
    }
}

fn read_ended(buffer: AlignedBuf, pool: &Arc<Pool>, read: i32) -> Ended {
    match usize::try_from(read) {
        Err(_) => Ended::Failed(error(read)),
        Ok(read) if read != buffer.len() => Ended::Short,
        Ok(_) => Ended::Read(Bytes::from_owner(Lent { buffer, pool: Arc::clone(pool) })),
    }
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(-code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(operations: &mut Operations, bytes: usize) -> [u64; 2] {
        let data = vec![Arc::new(AlignedBuf::zeroed(bytes))];
        operations.commit(0, 0, data, 7).map(|entry| entry.get_user_data())
    }

    fn ended(operations: &mut Operations) -> String {
        let Finished { tag: 7, ended } = operations.finished().unwrap() else { panic!("another tag") };
        assert!(operations.finished().is_none() && !operations.in_flight());
        match ended {
            Ended::Failed(error) => error.raw_os_error().unwrap().to_string(),
            Ended::Read(bytes) => format!("{} bytes", bytes.len()),
            ended => format!("{ended:?}"),
        }
    }

    /// What the kernel tells of a commit, with a completion for each half and with one for both.
    #[test]
    fn a_commit_ends_once_and_says_what_has_failed() {
        let eio = libc::EIO.to_string();
        let told = [
            // Of the write, of the flush, and of both together.
            (8192, 0, "Committed", None),
            (8192, -libc::EIO, &eio, None),
            (4096, -libc::ECANCELED, "Short", Some(4096)),
            (-libc::EIO, -libc::ECANCELED, &eio, Some(-libc::EIO)),
            (0, -libc::ECANCELED, "Short", Some(0)),
        ];
        for (written, flushed, expected, write_alone) in told {
            for flush_first in [false, true] {
                let mut operations = Operations::new(false);
                let [write, flush] = commit(&mut operations, 8192);
                let mut completions = [(write, written), (flush, flushed)];
                if flush_first {
                    completions.reverse();
                }
                for (user_data, result) in completions {
                    assert!(operations.finished().is_none());
                    assert!(Operations::is_operation(user_data));
                    operations.complete(user_data, result);
                }
                assert_eq!(ended(&mut operations), *expected);
            }
            let mut operations = Operations::new(true);
            let [write, flush] = commit(&mut operations, 8192);
            let (user_data, result) = write_alone.map_or((flush, flushed), |result| (write, result));
            operations.complete(user_data, result);
            assert_eq!(ended(&mut operations), *expected);
        }
    }

    #[test]
    fn a_read_is_whole_or_a_failure() {
        let eio = libc::EIO.to_string();
        let told = [(8192, "8192 bytes"), (4096, "Short"), (0, "Short"), (-libc::EIO, &eio)];
        for (read, expected) in told {
            let mut operations = Operations::new(true);
            let entry = operations.read(0, 4096, 8192, 7);
            operations.complete(entry.get_user_data(), read);
            assert_eq!(ended(&mut operations), *expected);
        }
    }

    #[test]
    fn what_was_not_submitted_is_withdrawn() {
        let mut operations = Operations::new(true);
        let entry = operations.read(0, 0, 4096, 7);
        operations.withdraw(&entry);
        assert!(!operations.in_flight());
    }
}
