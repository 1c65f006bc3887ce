//! The head of a segment, and the records that tell where segments end.

use super::aligned::AlignedBuf;
use super::batch::{FORMAT_VERSION, Next};
use super::field::{get, i64_at, put, u16_at, u32_at, u64_at};
use super::flaw::{Defect, Flaw};
use super::ids::{BLOCK_BYTES, BatchNo, Incarnation, LogId, SegmentNo, Time};
use super::varint;

const MAGIC: [u8; 8] = *b"LEATSEG1";
/// Bits of `flags` that a reader must know. This version has none.
const MUST_KNOW: u16 = 0x00ff;
const CHECKSUM_AT: usize = BLOCK_BYTES - 4;

/// The random name of a store.
///
/// It is no secret, but nothing shows it to clients: whoever does not know it cannot put bytes into a message that a
/// search for batches in a damaged segment would take for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// What batches bear of it: its two halves, combined.
    #[must_use]
    pub fn tag(&self) -> u64 {
        u64_at(&self.0, 0) ^ u64_at(&self.0, 8)
    }
}

/// The head of a segment: its first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// The log.
    pub log: LogId,
    /// The store.
    pub store: StoreId,
    /// The segment.
    pub segment: SegmentNo,
    /// Bytes of the file, this block included.
    pub bytes: u64,
    /// What its first batch must be.
    pub first: Next,
    /// The segment before it and the byte at which that one ends; `None` for the first of a log.
    pub previous: Option<(SegmentNo, u32)>,
    /// When it was begun.
    pub created: Time,
}

impl SegmentHead {
    /// Appends the block to `out`.
    pub fn encode(&self, out: &mut AlignedBuf) {
        let start = out.len();
        out.pad_to(start + BLOCK_BYTES);
        let block = &mut out[start..];
        put(block, 0, MAGIC);
        put(block, 8, FORMAT_VERSION.to_le_bytes());
        put(block, 12, self.log.0.to_le_bytes());
        put(block, 16, self.store.0);
        put(block, 32, self.segment.0.to_le_bytes());
        put(block, 40, self.bytes.to_le_bytes());
        put(block, 48, self.first.batch.0.to_le_bytes());
        let (previous, end) = self.previous.map_or((0, 0), |(segment, end)| (segment.0, end));
        put(block, 56, previous.to_le_bytes());
        put(block, 60, end.to_le_bytes());
        put(block, 64, self.created.to_le_bytes());
        put(block, 72, self.first.chain.to_le_bytes());
        put(block, 76, self.first.epoch.to_le_bytes());
        let crc = crc32fast::hash(&block[..CHECKSUM_AT]);
        put(block, CHECKSUM_AT, crc.to_le_bytes());
    }

    /// Reads the first block of a file.
    ///
    /// # Errors
    /// A [`Flaw`] if it is no head of a segment, is damaged, or of an unknown version. Whose it is, the caller judges.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let flaw = |defect| Err(Flaw::new(0, defect));
        let Some(block) = bytes.get(..BLOCK_BYTES) else {
            return flaw(Defect::Short { needed: BLOCK_BYTES as u32, there: bytes.len() as u32 });
        };
        if block.iter().all(|&byte| byte == 0) {
            return flaw(Defect::Blank);
        }
        if !block.starts_with(&MAGIC) {
            return flaw(Defect::Magic(get(block, 0)));
        }
        let (computed, stored) = (crc32fast::hash(&block[..CHECKSUM_AT]), u32_at(block, CHECKSUM_AT));
        if computed != stored {
            return flaw(Defect::HeadChecksum { computed, stored });
        }
        let version = u16_at(block, 8);
        if version != FORMAT_VERSION {
            return flaw(Defect::Version(version));
        }
        let flags = u16_at(block, 10);
        if flags & MUST_KNOW != 0 {
            return flaw(Defect::Flags(flags & MUST_KNOW));
        }
        let (segment, previous) = (SegmentNo(u32_at(block, 32)), SegmentNo(u32_at(block, 56)));
        let bytes = u64_at(block, 40);
        if !bytes.is_multiple_of(BLOCK_BYTES as u64) || bytes < 2 * BLOCK_BYTES as u64 || bytes > u64::from(u32::MAX) {
            return flaw(Defect::Field("size of a segment"));
        }
        if segment.0 == 0 || previous >= segment {
            return flaw(Defect::Field("number of a segment"));
        }
        Ok(Self {
            log: LogId(u16_at(block, 12)),
            store: StoreId(get(block, 16)),
            segment,
            bytes,
            first: Next { batch: BatchNo(u64_at(block, 48)), chain: u32_at(block, 72), epoch: u32_at(block, 76) },
            previous: (previous.0 != 0).then(|| (previous, u32_at(block, 60))),
            created: i64_at(block, 64),
        })
    }
}

/// What a record of kind `Seal` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// The segment it lies in ends with this batch; what is in it of some streams. All such records of the batch count.
    Footer(Vec<StreamSummary>),
    /// An earlier segment ends at a byte, where a flush failed: whatever follows there is written again elsewhere.
    EndOf {
        /// The segment.
        segment: SegmentNo,
        /// Its end.
        offset: u32,
        /// Its last batch.
        batch: BatchNo,
    },
}

/// What a segment holds of a stream's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// The stream.
    pub stream: Incarnation,
    /// Lowest sequence number.
    pub first_seq: u64,
    /// Highest sequence number.
    pub last_seq: u64,
    /// Lowest time.
    pub first_time: Time,
    /// Highest time.
    pub last_time: Time,
    /// Messages.
    pub count: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

const FOOTER: u8 = 1;
const END_OF: u8 = 2;
/// A form from here on may be skipped by those who do not know it.
const SKIPPABLE: u8 = 0x80;

impl Seal {
    /// Most streams of a footer record; a segment with more has several.
    pub const STREAMS_MAX: usize = 4096;

    /// The content of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Footer(streams) => {
                out.push(FOOTER);
                for stream in streams {
                    varint::push(&mut out, stream.stream.get());
                    varint::push(&mut out, stream.first_seq);
                    varint::push(&mut out, stream.last_seq);
                    varint::push(&mut out, varint::fold(stream.first_time));
                    varint::push(&mut out, varint::fold(stream.last_time));
                    varint::push(&mut out, stream.count);
                    varint::push(&mut out, stream.bytes);
                }
            }
            Self::EndOf { segment, offset, batch } => {
                out.push(END_OF);
                varint::push(&mut out, segment.0.into());
                varint::push(&mut out, (*offset).into());
                varint::push(&mut out, batch.0);
            }
        }
        out
    }

    /// Reads the content of a record that lies at `offset` of its segment. `None` for a form that this version does not
    /// know and may skip.
    ///
    /// # Errors
    /// A [`Flaw`] if it is malformed or of a form that must be known.
    pub fn decode(record: &[u8], offset: u32) -> Result<Option<Self>, Flaw> {
        Self::read(record).map_err(|defect| Flaw::new(offset, defect))
    }

    fn read(record: &[u8]) -> Result<Option<Self>, Defect> {
        let (&form, mut rest) = record.split_first().ok_or(Defect::Record)?;
        let rest = &mut rest;
        let take = |rest: &mut &[u8]| varint::take(rest).ok_or(Defect::Record);
        let take32 = |rest: &mut &[u8]| take(rest).and_then(|n| u32::try_from(n).map_err(|_| Defect::Record));
        match form {
            FOOTER => {
                let mut streams = Vec::new();
                while !rest.is_empty() {
                    streams.push(StreamSummary {
                        stream: Incarnation::new(take(rest)?).ok_or(Defect::Record)?,
                        first_seq: take(rest)?,
                        last_seq: take(rest)?,
                        first_time: varint::unfold(take(rest)?),
                        last_time: varint::unfold(take(rest)?),
                        count: take(rest)?,
                        bytes: take(rest)?,
                    });
                }
                Ok(Some(Self::Footer(streams)))
            }
            END_OF => {
                let seal = Self::EndOf {
                    segment: SegmentNo(take32(rest)?),
                    offset: take32(rest)?,
                    batch: BatchNo(take(rest)?),
                };
                if rest.is_empty() { Ok(Some(seal)) } else { Err(Defect::Record) }
            }
            SKIPPABLE.. => Ok(None),
            _ => Err(Defect::Kind(form)),
        }
    }
}
