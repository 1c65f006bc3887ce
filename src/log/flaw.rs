//! What can be wrong with bytes from a disk.

use std::fmt;

use super::ids::{BatchNo, LogId, Position};

/// Bytes that are not as they were written, or not of this version: what is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Byte of the segment at which the flawed structure begins.
    pub offset: u32,
    /// What is wrong.
    pub defect: Defect,
}

/// What is wrong with some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Fewer bytes are there than the structure takes.
    Short {
        /// Bytes it takes.
        needed: u32,
        /// Bytes that are there.
        there: u32,
    },
    /// The device does not give the bytes.
    Unreadable,
    /// Zeros: nothing was written here since the segment was prepared.
    Blank,
    /// Neither a batch nor the head of a segment begins here.
    Magic([u8; 4]),
    /// Written by a version that this one cannot read.
    Version(u16),
    /// Bits of a `flags` field that this version does not know, and that say it must.
    Flags(u16),
    /// A run of a kind that this version does not know, and must.
    Kind(u8),
    /// Content packed in a way that this version does not know.
    Codec(u8),
    /// Content encrypted in a way that this version does not know.
    Cipher(u8),
    /// Belongs to another log.
    Log(LogId),
    /// Belongs to another store.
    Store,
    /// Written for another place: misdirected, or left over from an earlier use of the file.
    Place(Position),
    /// Left over from before an earlier recovery, which cut it off.
    Epoch {
        /// Epoch of the batch before it.
        expected: u32,
        /// Its own, which is lower.
        found: u32,
    },
    /// Another batch than the one that follows.
    Batch {
        /// The one that follows.
        expected: BatchNo,
        /// The one that is there.
        found: BatchNo,
    },
    /// Follows another batch than the one before it.
    Chain {
        /// Checksum of the head of the batch before it.
        expected: u32,
        /// The one it names.
        found: u32,
    },
    /// Checksum of a header, or of a batch's header and directory.
    HeadChecksum {
        /// Computed from the bytes.
        computed: u32,
        /// Written with them.
        stored: u32,
    },
    /// Checksum of the content of a run.
    ContentChecksum {
        /// Computed from the bytes.
        computed: u32,
        /// Written with them.
        stored: u32,
    },
    /// A field whose value is impossible.
    Field(&'static str),
    /// A record that does not end, or ends elsewhere than its run.
    Record,
    /// Records that are not in order of their sequence numbers, or not those that their run announces.
    Order,
    /// A part of a message where a whole one or another part belongs.
    Fragment,
    /// A message, or a part of it, is not where it should be.
    Absent,
}

impl Flaw {
    pub(super) fn new(offset: u32, defect: Defect) -> Self {
        Self { offset, defect }
    }
}

impl Defect {
    /// Whether the bytes are sound but of a version that this one cannot read: to be refused by name, not to be taken
    /// for damage.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Version(_) | Self::Flags(_) | Self::Kind(_) | Self::Codec(_) | Self::Cipher(_))
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}: {}", self.offset, self.defect)
    }
}

impl std::error::Error for Flaw {}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { needed, there } => write!(f, "{there} bytes where {needed} belong"),
            Self::Unreadable => write!(f, "cannot be read"),
            Self::Blank => write!(f, "nothing was written here"),
            Self::Magic(found) => write!(f, "no batch and no head of a segment begins here (found {found:02x?})"),
            Self::Version(found) => write!(f, "format version {found} is not known"),
            Self::Flags(found) => write!(f, "flags {found:#x} are not known"),
            Self::Kind(found) => write!(f, "kind of run {found} is not known"),
            Self::Codec(found) => write!(f, "codec {found} is not known"),
            Self::Cipher(found) => write!(f, "cipher {found} is not known"),
            Self::Log(found) => write!(f, "belongs to log {}", found.0),
            Self::Store => write!(f, "belongs to another store"),
            Self::Place(found) => write!(f, "was written for segment {} at {}", found.segment().0, found.offset()),
            Self::Epoch { expected, found } => write!(f, "was cut off by a recovery (epoch {found}, not {expected})"),
            Self::Batch { expected, found } => write!(f, "batch {} where {} belongs", found.0, expected.0),
            Self::Chain { expected, found } => {
                write!(f, "follows a batch with checksum {found:08x}, not {expected:08x}")
            }
            Self::HeadChecksum { computed, stored } => {
                write!(f, "checksum of the head is {computed:08x}, not {stored:08x}")
            }
            Self::ContentChecksum { computed, stored } => {
                write!(f, "checksum of the content is {computed:08x}, not {stored:08x}")
            }
            Self::Field(name) => write!(f, "impossible {name}"),
            Self::Record => write!(f, "a record that does not end where it should"),
            Self::Order => write!(f, "records out of order"),
            Self::Fragment => write!(f, "a part of a message that does not belong here"),
            Self::Absent => write!(f, "a message or a part of it is not here"),
        }
    }
}
