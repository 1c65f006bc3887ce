//! Runs: what one batch holds of one stream and one kind.

use super::ids::{Incarnation, Position, Time};

/// When an appended record wants to reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// With the next batch that somebody needs, or when it has waited for [`RIDE_ALONG_NS`].
    RideAlong,
    /// With the next batch, which is written for it.
    Now,
}

/// Longest wait of a record that rides along: 100 ms.
pub const RIDE_ALONG_NS: i64 = 100_000_000;

/// What a run holds. The numbers are those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Messages of a stream, in order of their sequence numbers.
    Messages = 1,
    /// A stream's configuration: the first of an incarnation creates it, later ones replace it.
    StreamMeta = 2,
    /// The end of an incarnation.
    StreamEnd = 3,
    /// Removed messages, as ranges of sequence numbers.
    Removal = 4,
    /// Changes of a consumer of the stream, or its configuration.
    Consumer = 5,
    /// State of a protocol face.
    Face = 6,
    /// A part of the snapshot of an incarnation.
    Snapshot = 7,
    /// The end of a checkpoint: where its snapshots are.
    CheckpointEnd = 8,
    /// The end of a segment.
    Seal = 9,
    /// For its batch header, which tells how far the log is flushed; and numbers of segments (LEB128) from which something has
    /// been removed that is to be overwritten.
    Mark = 10,
    /// Positions of a replication group. Reserved.
    RaftMark = 11,
}

impl Kind {
    /// The kind of that number; `None` for one that this version does not know.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Messages,
            2 => Self::StreamMeta,
            3 => Self::StreamEnd,
            4 => Self::Removal,
            5 => Self::Consumer,
            6 => Self::Face,
            7 => Self::Snapshot,
            8 => Self::CheckpointEnd,
            9 => Self::Seal,
            10 => Self::Mark,
            11 => Self::RaftMark,
            _ => return None,
        })
    }
}

/// A run that is on disk, as the log tells it when it has been flushed and as recovery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedRun {
    /// What it holds.
    pub kind: Kind,
    /// Whose it is.
    pub stream: Incarnation,
    /// The batch it lies in.
    pub position: Position,
    /// Sequence number of its first message; zero for other kinds.
    pub first_seq: u64,
    /// Sequence number of its last message; zero for other kinds.
    pub last_seq: u64,
    /// The stream's first sequence number when this was written.
    pub first_live: u64,
    /// Time of its first message.
    pub first_time: Time,
    /// Time of its last message.
    pub last_time: Time,
    /// Records.
    pub count: u32,
    /// Bytes of its content.
    pub content_bytes: u32,
    /// For a run that cleaning has moved: where its messages were first.
    pub moved_from: Option<Position>,
    /// Which part of a message it holds, counted from zero; zero for whole ones too.
    pub piece: u32,
}

/// What removing a message needs to know about it, and is not kept in memory for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail<'a> {
    /// Its sequence number.
    pub seq: u64,
    /// When it was stored.
    pub time: Time,
    /// Its subject.
    pub subject: &'a [u8],
    /// Bytes of the block of headers. The stream's size is counted from these, the subject's and the payload's.
    pub headers_bytes: u32,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// Bytes of its record in the log.
    pub record_bytes: u32,
}
