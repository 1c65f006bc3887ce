//! What a log asks of its files, and what it is told about them.
//!
//! A driver (`io::files`) or the simulator carries requests out, in any order and any number at a time, and answers
//! each with one [`Outcome`]. The log asks for nothing that depends on an answer that it has not seen.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::aligned::AlignedBuf;
use super::ids::{LogId, Slot};

/// Names a request in its answer; never used twice while a log is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Work for whoever has the files.
#[derive(Clone, Debug)]
pub enum Request {
    /// Bring the file of a slot into being, or make an old one new: all zeros, flushed, and its name flushed with its
    /// directory. Done in the background; nothing waits for it if it was asked for in time.
    Prepare {
        /// Comes back with the outcome.
        id: RequestId,
        /// The file.
        slot: Slot,
        /// Its size.
        bytes: u32,
        /// Zeros are to be written. Otherwise the space is only allocated, which reads as zeros too: the first write to
        /// each place then costs some 60 µs more, and the disk is written once instead of twice.
        fill: bool,
    },
    /// Write the buffers one behind the other, then flush the file. [`Outcome::Done`] only if both have succeeded.
    Commit {
        /// Comes back with the outcome.
        id: RequestId,
        /// The file.
        slot: Slot,
        /// Where the first one goes: bytes from the beginning of the file, a multiple of
        /// [`BLOCK_BYTES`](super::BLOCK_BYTES).
        offset: u32,
        /// Whole blocks each; at most 1024 of them, as the kernel takes no more at once.
        data: Vec<Arc<AlignedBuf>>,
    },
    /// Read a range.
    Read {
        /// Comes back with the outcome.
        id: RequestId,
        /// The file.
        slot: Slot,
        /// A multiple of [`BLOCK_BYTES`](super::BLOCK_BYTES).
        offset: u32,
        /// A multiple of [`BLOCK_BYTES`](super::BLOCK_BYTES). All of them are there; fewer are a failure.
        bytes: u32,
    },
    /// Remove the file of a slot.
    Remove {
        /// Comes back with the outcome.
        id: RequestId,
        /// The file.
        slot: Slot,
    },
    /// Put this in the place of the note of the newest segment ([`super::note`]): whatever happens meanwhile, the old one
    /// or the new one is there as a whole. [`Outcome::Done`] only if the new one is on disk. Done in the background.
    Note {
        /// Comes back with the outcome.
        id: RequestId,
        /// The file's new content.
        content: Vec<u8>,
    },
}

impl Request {
    /// What comes back with its outcome.
    #[must_use]
    pub fn id(&self) -> RequestId {
        match self {
            Self::Prepare { id, .. }
            | Self::Commit { id, .. }
            | Self::Read { id, .. }
            | Self::Remove { id, .. }
            | Self::Note { id, .. } => *id,
        }
    }
}

/// How a request ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// As asked.
    Done,
    /// What was read.
    Read(Bytes),
    /// Not as asked. Nothing is known about what was to be written.
    Failed(DiskFault),
}

/// How a request has ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The log that asked.
    pub log: LogId,
    /// What it asked for.
    pub id: RequestId,
    /// How that went.
    pub outcome: Outcome,
    /// Bytes free on the file system of the log, if that has changed.
    pub free: Option<u64>,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// There is no space left, or no quota.
    Full,
    /// The system's error number.
    Io(i32),
    /// Fewer bytes were written or read than asked for.
    Short,
    /// The file is not there.
    Missing,
    /// In the place of the file there is something else: a directory, a FIFO, a socket, a device.
    NoFile(&'static str),
}

impl DiskFault {
    /// The fault that an error of the system stands for.
    #[must_use]
    pub fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ENOSPC | libc::EDQUOT => Self::Full,
            libc::ENOENT => Self::Missing,
            _ => Self::Io(errno),
        }
    }
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("no space left on the device"),
            Self::Io(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
            Self::Short => f.write_str("fewer bytes than asked for"),
            Self::Missing => f.write_str("the file is not there"),
            Self::NoFile(what) => write!(f, "{what} where a file belongs"),
        }
    }
}
