//! Entries of a batch's directory: one run each.

use std::num::NonZeroU64;
use std::ops::Range;

use super::field::{get, i64_at, put, u32_at, u64_at};
use super::flaw::{Defect, Flaw};
use super::ids::{Incarnation, Position, Time};
use super::run::{Kind, PlacedRun};

/// Bytes of a directory entry as this version writes it.
pub const ENTRY_BYTES: usize = 128;

const MOVED: u8 = 1;
const FRAGMENT: u8 = 1 << 1;
const COMMITS: u8 = 1 << 2;
const SKIPPABLE: u8 = 1 << 7;

/// Runs that count together or not at all: the parts of a large message, or an atomic group of messages.
///
/// Unique in its log for ever, like the batch numbers that serve as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transaction(pub NonZeroU64);

/// What a run contributes to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The transaction.
    pub transaction: Transaction,
    /// Whether this run completes it. Without such a run none of its runs counts.
    pub commits: bool,
}

/// A directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunEntry {
    /// What the run holds.
    pub kind: Kind,
    /// Whose it is; `None` if it is the log's own.
    pub stream: Option<Incarnation>,
    /// Records in it.
    pub count: u32,
    /// Byte of the segment at which its content begins.
    pub offset: u32,
    /// Bytes of its content.
    pub bytes: u32,
    /// Sequence number of its first message; zero for other kinds.
    pub first_seq: u64,
    /// Sequence number of its last message; zero for other kinds.
    pub last_seq: u64,
    /// The stream's first sequence number when this was written; zero if it was not said.
    pub first_live: u64,
    /// Time of its first message; of its batch for other kinds.
    pub first_time: Time,
    /// Time of its last message; of its batch for other kinds.
    pub last_time: Time,
    /// For a run that cleaning has moved: the newest of the places at which its messages were first.
    pub birth: Option<Position>,
    /// Whether its records are parts of one message.
    pub fragment: bool,
    /// The number of the first such part, counted from zero; zero for whole messages.
    pub piece: u32,
    /// The transaction it belongs to.
    pub part: Option<Part>,
    /// How the content is packed; zero for plain, the only one of this version.
    pub codec: u8,
    /// How the content is encrypted; zero for not, the only one of this version.
    pub cipher: u8,
    /// Checksum of the content.
    pub content_crc: u32,
}

impl RunEntry {
    /// The run as the log tells it when it lies at `position`; `None` if no stream owns it.
    #[must_use]
    pub fn placed(&self, position: Position) -> Option<PlacedRun> {
        Some(PlacedRun {
            kind: self.kind,
            stream: self.stream?,
            position,
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            first_live: self.first_live,
            first_time: self.first_time,
            last_time: self.last_time,
            count: self.count,
            content_bytes: self.bytes,
            moved_from: self.birth,
            piece: self.piece,
        })
    }

    /// Writes the entry; its batch begins at `batch` of the segment.
    pub(super) fn encode(&self, batch: u32, out: &mut [u8]) {
        let (transaction, commits) = match self.part {
            Some(part) => (part.transaction.0.get(), part.commits),
            None => (0, false),
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.birth.is_some(), MOVED) | flag(self.fragment, FRAGMENT) | flag(commits, COMMITS);
        out[..ENTRY_BYTES].fill(0);
        put(out, 0, [self.kind as u8, flags, self.codec, self.cipher]);
        put(out, 4, self.count.to_le_bytes());
        put(out, 8, (self.offset - batch).to_le_bytes());
        put(out, 12, self.bytes.to_le_bytes());
        put(out, 16, self.stream.map_or(0, Incarnation::get).to_le_bytes());
        put(out, 24, self.first_seq.to_le_bytes());
        put(out, 32, self.last_seq.to_le_bytes());
        put(out, 40, self.first_live.to_le_bytes());
        put(out, 48, self.first_time.to_le_bytes());
        put(out, 56, self.last_time.to_le_bytes());
        put(out, 64, self.birth.map_or(0, Position::to_bits).to_le_bytes());
        put(out, 72, transaction.to_le_bytes());
        put(out, 100, self.content_crc.to_le_bytes());
        put(out, 116, self.piece.to_le_bytes());
    }

    /// Reads the entry at the front of `from`, of a batch that begins at `batch` of the segment and whose contents
    /// lie in `contents` of the batch. `None` if this version does not know the run and may skip it.
    ///
    /// # Errors
    /// A [`Flaw`] at `at`, the entry's byte in the segment.
    pub(super) fn decode(from: &[u8], at: u32, batch: u32, contents: &Range<u32>) -> Result<Option<Self>, Flaw> {
        let flaw = |defect| Flaw::new(at, defect);
        let [kind, flags, codec, cipher] = get(from, 0);
        let known = Kind::from_number(kind);
        let unknown_flags = flags & !(MOVED | FRAGMENT | COMMITS | SKIPPABLE);
        let kind = match known {
            Some(kind) if unknown_flags == 0 => kind,
            _ if flags & SKIPPABLE != 0 => return Ok(None),
            Some(_) => return Err(flaw(Defect::Flags(unknown_flags.into()))),
            None => return Err(flaw(Defect::Kind(kind))),
        };
        let (offset, bytes) = (u32_at(from, 8), u32_at(from, 12));
        let end = offset.checked_add(bytes).filter(|&end| offset >= contents.start && end <= contents.end);
        let place = end.and_then(|_| batch.checked_add(offset));
        let Some(offset) = place else { return Err(flaw(Defect::Field("place of a run"))) };
        let birth = Position::from_bits(u64_at(from, 64));
        if birth.is_some() != (flags & MOVED != 0) {
            return Err(flaw(Defect::Field("birth of a run")));
        }
        let transaction = NonZeroU64::new(u64_at(from, 72)).map(Transaction);
        let (fragment, commits) = (flags & FRAGMENT != 0, flags & COMMITS != 0);
        if transaction.is_none() && (fragment || commits) {
            return Err(flaw(Defect::Field("transaction of a run")));
        }
        let entry = Self {
            kind,
            stream: Incarnation::new(u64_at(from, 16)),
            count: u32_at(from, 4),
            offset,
            bytes,
            first_seq: u64_at(from, 24),
            last_seq: u64_at(from, 32),
            first_live: u64_at(from, 40),
            first_time: i64_at(from, 48),
            last_time: i64_at(from, 56),
            birth,
            fragment,
            part: transaction.map(|transaction| Part { transaction, commits }),
            codec,
            cipher,
            content_crc: u32_at(from, 100),
            piece: u32_at(from, 116),
        };
        if kind == Kind::Messages {
            let span = entry.last_seq.checked_sub(entry.first_seq);
            let fits = |span: u64| fragment && span == 0 || !fragment && span >= u64::from(entry.count) - 1;
            if entry.stream.is_none() || entry.first_seq == 0 || entry.count == 0 || !span.is_some_and(fits) {
                return Err(flaw(Defect::Field("sequence numbers of a run")));
            }
        } else if fragment {
            return Err(flaw(Defect::Fragment));
        }
        Ok(Some(entry))
    }
}
