//! Reads and writes of files on the shard's own io_uring, and the memory that the kernel uses meanwhile.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use io_uring::squeue::Flags;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};
use slab::Slab;

use crate::log::aligned::AlignedBuf;

/// The two top bits of user data tell operations from what is polled.
const OPERATION: u64 = 3 << 62;

/// An operation that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// As given when it was asked for.
    pub(super) tag: u64,
    /// The bytes of a read, nothing for a write; `None` within means fewer bytes than asked for were written.
    pub(super) outcome: io::Result<Option<AlignedBuf>>,
    /// A write took fewer bytes than asked for.
    pub(super) short: bool,
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

impl std::fmt::Debug for Vectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} buffers", self.0.len())
    }
}

/// Operations in flight and those that have ended.
#[derive(Debug, Default)]
pub(super) struct Operations {
    flying: Slab<Operation>,
    finished: VecDeque<Finished>,
}

impl Operations {
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
        let key = self.flying.insert(operation) as u64;
        // A write that fails or falls short takes the flush with it.
        [write.flags(Flags::IO_LINK).user_data(OPERATION | key << 1), flush.user_data(OPERATION | key << 1 | 1)]
    }

    pub(super) fn read(&mut self, fd: RawFd, offset: u64, bytes: usize, tag: u64) -> squeue::Entry {
        let mut buffer = AlignedBuf::zeroed(bytes);
        let place = buffer.as_mut_ptr();
        let key = self.flying.insert(Operation::Read { tag, buffer }) as u64;
        opcode::Read::new(Fd(fd), place, bytes as u32).offset(offset).build().user_data(OPERATION | key << 1)
    }

    /// Takes note of a completion; `false` if it is not of an operation.
    pub(super) fn complete(&mut self, user_data: u64, result: i32) -> bool {
        if user_data & OPERATION != OPERATION {
            return false;
        }
        let (key, second) = ((user_data & !OPERATION) as usize >> 1, user_data & 1 == 1);
        match self.flying.get_mut(key) {
            None => return true,
            Some(Operation::Commit { written, flushed, .. }) => {
                *(if second { flushed } else { written }) = Some(result);
                if written.is_none() || flushed.is_none() {
                    return true;
                }
            }
            Some(Operation::Read { .. }) => {}
        }
        let finished = match self.flying.remove(key) {
            Operation::Commit { tag, bytes, written, flushed, .. } => {
                let (written, flushed) = (written.unwrap_or(0), flushed.unwrap_or(0));
                let short = written >= 0 && written as usize != bytes;
                let failed = [written, flushed].into_iter().find(|result| *result < 0 && !short);
                Finished { tag, outcome: failed.map_or(Ok(None), |code| Err(error(code))), short }
            }
            Operation::Read { tag, mut buffer } => {
                let outcome = usize::try_from(result).map_err(|_| error(result)).map(|bytes| {
                    buffer.truncate(bytes);
                    Some(buffer)
                });
                Finished { tag, outcome, short: false }
            }
        };
        self.finished.push_back(finished);
        true
    }

    pub(super) fn finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    pub(super) fn in_flight(&self) -> bool {
        !self.flying.is_empty()
    }

    /// Gives the memory of operations in flight to the kernel for good.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.flying));
    }
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(-code)
}
