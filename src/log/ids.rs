//! Names of logs, streams and places: numbers that must not be mixed have types of their own.

use std::fmt;
use std::num::NonZeroU64;

/// Nanoseconds since 1970-01-01 UTC.
pub type Time = i64;

/// Unit of direct I/O and of every write: 4 KiB.
pub const BLOCK_BYTES: usize = 4096;

/// A log of a store, counted from zero. The unit of ownership: one shard owns a log, a shard may own several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub u16);

/// One life of a stream. A stream that is created again under the same name is another incarnation.
///
/// Unique in its log for ever; counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub NonZeroU64);

impl Incarnation {
    /// The incarnation of that number; `None` for zero, which no stream has.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// A segment of a log, counted from one in the order of their use. Never used twice, unlike its [`Slot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentNo(pub u32);

/// A file of a log: `00000012.segment` is slot 12. A slot serves one segment after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// A batch of a log, counted from one without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct BatchNo(pub u64);

impl BatchNo {
    /// The batch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where a batch begins in a log. Ordered as the log is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    /// Byte `offset` of `segment`.
    #[must_use]
    pub fn new(segment: SegmentNo, offset: u32) -> Self {
        Self(u64::from(segment.0) << 32 | u64::from(offset))
    }

    /// The segment.
    #[must_use]
    pub fn segment(self) -> SegmentNo {
        SegmentNo((self.0 >> 32) as u32)
    }

    /// Bytes from the beginning of the segment.
    #[must_use]
    pub fn offset(self) -> u32 {
        self.0 as u32
    }

    /// As written on disk; zero stands for "no position" there, as segments are counted from one.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The reverse of [`Position::to_bits`].
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self(bits))
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment().0, self.offset())
    }
}
